"""What the report's figures show, as plain numbers: the same for the page and for the plots."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from configs.schema import InputError
from scaling import costs, isoflop, tables
from scaling.allocate import Function, allocate
from scaling.backtest import FAR, Backtest
from scaling.calibration import forecasts
from scaling.fit import Fit
from scaling.uncertainty import Bootstrap, bootstrap

_LINES = 8  # sizes that a line is drawn for, where the table has more
_FEW = 10  # sizes that are all drawn
_POINTS = 40  # of a line
_BUDGETS = 61  # of the frontier
_EVERY = 5  # of these, those whose reasons are told
_BEFORE, _BEYOND = 3.0, 300.0  # times the smallest and the largest budget of the rows
_DRAWS = 300  # resamples that a band is taken from: their quantiles are sure to a few percent


def digits(values: Any, places: int = 6) -> list[float | None]:
    """Numbers to so many significant digits, None for those that are not finite."""
    found = np.asarray(values, float).ravel().tolist()
    return [float(f"{v:.{places}g}") if np.isfinite(v) else None for v in found]


def rows(fit: Fit) -> dict[str, Any]:
    """The fitted rows with what the law says of them; residuals are log(observed / predicted)."""
    predicted = fit.law.predict(fit.parameters, fit.table)
    observed = np.asarray(fit.table[fit.law.observed], float)
    columns = {name: digits(values, 7) for name, values in fit.table.items()}
    if {"N", "D"} <= set(fit.law.symbols) and "C" not in columns:
        columns["C"] = digits(6 * fit.table["N"] * fit.table["D"], 7)
    return {
        "columns": columns,
        "predicted": digits(predicted, 7),
        "residual": digits(np.log(observed / predicted), 4),
    }


def lines(fit: Fit, draws: Bootstrap | None) -> dict[str, Any]:
    """The law over one of its columns, a line for each size of the other, with bands.

    A law of more than two columns has no such lines.
    """
    names = list(fit.law.symbols)
    x = next((name for name in ("D", "C", "S") if name in names), names[0])
    others = [name for name in names if name != x]
    found: dict[str, Any] = {"x": x, "by": others[0] if others else "", "lines": []}
    if len(others) > 1:
        return found
    ends = np.log(np.array([fit.table[x].min(), fit.table[x].max()]))
    grid = np.exp(np.linspace(ends[0] - 0.3, ends[1] + 0.7, _POINTS))
    for value in _sizes(fit.table[others[0]]) if others else [1.0]:
        at = {x: grid} | {name: np.full(_POINTS, value) for name in others}
        line = {"value": value, "x": digits(grid), "y": digits(fit.law.predict(fit.parameters, at))}
        found["lines"].append(line | _band(fit, draws, at))
    return found


def _sizes(values: np.ndarray) -> list[float]:
    """The distinct values, or some of them, evenly over their logarithms."""
    distinct = np.unique(np.round(np.log(values), 2), return_index=True)[1]
    found = np.sort(values[distinct])
    if len(found) > _FEW:
        wanted = np.linspace(np.log(found[0]), np.log(found[-1]), _LINES)
        near = np.abs(np.log(found)[:, None] - wanted).argmin(0)
        found = found[np.unique(near)]
    return [float(v) for v in found]


def _band(fit: Fit, draws: Bootstrap | None, at: Mapping[str, np.ndarray]) -> dict[str, Any]:
    if draws is None:
        return {}
    some = {name: values[:_DRAWS, None] for name, values in draws.draws.items()}
    place = {name: values[None, :] for name, values in at.items()}
    tails = [50 * (1 - draws.level), 50 * (1 + draws.level)]
    low, high = np.percentile(fit.law.predict(some, place), tails, axis=0)
    return {"low": digits(low), "high": digits(high)}


def parabolas(fit: Fit) -> dict[str, Any] | None:
    """The isoFLOP curves of the rows and their minima, where the rows have budgets (C = 6 N D)."""
    if fit.law.observed != "loss" or not {"N", "D"} <= set(fit.table):
        return None
    table = tables.from_columns({name: fit.table[name] for name in ("N", "D", "loss")})
    log_c = np.log(isoflop.compute(table))
    minima = isoflop.minima(table, "parabola")
    if len(minima) < 2 or sum(len(m.points) for m in minima) < len(table) / 2:
        return None
    within = np.median([np.ptp(log_c[m.points]) for m in minima])
    if within > 0.1 * np.median(np.diff([np.log(m.C) for m in minima])):
        return None  # a cloud of runs, and no budgets that somebody chose
    budgets = [_budget(table, minimum) for minimum in minima]
    sound = [m for m in minima if not m.why]
    powers: dict[str, Any] = {}
    if len(sound) > 1:
        C, std = [m.C for m in sound], [m.log_std for m in sound]
        for name in ("N", "D"):
            line = isoflop.regress(C, [getattr(m, name) for m in sound], std)
            powers[name] = {
                "exponent": line.exponent,
                "coefficient": line.coefficient,
                "interval": list(line.interval),
            }
    return {"budgets": budgets, "powers": powers}


def _budget(table: tables.Table, minimum: isoflop.Minimum) -> dict[str, Any]:
    """One budget: its runs, the parabola through them, the minimum or why there is none."""
    sizes, loss = table["N"][minimum.points], table["loss"][minimum.points]
    x = np.log(sizes)
    curve = np.polynomial.Polynomial.fit(x, loss, 2)
    grid = np.linspace(x[0], x[-1], _POINTS)
    found = {
        "C": float(f"{minimum.C:.6g}"),
        "points": {"N": digits(sizes), "loss": digits(loss)},
        "curve": {"N": digits(np.exp(grid)), "loss": digits(curve(grid))},
        "why": minimum.why,
    }
    if not minimum.why:
        found["minimum"] = dict(
            zip(("N", "D", "loss"), digits([minimum.N, minimum.D, minimum.loss]), strict=True)
        ) | {"interval": digits(minimum.interval)}
    return found


def frontier(
    fit: Fit, draws: Bootstrap | None, level: float, tested: Backtest
) -> dict[str, Any] | None:
    """The best N and D of each budget of 6 N D operations, and the forecast of the loss there.

    None for a law that is not of N and D alone; a sentence in "why" where it has no best division.
    """
    if set(fit.law.symbols) != {"N", "D"} or fit.law.observed != "loss":
        return None
    compute = 6 * fit.table["N"] * fit.table["D"]
    budgets = np.geomspace(compute.min() / _BEFORE, compute.max() * _BEYOND, _BUDGETS)
    loss = function(fit)
    draws = bootstrap(fit, level=level) if draws is None else draws
    try:
        best = [allocate(loss, costs.training_flops, float(C)) for C in budgets]
        places = [{"N": b.N, "D": b.D} for b in best]
        seen = forecasts(fit, places, level, draws=draws, tested=tested)
    except InputError as error:
        return {"why": str(error)}
    found: dict[str, Any] = {
        "why": "",
        "level": level,
        "rows": digits([compute.min(), compute.max()]),
        "C": digits(budgets, 8),
        "N": digits([b.N for b in best], 8),
        "D": digits([b.D for b in best], 8),
        "loss": digits([b.loss for b in best], 8),
        "reasons": [
            {"C": float(f"{C:.3g}"), "why": f.why}
            for C, f in zip(budgets[::_EVERY], seen[::_EVERY], strict=True)
        ],
        "warnings": _warnings(seen[0].backtested_ratio),
    }
    for name in ("point", "lower", "upper"):
        found[name] = digits([getattr(f, name) for f in seen], 8)
    return found | _size_band(fit, draws, budgets)


def _warnings(reach: float) -> list[dict[str, Any]]:
    """What to say of a budget so many times the largest row's, as scaling.calibration does."""
    tested = f"The backtest reaches {reach:.3g} times" if reach > 1 else "There is no backtest"
    beyond = (
        f"Beyond {FAR:g} times the largest row's compute no interval has been checked: do not rely "
        "on this one; run something between first."
    )
    return [
        {"above": FAR, "text": beyond},
        {
            "above": max(reach, 1.0),
            "text": f"{tested}: the interval's growth from there on is assumed, not tested.",
        },
    ]


def function(fit: Fit) -> Function:
    """The fitted law as loss(N, D)."""

    def loss(n: np.ndarray, d: np.ndarray) -> np.ndarray:
        return fit.law.predict(fit.parameters, {"N": n, "D": d})

    return loss


def _size_band(fit: Fit, draws: Bootstrap | None, budgets: np.ndarray) -> dict[str, Any]:
    """Where resamples put the best sizes, by the closed form of Hoffmann et al. 2022, equation 4.

    N* = G (C / 6)^(beta / (alpha + beta)), G = (alpha A / (beta B))^(1 / (alpha + beta)).
    """
    if draws is None or fit.law.name != "chinchilla":
        return {}
    d = {name: values[:_DRAWS, None] for name, values in draws.draws.items()}
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample may have lost a term
        both = d["alpha"] + d["beta"]
        size = (d["alpha"] * d["A"] / (d["beta"] * d["B"])) ** (1 / both)
        size = size * (budgets[None, :] / 6) ** (d["beta"] / both)
    size = size[np.isfinite(size).all(1) & (size > 0).all(1)]
    if len(size) < _DRAWS / 10:
        return {}
    tails = [50 * (1 - draws.level), 50 * (1 + draws.level)]
    low, high = np.percentile(size, tails, axis=0)
    return {
        "N_low": digits(low),
        "N_high": digits(high),
        "D_low": digits(budgets / 6 / high),
        "D_high": digits(budgets / 6 / low),
    }


def backtested(tested: Backtest) -> dict[str, Any]:
    """Errors of predictions within the table, in logarithms: positive where too high."""
    return {
        "by": tested.by,
        "sentence": tested.sentence,
        "ratio": digits(tested.ratio_n),
        "error": digits(tested.error_n, 4),
        "cutoff": digits(tested.cutoff_n),
        "predicted": digits(tested.predicted_n),
        "observed": digits(tested.observed_n),
        "drift": sorted([float(ratio), float(error)] for ratio, error in tested.drift.items()),
    }
