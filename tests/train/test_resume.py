"""A run that was killed, stopped or out of space ends as one that never was.

These start the commands as a person does, in processes of their own.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from configs.corpus import Corpus, Source
from configs.schema import Batch, Checkpoints, Evaluation
from data.corpus import build
from data.loader import train_batches
from train.checkpoint import Reader
from train.loop import DONE, STOPPED, train

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = 200


@pytest.fixture
def long(config):
    """Enough updates that there is a time to kill it: about a second, after some to start."""
    return replace(
        config,
        steps=STEPS,
        batch=Batch(size=8, microbatch=4),
        evaluation=Evaluation(every=90, windows=16, sample_tokens=0),
        checkpoints=Checkpoints(every=20, keep=2),
    )


def ran(process):
    output, errors = process.communicate(timeout=240)
    assert process.returncode == DONE, errors
    return output


def check_equal(straight, interrupted, rows, long, final_state, same):
    """Every loss and every parameter, bit for bit, and every step once."""
    for kind, keys in (("train", ("loss", "gradient_norm", "skipped")), ("eval", ("loss",))):
        one, other = (
            [(row["step"], *(row[key] for key in keys)) for row in rows(workdir, kind)]
            for workdir in (straight, interrupted)
        )
        assert one == other
    assert [row["step"] for row in rows(interrupted, "train")] == list(range(1, STEPS + 1))
    assert same(final_state(long, straight), final_state(long, interrupted))


def test_stopped_killed_and_resumed_is_straight(
    long, launch, wait_for_step, tmp_path, rows, final_state, same
):
    straight, interrupted = tmp_path / "straight", tmp_path / "interrupted"
    rng = random.Random(os.getpid())

    stopped = launch(long, interrupted)
    wait_for_step(stopped, interrupted, rng.randrange(1, STEPS // 2))
    stopped.send_signal(signal.SIGTERM)
    output, errors = stopped.communicate(timeout=120)
    assert stopped.returncode == STOPPED, errors
    saved = Reader(interrupted / "checkpoints").latest() or 0
    assert f"SIGTERM: saved step {saved} in {interrupted}; the same command goes on" in output

    killed = launch(long, interrupted)
    wait_for_step(killed, interrupted, step := rng.randrange(saved + 1, STEPS - 20))
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL, f"ended before step {step}"

    assert train(long, interrupted) == DONE
    assert train(long, straight) == DONE
    check_equal(straight, interrupted, rows, long, final_state, same)
    events = [row["event"] for row in rows(interrupted, "event")]
    assert events[:3] == ["started", "stopped", "resumed"]
    assert events[-1] == "finished"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_any_moment_is_straight(
    long, launch, wait_for_step, tmp_path, rows, final_state, same
):
    """Also while it starts, compiles, evaluates, or writes a checkpoint."""
    straight, interrupted = tmp_path / "straight", tmp_path / "interrupted"
    ran(launch(long, straight))
    rng = random.Random(os.getpid())
    kills = 0
    while kills < 20:
        process = launch(long, interrupted)
        if kills % 2:
            latest = Reader(interrupted / "checkpoints").latest() or 0
            wait_for_step(process, interrupted, latest + rng.randrange(1, 25))
        else:
            time.sleep(rng.uniform(0, 6))
        process.kill()
        process.communicate()
        if process.returncode == DONE:
            break
        kills += 1
    assert kills >= 5
    ran(launch(long, interrupted))
    check_equal(straight, interrupted, rows, long, final_state, same)


@pytest.mark.slow
def test_memory_is_flat(long, tmp_path, monkeypatch):
    """Two thousand updates: what the process holds after a quarter of them is what it needs."""
    config = replace(long, steps=2000, checkpoints=Checkpoints(every=100))
    used = []

    def watching(store, config, start_step, host, threads):
        batches = train_batches(store, config, start_step, host, threads)
        for step, tokens_bt in enumerate(batches):
            if step % 100 == 0:
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                used.append((pages * os.sysconf("SC_PAGE_SIZE"), len(jax.live_arrays())))
            yield tokens_bt

    monkeypatch.setattr("train.loop.train_batches", watching)
    assert train(config, tmp_path) == DONE
    memory, arrays = zip(*used, strict=True)
    assert len(set(arrays[1:])) == 1
    assert memory[-1] - memory[5] < 20e6


def test_a_signal_saves_and_the_run_goes_on(short, tmp_path, rows, final_state, same, monkeypatch):
    """In this process: the signal comes in the middle of the third update."""
    before = signal.getsignal(signal.SIGTERM)
    assert train(short, tmp_path / "straight") == DONE

    def interrupting(store, config, start_step, host, threads):
        for step, tokens_bt in enumerate(
            train_batches(store, config, start_step, host, threads), start_step
        ):
            if step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            yield tokens_bt

    with monkeypatch.context() as patched:
        patched.setattr("train.loop.train_batches", interrupting)
        assert train(short, tmp_path / "run") == STOPPED
    assert Reader(tmp_path / "run" / "checkpoints").latest() == 3
    assert rows(tmp_path / "run", "event")[-1]["signal"] == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before
    assert train(short, tmp_path / "run") == DONE
    assert same(final_state(short, tmp_path / "run"), final_state(short, tmp_path / "straight"))


def test_a_full_disk_while_saving_loses_nothing(short, launch, tmp_path, rows, final_state, same):
    """No file may outgrow 32 kB, which a checkpoint's does first: as on a full disk."""
    workdir, straight = tmp_path / "run", tmp_path / "straight"
    process = launch(short, workdir, launcher=("bash", "-c", 'ulimit -f 32; exec "$@"', "bash"))
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors
    assert errors.splitlines()[-1] == (
        f"error: no space left while saving step 2 in {workdir}/checkpoints: free some and run "
        "again, which starts anew"
    )
    assert "Traceback" not in output + errors
    assert train(short, workdir) == DONE
    assert train(short, straight) == DONE
    assert [row["step"] for row in rows(workdir, "train")] == [1, 2, 3, 4, 5, 6]
    assert same(final_state(short, workdir), final_state(short, straight))


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_run_is_evaluated_and_written_with_from_its_directory(short, tmp_path, rows):
    workdir = tmp_path / "run"
    config = replace(short, evaluation=Evaluation(windows=0, sample_tokens=0))
    assert train(config, workdir) == DONE

    out = tmp_path / "result.json"
    done = command("train.evaluate", f"--workdir={workdir}", f"--json={out}")
    assert done.returncode == 0, done.stderr
    result, row = json.loads(out.read_text()), rows(workdir, "eval")[-1]
    assert {key: result[key] for key in ("step", "loss", "standard_error", "sources")} == {
        key: row[key] for key in ("step", "loss", "standard_error", "sources")
    }
    assert f"{result['loss']:.4f} +- {result['standard_error']:.4f} nats/token" in done.stdout

    done = command(
        "train.generate",
        f"--workdir={workdir}",
        *("--prompt=the cat", "--prompt=a", "--num_samples=2", "--max_tokens=5", "--json"),
    )
    assert done.returncode == 0, done.stderr
    texts = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(t["prompt"], t["sample"]) for t in texts] == [
        *(("the cat", 0), ("the cat", 1)),
        *(("a", 0), ("a", 1)),
    ]
    assert all(t["tokens"] == 5 or t["ended"] == "document" for t in texts)

    (tmp_path / "text.txt").write_text("abc " * 200)
    sources = (Source(kind="text", pattern=str(tmp_path / "text.txt")),)
    build(Corpus(sources=sources, tokenizer="chars", validation=0.2), tmp_path / "chars")
    done = command("train.evaluate", f"--workdir={workdir}", f"--data={tmp_path / 'chars'}")
    assert done.returncode == 2
    assert "was built with another tokenizer than the run's" in done.stderr
