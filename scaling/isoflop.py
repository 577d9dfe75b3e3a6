"""Approach 2: the best model size of each compute budget, and the power law of these sizes.

Runs of one budget C differ in N alone, D following from it. Loss over log N has a minimum, read off
a parabola (Hoffmann et al. 2022, arXiv:2203.15556, section 3.2) or an Akima spline (Porian et al.
2024, arXiv:2406.19146), and log N* is a line in log C. Nothing about the form of the
loss is assumed, and none of its parameters found. A parabola leans wherever the sides of the curve
differ, so that a wide or off-centre grid moves the minimum: diagnose names how far.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import Akima1DInterpolator
from scipy.stats import t as student

from configs.schema import InputError, require
from scaling.tables import Table

Method = Literal["parabola", "akima"]
SEED_NOISE = 0.005  # nats; seeds of one set-up range over .002 to .006
SAME_BUDGET = 0.1  # budgets whose logarithms differ by less are one
_DRAWS = 200  # of noise, for the standard deviation of a minimum
_FINE = 25  # points of the search between two of the data
_LEAST_STD = 1 / 3  # of the grid's spacing: no minimum is known better (Porian et al. 2024)


@dataclass(frozen=True)
class Minimum:
    """The best size of one budget."""

    C: float  # operations of training, geometric mean of the budget's runs
    N: float  # parameters at the minimum; NaN where there is none
    D: float  # tokens there
    loss: float  # of the curve at N
    log_std: float  # standard deviation of log N, from noise on the losses
    points: np.ndarray  # indices of the table's rows, by rising N
    why: str  # why there is no minimum; empty where there is one

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of N under the noise assumed."""
        return self.N * np.exp(-1.96 * self.log_std), self.N * np.exp(1.96 * self.log_std)


@dataclass(frozen=True)
class PowerLaw:
    """y = coefficient * C**exponent, a weighted line in logarithms."""

    exponent: float
    coefficient: float
    interval: tuple[float, float]  # 95 %, of the exponent
    covariance: np.ndarray  # [2, 2], of (log y at the mean log C, exponent)
    center: float  # that mean of log C
    degrees: int  # of freedom: budgets less 2

    def __call__(self, C: float) -> tuple[float, float, float]:
        """y at budget C, with the ends of its 95 % interval."""
        away = np.array([1.0, np.log(C) - self.center])
        half = _quantile(self.degrees) * np.sqrt(away @ self.covariance @ away)
        y = self.coefficient * C**self.exponent
        return float(y), float(y * np.exp(-half)), float(y * np.exp(half))


@dataclass(frozen=True)
class IsoFlop:
    """What approach 2 gives."""

    N: PowerLaw
    D: PowerLaw
    minima: tuple[Minimum, ...]  # those used
    left_out: tuple[Minimum, ...]  # budgets without a minimum
    method: Method


def fit(table: Table, method: Method = "akima", noise: float = SEED_NOISE) -> IsoFlop:
    """Minima of all budgets and their power laws N*(C) and D*(C), weighted by 1 / log_std**2.

    The table has N, loss and two of C, D (else C = 6 N D). `noise` is the standard deviation of a
    loss, in nats. Raises InputError where fewer than 2 budgets have an interior minimum.
    """
    found = minima(table, method, noise)
    used = tuple(m for m in found if not m.why)
    left_out = tuple(m for m in found if m.why)
    if len(used) < 2:
        why = "; ".join(m.why for m in left_out) or "all runs have one budget"
        raise InputError(
            f"{table.path}: approach 2 needs 2 budgets with an interior minimum and has "
            f"{len(used)}: {why}"
        )
    C = [m.C for m in used]
    std = [m.log_std for m in used]
    return IsoFlop(
        regress(C, [m.N for m in used], std),
        regress(C, [m.D for m in used], std),
        used,
        left_out,
        method,
    )


def compute(table: Table) -> np.ndarray:
    """Operations of training of each row: column C, or else 6 N D."""
    return table["C"] if "C" in table.columns else 6 * table["N"] * table["D"]


def budgets(table: Table, same: float = SAME_BUDGET, least: int = 3) -> list[np.ndarray]:
    """Indices of the rows of each budget with `least` sizes, by rising C, then N.

    A budget ends where the next larger log C is more than `same` away.
    """
    log_c = np.log(compute(table))
    order = np.argsort(log_c, kind="stable")
    groups = np.split(order, 1 + np.flatnonzero(np.diff(log_c[order]) > same))
    # A chain of small steps is a cloud of budgets, not one.
    groups = [g for g in groups if np.ptp(log_c[g]) <= 2 * same]
    groups = [g for g in groups if len(np.unique(table["N"][g])) >= least]
    return [g[np.argsort(table["N"][g], kind="stable")] for g in groups]


def minima(
    table: Table, method: Method = "akima", noise: float = SEED_NOISE
) -> tuple[Minimum, ...]:
    """The minimum of each budget, by rising C. Of runs of one N in a budget the best counts."""
    require(method in ("parabola", "akima"), f"method '{method}' is neither parabola nor akima")
    found = []
    for rows in budgets(table):
        best = _best_of_each_size(table, rows)
        x = np.log(table["N"][best])
        C = float(np.exp(np.log(compute(table)[rows]).mean()))
        found.append(_minimum(table, best, x, C, method, noise))
    return tuple(found)


def regress(C: ArrayLike, y: ArrayLike, log_std: ArrayLike | None = None) -> PowerLaw:
    """The line of log y over log C, weighted by 1 / log_std**2 (equal weights without).

    Its covariance follows from the scatter about the line; below 5 points, too few to show it, also
    from the standard deviations if these are larger. Raises InputError below 2 points.
    """
    u, v = np.log(np.asarray(C, np.float64)), np.log(np.asarray(y, np.float64))
    require(len(u) >= 2 and np.ptp(u) > 0, "a power law needs points at 2 different budgets")
    std = np.ones(len(u)) if log_std is None else np.asarray(log_std, np.float64)
    weights = std**-2.0
    center = float(np.average(u, weights=weights))
    spread = float(np.sum(weights * (u - center) ** 2))
    exponent = float(np.sum(weights * (u - center) * v) / spread)
    middle = float(np.average(v, weights=weights))
    degrees = len(u) - 2
    rest = v - middle - exponent * (u - center)
    scatter = float(np.sum(weights * rest**2)) / max(degrees, 1)
    scale = scatter if log_std is None or degrees >= 3 else max(1.0, scatter)
    covariance = scale * np.diag([1 / weights.sum(), 1 / spread])
    half = _quantile(degrees) * float(np.sqrt(covariance[1, 1]))
    return PowerLaw(
        exponent,
        float(np.exp(middle - exponent * center)),
        (exponent - half, exponent + half),
        covariance,
        center,
        degrees,
    )


def _quantile(degrees: int) -> float:
    """Of Student's t for 95 %; the normal one where only the stated deviations are known."""
    return float(student.ppf(0.975, degrees)) if degrees else 1.96


def _best_of_each_size(table: Table, rows: np.ndarray) -> np.ndarray:
    """The row of lowest loss for each N, by rising N."""
    best: dict[float, int] = {}
    for row in rows:
        size = float(table["N"][row])
        if size not in best or table["loss"][row] < table["loss"][best[size]]:
            best[size] = int(row)
    return np.array(list(best.values()))


def _minimum(
    table: Table, best: np.ndarray, x: np.ndarray, C: float, method: Method, noise: float
) -> Minimum:
    loss = table["loss"][best]
    nothing = (np.nan, np.nan, np.nan, np.nan, best)
    where = f"budget {C:.3g} ({table.where(best)})"
    # Draws of one fixed seed: the same table gives the same figures.
    draws = np.random.default_rng(0).normal(0, noise, (len(x), _DRAWS))
    at, low = _lowest(x, loss[:, None] + np.column_stack([np.zeros(len(x)), draws]), method)
    if not np.isfinite(at[0]):
        end = {0: "; the smallest model is the best", len(x) - 1: "; the largest model is the best"}
        why = f"{where}: no minimum inside the grid{end.get(int(np.argmin(loss)), '')}"
        return Minimum(C, *nothing, why)
    inside = np.isfinite(at[1:])
    if inside.mean() < 0.5:
        why = f"{where}: noise of {noise:g} nats moves the minimum out of the grid"
        return Minimum(C, *nothing, why)
    least = _LEAST_STD * np.ptp(x) / (len(x) - 1) if method == "akima" else 0.0
    std = max(float(np.std(at[1:][inside])), least) / inside.mean()
    tokens = table["D"][best] if "D" in table.columns else C / (6 * table["N"][best])
    log_d = float(np.interp(at[0], x, np.log(tokens)))
    return Minimum(C, float(np.exp(at[0])), float(np.exp(log_d)), float(low[0]), std, best, "")


def _lowest(x: np.ndarray, loss: np.ndarray, method: Method) -> tuple[np.ndarray, np.ndarray]:
    """Where each column of `loss` [points, curves] over x has its minimum, and its value there.

    NaN for curves that have none between the ends of x.
    """
    if method == "parabola":
        middle = x.mean()
        c0, c1, c2 = np.linalg.lstsq(np.vander(x - middle, 3, increasing=True), loss, rcond=None)[0]
        with np.errstate(divide="ignore", invalid="ignore"):
            at = middle - c1 / (2 * c2)
            low = c0 - c1**2 / (4 * c2)
        inside = (c2 > 0) & (at > x[0]) & (at < x[-1])
    else:
        # Of log loss, as Porian et al. have it: steep ends then bend the spline less.
        spline = Akima1DInterpolator(x, np.log(np.maximum(loss, 1e-9)), axis=0)
        fine = np.linspace(x[0], x[-1], _FINE * (len(x) - 1) + 1)
        values = np.exp(spline(fine))
        index = values.argmin(axis=0)
        at, low = fine[index], values.min(axis=0)
        inside = (index > 0) & (index < len(fine) - 1)
    return np.where(inside, at, np.nan), np.where(inside, low, np.nan)
