"""A ladder's branches are the runs they stand for; it survives kills and failures."""

import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from configs.corpus import Corpus, Source
from configs.schema import (
    Batch,
    Checkpoints,
    Config,
    Data,
    Evaluation,
    InputError,
    Model,
    Optimizer,
    Schedule,
)
from data.corpus import build
from scaling import tables
from scaling.ladder import collect, design, jobs, work
from train.checkpoint import Reader
from train.loop import DONE, train
from train.state import abstract

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A byte-level store of a few thousand words."""
    folder = tmp_path_factory.mktemp("text")
    random = np.random.default_rng(0)
    for number in range(40):
        words = random.choice(["the", "cat", "sees", "a", "green", "bird", "and", "hears"], 60)
        (folder / f"{number:02}.txt").write_text(" ".join(words))
    sources = (Source(kind="text", pattern=str(folder / "*.txt")),)
    build(Corpus(sources=sources, tokenizer="bytes", validation=0.2), folder / "store")
    return folder / "store"


@pytest.fixture(scope="module")
def base(store):
    """A base recipe whose runs take a blink."""
    return Config(
        model=Model(vocab=257, context=16, layers=1, width=8, heads=1, dropout=0.1),
        data=Data(path=str(store)),
        batch=Batch(size=2),
        optimizer=Optimizer(learning_rate=3e-3, weight_decay=0.1),
        schedule=Schedule(kind="wsd", warmup=2, final=0.1),
        evaluation=Evaluation(windows=8, sample_tokens=0),
        checkpoints=Checkpoints(every=6),
        steps=4,
        log_every=1,
    )


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    """(folder, its two runs): a job all of whose parts train() made in this process."""
    out = tmp_path_factory.mktemp("trained")
    planned = design.runs(base, ["1x8"], ["320", "640"], decay=0.3)
    (trunk,) = design.trunks(planned)
    config = design.recipe(base, trunk.size)
    names = []
    left = [jobs.left(out, trunk)]
    while part := jobs.next_part(out, trunk):
        schedule = dataclasses.replace(config.schedule, decay=part.decay)
        changed = dataclasses.replace(config, schedule=schedule, steps=part.last)
        assert train(changed, part.workdir, None, True) == DONE
        names.append(part.name)
        left.append(jobs.left(out, trunk))
    assert names == ["trunk 1x8", "1x8-10", "trunk 1x8", "1x8-20"]
    assert left == [14 + 3 + 6, 7 + 3 + 6, 7 + 6, 6, 0]
    return out, planned


def test_a_branch_is_the_run_bit_for_bit(trained, base, tmp_path):
    out, planned = trained
    assert [(run.steps, run.decay) for run in planned] == [(10, 3), (20, 6)]
    longest = planned[-1]
    schedule = dataclasses.replace(base.schedule, decay=longest.decay)
    config = dataclasses.replace(
        base, model=longest.size.model, schedule=schedule, steps=longest.steps
    )
    assert train(config, tmp_path / "alone") == DONE
    paths = (tmp_path / "alone", out / "runs" / longest.name)
    alone, branch = (Reader(path / "checkpoints").restore(abstract(config)).state for path in paths)
    pairs = zip(jax.tree.leaves(alone), jax.tree.leaves(branch), strict=True)
    assert all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)
    for kind in ("train", "eval"):
        one, other = (
            [row["loss"] for row in jobs.rows(path) if row["kind"] == kind] for path in paths
        )
        assert one == other[-len(one) :]  # the branch was evaluated where it left the trunk, too
    assert len(one) == 1


def test_a_branch_that_the_trunk_is_past_begins_anew(trained, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(trained[0], out)
    (trunk,) = design.trunks(trained[1])
    shutil.rmtree(out / "runs" / "1x8-10")
    part = jobs.next_part(out, trunk)
    assert part
    assert (part.name, part.first, part.last, part.decay) == ("1x8-10", 0, 10, 3)
    assert jobs.left(out, trunk) == 10
    assert not part.workdir.exists()  # nothing of the trunk is in it


def test_a_copy_that_was_cut_short_is_made_anew(trained, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(trained[0], out)
    (trunk,) = design.trunks(trained[1])
    (out / "runs" / "1x8-20").rename(out / "runs" / "1x8-20.copying")
    part = jobs.next_part(out, trunk)
    assert part
    assert (part.name, part.first, part.last, part.decay) == ("1x8-20", 14, 20, 6)
    assert not (out / "runs" / "1x8-20.copying").exists()
    assert jobs.left(out, trunk) == 6


def test_the_table_holds_what_the_runs_came_to(trained, base, tmp_path):
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    planned = trained[1]
    found, left_out = collect.rows(tmp_path, base, planned, "non_embedding", {})
    assert left_out == {}
    path = collect.write_table(tmp_path, found)
    table = tables.read(str(path), "N=N,D=D,loss=loss,run=run")
    assert list(table.runs) == ["1x8-10", "1x8-20"]
    assert table["N"].tolist() == [planned[0].size.non_embedding] * 2
    assert table["D"].tolist() == [320, 640]
    with path.open() as lines:
        last = list(csv.DictReader(lines))[-1]
    row = [r for r in jobs.rows(tmp_path / "runs" / "1x8-20") if r["kind"] == "eval"][-1]
    assert float(last["loss"]) == row["loss"]
    assert float(last["flops"]) == row["flops"]
    assert last["held_out"] == "1"
    (tmp_path / "runs" / "1x8-10" / "metrics.jsonl").write_text("")
    found, left_out = collect.rows(tmp_path, base, planned, "parameters", {"1x8": "no power"})
    assert [each["run"] for each in found] == ["1x8-20"]
    assert left_out == {"1x8-10": "no power"}


def test_the_reason_of_a_failure_is_the_sentence_it_ended_with(tmp_path):
    log = tmp_path / "log"
    log.write_text("step 1\nerror: no space left while saving step 2: free some\n")
    assert work.last_words(log) == "no space left while saving step 2: free some"
    log.write_text("step 1\nKilled\n\n")
    assert work.last_words(log) == "Killed"


TRAINER = """
import json, pathlib, sys
given = dict(a.removeprefix("--").split("=", 1) for a in sys.argv[1:] if "=" in a)
place, steps = pathlib.Path(given["workdir"]), int(given["config.steps"])
outcome = json.loads(pathlib.Path(sys.argv[0]).with_suffix(".json").read_text())
code, words = outcome.get(place.name, (0, ""))
place.mkdir(parents=True, exist_ok=True)
with (place / "metrics.jsonl").open("a") as out:
    row = {"step": steps, "seconds": 1.0, "loss": 2.0, "standard_error": 0.1}
    event = {"event": "finished"} if code == 0 else {"event": "gave up", "reason": words}
    if code in (0, 3):
        out.write(json.dumps(row | {"kind": "eval"}) + "\\n")
        out.write(json.dumps(row | {"kind": "event"} | event) + "\\n")
if code == 0:
    (place / "checkpoints" / str(steps)).mkdir(parents=True)
elif words:
    print("error: " + words, file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture
def pretended(monkeypatch, tmp_path):
    """pretended({directory: (exit code, words)}): training ends so, and well elsewhere."""
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER)
    shares = []

    def start(module, arguments, log, place=0, share=1, kept=None):
        assert module == "train"
        shares.append((place, share))
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            command = [sys.executable, "-I", str(script), *arguments]
            return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

    monkeypatch.setattr(work, "start", start)

    def decide(outcomes):
        script.with_suffix(".json").write_text(json.dumps(outcomes))
        return shares

    return decide


@pytest.fixture
def two(base):
    planned = design.runs(base, ["1x8", "1x16"], ["320", "640"], decay=0.3)
    return planned, design.trunks(planned)


def worked(out, trunks, workers=1):
    return work.work(out, trunks, workers, print, lambda: "")


def test_all_parts_are_made_once_and_in_order(pretended, two, base, tmp_path):
    shares = pretended({})
    planned, trunks = two
    assert worked(tmp_path / "out", trunks, workers=2) == {}
    found, left_out = collect.rows(tmp_path / "out", base, planned, "parameters", {})
    assert len(found) == 4
    assert not left_out
    assert len(shares) == 8  # four parts of each of two sizes
    assert set(shares[:2]) == {(0, 2), (1, 2)}
    assert worked(tmp_path / "out", trunks) == {}
    assert len(shares) == 8  # nothing is made again


def test_a_size_that_fails_leaves_the_others_and_is_tried_again(pretended, two, base, tmp_path):
    pretended({"1x16-20": (9, "")})
    planned, trunks = two
    out = tmp_path / "out"
    failures = worked(out, trunks, workers=2)
    assert list(failures) == ["1x16"]
    assert "1x16-20 failed: it ended with code 9" in failures["1x16"]
    found, left_out = collect.rows(out, base, planned, "parameters", failures)
    assert [row["run"] for row in found] == ["1x8-10", "1x8-20", "1x16-10"]
    assert left_out == {"1x16-20": failures["1x16"]}
    pretended({})
    assert worked(out, trunks) == {}
    assert len(collect.rows(out, base, planned, "parameters", {})[0]) == 4


def test_a_diverged_run_is_left_out_with_its_reason(pretended, two, base, tmp_path):
    shares = pretended({"1x16-10": (3, "10 updates in a row were not finite, up to step 9")})
    planned, trunks = two
    out = tmp_path / "out"
    assert worked(out, trunks) == {}
    found, left_out = collect.rows(out, base, planned, "parameters", {})
    assert [row["run"] for row in found] == ["1x8-10", "1x8-20", "1x16-20"]
    reason = "diverged: 10 updates in a row were not finite, up to step 9"
    assert left_out == {"1x16-10": reason}
    made = len(shares)
    worked(out, trunks)
    assert len(shares) == made  # it would diverge again


def test_a_trunk_that_diverged_takes_its_later_runs_with_it(pretended, two, base, tmp_path):
    pretended({"1x16": (3, "10 updates in a row were not finite, up to step 5")})
    planned, trunks = two
    assert worked(tmp_path / "out", trunks) == {}
    found, left_out = collect.rows(tmp_path / "out", base, planned, "parameters", {})
    assert [row["run"] for row in found] == ["1x8-10", "1x8-20"]
    assert set(left_out) == {"1x16-10", "1x16-20"}
    assert all(reason.startswith("its trunk diverged: 10 updates") for reason in left_out.values())


def test_what_is_wrong_for_all_runs_ends_the_ladder_in_one_sentence(pretended, two, tmp_path):
    pretended({"1x16": (2, "no space left while saving step 7: free some and run again")})
    with pytest.raises(InputError, match=r"^trunk 1x16: no space left while saving step 7"):
        worked(tmp_path / "out", two[1], workers=2)


def test_a_run_that_goes_nowhere_is_not_started_for_ever(pretended, two, monkeypatch, tmp_path):
    shares = pretended({})
    monkeypatch.setattr(jobs, "_reached", lambda workdir: 0)
    failures = worked(tmp_path / "out", two[1])
    assert len(shares) == 2
    assert all("without going on" in reason for reason in failures.values())


def ladder(*arguments, check=0, wait=True, **environment):
    """The command, in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "scaling.ladder", *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if not wait:
        return process
    output, errors = process.communicate(timeout=3000)
    assert process.returncode == check, output + errors
    return output + errors


@pytest.fixture(scope="module")
def straight(store, tmp_path_factory):
    """A small ladder from its beginning to its end."""
    folder = tmp_path_factory.mktemp("straight")
    text = (
        "from configs.schema import *\n"
        "get_config = lambda: Config(\n"
        "    model=Model(vocab=257, context=16, layers=1, width=8, heads=1),\n"
        f"    data=Data(path={str(store)!r}), batch=Batch(size=2),\n"
        "    optimizer=Optimizer(learning_rate=3e-3),\n"
        "    schedule=Schedule(kind='wsd', warmup=2),\n"
        "    evaluation=Evaluation(windows=8, sample_tokens=0),\n"
        "    checkpoints=Checkpoints(every=20), steps=4, log_every=1)\n"
    )
    (folder / "base.py").write_text(text)
    flags = (f"--config={folder / 'base.py'}", "--sizes=1x8,1x16", "--tokens=1600,6400", "--notime")
    ladder(*flags, f"--out={folder / 'out'}", "--workers=2")
    return flags, (folder / "out" / "runs.csv")


def losses(path):
    with path.open() as lines:
        return {row["run"]: row["loss"] for row in csv.DictReader(lines)}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_killed_ladder_goes_on_and_ends_as_if_it_had_not_been(straight, tmp_path):
    flags, table = straight
    out = tmp_path / "out"
    for sign in ("trunks/1x16/metrics.jsonl", "runs/1x16-50", "runs/1x8-50/metrics.jsonl"):
        process = ladder(*flags, f"--out={out}", wait=False)
        while process.poll() is None and not (out / sign).exists():
            time.sleep(0.05)
        time.sleep(np.random.default_rng().uniform(0, 1))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    ladder(*flags, f"--out={out}", "--workers=2")
    assert losses(out / "runs.csv") == losses(table)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_commands_file_gives_the_same_table(straight, tmp_path):
    flags, table = straight
    out, file = tmp_path / "out", tmp_path / "jobs.sh"
    said = ladder(*flags, f"--out={out}", f"--commands={file}")
    assert "2 jobs are in" in said
    assert not out.exists()
    environment = {**os.environ, "PYTHON": sys.executable, "JAX_PLATFORMS": "cpu"}
    subprocess.run(["sh", str(file)], check=True, env=environment)
    assert not (out / "runs.csv").exists()
    ladder(*flags, f"--out={out}")
    assert losses(out / "runs.csv") == losses(table)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_ladder_all_of_whose_runs_diverge_says_so(straight, tmp_path):
    flags, _ = straight
    said = ladder(
        *flags, f"--out={tmp_path / 'out'}", "--config.optimizer.learning_rate=1e30",
        "--config.max_skipped=3", "--config.optimizer.clip_norm=0", "--workers=2", check=2,
    )  # fmt: skip
    assert "its trunk diverged: 3 updates in a row were not finite" in said
    assert "Traceback" not in said
