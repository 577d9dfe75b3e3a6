"""Runs that end at one of their evaluations: where each rule says so, not before, and for good."""

import shutil
from dataclasses import replace

import pytest

from configs.schema import Checkpoints, Data, EarlyStop, Evaluation, InputError, Schedule
from train.checkpoint import Reader
from train.loop import DONE, train


@pytest.fixture
def brief(config):
    """24 updates, evaluated after every second and saved after every sixth; no samples."""
    return replace(
        config,
        evaluation=Evaluation(every=2, windows=16, sample_tokens=0),
        checkpoints=Checkpoints(every=6, keep=9),
    )


@pytest.fixture(scope="session")
def straight_path(tmp_path_factory):
    return tmp_path_factory.mktemp("straight")


@pytest.fixture
def straight(brief, straight_path):
    """The directory of the run that no rule ends, made once."""
    if not (straight_path / "config.json").exists():
        assert train(brief, straight_path) == DONE
    return straight_path


def flat(config):
    """The same run with updates too small to see, so that its evaluations do not improve."""
    optimizer = replace(config.optimizer, learning_rate=1e-12, weight_decay=0.0)
    return replace(config, optimizer=optimizer, schedule=Schedule(kind="constant"))


def test_a_target_ends_the_run_for_good_and_a_kill_changes_nothing(
    brief, straight, tmp_path, rows, final_state, same, capsys
):
    losses = {row["step"]: row["loss"] for row in rows(straight, "eval")}
    wanted = losses[14]
    assert all(loss > wanted for step, loss in losses.items() if step < 14)
    config = replace(brief, early_stop=EarlyStop(target=wanted, patience=11))
    workdir = tmp_path / "run"
    assert train(config, workdir) == DONE
    assert Reader(workdir / "checkpoints").latest() == 14
    assert [row["event"] for row in rows(workdir, "event")] == ["started", "stopped_early"]
    reason = rows(workdir, "event")[-1]["reason"]
    assert "has reached the target" in reason
    said = capsys.readouterr().out
    assert f"stopped early at step 14: {reason}" in said
    assert "nats/token" in said  # the closing table
    for kind in ("train", "eval"):  # bit for bit what the run without a limit did
        ours, theirs = rows(workdir, kind), rows(straight, kind)
        assert [r["loss"] for r in ours] == [r["loss"] for r in theirs if r["step"] <= 14]

    before = (workdir / "metrics.jsonl").read_bytes()
    assert train(config, workdir) == DONE
    assert f"is complete, stopped early: {reason}" in capsys.readouterr().out
    assert (workdir / "metrics.jsonl").read_bytes() == before

    killed = tmp_path / "killed"  # after the evaluation, before the checkpoint it led to
    shutil.copytree(workdir, killed)
    shutil.rmtree(killed / "checkpoints" / "14")
    assert train(config, killed) == DONE
    assert [row["event"] for row in rows(killed, "event")] == [
        "started",
        "resumed",
        "stopped_early",
    ]
    assert rows(killed, "event")[-1]["reason"] == reason
    assert same(final_state(config, killed), final_state(config, workdir))

    assert train(brief, workdir) == DONE  # without the limit it goes on
    assert [row["event"] for row in rows(workdir, "event")][-2:] == ["resumed", "finished"]
    assert same(final_state(brief, workdir), final_state(brief, straight))


def test_patience_counts_evaluations_across_a_resume(brief, tmp_path, rows):
    config = replace(flat(brief), early_stop=EarlyStop(patience=4))
    assert train(config, tmp_path) == DONE
    assert rows(tmp_path, "event")[-1]["event"] == "stopped_early"
    assert rows(tmp_path, "event")[-1]["step"] == 10  # the first evaluation, and four like it
    shutil.rmtree(tmp_path / "checkpoints" / "10")
    assert train(config, tmp_path) == DONE  # from step 6, with three evaluations in the record
    assert rows(tmp_path, "event")[-1]["step"] == 10


def test_little_to_gain_ends_the_run_as_soon_as_that_can_be_told(brief, tmp_path, rows):
    often = replace(flat(brief), evaluation=replace(brief.evaluation, every=1))
    config = replace(often, early_stop=EarlyStop(min_gain=0.01))
    assert train(config, tmp_path) == DONE
    last = rows(tmp_path, "event")[-1]
    assert last["event"] == "stopped_early"
    assert "below min_gain=0.01" in last["reason"]
    assert 10 <= last["step"] < 20  # ten evaluations at the least


def test_limits_that_cannot_act_are_refused(brief, short, tmp_path):
    with pytest.raises(InputError, match=r"evaluation\.every=0 makes none"):
        replace(short, early_stop=EarlyStop(patience=3))
    with pytest.raises(InputError, match=r"early_stop\.target=-1.* must be positive"):
        EarlyStop(target=-1.0)
    config = replace(brief, data=Data(path="synthetic"), early_stop=EarlyStop(patience=3))
    with pytest.raises(InputError, match="has no validation split"):
        train(config, tmp_path)
