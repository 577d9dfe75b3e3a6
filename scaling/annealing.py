"""Laws of a loss curve under any learning-rate schedule, and what another schedule would give.

A schedule is eta_t: the learning rate of every update of a run, in order. A point of a curve lies
at a number of finished updates, so that its loss has seen eta_t[:at]. These laws therefore read a
schedule and a place in it where other laws read columns; inside, each becomes a `Law` whose column
is the number of the point, and `scaling.fit` fits it, certificate included.

    runs = [Run(eta_t, at, loss), ...]
    found = fit_schedules(MULTI_POWER, runs)
    found.predict(other_eta_t, [len(other_eta_t)])       # the loss at the end of another schedule
    decay_now(found, runs[0].eta_t[:20_000], 4_000)      # if it were decayed now

How the loss falls when the rate does can be read only from runs in which it has: of a single run at
a constant rate no law can say it, and the fit refuses.

Legend: b problem of the solver, n point, k block of updates, t update.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.signal import lfilter

from configs.schema import require
from scaling.fit import Fit, Objective, Space, fit
from scaling.laws_form import Columns, Law, Parameter, coefficient, exponent, power, scale

_PAIRS = 3e6  # of a point and an update before it: with more, updates are summed in blocks
_FIT_PAIRS = 3e4  # the same in a fit; on published curves its losses are within 2e-4 nats


@dataclass(frozen=True)
class Run:
    """A loss curve and the learning rates it was made with."""

    eta_t: np.ndarray  # rate of each update, warm-up included; may go on beyond the last point
    at_n: np.ndarray  # updates finished at each point
    loss_n: np.ndarray  # nats a token

    def __post_init__(self) -> None:
        _check_schedule(self.eta_t, self.at_n)
        loss = np.asarray(self.loss_n, float)
        require(loss.shape == np.shape(self.at_n), "a curve needs one loss for each of its points")
        wrong = np.flatnonzero(~(np.isfinite(loss) & (loss > 0)))
        if wrong.size:
            value, place = loss[wrong[0]], np.asarray(self.at_n)[wrong[0]]
            require(
                False,
                f"the loss is {value:g} at point {wrong[0] + 1} of a curve, after {place} updates: "
                "leave out points that are not positive numbers",
            )


@dataclass(frozen=True)
class Form:
    """A law of loss curves under schedules; `terms` is Law.terms with a `_Points` for columns."""

    name: str
    parameters: tuple[Parameter, ...]
    terms: Callable[[Columns, "_Points"], Mapping[str, Any]]
    source: str
    usual: Mapping[str, float]  # parameters that its authors hold fixed


@dataclass(frozen=True)
class _Points:
    """What the laws need of points under schedules."""

    paths: tuple[tuple[np.ndarray, np.ndarray], ...]  # of each curve: its schedule, its points
    s1_n: np.ndarray  # sum of the rates up to each point
    # The changes of the rate in blocks, and which of them lie before which point.
    change_k: np.ndarray
    eta_k: np.ndarray  # rate that they end at
    before_k: np.ndarray  # sum of the rates up to the change, the change's own not included
    point_m: np.ndarray  # pairs m of a point and a block before it
    block_m: np.ndarray


def momentum_law(
    parameters: Mapping[str, float], eta_t: np.ndarray, at: Sequence[int] | np.ndarray
) -> np.ndarray:
    """Loss after `at` updates of a schedule by the momentum law, nats a token [n].

    L = L0 + A S1^-alpha - C S2, S1 = sum_{i<=t} eta_i, S2 = sum_{i<=t} m_i with
    m_i = lambda m_{i-1} + eta_{i-1} - eta_i (Tissue, Wang and Wang 2024, arXiv:2408.11029, section
    3). `memory` is 1 / (1 - lambda), in updates: the time over which a fall of the rate takes
    effect. S2 begins where the first rise, the warm-up, has ended.
    """
    return _predict(MOMENTUM, parameters, eta_t, np.asarray(at))


def multi_power_law(
    parameters: Mapping[str, float], eta_t: np.ndarray, at: Sequence[int] | np.ndarray
) -> np.ndarray:
    """Loss after `at` updates of a schedule by the Multi-Power law, nats a token [n].

    L = L0 + A S_t^-alpha - LD, LD = B sum_{k<=t} (eta_{k-1} - eta_k) G(eta_k^-gamma S_k(t)),
    G(x) = 1 - (1 + C x)^-beta, S_t the sum of all rates up to t, warm-up included, and S_k(t) that
    from k to t (Luo et al. 2025, arXiv:2503.12811, equations 1 to 3). The rise of the warm-up is
    among the changes of the rate, as in the authors' fits.
    """
    return _predict(MULTI_POWER, parameters, eta_t, np.asarray(at))


@dataclass(frozen=True)
class Annealing:
    """A fitted law of schedules."""

    form: Form
    fit: Fit

    def predict(self, eta_t: np.ndarray, at: Sequence[int] | np.ndarray) -> np.ndarray:
        """Loss after `at` updates of a schedule [n]. Raises InputError for points beyond it."""
        return _predict(self.form, self.fit.parameters, eta_t, np.asarray(at))


def fit_schedules(
    form: Form,
    runs: Sequence[Run],
    objective: Objective = "huber",
    delta: float = 1e-3,
    space: Space = "log",
    fixed: Mapping[str, float] | None = None,
    weights: np.ndarray | None = None,
) -> Annealing:
    """Fit a law to curves under schedules, as `scaling.fit.fit` does; its points are the rows.

    `fixed` None holds what the law's authors hold (the momentum law's memory at 1000 updates).
    Points that lie close together repeat one another: thin them out to what a fit needs.

    Raises InputError where no rate falls before the last point of any curve, unless what a fall
    gives is among `fixed`; and what `fit` raises.
    """
    require(len(runs) > 0, "there is no curve to fit: give at least one")
    held = dict(form.usual if fixed is None else fixed)
    drop = {"momentum": "C", "multi_power": "B"}[form.name]
    require(
        drop in held or any(_falls(run.eta_t[: np.max(run.at_n)]) for run in runs),
        "the learning rate falls in none of the curves before its last point, so that what a fall "
        f"gives cannot be fitted: add a curve that was decayed, or fix {drop}",
    )
    points = _points([(run.eta_t, run.at_n) for run in runs], _FIT_PAIRS)
    loss = np.concatenate([np.asarray(run.loss_n, float) for run in runs])
    table = {"point": np.arange(1.0, len(loss) + 1), "loss": loss}
    law = _law(form, points)
    return Annealing(form, fit(law, table, objective, delta, space, weights, held))


@dataclass(frozen=True)
class Metrics:
    """How far a prediction is from a curve."""

    r2: float  # share of the variance explained
    mae: float  # mean absolute error, nats
    rmse: float  # root of the mean square error, nats
    prede: float  # mean relative error
    worste: float  # largest relative error


def evaluate(predicted_n: np.ndarray, loss_n: np.ndarray) -> Metrics:
    """The measures of Luo et al. 2025 (arXiv:2503.12811, section 4.1) on one curve.

    Over several curves they, as the authors, are averaged curve by curve (`mean`).
    """
    error, loss = np.asarray(predicted_n) - loss_n, np.asarray(loss_n, float)
    return Metrics(
        r2=float(1 - np.sum(error**2) / np.sum((loss - loss.mean()) ** 2)),
        mae=float(np.abs(error).mean()),
        rmse=float(np.sqrt(np.mean(error**2))),
        prede=float(np.mean(np.abs(error) / loss)),
        worste=float(np.max(np.abs(error) / loss)),
    )


def mean(metrics: Sequence[Metrics]) -> Metrics:
    """The mean of each measure over curves."""
    names = Metrics.__dataclass_fields__
    return Metrics(**{name: float(np.mean([getattr(m, name) for m in metrics])) for name in names})


def share_felt(eta_t: np.ndarray, at: Sequence[int] | np.ndarray) -> np.ndarray:
    """How much of a whole fall of the rate is felt after `at` updates, from 0 to 1 [n].

    sum_k (eta_{k-1} - eta_k) / eta_peak G(eta_k^-gamma S_k) over the falls after the peak, with the
    inner constants of the Multi-Power law as its authors found them, nearly alike, at 25M, 100M and
    400M parameters: C = 2.07, beta = .59, gamma = .64 (Luo et al. 2025, arXiv:2503.12811, table of
    parameters).
    """
    peak = _from_peak(eta_t, np.asarray(at))
    return -_changes_felt(peak, 2.07, 0.59, 0.64) / np.max(eta_t)


def share_felt_by_momentum(
    eta_t: np.ndarray, at: Sequence[int] | np.ndarray, memory: float = 1000.0
) -> np.ndarray:
    """The same by the momentum law, S2 / (eta_peak memory) [n]."""
    peak = _from_peak(eta_t, np.asarray(at))
    return _falls_felt(peak, memory) / (memory * np.max(eta_t))


def _from_peak(eta_t: np.ndarray, at_n: np.ndarray) -> _Points:
    """The points of a schedule without its rise; sums matter only between a fall and a point."""
    _check_schedule(eta_t, at_n)
    eta = np.array(eta_t, float)
    peak = int(np.argmax(eta))
    eta[:peak] = eta[peak]
    return _points([(eta, at_n)], _PAIRS)


def decay_now(
    found: Annealing, eta_t: np.ndarray, updates: int, final: float = 0.1
) -> tuple[float, float]:
    """Loss if the rate fell from now on, and loss if it stayed as it is, both `updates` later.

    `eta_t` is the schedule so far; the rate falls along a line to `final` times what it is now.

    Raises InputError unless updates is positive.
    """
    require(updates > 0, f"a decay takes at least one update, not {updates}")
    now = eta_t[-1]
    line = now * np.linspace(1, final, updates + 1)[1:]
    losses = [
        found.predict(np.concatenate([eta_t, rest]), [len(eta_t) + updates])[0]
        for rest in (line, np.full(updates, now))
    ]
    return float(losses[0]), float(losses[1])


def _predict(
    form: Form, parameters: Mapping[str, float], eta_t: np.ndarray, at_n: np.ndarray
) -> np.ndarray:
    """One schedule's losses at the points."""
    _check_schedule(eta_t, at_n)
    law = _law(form, _points([(eta_t, at_n)], _PAIRS))
    names = [parameter.name for parameter in form.parameters]
    values = {**form.usual, **{name: parameters[name] for name in names if name in parameters}}
    return law.predict(values, {"point": np.arange(1.0, len(at_n) + 1)})


def _law(form: Form, points: _Points) -> Law:
    """The law of these points, whose column is their number."""
    return Law(
        name=form.name,
        symbols={"point": "number of the point"},
        parameters=form.parameters,
        terms=lambda p, t: form.terms(p, points),
        source=form.source,
    )


def _points(paths: Sequence[tuple[np.ndarray, np.ndarray]], pairs: float) -> _Points:
    """Sums up to the points, and the changes of the rate in blocks of updates that no point cuts.

    A block's changes are put where they are on average, the rate likewise: the loss depends on
    both smoothly.
    """
    kept: list[list[np.ndarray]] = []
    first_point = first_block = 0
    for eta_t, at_n in paths:
        last = int(np.max(at_n))
        eta = np.maximum(np.asarray(eta_t, float)[:last], 1e-12 * np.max(eta_t))
        sums, change = np.cumsum(eta), np.diff(eta, prepend=eta[0])
        block = math.ceil(np.count_nonzero(change) * len(at_n) / 2 / pairs)
        starts = np.zeros(last + 1, bool)
        starts[: last : max(block, 1)] = True
        starts[at_n] = True  # the first update after a point begins a block
        of_t = np.cumsum(starts[:last]) - 1
        size = np.bincount(of_t, np.abs(change))
        blocks = np.flatnonzero(size)

        def average(
            values: np.ndarray, of_t: Any = of_t, change: Any = change, size: Any = size
        ) -> np.ndarray:
            sums_k = np.bincount(of_t, np.abs(change) * values)
            return sums_k[size > 0] / size[size > 0]

        counts = np.searchsorted(blocks, of_t[at_n - 1], side="right")
        point = np.repeat(np.arange(len(at_n)), counts)
        first = np.cumsum(counts) - counts
        kept.append(
            [
                sums[at_n - 1],
                np.bincount(of_t, change)[blocks],
                average(eta),
                average(sums - eta),
                point + first_point,
                np.arange(len(point)) - first[point] + first_block,
            ]
        )
        first_point, first_block = first_point + len(at_n), first_block + len(blocks)
    return _Points(tuple(paths), *(np.concatenate(parts) for parts in zip(*kept, strict=True)))


def _momentum_terms(p: Columns, points: _Points) -> Mapping[str, Any]:
    memory = np.ravel(p["memory"])
    s2 = np.stack([_falls_felt(points, each) for each in memory])
    return {"L0": 1.0, "A": power(points.s1_n, -p["alpha"]), "C": -_shaped(s2, p["memory"])}


def _falls_felt(points: _Points, memory: complex) -> np.ndarray:
    """S2 at the points [n]."""
    found = []
    for eta_t, at_n in points.paths:
        eta = np.asarray(eta_t, float)[: np.max(at_n)]
        fall = -np.diff(eta, prepend=eta[0])
        fall[: np.argmax(eta) + 1] = 0  # the rise to the peak
        felt = lfilter([1.0], [1.0, 1 / memory - 1], fall)
        found.append(np.cumsum(felt)[at_n - 1])
    return np.concatenate(found)


def _multi_power_terms(p: Columns, points: _Points) -> Mapping[str, Any]:
    rows = np.broadcast_arrays(*(np.ravel(p[name]) for name in ("C", "beta", "gamma")))
    drop = np.stack([_changes_felt(points, *each) for each in zip(*rows, strict=True)])
    return {
        "L0": 1.0,
        "A": power(points.s1_n, -p["alpha"]),
        "B": _shaped(drop, p["C"] + p["beta"] + p["gamma"]),
    }


def _changes_felt(points: _Points, c: complex, beta: complex, gamma: complex) -> np.ndarray:
    """sum_k (eta_k - eta_{k-1}) G at the points [n]."""
    rate = c * power(points.eta_k, np.asarray(-gamma))
    since = points.s1_n[points.point_m] - points.before_k[points.block_m]
    left = power(1 + rate[points.block_m] * since, np.asarray(-beta))  # not yet in effect
    parts = points.change_k[points.block_m] * (1 - left)
    n = len(points.s1_n)
    real = np.bincount(points.point_m, parts.real, n)
    if not np.iscomplexobj(parts):
        return real
    return real + 1j * np.bincount(points.point_m, parts.imag, n)


def _shaped(values_bn: np.ndarray, like: Any) -> np.ndarray:
    """(b, n) for the solver's columns (b, 1), (n,) for plain numbers."""
    return values_bn if np.ndim(like) == 2 else values_bn[0]


def _falls(eta_t: np.ndarray) -> bool:
    """Whether the rate is ever lower than it has been."""
    return bool(np.any(eta_t < 0.999 * np.maximum.accumulate(eta_t)))


def _check_schedule(eta_t: np.ndarray, at_n: np.ndarray) -> None:
    """Raise InputError for a schedule that is none, or points that do not lie in it."""
    eta, at = np.asarray(eta_t, float), np.asarray(at_n)
    require(
        eta.ndim == 1 and len(eta) > 0 and bool(np.isfinite(eta).all()) and float(eta.min()) >= 0,
        "a schedule must be one rate for each update, none negative or missing",
    )
    require(float(eta.max()) > 0, "a schedule of zeros trains nothing: give the rates")
    require(
        at.ndim == 1 and len(at) > 0 and at.dtype.kind in "iu",
        "points of a curve are given as whole numbers of finished updates",
    )
    require(
        int(at.min()) >= 1 and int(at.max()) <= len(eta),
        f"a point lies after {int(at.max())} updates and the schedule has {len(eta)}: points are "
        "numbers of finished updates, from 1 to its length",
    )


_L0 = coefficient("L0", "limit of the loss under this law")
_A = coefficient("A", "size of the power law of the summed rate")
MOMENTUM = Form(
    name="momentum",
    parameters=(
        _L0,
        _A,
        exponent("alpha", "exponent of the summed rate", starts=(0.2, 0.5, 1.0)),
        coefficient("C", "nats that a unit of annealing area gains"),
        scale("memory", "updates over which a fall takes effect", 2.0, 1e6, (100.0, 1e3)),
    ),
    terms=_momentum_terms,
    source="Tissue, Wang and Wang 2024, arXiv:2408.11029: L = L0 + A S1^-alpha - C S2, "
    "memory = 1 / (1 - lambda), lambda = .999",
    usual={"memory": 1000.0},
)
MULTI_POWER = Form(
    name="multi_power",
    parameters=(
        _L0,
        _A,
        exponent("alpha", "exponent of the summed rate", starts=(0.5,)),
        coefficient("B", "nats that a unit of fallen rate gains in the end"),
        scale("C", "how soon a fall takes effect", 1e-4, 1e6, (0.5, 5.0)),
        exponent("beta", "exponent at which it takes effect", 1e-3, 3.0, (0.4, 0.8)),
        exponent("gamma", "how much sooner at a low rate", 0.0, 2.0, (0.6,)),
    ),
    terms=_multi_power_terms,
    source="Luo et al. 2025, arXiv:2503.12811: L = L0 + A S^-alpha - B sum_k (eta_{k-1} - eta_k) "
    "(1 - (1 + C eta_k^-gamma S_k)^-beta)",
    usual={},
)
FORMS: Mapping[str, Form] = {form.name: form for form in (MOMENTUM, MULTI_POWER)}
