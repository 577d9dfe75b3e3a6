"""How a loss curve will end, from what there is of it.

Several laws, each from several first points on, are tried out on the curve itself: fitted to its
beginning, they forecast a later part that is known, at the same ratio of tokens as the end that is
asked for. What they miss by there gives each its weight, and the interval its width. So the width
rests neither on a model of the noise nor on a law being true, only on the curve not being more of a
surprise than it was. What that cannot show, a fall of the learning rate that has not begun, is
taken from published runs, with their spread.

Legend: c candidate (law and first point), o origin (the cut it is tried out from), n bin, m place.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit

from configs.schema import InputError, require
from scaling.annealing import share_felt, share_felt_by_momentum
from scaling.fit import fit, solve
from scaling.laws_annealing import ANNEALED
from scaling.laws_curves import M1, M2, M3, M4
from scaling.laws_form import Law
from scaling.problem import build
from scaling.varpro import Criterion

LEAST = 10  # points after the warm-up that a forecast needs
_BINS = 48  # points are averaged into at most so many, evenly in log tokens
_FIRST = (0.05, 0.15, 0.3)  # share of the tokens that a fit leaves out at the beginning
_ORIGINS = np.array([0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])  # share it sees; the last: all
# Nats that a whole fall of the rate gains in the end, as a share of the loss: B eta_peak / L of
# Luo et al. 2025 (arXiv:2503.12811) is .033, .044 and .058 at 25M, 100M and 400M parameters, and
# small models at a high rate were seen to gain more.
_PUBLISHED_GAINS = (0.02, 0.05, 0.09)
_SEEN = 0.2  # of the rate: a fall by less has not shown what it gains
_FALL_ERROR = 0.002  # of the loss: half the worst error of the law there (section 4.1)
_DEGREES = 5  # of Student's t, 2.57 deviations for 95 %: the trials are few, and alike
_AHEAD = 1e-3  # of the tokens at hand, over which the slope is taken


@dataclass(frozen=True)
class Curve:
    """A loss curve, and the learning rates of the run where they are known."""

    tokens_n: np.ndarray  # read so far, at each point; rising
    loss_n: np.ndarray  # nats a token
    at_n: np.ndarray | None = None  # updates finished at each point
    eta_t: np.ndarray | None = None  # rate of every update, those still to come included
    rows_n: np.ndarray | None = None  # where each point stands in its file
    name: str = "the curve"

    @property
    def tokens_per_update(self) -> float:
        """Of the latest updates."""
        at = np.arange(len(self.tokens_n)) if self.at_n is None else self.at_n
        return float((self.tokens_n[-1] - self.tokens_n[-2]) / max(at[-1] - at[-2], 1))

    def until(self, tokens: float) -> "Curve":
        """Its points up to a number of tokens."""
        keep = self.tokens_n <= tokens
        return replace(
            self,
            tokens_n=self.tokens_n[keep],
            loss_n=self.loss_n[keep],
            at_n=None if self.at_n is None else self.at_n[keep],
            rows_n=None if self.rows_n is None else self.rows_n[keep],
        )

    def row(self, index: int) -> str:
        """A point in words."""
        number = index + 1 if self.rows_n is None else int(self.rows_n[index])
        return f"row {number} ({self.tokens_n[index]:.4g} tokens)"


@dataclass(frozen=True)
class Forecast:
    """The loss at a later number of tokens, with an interval and the reason for its width."""

    tokens: float
    point: float  # the mean over batches or evaluations, not that of one batch
    lower: float
    upper: float
    level: float
    deviation: float  # of the logarithm of the loss
    now: float  # the smooth loss at the last point
    slope: float  # nats a token there, at the present learning rate; negative where it falls
    weights: Mapping[str, float]  # of each law
    why: str

    def at_best(self, chance: float) -> float:
        """The loss that the run ends below with this chance, such as .1."""
        return self.point * math.exp(self.deviation * _quantile(chance))


@dataclass(frozen=True)
class _Bins:
    """A curve averaged into bins, and what the laws read there and at the places asked for."""

    tokens_n: np.ndarray
    loss_n: np.ndarray
    x_m: np.ndarray  # bins, then places: tokens, or the sum of the rates in their unit
    felt_fm: np.ndarray  # by each law of falls, 1 + the share felt; (0, m) where no rate falls

    @property
    def noise(self) -> float:
        """Of a bin, as a share of the loss: from second differences, robust against a trend."""
        curved = np.abs(np.diff(np.log(self.loss_n), 2))
        return max(float(np.median(curved)) / 0.6745 / math.sqrt(6), 1e-5)


def forecast(curve: Curve, tokens: float, level: float = 0.95) -> Forecast:
    """The loss that a run will have when it has read `tokens`.

    M1 to M4 (scaling/laws_curves.py) in tokens, or where the schedule is known in the sum of its
    rates; where that schedule falls, L = L0 + A S^-alpha - B F, F the share of a whole fall that is
    felt, by the Multi-Power and by the momentum law (scaling/annealing.py).

    Raises InputError for too few points, a loss that is not a positive number, one that rises
    again, and tokens that lie behind the curve.
    """
    check(curve)
    require(0 < level < 1, f"level={level:g} must lie between 0 and 1, such as 0.95")
    now = float(curve.tokens_n[-1])
    require(tokens >= now, f"{tokens:.4g} tokens lie behind {curve.name}, which has read {now:.4g}")
    tokens = max(tokens, now * (1 + 1e-9))
    curve, bins = _prepare(curve, tokens)
    names, log_com = _candidates(bins)
    n = len(bins.loss_n)
    missed_co, reach_o = _try_out(bins, log_com[:, :-1, :n], tokens / now)
    rate_co = missed_co / reach_o
    tried = np.isfinite(rate_co)
    usable = (tried.sum(1) >= 2) & np.isfinite(log_com[:, -1]).all(1)
    require(
        bool(usable.any()),
        f"{curve.name}: its {len(curve.loss_n)} points after the warm-up are too few to try a "
        "forecast out: wait for more",
    )
    names = [name for name, good in zip(names, usable, strict=True) if good]
    log_com, rate_co, tried = log_com[usable], np.nan_to_num(rate_co[usable]), tried[usable]
    error_c = np.sqrt((rate_co**2).sum(1) / tried.sum(1))
    weight_c = np.maximum(error_c, 1e-9) ** -2.0
    weight_c /= weight_c.sum()
    total_o = (weight_c[:, None] * tried).sum(0)
    together_o = (weight_c[:, None] * rate_co).sum(0)[total_o > 0] / total_o[total_o > 0]
    last_m = weight_c @ log_com[:, -1]
    end, here, further = last_m[n:]
    parts = {
        "what forecasts from earlier points missed": math.log(tokens / now)
        * float(np.sqrt(np.mean(together_o**2))),
        "laws that disagree": float(np.sqrt(weight_c @ (log_com[:, -1, n] - end) ** 2)),
        "noise": bins.noise,  # of single bins: what lasts is among what was missed
        "what the law of falling rates misses elsewhere": _FALL_ERROR * bool(len(bins.felt_fm)),
    }
    deviation = math.sqrt(sum(part**2 for part in parts.values()))
    half = deviation * _quantile((1 + level) / 2)
    largest = max(parts, key=lambda name: parts[name])
    tried_out = f"{len(together_o)} forecasts on the curve itself"
    if not _shown(bins) and len(bins.felt_fm):
        tried_out += ", none over a fall of the rate: what that gains is from published runs"
    return Forecast(
        tokens=tokens,
        point=math.exp(end),
        lower=math.exp(end - half),
        upper=math.exp(end + half),
        level=level,
        deviation=deviation,
        now=math.exp(here),
        slope=math.exp(here) * (further - here) / (now * _AHEAD),
        weights={name: _sum(weight_c, names, name) for name in dict.fromkeys(names)},
        why=f"{half:.2%} either way, mostly {largest}; {tried_out}",
    )


def check(curve: Curve) -> None:
    """Raise InputError for a curve that no forecast should be drawn from."""
    tokens, loss = curve.tokens_n, curve.loss_n
    wrong = np.flatnonzero(~(np.isfinite(loss) & (loss > 0)))
    if wrong.size:
        raise InputError(
            f"{curve.name}: the loss is {loss[wrong[0]]:g} in {curve.row(int(wrong[0]))}: the run "
            "has diverged, or the row is to be left out"
        )
    back = np.flatnonzero(~(np.diff(tokens) > 0))
    if back.size:
        raise InputError(
            f"{curve.name}: tokens do not rise in {curve.row(int(back[0]) + 1)}: give one run, in "
            "order"
        )
    used = _after_warmup(curve)
    require(
        len(used) >= LEAST,
        f"{curve.name} has {len(used)} points after the warm-up, the last in "
        f"{curve.row(len(loss) - 1)}: a forecast needs {LEAST}"
        if len(loss)
        else f"{curve.name} has no points yet",
    )
    width = max(len(used) // 10, 3)
    smooth = np.convolve(loss[used], np.ones(width) / width, "valid")
    scatter = np.std(np.diff(loss[used])) / math.sqrt(2 * width)
    lowest = int(np.argmin(smooth))
    if smooth[-1] > smooth[lowest] * 1.01 + 4 * scatter:
        raise InputError(
            f"{curve.name} diverges: the loss rises from {smooth[lowest]:.4g} around "
            f"{curve.row(int(used[lowest]) + width // 2)} to {smooth[-1]:.4g}: go back to a "
            "checkpoint before that, with a lower learning rate"
        )


def _after_warmup(curve: Curve) -> np.ndarray:
    """Indices of the points after the rate's peak was reached."""
    if curve.eta_t is None or curve.at_n is None:
        return np.arange(len(curve.loss_n))
    return np.flatnonzero(curve.at_n > int(np.argmax(curve.eta_t)))


def _prepare(curve: Curve, tokens: float) -> tuple[Curve, _Bins]:
    """The curve without its warm-up, and its bins with two places: the end, and an update on."""
    used = _after_warmup(curve)
    d, loss = curve.tokens_n[used], curve.loss_n[used]
    edges = np.geomspace(d[0] * (1 - 1e-9), d[-1] * (1 + 1e-9), _BINS + 1)
    of = np.searchsorted(edges, d) - 1
    count = np.bincount(of)

    def average(values: np.ndarray) -> np.ndarray:
        return np.bincount(of, values)[count > 0] / count[count > 0]

    trimmed = replace(curve, tokens_n=d, loss_n=loss)
    if curve.eta_t is None or curve.at_n is None:
        x_m = np.concatenate([average(d), [tokens, d[-1], d[-1] * (1 + _AHEAD)]])
        return trimmed, _Bins(average(d), average(loss), x_m, np.empty((0, len(x_m))))
    eta, at = np.asarray(curve.eta_t, float), curve.at_n[used]
    end = min(at[-1] + round((tokens - d[-1]) / curve.tokens_per_update), len(eta))
    sums = np.cumsum(eta)
    unit = d[-1] / sums[at[-1] - 1]  # so that the sum reads like tokens
    rate = eta[min(at[-1], len(eta) - 1)] / curve.tokens_per_update
    now = sums[at[-1] - 1]
    places = np.array([sums[end - 1], now, now + rate * d[-1] * _AHEAD])
    x_m = unit * np.concatenate([average(sums[at - 1]), places])
    felt = [share(eta, np.append(at, end)) for share in (share_felt, share_felt_by_momentum)]
    falls = max(float(each.max()) for each in felt) > 1e-3
    felt_fm = 1 + np.array([[*average(f[:-1]), f[-1], f[-2], f[-2]] for f in felt if falls])
    return trimmed, _Bins(average(d), average(loss), x_m, felt_fm.reshape(-1, len(x_m)))


def _shown(bins: _Bins) -> bool:
    """Whether a fall of the rate has been felt, so that what it gains can be fitted."""
    n = len(bins.loss_n)
    return bool(len(bins.felt_fm)) and bool(np.ptp(bins.felt_fm[0, :n]) > _SEEN)


def _candidates(bins: _Bins) -> tuple[list[str], np.ndarray]:
    """Names, and the logarithm of each candidate's loss from each origin at all places [c, o, m].

    NaN where a candidate has too few bins before an origin, or no minimum there.
    """
    n = len(bins.loss_n)
    cases: list[tuple[str, Law, dict[str, np.ndarray], dict[str, float]]] = []
    for kind, felt_m in zip(("multi_power", "momentum"), bins.felt_fm, strict=False):
        columns = {"x": bins.x_m, "felt": felt_m}
        gains = [{}] if _shown(bins) else [{"B": g * bins.loss_n[-1]} for g in _PUBLISHED_GAINS]
        cases += [(kind, ANNEALED, columns, fixed) for fixed in gains]
    if not cases:
        cases = [(law.name, law, {"x": bins.x_m}, {}) for law in (M1, M2, M3, M4)]
    start, stop = bins.tokens_n[0], bins.tokens_n[-1]
    cuts_o = start + _ORIGINS * (stop - start)
    weights = np.array(
        [
            (bins.tokens_n >= first * cut) & (bins.tokens_n <= cut * (1 + 1e-9))
            for first in _FIRST
            for cut in cuts_o
        ],
        float,
    )
    criterion = Criterion("huber", 2 * bins.noise)
    names: list[str] = []
    found: list[np.ndarray] = []
    for name, law, columns, fixed in cases:
        table = {key: values[:n] for key, values in columns.items()} | {"loss": bins.loss_n}
        whole = fit(law, table, "huber", criterion.delta, fixed=fixed)
        problem = build(law, table, "log", fixed, {})
        starts = np.tile(problem.vector(whole.parameters), (len(weights), 1))
        ends = solve(problem, criterion, weights, starts)
        values = problem.parameters(ends.theta_bp)
        loss = law.predict({key: v[:, None] for key, v in values.items()}, columns)
        good = (weights.sum(1) >= len(whole.free) + 3) & np.isfinite(ends.objective_b)
        with np.errstate(all="ignore"):
            log_loss = np.where(good[:, None], np.log(loss), np.nan)
        found.append(log_loss.reshape(len(_FIRST), len(_ORIGINS), -1))
        names += [name] * len(_FIRST)
    return names, np.concatenate(found)


def _try_out(bins: _Bins, log_con: np.ndarray, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """What each candidate missed from each origin [c, o], and the log ratio of tokens there [o].

    From an origin, the loss is forecast `ratio` times further on, or at the last bin where that is
    nearer: there, and in the bins beside, is what it is compared with.
    """
    d, n = bins.tokens_n, len(bins.loss_n)
    log_loss = np.log(bins.loss_n)
    missed, reach = [], []
    for index, share in enumerate(_ORIGINS[:-1]):
        cut = d[0] + share * (d[-1] - d[0])
        seen = int(np.searchsorted(d, cut * (1 + 1e-9)))
        target = int(np.argmin(np.abs(np.log(d / min(cut * ratio, d[-1])))))
        target = min(max(target, seen), n - 1)
        near = slice(max(target - 1, seen), target + 2)
        missed.append(np.mean(log_con[:, index, near] - log_loss[near], axis=1))
        reach.append(math.log(d[target] / d[seen - 1]))
    return np.stack(missed, 1), np.array(reach)


def _quantile(chance: float) -> float:
    """Of Student's t."""
    return float(stdtrit(_DEGREES, chance))


def _sum(weight_c: np.ndarray, names: list[str], name: str) -> float:
    return float(sum(w for w, each in zip(weight_c, names, strict=True) if each == name))
