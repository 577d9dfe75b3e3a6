"""What a law would have said of its own table's larger runs, had it seen only the smaller ones.

A bootstrap asks what other runs of the same sizes would have given. It takes the law as true, and
so cannot see that the law bends away from the runs beyond its table. The table itself can show
this: hide the larger runs, fit the rest, predict what was hidden. Errors that keep one sign and
grow with the distance are drift, which is the law's and not the runs' (rolling-origin evaluation:
Tashman 2000, "Out-of-sample tests of forecasting accuracy").
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scaling.fit import Fit, solve
from scaling.laws_form import Columns, Law
from scaling.problem import Problem, build
from scaling.varpro import Criterion

RATIOS = (2.0, 5.0, 11.0)  # target / cutoff at which drift is reported
FAR = 30.0  # target / cutoff beyond which nothing is tested or promised
_MOST = 6  # cutoffs
_NEAR = 1.5  # targets nearer than this say nothing of extrapolation
_SPAN = 4.0  # largest / smallest compute of the rows that a law is fitted to, at least
_RIVALS = 3  # minima of the whole fit that each refit starts from


@dataclass(frozen=True)
class Backtest:
    """Predictions of later rows by fits to the rows up to a cutoff; one entry a prediction."""

    by: str  # what grows from cutoff to target, in words
    cutoff_n: np.ndarray  # of `by`: the largest among the rows that were fitted
    target_n: np.ndarray  # of `by`, of the row that was predicted
    row_n: np.ndarray  # its index in the fit's table
    predicted_n: np.ndarray
    observed_n: np.ndarray
    drift: Mapping[float, float]  # ratio target / cutoff: mean signed log error there
    sentence: str  # all this in words

    @property
    def ratio_n(self) -> np.ndarray:
        """How far beyond the rows that were fitted each target lay."""
        return self.target_n / self.cutoff_n

    @property
    def error_n(self) -> np.ndarray:
        """log(predicted / observed): positive where the law expected too high a value."""
        return np.log(self.predicted_n / self.observed_n)


def compute(law: Law, columns: Columns) -> tuple[str, np.ndarray]:
    """(what it is, its values): the one quantity by which rows of a law are smaller or larger.

    C where the law reads it, else 6 N D (Kaplan et al. 2020, arXiv:2001.08361, section 2.1), else
    the product of what the law reads. A law that reads a loss goes on as that falls.
    """
    if "C" in law.symbols:
        return "C", np.asarray(columns["C"], float)
    if {"N", "D"} <= set(law.symbols):
        return "6ND", 6.0 * np.asarray(columns["N"], float) * columns["D"]
    if tuple(law.symbols) == ("loss",):
        return "1 / loss", 1.0 / np.asarray(columns["loss"], float)
    logs = [np.log(columns[name]) for name in law.symbols]
    return " ".join(law.symbols), np.exp(np.sum(logs, axis=0))


def cutoffs(by_n: np.ndarray, points: int) -> np.ndarray:
    """Where to cut a table (k,), spread evenly over the logarithm of `by_n`.

    Each leaves at least `points` rows that span a factor of 4 to fit, and rows beyond to predict.
    Rows of one budget, which are within 5 % of each other, are not cut apart.
    """
    distinct = np.unique(by_n)
    distinct = np.unique(distinct[np.searchsorted(distinct, 1.05 * distinct, "right") - 1])
    rows = np.array([(by_n <= value).sum() for value in distinct])
    fit_for = distinct[
        (rows >= points) & (distinct >= _SPAN * distinct[0]) & (distinct <= distinct[-1] / _NEAR)
    ]
    if not fit_for.size:
        return fit_for
    wanted = np.linspace(np.log(fit_for[0]), np.log(fit_for[-1]), _MOST)
    nearest = np.abs(np.log(fit_for)[:, None] - wanted).argmin(0)
    return fit_for[np.unique(nearest)]


def refit(fit: Fit, rows: np.ndarray) -> dict[str, float] | None:
    """The fit's law and objective on some rows (bool mask), from the minima of the whole fit.

    None where the rows do not determine the parameters.
    """
    table = {name: column[rows] for name, column in fit.table.items()}
    problem = build(fit.law, table, fit.space, fit.fixed, fit.tied)
    starts = np.concatenate([problem.vector(m.parameters) for m in fit.minima[:_RIVALS]])
    starts = np.clip(starts, problem.lower_p, problem.upper_p)
    if not _determined(problem, starts[:1]):
        return None
    weights = np.tile(fit.weights[rows], (len(starts), 1))
    ends = solve(problem, Criterion(fit.loss, fit.delta), weights, starts)
    best = int(ends.objective_b.argmin())
    if not np.isfinite(ends.objective_b[best]):
        return None
    found = problem.parameters(ends.theta_bp[best : best + 1])
    return {name: float(value[0]) for name, value in found.items()}


def backtest(fit: Fit) -> Backtest:
    """The rolling-origin backtest of `fit` within its own table.

    At up to six cutoffs the same law is fitted by the same objective to the rows whose compute is
    at most the cutoff, and predicts the rows beyond, up to 30 times. Cutoffs with too few rows are
    left out; a table without any gives an empty backtest, whose sentence says so.
    """
    by, by_n = compute(fit.law, fit.table)
    least = 2 * len(fit.free) - 1 if len(fit.free) > 2 else len(fit.free) + 2
    found = [np.zeros((4, 0))]
    for cutoff in cutoffs(by_n, least):
        rows = by_n <= cutoff
        later = np.flatnonzero(~rows & (by_n <= FAR * cutoff))
        parameters = refit(fit, rows)
        if parameters is not None:
            place = {name: fit.table[name][later] for name in fit.law.symbols}
            predicted = fit.law.predict(parameters, place)
            good = np.isfinite(predicted) & (predicted > 0)
            cut = np.full(len(later), cutoff)
            found.append(np.stack([cut, by_n[later], later, predicted])[:, good])
    cutoff_n, target_n, row_n, predicted_n = np.concatenate(found, axis=1)
    row_n = row_n.astype(int)
    observed_n = fit.table[fit.law.observed][row_n]
    drift = _drift(cutoff_n, target_n / cutoff_n, np.log(predicted_n / observed_n))
    sentence = _sentence(fit.law.observed, by, cutoff_n, target_n, drift)
    return Backtest(by, cutoff_n, target_n, row_n, predicted_n, observed_n, drift, sentence)


def _determined(problem: Problem, theta_bp: np.ndarray) -> bool:
    """Whether the rows tell the parameters apart."""
    _, jacobian = problem.linearised(theta_bp)
    columns = jacobian[0][:, np.linalg.norm(jacobian[0], axis=0) > 0]
    sizes = np.linalg.svd(columns / np.linalg.norm(columns, axis=0), compute_uv=False)
    return bool(np.isfinite(sizes).all() and sizes[-1] > 1e-6 * sizes[0])


def _drift(cutoff_n: np.ndarray, ratio_n: np.ndarray, error_n: np.ndarray) -> dict[float, float]:
    """Mean error near each of RATIOS: of each cutoff first, so that none counts by its rows."""
    drift = {}
    for ratio in RATIOS:
        near = np.abs(np.log(ratio_n / ratio)) < 0.4
        means = [error_n[near & (cutoff_n == c)].mean() for c in np.unique(cutoff_n[near])]
        if means:
            drift[ratio] = float(np.mean(means))
    return drift


def _sentence(
    observed: str,
    by: str,
    cutoff_n: np.ndarray,
    target_n: np.ndarray,
    drift: Mapping[float, float],
) -> str:
    """The backtest in words."""
    if not cutoff_n.size:
        return (
            "no backtest: the table has too few rows at smaller compute to fit the law to them and "
            "predict the larger ones"
        )
    count = len(np.unique(cutoff_n))
    errors = [f"{abs(e):.2%} too {'high' if e > 0 else 'low'} at {r:g}x" for r, e in drift.items()]
    found = ", ".join(errors) if errors else "without rows near 2x, 5x or 11x"
    return (
        f"backtest: fitted up to {count} cutoff{'s' if count > 1 else ''} in {by}, the law "
        f"predicts the {observed} beyond them on average {found} "
        f"(at most {float((target_n / cutoff_n).max()):.3g}x)"
    )
