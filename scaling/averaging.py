"""An average over the forms that a table does not rule out: the law times a slow departure from it.

Every published law is a few terms that fit well over the rows at hand, and was off by some percent
far beyond them. What else could be true is written as

    log y = log law(x; parameters) + g(x) + noise,

where g is unknown and slow. It is a sum of one function for each size that the law reads, and one
of their geometric mean, over log10 of the size; each has as second derivative white noise of size
tau (Wahba 1978, "Improper priors, spline smoothing and the problem of guarding against model
errors in regression"; for the discrepancy of a model: Kennedy and O'Hagan 2001, "Bayesian
calibration of computer models"). With tau = 0 this is the law; with a large tau it is a local power
law through the largest rows. Terms with a slow exponent, logarithms, breaks and drifting exponents
lie between. The uncertainty of g grows with the 3/2 power of the logarithm of the distance.

The law is linear in its parameters near the fit, so that everything is a linear model with normal
priors; tau and the noise are averaged over, weighted by how likely they make the rows.

Legend: n row, m target, p parameter, k knot of g, c combination of noise and tau.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from scaling.fit import Fit
from scaling.laws_form import Columns
from scaling.problem import build

# How fast laws depart from the truth, per decade^(3/2). With this and the constants of
# scaling/calibration.py, forecasts of the largest runs of public sweeps have standardised errors of
# about unit variance.
TYPICAL_TAU = 0.025
_SURE_TAU = 0.5  # standard deviation of log tau below it; above, the tail is Student's
TYPICAL_NOISE = 0.003  # of a run, relative: seeds alone range over .1 to .3 %
_SURE_NOISE = 1.0
_LOOSE = (
    10.0  # prior of the law's parameters, in the norm of what they do to the rows: next to none
)
_KNOTS = 0.25  # decades between changes of g's slope
_OUTLIER = 2.5  # robust standard deviations from which on a row counts less
_NOISE_C, _TAU_C = (
    grid.ravel()
    for grid in np.meshgrid(
        TYPICAL_NOISE * np.exp(np.linspace(-2.0, 2.5, 7)),
        TYPICAL_TAU * np.exp(np.linspace(-1.0, 2.0, 9)),
    )
)


@dataclass(frozen=True)
class Average:
    """Predictions of log y for single runs (m,), and their variance by cause."""

    mean_m: np.ndarray
    parameters_m: np.ndarray  # variance that would be left if the law were true
    drift_m: np.ndarray  # what the departure from the law adds
    scatter_m: np.ndarray  # of single runs

    @property
    def variance_m(self) -> np.ndarray:
        """All of it."""
        return self.parameters_m + self.drift_m + self.scatter_m


def average(fit: Fit, parameters: Mapping[str, float], rows: np.ndarray, at: Columns) -> Average:
    """Predict single runs at `at` (columns of targets) from some rows (bool mask) of a fit's table.

    `parameters` are the law's, fitted to these rows.
    """
    law = fit.law
    n = int(rows.sum())
    table = {name: fit.table[name][rows] for name in law.symbols}
    both = {name: np.concatenate([table[name], at[name]]) for name in law.symbols}
    targets = len(next(iter(both.values()))) - n
    observed = np.concatenate([fit.table[law.observed][rows], np.ones(targets)])
    problem = build(law, {**both, law.observed: observed}, "log", fit.fixed, fit.tied)
    with np.errstate(all="ignore"):  # a target where the law has no value gets NaN
        departure, slopes = problem.linearised(problem.vector(parameters))
    residual_n = -departure[0, :n]
    slopes = slopes[0] * (_LOOSE / np.maximum(np.linalg.norm(slopes[0, :n], axis=0), 1e-300))
    width = max(1.4826 * float(np.median(np.abs(residual_n))), 1e-5)
    weights_n = fit.weights[rows] / fit.weights[rows].mean()
    weights_n = weights_n / np.maximum(np.abs(residual_n) / (_OUTLIER * width), 1.0)
    knots, beyond_m = _slow(table, at)
    found = _posterior(slopes, knots, beyond_m, residual_n, weights_n)
    return replace(found, mean_m=found.mean_m + departure[0, n:])


def _slow(table: Columns, at: Columns) -> tuple[np.ndarray, np.ndarray]:
    """(g's knots at rows and targets (n + m, k), its variance from beyond the rows (m,)); tau = 1.

    A knot is a change of slope, worth (x - knot)_+ times the root of the knots' distance.
    """
    sizes = [(np.log10(table[name]), np.log10(at[name])) for name in table]
    sizes = [(rows, targets) for rows, targets in sizes if np.ptp(rows) > 0]
    if len(sizes) > 1:
        sizes.append(tuple(np.mean(each, axis=0) for each in zip(*sizes, strict=True)))
    knots, beyond_m = [], np.asarray(0.0)
    for rows, targets in sizes:
        low, high = float(rows.min()), float(rows.max())
        reach = np.concatenate([rows, targets])[:, None] - np.arange(low, high, _KNOTS)
        knots.append(np.maximum(reach, 0.0) * np.sqrt(_KNOTS))
        beyond_m = beyond_m + np.maximum(np.maximum(targets - high, low - targets), 0.0) ** 3 / 3
    return np.concatenate(knots, axis=1), beyond_m


def _posterior(
    slopes: np.ndarray,
    knots: np.ndarray,
    beyond_m: np.ndarray,
    residual_n: np.ndarray,
    weights_n: np.ndarray,
) -> Average:
    """The linear model's answer, averaged over the grid of noise and tau.

    slopes (n + m, p) and knots (n + m, k) have coefficients with standard normal priors, those of
    the knots times tau; the residuals' noise has the variance noise**2 / weight.
    """
    n, p = len(residual_n), slopes.shape[1]
    features = np.concatenate([slopes, knots], axis=1)
    rows, targets = features[:n], features[n:]
    gram = rows.T @ (rows * weights_n[:, None])
    moment = rows.T @ (weights_n * residual_n)
    size_cj = np.ones((len(_TAU_C), features.shape[1]))
    size_cj[:, p:] = _TAU_C[:, None]
    inner = size_cj[:, :, None] * size_cj[:, None, :] * gram / _NOISE_C[:, None, None] ** 2
    factor = np.linalg.cholesky(inner + np.eye(features.shape[1]))
    right_cj = size_cj * moment / _NOISE_C[:, None] ** 2
    whitened_cj = np.linalg.solve(factor, right_cj[:, :, None])[:, :, 0]
    reached = np.linalg.solve(factor, size_cj[:, :, None] * targets.T)
    mean_cm = np.einsum("cjm,cj->cm", reached, whitened_cj)
    variance_cm = (reached**2).sum(1) + (_TAU_C**2)[:, None] * beyond_m
    log_c = (
        -(weights_n * residual_n**2).sum() / (2 * _NOISE_C**2)
        + (whitened_cj**2).sum(1) / 2
        - np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(1)
        - n * np.log(_NOISE_C)
        + _log_prior()
    )
    weight_c = np.exp(log_c - log_c.max())
    weight_c /= weight_c.sum()
    mean_m = weight_c @ mean_cm
    scatter = float(weight_c @ _NOISE_C**2)
    within_m = weight_c @ (variance_cm + mean_cm**2) - mean_m**2
    law_only = np.linalg.inv(gram[:p, :p] / scatter + np.eye(p))
    parameters_m = np.minimum(np.einsum("mi,ij,mj->m", slopes[n:], law_only, slopes[n:]), within_m)
    scatter_m = np.full(len(mean_m), scatter)
    return Average(mean_m, parameters_m, within_m - parameters_m, scatter_m)


def _log_prior() -> np.ndarray:
    """Of each combination of noise and tau."""
    tau = np.log(_TAU_C / TYPICAL_TAU) / _SURE_TAU
    tail = np.where(tau < 0, -(tau**2) / 2, -1.5 * np.log1p(tau**2 / 2))
    return tail - (np.log(_NOISE_C / TYPICAL_NOISE) / _SURE_NOISE) ** 2 / 2
