"""Which runs a ladder makes, and what it says of those it held out."""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
from scaling.ladder import collect, design, lock, timing
from scaling.ladder.judge import judge

REPOSITORY = Path(__file__).resolve().parents[2]
TRUE = {"E": 1.2, "A": 60.0, "B": 900.0, "alpha": 0.4, "beta": 0.45}


@pytest.fixture(scope="module")
def base():
    """A base recipe whose runs take a blink."""
    return Config(
        model=Model(vocab=257, context=16, layers=1, width=8, heads=1, dropout=0.1),
        data=Data(path="synthetic"),
        batch=Batch(size=2),
        optimizer=Optimizer(learning_rate=3e-3, weight_decay=0.1),
        schedule=Schedule(kind="wsd", warmup=2, final=0.1),
        evaluation=Evaluation(windows=8, sample_tokens=0),
        checkpoints=Checkpoints(every=6),
        steps=4,
        log_every=1,
    )


def test_sizes_are_shapes_or_numbers_and_tokens_may_follow_them(base):
    model = dataclasses.replace(base.model, layers=2, width=64, heads=4)
    base = dataclasses.replace(base, model=model)
    planned = design.runs(base, ["2x128", "4e5"], ["10x"], holdout=0)
    widths = {run.size.model.width for run in planned}
    assert 128 in widths
    for run in planned:
        assert run.size.model.head_dim == 16
        assert run.tokens == pytest.approx(10 * run.size.parameters, rel=1e-3)
        assert run.flops == run.tokens * run.size.flops_per_token
    other = next(run for run in planned if run.size.model.width != 128)
    assert abs(other.size.parameters / 4e5 - 1) < 0.1


def test_isoflop_runs_of_one_budget_cost_the_same_and_the_largest_are_held_out(base):
    planned = design.runs(base, ["1x8", "1x16", "1x24"], budgets=[1e8, 4e8], holdout=2)
    cost = np.array([run.flops for run in planned])
    assert np.allclose(cost[:3], 1e8, rtol=0.01)
    assert np.allclose(cost[3:], 4e8, rtol=0.01)
    assert [run.held_out for run in planned] == [False] * 4 + [True] * 2


def test_a_target_is_a_run_more(base):
    planned = design.runs(base, ["1x8"], ["320", "640"], target="1x16:1280")
    assert planned[-1].name == "1x16-40"
    assert [run.held_out for run in planned] == [False, False, True]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"sizes": []}, "needs sizes"),
        ({"sizes": ["1x12", "1x12"]}, "must be a multiple of 8"),
        ({"sizes": ["1x8", "1x8"]}, "the shape 1x8 comes out twice"),
        ({"sizes": ["x8"]}, "must be LAYERSxWIDTH"),
        ({"sizes": ["many"]}, "must be a positive number"),
        ({"tokens": ["32"]}, "leaves less than the warm-up"),
        ({"tokens": []}, "a grid needs --tokens"),
        ({"target": "1x16"}, "must be SIZE:TOKENS"),
        ({"holdout": 1}, "leaves none of 1 runs"),
        ({"decay": 1.0}, "must lie in"),
    ],
)
def test_a_wrong_design_is_refused(base, wrong, says):
    arguments = {"sizes": ["1x8"], "tokens": ["640"], "holdout": 0, **wrong}
    with pytest.raises(InputError, match=says):
        design.runs(base, **arguments)


def test_a_base_must_have_a_constant_rate(base):
    other = dataclasses.replace(base, schedule=Schedule(kind="cosine"))
    with pytest.raises(InputError, match="choose wsd"):
        design.runs(other, ["1x8"], ["640"])


def test_a_folder_belongs_to_one_base(base, tmp_path):
    collect.check_base(tmp_path, base, write=False)
    assert list(tmp_path.iterdir()) == []
    collect.check_base(tmp_path, base)
    wider = dataclasses.replace(base, model=dataclasses.replace(base.model, layers=3))
    collect.check_base(tmp_path, wider)
    other = dataclasses.replace(base, optimizer=Optimizer(learning_rate=1e-3, weight_decay=0.1))
    with pytest.raises(InputError, match=r"another base recipe \(optimizer.learning_rate 0.003 ->"):
        collect.check_base(tmp_path, other)


def test_two_ladders_on_one_folder_refuse_and_jobs_share_it(tmp_path):
    with (
        lock.held(tmp_path),
        pytest.raises(InputError, match="is at work in"),
        lock.held(tmp_path),
    ):
        pass
    with lock.held(tmp_path, "1x8"), lock.held(tmp_path, "1x16"):
        for job in ("", "1x8"):
            with pytest.raises(InputError, match="is at work in"), lock.held(tmp_path, job):
                pass


def test_epochs_are_named(base, tmp_path):
    shards = [{"split": "train", "tokens": 8000}, {"split": "validation", "tokens": 500}]
    (tmp_path / "index.json").write_text(json.dumps({"shards": [*shards, shards[0]]}))
    base = dataclasses.replace(base, data=Data(path=str(tmp_path)))
    there = collect.available(base)
    assert there == 16_000
    (run,) = design.runs(base, ["1x8"], [str(5 * there)], holdout=0)
    assert "5 epochs" in design.repeated([run], there)
    assert "beyond the 4" in design.repeated([run], there)
    assert design.repeated([run], 10 * there) == ""
    missing = dataclasses.replace(base, data=Data(path=str(tmp_path / "not")))
    with pytest.raises(InputError, match="no token store there"):
        collect.available(missing)


def test_jobs_are_packed_onto_workers():
    assert timing.makespan([6, 4, 3, 2], 2) == 8
    assert timing.makespan([6, 4, 3, 2], 1) == 15


def rows_of_a_law(noise=1e-3):
    random = np.random.default_rng(3)
    grid = itertools.product((3e4, 6e4, 1.2e5, 2.4e5), (2e5, 5e5, 1e6, 2e6))
    rows: list[dict[str, Any]] = [{"N": n, "D": d, "held_out": 0} for n, d in grid]
    rows.append({"N": 5e5, "D": 4e6, "held_out": 1})
    for row in rows:
        loss = TRUE["E"] + TRUE["A"] / row["N"] ** TRUE["alpha"]
        loss += TRUE["B"] / row["D"] ** TRUE["beta"]
        row["loss"] = loss * np.exp(noise * random.standard_normal())
        row |= {"run": f"{row['N']:g}-{row['D']:g}", "flops": 6 * row["N"] * row["D"]}
        row["standard_error"] = 0.001
    return rows


def test_the_held_out_run_is_predicted_from_the_others_alone():
    rows = rows_of_a_law()
    said = judge(rows, "runs.csv", "parameters")
    (verdict,) = said.held_out
    assert said.fit
    assert said.fit.n == 16
    assert abs(verdict["error"]) < 0.01
    assert verdict["inside"]
    assert verdict["error"] == pytest.approx(verdict["prediction"] / rows[-1]["loss"] - 1)
    assert verdict["compute_ratio"] == pytest.approx(5e5 * 4e6 / (2.4e5 * 2e6))
    rows[-1]["loss"] *= 1.3
    again = judge(rows, "runs.csv", "parameters")
    assert again.fit
    assert again.fit.parameters == said.fit.parameters  # it saw nothing of the held-out run
    assert not again.held_out[0]["inside"]
    assert again.held_out[0]["error"] == pytest.approx((1 + verdict["error"]) / 1.3 - 1)
    assert {each["law"] for each in said.beside} == {"chinchilla", "kaplan_ND"}


def test_too_few_runs_give_no_fit_and_say_why():
    said = judge(rows_of_a_law()[:4], "runs.csv", "parameters")
    assert said.fit is None
    assert "4 distinct points for 5 parameters" in said.why_not


@pytest.fixture
def recipe(base, tmp_path):
    path = tmp_path / "base.py"
    path.write_text(f"from configs.schema import *\nget_config = lambda: {base!r}\n")
    return path


def test_a_dry_run_writes_nothing(recipe, tmp_path):
    out = tmp_path / "out"
    design_flags = (f"--config={recipe}", f"--out={out}", "--sizes=1x8,1x16", "--tokens=320,640")
    done = subprocess.run(
        [sys.executable, "-m", "scaling.ladder", *design_flags, "--dry_run", "--notime"],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    said = done.stdout
    assert not out.exists()
    assert "4 runs" in said
    assert "held out" in said
    assert "time: not known" in said
