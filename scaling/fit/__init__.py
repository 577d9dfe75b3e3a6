"""Fitting a law to a table of runs: the best parameters, certified, and their rivals."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np

from configs.schema import require
from scaling.laws_form import Columns, Law
from scaling.problem import Problem, build
from scaling.varpro import Criterion, Solution, minimise

Objective = Literal["huber", "lad", "squared"]
Space = Literal["log", "linear"]
_POLISHED = 8  # of the starts, those that are followed to their minimum
_GRID = 150  # starts at most
_CERTAIN = 1e-6  # a gradient below this share is none


@dataclass(frozen=True)
class Minimum:
    """A local minimum of the objective."""

    objective: float
    parameters: Mapping[str, float]
    starts: int  # how many of the starts that were followed ended here


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A law's parameters from a table, with everything needed to judge and repeat the fit."""

    law: Law
    parameters: Mapping[str, float]
    objective: float  # the sum over rows, never their mean
    gradient_norm: float  # projected, as a share of what the rows contribute; 0 at a minimum
    minima: tuple[Minimum, ...]  # the best first, then its rivals
    n: int  # rows
    starts: int  # followed to a minimum
    agreeing: int  # of them, those that ended at the best one
    loss: Objective
    delta: float
    space: Space
    mask: str  # which rows of what, in words
    fixed: Mapping[str, float]
    tied: Mapping[str, str]
    flags: Mapping[str, str]  # what is wrong with it: name, sentence
    table: Columns
    weights: np.ndarray

    @property
    def free(self) -> tuple[str, ...]:
        """Names of the parameters that were fitted."""
        names = (parameter.name for parameter in self.law.parameters)
        return tuple(name for name in names if name not in self.fixed and name not in self.tied)


def fit(
    law: Law,
    table: Columns,
    objective: Objective = "huber",
    delta: float = 1e-3,
    space: Space = "log",
    weights: np.ndarray | None = None,
    fixed: Mapping[str, float] | None = None,
    tied: Mapping[str, str] | None = None,
    mask: str = "all rows",
) -> Fit:
    """Fit `law` to the columns of `table`.

    objective is summed over rows of the residual r = model - observed, each times its weight:
    "huber" r**2 / 2 up to `delta` and delta * (|r| - delta / 2) beyond (Huber 1964, "Robust
    estimation of a location parameter"), "lad" |r|, "squared" r**2; in space "log" r is the
    difference of natural logarithms. `fixed` holds parameters at given values; `tied` gives
    {parameter: the one whose value it takes}; `mask` says in words which rows the table holds. Rows
    with known errors take the weights 1 / error**2.

    Raises InputError for input no answer should be drawn from: fewer distinct points than
    parameters plus one, columns that move together, a value that is no positive number.
    """
    require(objective in ("huber", "lad", "squared"), f"objective={objective} is not known")
    require(space in ("log", "linear"), f"space={space} is neither log nor linear")
    require(delta > 0, f"delta={delta:g} must be positive")
    problem = build(law, table, space, fixed or {}, tied or {})
    n = len(problem.target_n)
    weights = np.ones(n) if weights is None else np.asarray(weights, float)
    _check(problem, weights)
    ends = _search(problem, Criterion(objective, delta), weights)
    least = ends.objective_b <= ends.objective_b.min() * (1 + 1e-9)  # equal but for rounding
    best = int(np.argmin(np.where(least, ends.gradient_b, np.inf)))
    minima = _distinct(problem, ends, best)
    return Fit(
        law=law,
        parameters=minima[0].parameters,
        objective=minima[0].objective,
        gradient_norm=float(ends.gradient_b[best]),
        minima=minima,
        n=n,
        starts=len(ends.objective_b),
        agreeing=minima[0].starts,
        loss=objective,
        delta=delta,
        space=space,
        mask=mask,
        fixed=dict(fixed or {}),
        tied=dict(tied or {}),
        flags=_flags(problem, ends.gradient_b[best], ends.theta_bp[best], minima),
        table={**problem.columns, law.observed: np.asarray(table[law.observed], float)},
        weights=weights,
    )


def solve(
    problem: Problem,
    criterion: Criterion,
    weights_bn: np.ndarray,
    theta_bp: np.ndarray,
    sharpness: float = 1e-7,
) -> Solution:
    """Minima from the given starts, by way of smoother criteria where the last has a sharp bend.

    For least absolute deviations the last smoothing of |r| is `sharpness` times a typical residual,
    so that its minimum is one of the sum of |r| up to that much for each row the law goes through.
    """
    if criterion.kind == "squared":
        return minimise(problem, criterion, weights_bn, theta_bp)
    lad = criterion.kind == "lad"
    typical = max(float(np.nanmedian(np.abs(problem.residuals(theta_bp)))), 1e-9)
    last = sharpness * typical if lad else criterion.delta
    delta = max(typical, last)
    while delta > 3 * last:  # the sharper the bend, the nearer the start has to be
        softer = replace(criterion, delta=delta)
        theta_bp = minimise(problem, softer, weights_bn, theta_bp, tolerance=1e-6).theta_bp
        delta /= 10
    ends = minimise(problem, replace(criterion, delta=last), weights_bn, theta_bp)
    if not lad:
        return ends
    sums = (weights_bn * np.abs(problem.residuals(ends.theta_bp))).sum(1)
    return replace(ends, objective_b=np.where(np.isnan(sums), np.inf, sums))


def _search(problem: Problem, criterion: Criterion, weights: np.ndarray) -> Solution:
    """Minima from the most promising starts and from some that are spread over the others."""
    k = len(problem.coefficients)
    bounds = {p.name: p for p in problem.law.parameters}
    axes = [np.array(bounds[name].starts) for name in problem.searched]
    axes = [np.log(a) if log else a for a, log in zip(axes, problem.logarithmic, strict=True)]
    while np.prod([len(axis) for axis in axes]) > _GRID:
        longest = max(range(len(axes)), key=lambda index: len(axes[index]))
        axes[longest] = np.delete(axes[longest], len(axes[longest]) // 2)
    starts = list(product(*axes))
    grid = np.array(starts).reshape(len(starts), len(axes))
    observed = np.exp(problem.target_n) if problem.log else problem.target_n
    if problem.law.link:  # nearly linear in the logarithm
        coarse_problem = replace(problem, log=True, target_n=np.log(observed))
        coarse_weights, share = weights, 0.0
    else:  # linear, whatever the signs of the terms; relative errors are nearly logarithmic ones
        coarse_problem = replace(problem, log=False, target_n=observed)
        coarse_weights, share = weights / observed**2, float(observed.mean()) / max(k, 1)
    theta = np.concatenate([np.full((len(grid), k), share), grid], axis=1)
    rows = np.broadcast_to(coarse_weights, (len(theta), len(weights)))
    frozen = np.arange(theta.shape[1]) >= k
    coarse = minimise(coarse_problem, Criterion("squared", 0), rows, theta, 8, frozen)
    order = np.argsort(coarse.objective_b, kind="stable")
    order = order[np.isfinite(coarse.objective_b[order])]
    half = _POLISHED // 2
    rest = order[half:]
    spread = rest[np.linspace(0, len(rest) - 1, min(half, len(rest))).astype(int)]
    chosen = coarse.theta_bp[np.concatenate([order[:half], spread])]
    with np.errstate(all="ignore"):
        chosen = chosen[np.isfinite(problem.residuals(chosen)).all(1)]
    require(len(chosen) > 0, f"law {problem.law.name} has no value at any start: check the units")
    problem.check_derivatives(chosen[:1])
    return solve(problem, criterion, np.tile(weights, (len(chosen), 1)), chosen)


def _distinct(problem: Problem, ends: Solution, best: int) -> tuple[Minimum, ...]:
    """The different minima, best first; a start that found none counts for none."""
    found = [best]
    counts = [1]
    for index in np.argsort(ends.objective_b, kind="stable"):
        if index == best or ends.gradient_b[index] > _CERTAIN:
            continue
        theta, objective = ends.theta_bp[index], ends.objective_b[index]
        for place, other in enumerate(found):
            apart = np.abs(theta - ends.theta_bp[other]) / (1 + np.abs(theta))
            if objective < ends.objective_b[other] * (1 + 1e-6) and apart.max() < 1e-3:
                counts[place] += 1
                break
        else:
            found.append(int(index))
            counts.append(1)
    values = problem.parameters(ends.theta_bp[found])
    return tuple(
        Minimum(
            objective=float(ends.objective_b[index]),
            parameters={name: float(value[place]) for name, value in values.items()},
            starts=counts[place],
        )
        for place, index in enumerate(found)
    )


def _check(problem: Problem, weights: np.ndarray) -> None:
    """Raise InputError where a fit would give numbers that mean nothing."""
    n, p = len(problem.target_n), len(problem.lower_p)
    require(
        weights.shape == (n,) and bool(np.all(np.isfinite(weights) & (weights > 0))),
        f"weights must be {n} positive numbers, one a row",
    )
    points = np.unique(np.stack(list(problem.columns.values())), axis=1).shape[1]
    require(
        points > p,
        f"law {problem.law.name} has {p} free parameters and the table {points} distinct points: "
        f"at least {p + 1} are needed; add runs, or fix or tie parameters",
    )
    if problem.law.apart and not problem.fixed:  # what is fixed may stand in for their variety
        names = " and ".join(problem.law.apart)
        logs = np.log([problem.columns[name] for name in problem.law.apart])
        logs -= logs.mean(1, keepdims=True)
        for name, column in zip(problem.law.apart, logs, strict=True):
            require(
                float(np.ptp(column)) > 1e-6,
                f"every row has the same {name}, so that its exponent cannot be fitted: add runs",
            )
        sizes = np.linalg.svd(logs, compute_uv=False)
        require(
            sizes[-1] > 1e-2 * sizes[0],
            f"{names} move together in every row, as at a single budget or a single ratio: their "
            "exponents cannot be told apart; add runs at other budgets",
        )


def _flags(
    problem: Problem, gradient: float, theta_p: np.ndarray, minima: tuple[Minimum, ...]
) -> dict[str, str]:
    """What a reader of the fit must know: name and sentence."""
    flags: dict[str, str] = {}
    best = minima[0]
    names = (*problem.coefficients, *problem.searched)
    at_bound = (theta_p <= problem.lower_p) | (theta_p >= problem.upper_p)
    for name in np.array(names)[at_bound]:
        flags[f"{name} at bound"] = (
            f"{name} = {best.parameters[name]:.6g} lies at the end of its range: the data would "
            "have it beyond, so that the law, the rows or the range is wrong"
        )
    exponents = [
        name for name, log in zip(problem.searched, problem.logarithmic, strict=True) if not log
    ]
    for index, name in enumerate(exponents):
        for other in exponents[index + 1 :]:
            if abs(best.parameters[name] - best.parameters[other]) < 1e-4:
                flags[f"{name} = {other}"] = (
                    f"{name} and {other} are equal: tie them, or ask whether the columns they "
                    "belong to vary independently"
                )
    if gradient > _CERTAIN:
        flags["not certified"] = (
            f"the gradient is {gradient:.1g} of what the rows contribute, not zero: no minimum "
            "was found"
        )
    _, jacobian = problem.linearised(theta_p[None])
    columns = jacobian[0] / np.maximum(np.linalg.norm(jacobian[0], axis=0), 1e-300)
    _, sizes, right = np.linalg.svd(columns, full_matrices=False)
    if sizes[-1] < 1e-6 * sizes[0]:
        involved = ", ".join(np.array(names)[np.abs(right[-1]) > 0.1])
        flags["not identified"] = f"the rows do not determine {involved}: many values fit the same"
    for rival in minima[1:]:
        if rival.objective < 1.01 * best.objective:
            flags["rival minimum"] = (
                f"another minimum has an objective only {rival.objective / best.objective - 1:.1%} "
                "higher: see minima"
            )
            break
    return flags
