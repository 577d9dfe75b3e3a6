"""Which run to make next: the one that would narrow the prediction at a place the most.

Near its minimum a fit is a linear regression on the derivatives J (rows, parameters) of the law by
its parameters: Var(prediction) = s^2 g (J' J)^-1 g' with g the derivatives at the place. A row j
more lowers it by s^2 (g M j)^2 / (1 + j M j), M = (J' J)^-1 (Sherman and Morrison 1950). To choose
the row of largest decrease is a c-optimal design (Elfving 1952, "Optimum allocation in linear
regression theory"). The losses to come need not be known for it.

That is the part of the interval that the parameters leave. The rest, how far the law may drift from
the truth beyond its rows, a run shortens by lying nearer to the place: so the best by the formula,
of several sizes, are compared by the whole interval, forecast anew with the run at the loss that
the law expects of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from configs.schema import require
from scaling.calibration import Forecast, forecast
from scaling.fit import Fit
from scaling.fit import fit as refit
from scaling.problem import build
from scaling.uncertainty import bootstrap

_BINS_A_DECADE = 2  # of N: the best of each is compared by its whole interval
_COMPARED = 12
_RIDGE = 1e-12  # of the largest eigenvalue: what the rows do not determine stays finite


@dataclass(frozen=True)
class Candidate:
    """A run that could be made, and the width of the interval it would leave.

    `width` is the standard error of the law's prediction afterwards as a share of the one before,
    `interval` the width of the whole forecast interval as a share likewise; NaN: not forecast.
    """

    N: float
    D: float
    flops: float
    width: float
    interval: float = math.nan

    @property
    def gain_per_cost(self) -> float:
        """Share of the interval taken away, per operation."""
        return (1 - self.interval) / self.flops


def next_runs(
    fit: Fit, at: dict[str, float], budget: float, before: Forecast
) -> tuple[Candidate, ...]:
    """The runs worth comparing, by the interval they would leave, the narrowest first.

    `before` is the forecast at `at` without any of them. Raises InputError as `candidates` does.
    """
    best: dict[tuple[float, int], Candidate] = {}
    for each in candidates(fit, at, budget):  # by rising width
        size = int(_BINS_A_DECADE * math.log10(each.N))
        best.setdefault((round(each.flops / budget, 3), size), each)
    kept = sorted(best.values(), key=lambda each: each.width)[:_COMPARED]
    width = math.log(before.upper / before.lower)
    found = [replace(each, interval=_after(fit, at, each, before.level) / width) for each in kept]
    return tuple(sorted(found, key=lambda each: each.interval))


def _after(fit: Fit, at: dict[str, float], run: Candidate, level: float) -> float:
    """Width of the forecast's logarithm with the run among the rows."""
    loss = float(fit.law.predict(fit.parameters, {"N": run.N, "D": run.D}))
    new = {"N": run.N, "D": run.D, fit.law.observed: loss}
    table = {name: np.append(values, new[name]) for name, values in fit.table.items()}
    weights = np.append(fit.weights, np.median(fit.weights))
    again = refit(
        fit.law, table, fit.loss, fit.delta, fit.space, weights, fit.fixed, fit.tied, fit.mask
    )
    draws = bootstrap(again, 20)  # of which the forecast's interval makes no use
    said = forecast(again, at, level, draws=draws)
    return math.log(said.upper / said.lower)


def candidates(
    fit: Fit, at: dict[str, float], budget: float, shares: Sequence[float] = (1.0, 0.3, 0.1)
) -> tuple[Candidate, ...]:
    """Runs of 6ND up to `budget` operations, the one that narrows the prediction most first.

    N goes over the range of the table's sizes and somewhat beyond, D follows from each of `shares`
    of the budget; places more than 3 times outside the range of D / N that the table has are left
    out. Raises InputError where no place is left.
    """
    require(0 < budget < np.inf, f"--next_budget={budget:g} must be positive")
    N, D = np.asarray(fit.table["N"]), np.asarray(fit.table["D"])
    sizes = np.geomspace(N.min() / 2, N.max() * 4, 41)
    n, share = (grid.ravel() for grid in np.meshgrid(sizes, np.array(shares)))
    d = share * budget / (6 * n)
    ratio = D / N
    usable = (d / n >= ratio.min() / 3) & (d / n <= ratio.max() * 3)
    require(
        bool(usable.any()),
        f"--next_budget={budget:.3g} pays for no run like those of the table (D / N from "
        f"{ratio.min():.3g} to {ratio.max():.3g}): give another budget",
    )
    n, d = n[usable], d[usable]
    width = widths(fit, at, n, d)
    found = [
        Candidate(float(a), float(b), float(6 * a * b), float(w))
        for a, b, w in zip(n, d, width, strict=True)
    ]
    return tuple(sorted(found, key=lambda each: each.width))


def widths(fit: Fit, at: dict[str, float], N: np.ndarray, D: np.ndarray) -> np.ndarray:
    """Standard error of the law at `at` after a row at each (N, D), as a share of that before."""
    rows = {"N": np.append(N, at["N"]), "D": np.append(D, at["D"])}
    everything = {
        name: np.concatenate([np.asarray(fit.table[name]), rows[name]]) for name in ("N", "D")
    }
    ones = np.ones(len(everything["N"]))  # what is observed drops out of the derivatives
    problem = build(fit.law, {**everything, fit.law.observed: ones}, fit.space, fit.fixed, fit.tied)
    _, jacobian = problem.linearised(problem.vector(fit.parameters))
    rows_np = jacobian[0]
    known, new, goal = rows_np[: fit.n], rows_np[fit.n : -1], rows_np[-1]
    information = known.T @ (known * fit.weights[:, None])
    information += _RIDGE * np.linalg.norm(information, 2) * np.eye(len(information))
    inverse = np.linalg.inv(information)
    before = goal @ inverse @ goal
    across = new @ inverse @ goal
    own = np.einsum("np,pq,nq->n", new, inverse, new)
    return np.sqrt(np.maximum(1 - across**2 / (1 + own) / before, 0.0))
