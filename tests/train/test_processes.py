"""Processes that train together end as one that trains alone, or say in one sentence why not."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from configs.schema import Batch, Checkpoints, Evaluation, Mesh
from train.checkpoint import Reader
from train.loop import DONE, STOPPED, train

REPOSITORY = Path(__file__).resolve().parents[2]
LOST = (
    "error: another process of this run has ended or cannot be reached any more, and its own "
    "output says why; then run the same command again on all hosts, which goes on from the newest "
    "checkpoint"
)
CACHE = {
    "JAX_COMPILATION_CACHE_DIR": str(REPOSITORY / ".cache" / "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
}


@pytest.fixture
def long(config):
    """Enough updates to be interrupted in, few enough that rounding stays rounding."""
    return replace(
        config,
        model=replace(config.model, dropout=0.0),  # which takes a third of the compiling
        steps=100,
        batch=Batch(size=8),
        evaluation=Evaluation(every=50, windows=16, sample_tokens=0),
        checkpoints=Checkpoints(every=20),
    )


@pytest.fixture
def start(launch):
    """start(config, workdir, count, *flags): the training command in that many processes.

    Those that are not killed keep what they compile. With `number` it is that process alone, with
    `apart` each has a directory of its own.
    """

    def begin(config, workdir, count, *flags, devices=1, number=None, apart=False, cached=True):
        with socket.create_server(("", 0)) as server:
            port = server.getsockname()[1]
        flags_of_xla = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
        environment = {"XLA_FLAGS": flags_of_xla}
        return [
            launch(
                config,
                workdir / str(i) if apart else workdir,
                f"--coordinator=127.0.0.1:{port}",
                *(f"--process_id={i}", f"--num_processes={count}", *flags),
                **environment,
                **(CACHE if cached else {}),
            )
            for i in (range(count) if number is None else [number])
        ]

    return begin


def ended(processes, code):
    """What each process printed on stdout and stderr, once all have ended so."""
    printed = [process.communicate(timeout=600) for process in processes]
    for process, (_, errors) in zip(processes, printed, strict=True):
        assert process.returncode == code, errors
    return printed


def check_equal(one, other, rows):
    """Every loss, to rounding, and every step once."""
    for kind, keys in (("train", ("loss", "gradient_norm")), ("eval", ("loss",))):
        mine, theirs = rows(one, kind), rows(other, kind)
        assert [row["step"] for row in mine] == [row["step"] for row in theirs]
        for key in keys:
            pair = ([row[key] for row in mine], [row[key] for row in theirs])
            np.testing.assert_allclose(*pair, rtol=1e-6 if key == "loss" else 1e-5)


@pytest.mark.timeout(900)  # seconds on a quiet machine, minutes on a crowded one
def test_two_are_as_one_and_stop_and_go_on_as_one(long, start, wait_for_step, tmp_path, rows):
    """A signal to one stops both at the same step; a process alone goes on from there."""
    together, alone = tmp_path / "together", tmp_path / "alone"
    processes = start(long, together, 2)
    second = processes[1]
    wait_for_step(second, together, 30)
    second.send_signal(signal.SIGTERM)
    output, silence = (printed for printed, _ in ended(processes, STOPPED))
    saved = Reader(together / "checkpoints").latest()
    assert saved is not None
    assert f"SIGTERM: saved step {saved} in {together}; the same command goes on" in output
    assert "step" not in silence
    assert rows(together, "train")[-1]["step"] == saved

    assert train(long, together) == DONE
    assert train(long, alone) == DONE
    check_equal(alone, together, rows)
    events = [row["event"] for row in rows(together, "event")]
    assert events == ["started", "stopped", "resumed", "finished"]


def test_what_keeps_them_from_meeting_is_said_before_anything_starts(long, start, tmp_path):
    (lonely,) = start(long, tmp_path / "run", 2, "--start_timeout=1", number=0)
    ((_, errors),) = ended([lonely], 2)
    assert errors == (
        "error: of 2 processes these did not come in time: 1; see why on their hosts, or wait "
        "longer with --start_timeout\n"
    )
    assert not (tmp_path / "run").exists()


SUPERVISED = """
import os, signal, sys, time
from parallel.hosts import Cluster, is_worker, supervise
from train.signals import stop_on_signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever this was started with
if not is_worker():
    sys.exit(supervise(Cluster(2), 1.0))
{0}
"""
UNTIL_ASKED = """
with stop_on_signal() as request:
    print(os.getpid(), flush=True)
    while not request.number:
        time.sleep(0.01)
    time.sleep(0.5)
    print(signal.Signals(request.number).name, flush=True)
    time.sleep({0})
"""


def supervised(tmp_path, code):
    (tmp_path / "supervised.py").write_text(SUPERVISED.format(code))
    return subprocess.Popen(
        [sys.executable, tmp_path / "supervised.py"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("death", "code", "sentence"),
    [
        ("os.abort()", STOPPED, LOST),  # what JAX does when it has lost a peer
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            137,
            "error: this process of the run was ended by SIGKILL",
        ),
        ("sys.exit(3)", 3, ""),
    ],
)
def test_how_the_computing_process_ended_is_said(death, code, sentence, tmp_path):
    process = supervised(tmp_path, death)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert errors.strip() == sentence


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("everyone", [False, True])
def test_a_signal_is_passed_on_and_counts_once(name, everyone, tmp_path):
    """Also where the launcher sends it to both; sent again, it ends both at once."""
    process = supervised(tmp_path, UNTIL_ASKED.format(60))
    assert process.stdout is not None
    computing, number = int(process.stdout.readline()), getattr(signal, name)
    if everyone:
        os.kill(computing, number)
        time.sleep(0.2)
    process.send_signal(number)
    assert process.stdout.readline() == f"{name}\n"
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 128 + number


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("count", "devices", "mesh"),
    [(4, 1, Mesh()), (2, 2, Mesh(data=1, fsdp=-1)), (2, 2, Mesh(fsdp=2, tensor=2, data=1))],
)
def test_any_number_with_any_mesh_is_as_one(
    count, devices, mesh, config, long, start, tmp_path, rows
):
    """And a run moves: two processes take over from one, and one from them."""
    alone, together, moved = (tmp_path / name for name in ("alone", "together", "moved"))
    sampling = replace(long.evaluation, sample_tokens=8)
    long = replace(long, steps=40, evaluation=sampling, checkpoints=Checkpoints(every=20, keep=9))
    long = replace(long, model=config.model, batch=Batch(size=8, microbatch=4))
    split = replace(long, mesh=mesh)
    assert train(long, alone) == DONE
    ended(start(split, together, count, devices=devices), DONE)
    check_equal(alone, together, rows)
    sample = "samples/00000040.txt"
    assert (together / sample).read_text() == (alone / sample).read_text()
    for source in (alone, together):
        shutil.copytree(source, moved)
        shutil.rmtree(moved / "checkpoints" / "40")
        if source is alone:
            ended(start(split, moved, count, devices=devices), DONE)
        else:
            assert train(long, moved) == DONE
        check_equal(alone, moved, rows)
        shutil.rmtree(moved)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("victim", [0, 1])
def test_killing_one_ends_the_other_which_says_how_to_go_on(
    victim, long, start, wait_for_step, tmp_path, rows
):
    long = replace(long, steps=2000, evaluation=replace(long.evaluation, every=0))
    killed, workdir = tmp_path / "killed", tmp_path / "run"
    processes = start(long, workdir, 2, "--peer_timeout=10", cached=False)
    wait_for_step(processes[0], workdir, 50)
    processes[victim].kill()
    began = time.monotonic()
    ((_, errors),) = ended([processes[1 - victim]], STOPPED)
    assert time.monotonic() - began < 15
    assert errors.splitlines()[-1] == LOST
    saved = Reader(workdir / "checkpoints").latest()
    assert saved is not None
    assert saved >= 20
    # What is intact goes on, in any number of processes.
    long = replace(long, steps=saved + 10)
    shutil.copytree(workdir, killed)
    ended(start(long, workdir, 2, "--allow_change"), DONE)
    assert train(long, killed, allow_change=True) == DONE
    check_equal(killed, workdir, rows)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_directory_that_hosts_do_not_share_is_refused(long, start, tmp_path):
    for _, errors in ended(start(long, tmp_path / "run", 2, apart=True), 2):
        assert "/checkpoints on process 1 is not what process 0 has there: let " in errors
        assert "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_second_run_is_refused_by_all(long, start, wait_for_step, tmp_path):
    workdir = tmp_path / "run"
    first = start(replace(long, steps=5000), workdir, 2)
    wait_for_step(first[0], workdir, 1)
    for _, errors in ended(start(long, workdir, 2), 2):
        assert "is training in" in errors
        assert "Traceback" not in errors
    for process in first:
        process.send_signal(signal.SIGTERM)
    ended(first, STOPPED)
