"""The command of approaches 1 and 2: budgets of a known law in, its power laws out."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
E, A, B, ALPHA, BETA = 1.7, 400.0, 1500.0, 0.34, 0.36
EXPONENT = BETA / (ALPHA + BETA)  # of N* in C: Hoffmann et al. 2022, equation 4
SCALE = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA))


def loss(n, d):
    return E + A / n**ALPHA + B / d**BETA


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "scaling.frontier", *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


def best(budget):
    return SCALE * (budget / 6) ** EXPONENT


@pytest.mark.parametrize("method", ["akima", "parabola"])
def test_minima_of_budgets_are_those_of_the_law(method, tmp_path):
    rows = ["N,D,loss"]
    for budget in (1e18, 1e19, 1e20, 1e21):
        for n in best(budget) * np.geomspace(1 / 3, 3, 9):
            d = budget / 6 / n
            rows.append(f"{n},{d},{loss(n, d)}")
    table, out = tmp_path / "runs.csv", tmp_path / "out.json"
    table.write_text("\n".join(rows) + "\n")
    done = run(f"--table={table}", f"--method={method}", "--at=1e22", f"--json={out}")
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert [len(found[key]) for key in ("minima", "left_out")] == [4, 0]
    assert found["N"]["exponent"] == pytest.approx(EXPONENT, abs=0.003)
    assert found["N"]["exponent"] + found["D"]["exponent"] == pytest.approx(1, abs=1e-3)
    value, low, high = found["at"][0]["N"]
    assert low < value < high
    assert value == pytest.approx(best(1e22), rel=0.03)


def test_the_envelope_of_curves_is_that_of_the_law(tmp_path):
    sizes, tokens = np.geomspace(1e7, 1e9, 13), np.geomspace(1e8, 1e11, 60)
    points = [f"{n:.6g},{n},{d},{loss(n, d)}" for n in sizes for d in tokens]
    rows = ["run,N,D,loss", *points]
    table, out = tmp_path / "curves.csv", tmp_path / "out.json"
    table.write_text("\n".join(rows) + "\n")
    columns = "N=N,D=D,C=6*N*D,loss=loss,run=run"
    done = run(
        f"--table={table}",
        "--method=envelope",
        f"--columns={columns}",
        "--at=1e20",
        f"--json={out}",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["N"]["exponent"] == pytest.approx(EXPONENT, abs=0.02)
    assert found["at"][0]["N"][0] == pytest.approx(best(1e20), rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "no table"),
        (["--table=none.csv"], "none.csv"),
        (["--table=none.csv", "--at=soon"], "--at=soon holds what is no number"),
    ],
)
def test_bad_input_is_one_sentence(arguments, says):
    done = run(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_one_budget_is_refused(tmp_path):
    table = tmp_path / "runs.csv"
    sizes = best(1e19) * np.geomspace(1 / 3, 3, 9)
    rows = [f"{n},{1e19 / 6 / n},{loss(n, 1e19 / 6 / n)}" for n in sizes]
    table.write_text("N,D,loss\n" + "\n".join(rows) + "\n")
    done = run(f"--table={table}")
    assert done.returncode == 2
    assert "budget" in done.stderr
