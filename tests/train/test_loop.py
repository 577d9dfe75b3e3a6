"""A run from its start to each of its ends, and what it refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from configs.schema import Batch, Checkpoints, Data, Evaluation, InputError, Optimizer
from data import tokenizer as tokenizers
from data.loader import train_batches
from train import loop, record
from train.checkpoint import Reader, Writer, open_checkpoints
from train.evaluation import evaluate
from train.loop import DONE, NOT_FINITE, train
from train.profiler import Profile, parse
from train.report import read_history
from train.signals import stop_on_signal
from train.step import make_step


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """One run's directory, made once for the tests that only look at it."""
    return tmp_path_factory.mktemp("finished")


def test_a_run_leaves_a_complete_record(config, finished, rows, capsys):
    assert train(config, finished) == DONE
    said = capsys.readouterr().out
    assert {path.name for path in finished.iterdir()} == {
        *("config.json", "run.json", "metrics.jsonl", "tokenizer.json", "loss.png"),
        *("tensorboard", "checkpoints", "samples"),
    }
    assert record.read_config(finished) == config

    steps = rows(finished, "train")
    assert [row["step"] for row in steps] == list(range(1, 25))
    assert [row["tokens"] for row in steps[8:12]] == [9 * 64, 10 * 64, 10 * 64 + 128, 896]  # ramp
    assert [row["step"] for row in rows(finished, "eval")] == [8, 16, 24]
    assert [row["event"] for row in rows(finished, "event")] == ["started", "finished"]
    run = json.loads((finished / "run.json").read_text())
    for row in steps:
        assert row["flops"] == row["tokens"] * run["flops_per_token"]["palm"]
        assert 0 < row["targets"] <= (128 if row["step"] > 10 else 64)
        assert row["loss"] > 0
        if row["mfu"] is not None:
            assert row["mfu"] * run["peak"]["flops"] == pytest.approx(
                row["tokens_per_second"] * run["flops_per_token"]["palm"]
            )
    seconds = [row["seconds"] for row in steps]
    assert seconds == sorted(seconds)
    assert steps[-1]["loss"] < steps[0]["loss"] - 0.2

    last = rows(finished, "eval")[-1]
    for part in (
        *("attention: xla", "epochs", "measured matmul", "compiled in", "a new run"),
        *(f"{last['loss']:.4f} +- {last['standard_error']:.4f}", "bits/byte", "tokens/s", "MFU"),
        *(str(finished / "checkpoints"), str(finished / "loss.png"), "o validation", "sample"),
    ):
        assert part in said
    assert (finished / "samples" / "00000024.txt").read_text().strip() in said


def test_a_complete_run_says_so_and_changes_nothing(config, finished, capsys):
    before = (finished / "metrics.jsonl").read_bytes()
    capsys.readouterr()
    assert train(config, finished) == DONE
    said = capsys.readouterr().out
    assert f"the run in {finished} is complete" in said
    assert "nats/token" in said
    assert "compiled" not in said
    assert (finished / "metrics.jsonl").read_bytes() == before


def test_the_best_checkpoint_is_noted(finished, rows):
    reader = Reader(finished / "checkpoints")
    assert reader.latest() == 24
    assert reader.best() == 24  # steps 8 and 16 were evaluated, but not saved


def test_nothing_moves_to_the_device_unasked(short, tmp_path, monkeypatch):
    """Were a batch handed over as it comes from the loader, every update would copy it silently."""
    monkeypatch.setattr("train.loop.shard_batch", lambda mesh, rows_bt: rows_bt)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
        train(short, tmp_path)


def test_metrics_of_a_step_are_read_when_the_next_is_under_way(short, tmp_path, monkeypatch):
    happened = []
    device_get = jax.device_get

    def spied_make_step(config, eod, mesh):
        update: Any = make_step(config, eod, mesh)

        class Spied:
            lower = staticmethod(update.lower)

            def __call__(self, state, tokens_bt):
                happened.append("dispatch")
                return update(state, tokens_bt)

        return Spied()

    def spied_get(tree):
        if isinstance(tree, dict) and "gradient_norm" in tree:
            happened.append("read")
        return device_get(tree)

    monkeypatch.setattr("train.loop.make_step", spied_make_step)
    monkeypatch.setattr(jax, "device_get", spied_get)
    train(replace(short, checkpoints=Checkpoints()), tmp_path)
    late = ["dispatch", *["dispatch", "read"] * 5, "read"]
    assert happened == late


def test_random_tokens_need_no_store(short, tmp_path, rows, capsys):
    config = replace(short, data=Data(path="synthetic"))
    assert train(config, tmp_path) == DONE
    assert len(rows(tmp_path, "train")) == 6
    assert rows(tmp_path, "eval") == []
    assert "training loss" in capsys.readouterr().out


def test_the_record_shows_what_the_loop_waited_for(short, tmp_path, monkeypatch, rows):
    def late(work, seconds):
        def slow(*arguments):
            time.sleep(seconds)
            return work(*arguments)

        return slow

    def late_batches(*arguments):
        return map(late(lambda batch: batch, 0.03), train_batches(*arguments))

    monkeypatch.setattr(loop, "train_batches", late_batches)
    monkeypatch.setattr(loop, "evaluate", late(evaluate, 0.5))
    monkeypatch.setattr(Writer, "save", late(Writer.save, 0.1))
    assert train(short, tmp_path) == DONE
    recorded = rows(tmp_path, "train") + rows(tmp_path, "event")
    waits = {
        cause: sum(row[f"{cause}_seconds"] for row in recorded)
        for cause in ("data", "save", "evaluation")
    }
    assert waits["data"] >= 6 * 0.03
    assert waits["save"] >= 3 * 0.1  # at steps 2, 4 and 6
    assert waits["evaluation"] >= 0.5  # after the last update
    assert sum(waits.values()) < recorded[-1]["seconds"]


def test_updates_that_stay_non_finite_end_the_run(short, tmp_path, rows, capsys):
    config = replace(
        short,
        optimizer=Optimizer(name="sgd", learning_rate=1e35, clip_norm=0),
        schedule=replace(short.schedule, warmup=0),
        checkpoints=Checkpoints(every=1, keep=9),
        steps=20,
        max_skipped=3,
    )
    assert train(config, tmp_path) == NOT_FINITE
    error = capsys.readouterr().err
    assert "3 updates in a row were not finite, up to step 4" in error
    assert "step 3 is saved" in error
    assert [row["skipped"] for row in rows(tmp_path, "train")] == [0, 1, 2, 3]
    assert rows(tmp_path, "train")[1]["loss"] is None  # JSON has no NaN
    assert rows(tmp_path, "event")[-1]["event"] == "gave up"
    assert Reader(tmp_path / "checkpoints").latest() == 3  # nothing over what was there before


def test_the_profiler_watches_its_window(short, tmp_path):
    assert train(short, tmp_path, profile=Profile(2, 2)) == DONE
    assert list((tmp_path / "tensorboard").rglob("*.xplane.pb"))


def test_a_profiler_window_is_start_and_count():
    assert parse("20:5") == Profile(20, 5)
    assert parse("") is None
    for bad in ("20", "a:b", "1:2:3", "5:0", "-1:2"):
        with pytest.raises(InputError, match="profile"):
            parse(bad)


# What is refused, before a minute of work is lost.


@pytest.mark.parametrize("below", ["", "run", "run/deep"])
def test_an_unwritable_workdir_is_refused(short, tmp_path, below):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match=r"cannot be written in .*file.* \(Not a directory\)"):
        train(short, tmp_path / "file" / below)
    assert (tmp_path / "file").read_text() == "not a folder"


def test_a_workdir_in_use_is_refused(short, tmp_path):
    with (
        open_checkpoints(tmp_path / "checkpoints", short.checkpoints),
        pytest.raises(InputError, match=f"process {os.getpid()} .* is training in"),
    ):
        train(short, tmp_path)


def test_a_missing_store_is_refused(short, tmp_path):
    config = replace(short, data=Data(path=str(tmp_path / "nowhere")))
    with pytest.raises(InputError, match=r"no token store at .*nowhere"):
        train(config, tmp_path / "run")


def test_a_vocabulary_larger_than_the_models_is_refused(short, tmp_path):
    config = replace(short, model=replace(short.model, vocab=256))
    with pytest.raises(InputError, match=r"257 ids, more than model\.vocab=256"):
        train(config, tmp_path)


def test_a_tokenizer_that_is_not_the_stores_is_refused(short, tmp_path):
    shutil.copytree(short.data.path, tmp_path / "store")
    other = tokenizers.characters("abc")
    (tmp_path / "store" / other.file).write_bytes(other.serialized)
    config = replace(short, data=Data(path=str(tmp_path / "store")))
    with pytest.raises(InputError, match="is not the tokenizer this store was built with"):
        train(config, tmp_path / "run")


@pytest.fixture(scope="session")
def begun(tmp_path_factory):
    """A finished run of six updates, to be copied by tests that go on with it."""
    return tmp_path_factory.mktemp("begun")


@pytest.fixture
def resumable(short, begun, tmp_path):
    """A copy of a run that was ended after step 4 of 6."""
    if not (begun / "config.json").exists():
        assert train(short, begun) == DONE
    shutil.copytree(begun, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "6")
    return tmp_path / "run"


def test_another_config_is_refused_and_named(short, resumable):
    config = replace(short, seed=1, steps=8, model=replace(short.model, dropout=0.2), log_every=3)
    before = {path: path.read_bytes() for path in resumable.glob("*.json*")}
    with pytest.raises(InputError) as refused:
        train(config, resumable)
    assert "(model.dropout 0.1 -> 0.2; seed 0 -> 1; steps 6 -> 8)" in str(refused.value)
    assert before == {path: path.read_bytes() for path in resumable.glob("*.json*")}


def test_another_corpus_is_refused_until_allowed(
    short, resumable, other_store_path, rows, tmp_path
):
    config = replace(short, data=Data(path=str(other_store_path)))
    with pytest.raises(InputError, match=r"began otherwise \(token store [0-9a-f]{12} -> "):
        train(config, resumable)
    assert train(config, resumable, allow_change=True) == DONE
    resumed = rows(resumable, "event")[-2]
    assert resumed["event"] == "resumed"
    assert resumed["changes"][0].startswith("token store")


def test_what_does_not_touch_the_parameters_may_change(
    short, resumable, begun, tmp_path, final_state, same
):
    """Where the store lies, too: it is the same by its fingerprint."""
    shutil.copytree(short.data.path, tmp_path / "moved")
    config = replace(
        short,
        data=Data(path=str(tmp_path / "moved")),
        log_every=2,
        evaluation=Evaluation(every=1, windows=2, sample_tokens=0),
        checkpoints=Checkpoints(every=1, keep=3),
    )
    assert train(config, resumable) == DONE
    assert record.read_config(resumable) == config
    assert same(final_state(config, resumable), final_state(short, begun))


def test_a_damaged_newest_checkpoint_costs_no_more_than_itself(
    short, resumable, begun, rows, final_state, same, capsys
):
    """The run goes on from the one before, says so, and ends as if nothing had been."""
    largest = max((resumable / "checkpoints" / "4").rglob("d/*"), key=lambda p: p.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    capsys.readouterr()
    assert train(short, resumable) == DONE
    said = capsys.readouterr().out
    assert "checkpoint 4 is put aside" in said
    assert "going on from step 2" in said
    assert [row["step"] for row in rows(resumable, "train")] == [1, 2, 3, 4, 5, 6]
    assert same(final_state(short, resumable), final_state(short, begun))


def test_without_an_intact_checkpoint_nothing_is_overwritten(short, resumable):
    for manifest in resumable.glob("checkpoints/*/manifest.json"):
        manifest.write_text("{}")
    before = (resumable / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"no checkpoint in .* is intact"):
        train(short, resumable)
    assert (resumable / "metrics.jsonl").read_bytes() == before


def test_metrics_that_cannot_be_written_stop_nothing(
    short, resumable, begun, monkeypatch, final_state, same, capsys
):
    def full(self, row):
        raise OSError("No space left on device")

    monkeypatch.setattr("train.metrics.JsonLines.write", full)
    assert train(short, resumable) == DONE
    assert capsys.readouterr().err.count("JsonLines failed (No space left on device)") == 1
    assert same(final_state(short, resumable), final_state(short, begun))


@pytest.mark.slow
def test_updates_take_no_longer_as_the_run_goes_on(short, tmp_path):
    """The fastest updates early and late, since a busy machine only ever slows some down."""
    config = replace(
        short, steps=400, batch=Batch(size=2), checkpoints=Checkpoints(), evaluation=Evaluation()
    )
    assert train(config, tmp_path) == DONE
    seconds = [row["step_seconds"] or np.inf for row in read_history(tmp_path).train]
    assert min(seconds[300:]) < 1.5 * min(seconds[:100])


SIGNAL_TWICE = """
import os, signal, time
from train.signals import stop_on_signal
signal.signal(signal.SIG{0}, signal.SIG_DFL)  # whatever this process was started with
with stop_on_signal() as request:
    os.kill(os.getpid(), signal.SIG{0})
    print(signal.Signals(request.number).name, flush=True)
    os.kill(os.getpid(), signal.SIG{0})
    time.sleep(60)
"""


@pytest.mark.parametrize("name", ["TERM", "INT"])
def test_a_second_signal_ends_the_process_at_once(name):
    code = SIGNAL_TWICE.format(name)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout == f"SIG{name}\n"
    assert done.returncode == -getattr(signal, f"SIG{name}")


def test_a_run_in_the_background_ignores_the_terminals_interrupt():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_on_signal() as request:
            os.kill(os.getpid(), signal.SIGINT)
        assert request.number == 0
    finally:
        signal.signal(signal.SIGINT, before)
