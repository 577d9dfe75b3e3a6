"""Loss curves for the report, of run directories or of a table of points of runs."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from configs.schema import require
from scaling import tables
from scaling.report.figures import digits

_RUNS = 100  # drawn at most
_POINTS = 12_000  # of all curves together, which keeps the page small
_MOST, _LEAST = 150, 20  # points of one curve


def of_runs(pattern: str) -> list[dict[str, Any]]:
    """A curve for each run directory (docs/run_directory.md) that a glob finds.

    Training losses are means over stretches that are even in the logarithm of tokens; evaluations
    are given one by one. Raises InputError where there is no run, or one without a loss.
    """
    anchor = Path(pattern).anchor
    found = sorted(Path(anchor or ".").glob(pattern[len(anchor) :]) if pattern != anchor else [])
    places = [place for place in found if (place / "metrics.jsonl").is_file()]
    require(bool(places), f"--runs={pattern}: no run directory (one with metrics.jsonl) is there")
    chosen = _some(places)
    return [_of_run(place, len(chosen)) for place in chosen]


def of_table(path: str, columns: str) -> list[dict[str, Any]]:
    """A curve for each run of a table, from its columns D and loss, and N or C where mapped.

    Raises InputError where the table has no such columns, or no run with two points.
    """
    table = tables.read(path, columns, last=False)
    tokens, loss = table["D"], table["loss"]
    groups: dict[str, list[int]] = {}
    for index, run in enumerate(table.runs):
        groups.setdefault(run, []).append(index)
    several = {run: rows for run, rows in groups.items() if len(rows) > 1}
    require(bool(several), f"{path}: no run has two points: map the run's name, run=COLUMN")
    curves = []
    for run in _some(sorted(several)):
        at = np.array(several[run])[np.argsort(tokens[several[run]], kind="stable")]
        N = float(table["N"][at[0]]) if "N" in table.columns else math.nan
        flops = table["C"][at] if "C" in table.columns else 6 * N * tokens[at]
        curves.append(_curve(run, N, _thin(tokens[at], flops, loss[at], len(several)), []))
    return curves


def _some(several: list) -> list:
    """All of them, or some, evenly."""
    if len(several) <= _RUNS:
        return several
    return [several[i] for i in np.linspace(0, len(several) - 1, _RUNS).astype(int)]


def _of_run(place: Path, runs: int) -> dict[str, Any]:
    train: list[list[float]] = []
    evaluations: list[list[float]] = []
    for row in _rows(place / "metrics.jsonl"):
        known = [row.get(name) for name in ("tokens", "flops", "loss")]
        point = [float(v) for v in known if isinstance(v, int | float) and 0 < v < math.inf]
        if len(point) < len(known):
            continue  # diverged, or an event
        if row.get("kind") == "train":
            train.append(point)
        elif row.get("kind") == "eval":
            evaluations.append(point)
    require(bool(train or evaluations), f"{place}: metrics.jsonl has no row with a loss")
    points = np.array(train or evaluations, float)
    thin = _thin(points[:, 0], points[:, 1], points[:, 2], runs)
    return _curve(place.name, _size(place), thin, evaluations)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue  # cut short by a crash, as docs/run_directory.md allows
            if isinstance(row, dict):
                yield row


def _size(place: Path) -> float:
    """Parameters of the run, NaN where run.json does not say."""
    try:
        return float(json.loads((place / "run.json").read_text())["parameters"]["total"])
    except (OSError, ValueError, KeyError, TypeError):
        return math.nan


def _thin(tokens: np.ndarray, flops: np.ndarray, loss: np.ndarray, runs: int) -> np.ndarray:
    """Means [3, points] over stretches of tokens that are even in their logarithm."""
    most = int(np.clip(_POINTS / runs, _LEAST, _MOST))
    points = np.stack([tokens, flops, loss])
    if len(tokens) <= most:
        return points
    log = np.log(tokens)
    place = ((log - log[0]) / max(log[-1] - log[0], 1e-9) * most).astype(int)
    place = np.minimum(place, most - 1)  # the last point is no stretch of its own
    return np.stack([points[:, place == p].mean(1) for p in np.unique(place)], 1)


def _curve(run: str, N: float, points: np.ndarray, evaluations: list[list[float]]) -> dict:
    tokens, flops, loss = points
    seen = np.array(evaluations, float).reshape(-1, 3).T
    return {
        "run": run,
        "N": digits([N])[0],
        "tokens": digits(tokens),
        "flops": digits(flops),
        "loss": digits(loss),
        "evaluations": dict(zip(("tokens", "flops", "loss"), map(digits, seen), strict=True)),
    }
