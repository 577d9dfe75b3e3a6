"""How sure a fit is: bootstrap, profiles, and predictions with an interval and its reason.

These intervals hold if the law does: they say what other runs of the same kind would have given.
They do not say how far the law is from the truth beyond the fitted range, which only a backtest
shows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq
from scipy.stats import chi2

from configs.schema import InputError, require
from scaling.fit import Fit, solve
from scaling.problem import Problem, build
from scaling.varpro import Criterion, Solution

_TOGETHER = 100  # resamples solved at once, which keeps the arrays in the cache
_RIVALS = 3  # minima that every resample starts from
_FAR = 30.0  # times the largest budget: beyond, no published backtest reaches


@dataclass(frozen=True)
class Bootstrap:
    """Parameters refitted to resampled rows."""

    draws: Mapping[str, np.ndarray]  # parameter: (resamples,)
    standard_errors: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]  # percentiles
    level: float
    failed: int  # resamples left out, for which no minimum was found


def bootstrap(
    fit: Fit,
    resamples: int = 1000,
    groups: np.ndarray | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Bootstrap:
    """Refit to rows drawn with replacement (Efron 1979), each from the minima of `fit`.

    With `groups` (one label a row) whole groups are drawn: rows that share a run or a curve have
    errors in common, and drawing them one by one makes the intervals too narrow.

    Raises InputError for fewer groups than parameters, and where most resamples have no minimum.
    """
    require(resamples >= 2, f"{resamples} resamples give no interval: ask for 1000")
    require(0 < level < 1, f"level={level:g} must lie between 0 and 1, such as 0.95")
    _, labels = np.unique(np.arange(fit.n) if groups is None else groups, return_inverse=True)
    require(len(labels) == fit.n, f"groups has {len(labels)} labels for {fit.n} rows: one a row")
    count = int(labels.max()) + 1
    require(
        count > len(fit.free),
        f"{count} groups cannot say how sure {len(fit.free)} parameters are: group less coarsely",
    )
    problem = _problem(fit, fit.fixed)
    starts = np.concatenate([problem.vector(m.parameters) for m in fit.minima[:_RIVALS]])
    random = np.random.default_rng(seed)
    drawn = random.multinomial(count, np.full(count, 1 / count), resamples)[:, labels]
    weights_bn = drawn * fit.weights
    found = [
        _best(problem, Criterion(fit.loss, fit.delta), weights_bn[at : at + _TOGETHER], starts)
        for at in range(0, resamples, _TOGETHER)
    ]
    theta = np.concatenate([each.theta_bp for each in found])
    good = np.concatenate([each.gradient_b for each in found]) < 1e-5
    require(
        2 * good.sum() >= resamples,
        f"only {good.sum()} of {resamples} resamples have a minimum: the rows do not determine "
        "the parameters",
    )
    names = [parameter.name for parameter in fit.law.parameters]
    values = problem.parameters(theta[good])
    tails = [50 * (1 - level), 50 * (1 + level)]
    bounds = {name: np.percentile(values[name], tails) for name in fit.free}
    return Bootstrap(
        draws={name: values[name] for name in names},
        standard_errors={name: float(values[name].std(ddof=1)) for name in fit.free},
        intervals={name: (float(low), float(high)) for name, (low, high) in bounds.items()},
        level=level,
        failed=int((~good).sum()),
    )


def _problem(fit: Fit, fixed: Mapping[str, float]) -> Problem:
    """The problem of the fit with these parameters fixed."""
    return build(fit.law, fit.table, fit.space, fixed, fit.tied)


def _best(
    problem: Problem, criterion: Criterion, weights_bn: np.ndarray, starts_sp: np.ndarray
) -> Solution:
    """The best minimum of each resample from the starts s."""
    b, s = len(weights_bn), len(starts_sp)
    rows = np.repeat(weights_bn, s, axis=0)
    ends = solve(problem, criterion, rows, np.tile(starts_sp, (b, 1)), sharpness=1e-4)
    best = ends.objective_b.reshape(b, s).argmin(1) + np.arange(b) * s
    return Solution(ends.theta_bp[best], ends.objective_b[best], ends.gradient_b[best])


@dataclass(frozen=True)
class Profile:
    """The best objective at each value of one parameter, the others refitted."""

    name: str
    values: np.ndarray
    objectives: np.ndarray
    interval: tuple[float, float]  # an end that the rows do not determine is that of the search
    identified: bool
    sentence: str


def profile(fit: Fit, name: str, level: float = 0.95) -> Profile:
    """Profile of a fitted parameter, with the interval of values the rows do not rule out.

    A value is ruled out where the objective, in the unit that makes its rise chi-squared with one
    degree of freedom, is above that distribution's quantile (Kent 1982, "Robust properties of
    likelihood ratio tests"). The unit is estimated from the rows, which are taken as independent
    but not as equally scattered.

    Raises InputError for a parameter that was not fitted.
    """
    require(name in fit.free, f"{name} was not fitted: choose one of {', '.join(fit.free)}")
    require(len(fit.free) > 1, f"{name} is the only parameter fitted: bootstrap it")
    parameter = next(each for each in fit.law.parameters if each.name == name)
    limit = fit.objective + _unit(fit, name) * float(chi2.ppf(level, 1))
    best = fit.parameters[name]
    step = 0.02 * max(abs(best), 1e-3)  # about right, or made so by the walk
    seen = {best: fit.objective}
    ends: list[float] = []
    open_ends: list[str] = []
    for direction, bound in ((-1, parameter.lower), (1, parameter.upper)):
        crossing = _cross(fit, name, direction * step, bound, limit, seen)
        ends.append(crossing[0])
        if not crossing[1]:
            open_ends.append("below" if direction < 0 else "above")
    values = np.array(sorted(seen))
    objectives = np.array([seen[value] for value in values])
    text = f"{ends[0]:.4g} to {ends[1]:.4g}"
    if open_ends:
        worst = objectives[(values >= ends[0]) & (values <= ends[1])].max() / fit.objective - 1
        sentence = (
            f"{name} is not identified from {' or '.join(open_ends)}: every value from {text} "
            f"fits within {worst:.2%} of the best objective"
        )
    else:
        sentence = f"{name} = {best:.4g}; the rows rule out values outside {text}"
    return Profile(name, values, objectives, (ends[0], ends[1]), not open_ends, sentence)


def _unit(fit: Fit, name: str) -> float:
    """What the objective above its minimum is divided by to be chi-squared with one degree.

    Near the minimum the profile rises by (x - best)**2 / (2 h), where h is the parameter's entry of
    the inverse second derivative, while x has the sandwich variance v: v / (2 h).
    """
    problem = _problem(fit, fit.fixed)
    theta = problem.vector(fit.parameters)
    residual, jacobian = problem.linearised(theta)
    exact = Criterion(fit.loss, fit.delta if fit.loss == "huber" else 0.0)
    window = max(exact.delta, float(np.median(np.abs(residual))), 1e-12)
    curvature = replace(exact, delta=window).curvature(residual)[0]
    if fit.loss == "huber":  # rows within delta are few: count those within the window
        curvature = curvature * fit.delta / window
    slope = np.sign(residual) if fit.loss == "lad" else exact.slope(residual)
    rows = jacobian[0]
    hessian = rows.T @ (rows * (fit.weights * curvature[0])[:, None])
    spread = rows.T @ (rows * ((fit.weights * slope[0]) ** 2)[:, None])
    inverse = np.linalg.pinv(hessian, rcond=1e-12)
    variance = inverse @ spread @ inverse * fit.n / (fit.n - len(fit.free))
    direction = _gradient(problem, theta, name)
    return float(direction @ variance @ direction / (2 * direction @ inverse @ direction))


def _gradient(problem: Problem, theta_bp: np.ndarray, name: str) -> np.ndarray:
    """Derivatives of one of the law's parameters by the solver's (p,), by central differences."""
    steps = np.diag(1e-6 * np.maximum(np.abs(theta_bp[0]), 1e-3))
    up, down = (problem.parameters(theta_bp + sign * steps)[name] for sign in (1, -1))
    return (up - down) / (2 * np.diag(steps))


def _residuals(fit: Fit) -> np.ndarray:
    """Model minus observed in the fit's space (n,)."""
    problem = _problem(fit, fit.fixed)
    return problem.residuals(problem.vector(fit.parameters))[0]


def _cross(
    fit: Fit, name: str, step: float, bound: float, limit: float, seen: dict[float, float]
) -> tuple[float, bool]:
    """Where the objective first reaches `limit` on one side, and whether it does.

    Walks outwards with growing steps, each refit starting from the last.
    """
    best = fit.parameters[name]
    current = dict(fit.parameters)

    def above(value: float) -> float:
        nonlocal current
        if value in seen:  # a refit from another start may end a rounding error elsewhere
            return seen[value] - limit
        fixed = {**fit.fixed, name: value}
        problem = _problem(fit, fixed)
        start = problem.vector({**current, name: value})
        start = np.clip(start, problem.lower_p, problem.upper_p)
        end = solve(problem, Criterion(fit.loss, fit.delta), fit.weights[None], start)
        current = {key: float(v[0]) for key, v in problem.parameters(end.theta_bp).items()}
        seen[value] = float(end.objective_b[0])
        return seen[value] - limit

    inside = best
    for _ in range(40):
        outside = inside + step
        if (outside - bound) * step >= 0:
            outside = bound if np.isfinite(bound) else outside
        if above(outside) > 0:
            return float(brentq(above, inside, outside, xtol=1e-4 * abs(step), rtol=1e-6)), True
        if outside == bound or abs(outside) > 1e4 * max(abs(best), 1e-3):
            return outside, False
        inside, step = outside, 1.6 * step
    return inside, False


@dataclass(frozen=True)
class Prediction:
    """A predicted observation, an interval for it, and what makes the interval as wide as it is."""

    point: float
    lower: float
    upper: float
    why: str


def predict(
    fit: Fit,
    at: Mapping[str, float],
    draws: Bootstrap | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Prediction:
    """What one new run at `at` (the law's symbols) would give, with an interval.

    The interval joins the spread of the refitted parameters with that of the residuals, enlarged
    for the parameters the fit used up (n / (n - p)). Without `draws` the fit is bootstrapped here.

    Raises InputError for a symbol that is missing or not positive.
    """
    for name in fit.law.symbols:
        if not (name in at and np.isfinite(at[name]) and at[name] > 0):
            given = f"{name}={at[name]:g}" if name in at else f"no {name}"
            raise InputError(f"a prediction needs {name} as a positive number, not {given}")
    draws = bootstrap(fit, level=level, seed=seed) if draws is None else draws
    place = {name: np.asarray(at[name], float) for name in fit.law.symbols}
    point = float(fit.law.predict(fit.parameters, place))
    means = fit.law.predict(draws.draws, place)
    random = np.random.default_rng(seed)
    inflation = np.sqrt(fit.n / (fit.n - len(fit.free)))
    scatter = -inflation * random.choice(_residuals(fit), len(means))
    runs = means * np.exp(scatter) if fit.space == "log" else means + scatter
    tails = [50 * (1 - level), 50 * (1 + level)]
    lower, upper = np.percentile(runs, tails)
    shares = [float(np.ptp(np.percentile(each, tails))) / 2 / abs(point) for each in (means, runs)]
    why = (
        f"{level:.0%} of {len(means)} refits with the scatter of single runs: {shares[1]:.2%} "
        f"either way, {shares[0]:.2%} from the parameters alone; {_reach(fit, place)}"
    )
    return Prediction(point, float(lower), float(upper), why)


def _reach(fit: Fit, place: Mapping[str, np.ndarray]) -> str:
    """How far outside the rows the place lies, in words."""
    products = {" ".join(fit.law.apart): fit.law.apart} if len(fit.law.apart) > 1 else {}
    products |= {name: (name,) for name in fit.law.symbols}
    for title, names in products.items():
        rows = np.prod([fit.table[name] for name in names], axis=0)
        ratio = float(np.prod([place[name] for name in names]) / rows.max())
        if ratio > _FAR:
            return (
                f"{title} is {ratio:.3g} times the largest row's, further than any law has been "
                "tested: do not rely on this interval"
            )
        if ratio > 1.0001:
            return f"{title} is {ratio:.3g} times the largest row's, where it holds if the law does"
    for name in fit.law.symbols:
        if place[name] < 0.9999 * fit.table[name].min():
            return f"{name} is below every row's, where it holds if the law does"
    return "within the range of the rows"
