"""The commands as a script meets them: a table in, JSON out, one sentence on bad input."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TRUE = {"E": 1.7, "A": 400.0, "B": 1500.0, "alpha": 0.34, "beta": 0.36}


def run(module, *arguments):
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table of 60 runs with a known law, and its fit."""
    folder = tmp_path_factory.mktemp("commands")
    rng = np.random.default_rng(0)
    sizes, tokens = 10 ** rng.uniform(7, 9.5, 60), 10 ** rng.uniform(8.5, 11, 60)
    loss = TRUE["E"] + TRUE["A"] / sizes ** TRUE["alpha"] + TRUE["B"] / tokens ** TRUE["beta"]
    loss *= np.exp(0.002 * rng.standard_normal(60))
    lines = [f"{n},{d},{x}" for n, d, x in zip(sizes, tokens, loss, strict=True)]
    (folder / "runs.csv").write_text("n_params,tokens,final_loss\n" + "\n".join(lines) + "\n")
    done = run(
        "scaling.fit",
        f"--table={folder / 'runs.csv'}",
        "--columns=N=n_params,D=tokens,loss=final_loss",
        "--bootstrap=200",
        f"--json={folder / 'fit.json'}",
    )
    assert done.returncode == 0, done.stderr
    (folder / "fit.log").write_text(done.stdout)
    return folder


def test_the_fit_says_what_it_found_and_how_sure_it_is(folder):
    fit = json.loads((folder / "fit.json").read_text())
    assert (fit["law"], fit["n"], fit["mask"]) == ("chinchilla", 60, "all rows")
    assert fit["gradient_norm"] < 1e-6
    for name, true in TRUE.items():
        low, high = fit["intervals"][name]
        assert low < fit["parameters"][name] < high
        assert abs(fit["parameters"][name] - true) < 4 * fit["standard_errors"][name]
    assert fit["minima"][0]["objective"] == fit["objective"]
    assert set(fit["identified"]) == set(TRUE)


def test_a_prediction_holds_what_is_true(folder):
    out = folder / "prediction.json"
    done = run(
        "scaling.predict", f"--fit={folder / 'fit.json'}", "--at=N=3e9,D=2e11", f"--json={out}"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    true = TRUE["E"] + TRUE["A"] / 3e9 ** TRUE["alpha"] + TRUE["B"] / 2e11 ** TRUE["beta"]
    assert found["lower"] < true < found["upper"]
    assert found["lower"] < found["prediction"] < found["upper"]
    assert np.log(found["upper"] / found["lower"]) < 0.1
    assert found["plain_lower"] < found["plain_upper"]
    sizes, tokens = np.loadtxt(folder / "runs.csv", delimiter=",", skiprows=1).T[:2]
    assert found["ratio"] == pytest.approx(3e9 * 2e11 / (sizes * tokens).max())
    assert found["backtested_ratio"] > 5
    assert found["warning"] == ""
    assert "drift of the law" in found["why"]


def test_a_limit_at_its_bound_is_said_once_and_no_other_is(folder, tmp_path):
    sizes = np.geomspace(1e7, 1e9, 5)
    rows = [(n, d, (3e3 / n) ** 0.05 + (1e6 / d) ** 0.1) for n in sizes for d in 100 * sizes]
    lines = [f"{n},{d},{loss * (1 + 0.01 * (i % 3))}" for i, (n, d, loss) in enumerate(rows)]
    (tmp_path / "runs.csv").write_text("N,D,loss\n" + "\n".join(lines) + "\n")
    done = run("scaling.fit", f"--table={tmp_path / 'runs.csv'}", "--bootstrap=0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("E = 0 lies") == done.stdout.count("at_bound") == 1
    assert "at_bound" not in (folder / "fit.log").read_text()


def test_the_fit_keeps_its_backtest_and_says_it(folder):
    kept = json.loads((folder / "fit.json").read_text())["backtest"]
    assert kept["by"] == "6ND"
    assert len(kept["cutoff"]) == len(kept["predicted"]) == len(kept["row"]) > 0
    assert kept["sentence"] in (folder / "fit.log").read_text()


def test_a_fit_that_kept_no_backtest_gives_the_same_prediction(folder):
    values = json.loads((folder / "fit.json").read_text())
    del values["backtest"]
    (folder / "old.json").write_text(json.dumps(values))
    found = []
    for name in ("fit", "old"):
        fit, out = folder / f"{name}.json", folder / f"{name}-prediction.json"
        done = run("scaling.predict", f"--fit={fit}", "--at=N=3e10,D=2e12", f"--json={out}")
        assert done.returncode == 0, done.stderr
        assert "do not rely on this one" in done.stdout
        found.append(json.loads(out.read_text()))
    assert found[0]["lower"] == pytest.approx(found[1]["lower"])
    assert found[0]["backtested_ratio"] == found[1]["backtested_ratio"]
    assert found[0]["warning"]


def test_an_allocation_is_that_of_the_closed_form(folder):
    out = folder / "allocation.json"
    done = run("scaling.allocate", f"--fit={folder / 'fit.json'}", "--budget=1e21", f"--json={out}")
    assert done.returncode == 0, done.stderr
    found, p = json.loads(out.read_text()), json.loads((folder / "fit.json").read_text())
    a, b = p["parameters"]["alpha"], p["parameters"]["beta"]
    g = (a * p["parameters"]["A"] / (b * p["parameters"]["B"])) ** (1 / (a + b))
    np.testing.assert_allclose(found["N"], g * (1e21 / 6) ** (b / (a + b)), rtol=1e-5)
    np.testing.assert_allclose(found["N"] * found["D"], 1e21 / 6, rtol=1e-6)
    low, high = found["flat_region"]["sizes"]
    assert low < found["N"] < high


@pytest.mark.parametrize(
    ("module", "arguments", "sentence"),
    [
        ("scaling.fit", (), "no table: name one with --table=FILE"),
        ("scaling.fit", ("--table=RUNS", "--columns=N=size"), "size"),
        ("scaling.fit", ("--table=RUNS", "--law=nobody"), "nobody"),
        ("scaling.predict", ("--fit=none.json", "--at=N=1"), "--fit=none.json: No such file"),
        ("scaling.allocate", ("--fit=FIT",), "no budget: give --budget=OPERATIONS"),
    ],
)
def test_bad_input_is_one_sentence(folder, module, arguments, sentence):
    there = {"RUNS": str(folder / "runs.csv"), "FIT": str(folder / "fit.json")}
    named = [a.replace("RUNS", there["RUNS"]).replace("FIT", there["FIT"]) for a in arguments]
    done = run(module, *named)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
