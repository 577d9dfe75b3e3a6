"""How to divide a budget between parameters and tokens, and what a wrong division costs.

A law is any function loss(N, D) in nats per token, and a cost any function cost(N, D) in whatever
unit the budget has; both take numpy arrays of one shape and are smooth. The loss falls, and the
cost rises, in N (parameters) and in D (training tokens). At the best division another unit of cost
buys the same gain whether it is spent on parameters or on tokens:

    (-dL/dN) / (dcost/dN) = (-dL/dD) / (dcost/dD),

the condition of Lagrange for min L(N, D) subject to cost(N, D) <= budget. For cost = 6ND and
Chinchilla's law it has the closed form of Hoffmann et al. 2022, equation 4.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from configs.schema import require

Function = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of N and D
Range = tuple[float, float]

_SIZES = (1e2, 1e18)  # wide enough that a law whose best size lies outside says nothing useful
_TOKENS = (1e2, 1e22)
_POINTS = 801  # of the first search: 20 to a decade of N
_HALVINGS = 64
_STEP = 0.01  # in log N or log D: truncation and rounding of the derivatives are both near 1e-12


@dataclass(frozen=True)
class Marginal:
    """What more would bring at one point (N, D).

    `per_parameter` and `per_token` are nats saved by one more; `per_cost_in_N` and `per_cost_in_D`
    nats saved by one more unit of cost, spent on parameters alone or on tokens alone.
    """

    N: float
    D: float
    loss: float
    cost: float
    per_parameter: float
    per_token: float
    per_cost_in_N: float
    per_cost_in_D: float


@dataclass(frozen=True)
class Allocation(Marginal):
    """The best division. `limited_by` names the bound it lies at ("sizes", "tokens") or is ""."""

    limited_by: str = ""

    @property
    def disagreement(self) -> float:
        """How far the two marginal gains per cost differ, relatively: near 0 unless limited."""
        low, high = sorted((self.per_cost_in_N, self.per_cost_in_D))
        return (high - low) / high


@dataclass(frozen=True)
class Region:
    """All sizes whose loss, with the whole budget spent, is within `tolerance` of the best.

    The tokens that go with the smallest size are `tokens[0]`. An end that is a bound of the search
    and not of the tolerance is named in `open_ends` ("low", "high").
    """

    best: Allocation
    tolerance: float
    sizes: Range
    tokens: Range
    open_ends: tuple[str, ...]


@dataclass(frozen=True)
class Price:
    """What it costs to train `factor` times the best size with the same budget.

    `excess` is the loss above the best, in nats. `equivalent` is the budget with which the best
    division reaches the same loss, so `wasted` = 1 - equivalent / budget of the budget is lost.
    `to_match` is the budget this size needs for the best loss; infinite where no data suffices.
    """

    factor: float
    N: float
    D: float
    loss: float
    excess: float
    equivalent: float
    wasted: float
    to_match: float


def allocate(
    loss: Function,
    cost: Function,
    budget: float,
    sizes: Range | None = None,
    tokens: Range | None = None,
) -> Allocation:
    """The N and D of least loss with cost(N, D) <= budget.

    `sizes` and `tokens` bound N and D where the choice is limited (a machine's memory, the data
    there are); a best choice at such a bound is returned and says so. Raises InputError where the
    budget buys nothing, or where, without given bounds, the loss has no interior minimum.
    """
    require(0 < budget < math.inf, f"budget={budget} must be positive and finite")
    search = _Search(loss, cost, budget, _bounds(sizes, _SIZES), _bounds(tokens, _TOKENS), True)
    return _checked(search, cost, sizes, tokens, f"a budget of {budget:.4g}")


def cheapest(
    loss: Function,
    cost: Function,
    target: float,
    sizes: Range | None = None,
    tokens: Range | None = None,
) -> Allocation:
    """The N and D of least cost with loss(N, D) <= target (nats per token); bounds as in allocate.

    Its `cost` is the budget a target needs. With training and serving as the cost this is the
    problem of Sardana et al. 2024 (section 2). Raises InputError where no N and D reach the target.
    """

    def gain(N: np.ndarray, D: np.ndarray) -> np.ndarray:
        return -np.asarray(loss(N, D))

    search = _Search(cost, gain, -target, _bounds(sizes, _SIZES), _bounds(tokens, _TOKENS), False)
    return _checked(search, cost, sizes, tokens, f"a loss of {target:.6g}", loss)


def marginal(loss: Function, cost: Function, N: float, D: float) -> Marginal:
    """What more parameters, tokens or cost would bring at (N, D).

    `per_token` times the tokens of an hour is what an hour of the run in hand still brings: below
    what the same cost brings elsewhere, it is time to stop.
    """
    loss_n, loss_d = _slopes(loss, N, D)
    cost_n, cost_d = _slopes(cost, N, D)
    require(
        cost_n >= 0 and cost_d > 0,
        f"the cost does not rise in N and D at N={N:.4g}, D={D:.4g}: give a rising cost",
    )
    return Marginal(
        N=N,
        D=D,
        loss=_value(loss, N, D),
        cost=_value(cost, N, D),
        per_parameter=-loss_n / N,
        per_token=-loss_d / D,
        per_cost_in_N=-loss_n / cost_n if cost_n else math.inf,
        per_cost_in_D=-loss_d / cost_d,
    )


def tokens_left(
    cost: Function, budget: float, N: np.ndarray, tokens: Range | None = None
) -> np.ndarray:
    """The D that a budget leaves to each size N: float64 of N's shape, NaN where it leaves none.

    D is at most tokens[1], the end of the data.
    """
    log_d, _, started = _solve(cost, budget, np.log(N), _bounds(tokens, _TOKENS))
    return np.where(started, np.nan, np.exp(log_d))


def flat_region(
    loss: Function,
    cost: Function,
    budget: float,
    tolerance: float = 0.01,
    sizes: Range | None = None,
    tokens: Range | None = None,
) -> Region:
    """The sizes around the best whose loss is at most (1 + tolerance) times the best loss.

    Bounds and errors as in allocate. The whole loss is meant, not what lies above its floor.
    """
    require(tolerance > 0, f"tolerance={tolerance} must be positive, such as 0.01")
    best = allocate(loss, cost, budget, sizes, tokens)
    limit = (1 + tolerance) * best.loss
    data = _bounds(tokens, _TOKENS)

    def excess(log_n: float) -> float:
        log_d, _, started = _solve(cost, budget, np.array([log_n]), data)
        if started[0]:  # nothing is left for tokens
            return math.inf
        return _value(loss, math.exp(log_n), math.exp(log_d[0])) - limit

    ends, open_ends = [], []
    for name, bound in zip(("low", "high"), np.log(_bounds(sizes, _SIZES)), strict=True):
        if excess(bound) <= 0:
            open_ends.append(name)
            ends.append(math.exp(bound))
        else:
            ends.append(math.exp(_crossing(excess, math.log(best.N), bound)))
    left = tokens_left(cost, budget, np.array(ends), tokens)
    return Region(
        best, tolerance, (ends[0], ends[1]), (float(left[0]), float(left[1])), tuple(open_ends)
    )


def price(
    loss: Function,
    cost: Function,
    budget: float,
    factor: float,
    sizes: Range | None = None,
    tokens: Range | None = None,
) -> Price:
    """What is lost by training `factor` times the best size with the same budget.

    Bounds as in allocate. Raises InputError also where the budget cannot pay for that size at all.
    """
    require(factor > 0, f"factor={factor} must be positive: a multiple of the best size")
    best = allocate(loss, cost, budget, sizes, tokens)
    N = factor * best.N
    D = float(tokens_left(cost, budget, np.array([N]), tokens)[0])
    require(D > 0, f"a budget of {budget:.4g} leaves no tokens for N={N:.4g}: choose less")
    reached = _value(loss, N, D)
    equivalent = budget
    if reached > best.loss:
        equivalent = cheapest(loss, cost, reached, sizes, tokens).cost
    data = _bounds(tokens, _TOKENS)
    log_d, short, _ = _solve(
        lambda n, d: -np.asarray(loss(n, d)), -best.loss, np.log(np.array([N])), data
    )
    return Price(
        factor=factor,
        N=N,
        D=D,
        loss=reached,
        excess=reached - best.loss,
        equivalent=equivalent,
        wasted=1 - equivalent / budget,
        to_match=math.inf if short[0] else _value(cost, N, math.exp(log_d[0])),
    )


def matched_size(loss: Function, cost: Function, D: float, sizes: Range | None = None) -> float:
    """The N for which D tokens are the best number: where both marginal gains per cost agree."""

    def lead(log_n: float) -> float:
        at = marginal(loss, cost, math.exp(log_n), D)
        return math.log(at.per_cost_in_N / at.per_cost_in_D)

    low, high = np.log(_bounds(sizes, _SIZES))
    require(
        lead(low) > 0 > lead(high),
        f"no size between {math.exp(low):.3g} and {math.exp(high):.3g} has D={D:.4g} as its best "
        "number of tokens: look at the law",
    )
    return math.exp(brentq(lead, low, high, xtol=1e-14, rtol=1e-14))


@dataclass(frozen=True)
class _Search:
    """Least `objective` where `constraint`, rising in D, equals `level`.

    Where all of the data stay below the level, D is the most there is; that is allowed (`slack`)
    when the constraint is a cost and the level its limit, and not when it is a loss to be reached.
    """

    objective: Function
    constraint: Function
    level: float
    sizes: Range
    tokens: Range
    slack: bool

    def path(self, log_n: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """log D for each log N, whether it lies at a bound of D, and whether N is possible."""
        log_d, short, started = _solve(self.constraint, self.level, log_n, self.tokens)
        return log_d, short | started, ~(started if self.slack else short)

    def slope(self, log_n: float) -> float:
        """Derivative of the objective by log N along the path; its sign where N is impossible."""
        log_d, bound, possible = self.path(np.array([log_n]))
        if not possible[0]:
            return 1.0 if self.slack else -1.0
        N, D = math.exp(log_n), math.exp(log_d[0])
        objective_n, objective_d = _slopes(self.objective, N, D)
        if bound[0]:
            return objective_n
        constraint_n, constraint_d = _slopes(self.constraint, N, D)
        return objective_n - objective_d * constraint_n / constraint_d

    def best(self) -> tuple[float, float, str] | None:
        """N, D and the bound they lie at, or None where no N is possible."""
        log_n = np.linspace(math.log(self.sizes[0]), math.log(self.sizes[1]), _POINTS)
        log_d, _, possible = self.path(log_n)
        if not possible.any():
            return None
        N, D = np.exp(log_n), np.exp(log_d)
        values = np.asarray(self.objective(N, D))
        i = int(np.argmin(np.where(possible & ~np.isnan(values), values, np.inf)))
        at = log_n[i]
        if 0 < i < _POINTS - 1:
            low, high = log_n[i - 1], log_n[i + 1]
            if self.slope(low) < 0 < self.slope(high):
                at = brentq(self.slope, low, high, xtol=1e-14, rtol=1e-14)
        solved, bound, _ = self.path(np.array([at]))
        near_end = self.path(np.array([at - 1e-9, at + 1e-9]))[1].any()
        limited = "sizes" if i in (0, _POINTS - 1) else "tokens" if bound[0] or near_end else ""
        return math.exp(at), math.exp(solved[0]), limited


def _checked(
    search: _Search,
    cost: Function,
    sizes: Range | None,
    tokens: Range | None,
    wanted: str,
    loss: Function | None = None,
) -> Allocation:
    """The search's result with its marginal gains; refused where it means nothing."""
    found = search.best()
    require(
        found is not None,
        f"{wanted} cannot be had with sizes between {search.sizes[0]:.3g} and "
        f"{search.sizes[1]:.3g} and tokens between {search.tokens[0]:.3g} and "
        f"{search.tokens[1]:.3g}: look at the units, or allow more",
    )
    assert found is not None
    N, D, limited_by = found
    given = {"sizes": sizes, "tokens": tokens}
    require(
        not limited_by or given[limited_by] is not None,
        f"{wanted} has no best choice inside the search: it runs to N={N:.3g}, D={D:.3g}; look at "
        f"the law's exponents and the units, or bound the choice with {limited_by}=(least, most)",
    )
    at = marginal(loss or search.objective, cost, N, D)
    return Allocation(**vars(at), limited_by=limited_by)


def _bounds(given: Range | None, default: Range) -> Range:
    if given is None:
        return default
    require(
        0 < given[0] < given[1] < math.inf,
        f"the bounds {given} must be (least, most), both positive and rising",
    )
    return given


def _value(function: Function, N: float, D: float) -> float:
    return float(np.asarray(function(np.array([N]), np.array([D]))).ravel()[0])


def _slopes(function: Function, N: float, D: float) -> tuple[float, float]:
    """Derivatives by log N and by log D, by central differences of fourth order."""
    offsets = _STEP * np.array([-2, -1, 1, 2])
    weights = np.array([1, -8, 8, -1]) / (12 * _STEP)
    factors, ones = np.exp(offsets), np.ones(4)
    by_n = weights @ np.asarray(function(N * factors, D * ones))
    by_d = weights @ np.asarray(function(N * ones, D * factors))
    return float(by_n), float(by_d)


def _solve(
    function: Function, level: float, log_n: np.ndarray, tokens: Range
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log D at which `function`, rising in D, is `level`, for each log N, by bisection.

    Also where the most tokens stay below the level, and where the least are above it already;
    there log D is the bound.
    """
    N = np.exp(log_n)
    low = np.full(N.shape, math.log(tokens[0]))
    high = np.full(N.shape, math.log(tokens[1]))
    short = np.asarray(function(N, np.exp(high))) < level
    started = np.asarray(function(N, np.exp(low))) > level
    low, high = np.where(short, high, low), np.where(started, low, high)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = np.asarray(function(N, np.exp(middle))) < level
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return high, short, started


def _crossing(excess: Callable[[float], float], inside: float, outside: float) -> float:
    """Where excess changes sign, by bisection: it may be infinite outside."""
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if excess(middle) <= 0 else (inside, middle)
    return inside
