"""Predictions whose interval covers what the law does not know.

The bootstrap's interval holds if the law does. Here the law is one of several forms, each is joined
by an unknown slow departure (scaling/averaging.py), and the rolling-origin backtest of exactly
these forecasts, on the table's own larger rows, decides how much each form counts, how far its
prediction is moved for the drift it shows, and whether its interval must be wider than it says.
Errors are compared in units of the standard deviation that was forecast for them. That grows with
the distance from the rows, so that errors at small ratios speak for large ones.

What a table alone cannot say, since its larger rows are few and share their errors, is where other
sweeps come in. The constants below are from forecasts of the largest runs near the best size, from
the rows with at most 1/5 and 1/20 of their compute, in 19 tables: 2 losses of Gadre et al. 2024
(arXiv:2403.08540), 9 selections of Porian et al. 2024 (arXiv:2406.19146), McLeish et al. 2025
(arXiv:2502.06857), Besiroglu et al. 2024 (arXiv:2404.10102), and 6 that Czech et al. 2026
(arXiv:2603.22339) gathered (Llama 3, 3 of Marin, Chinchilla digitised anew, Li et al. 2025). In
34 of 38 the Chinchilla form predicted too high a loss, by 3.2 and 3.6 % at the median: fitted to
smaller runs, its limit comes out too high. Without a limit it predicted too low a loss in 23.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import norm

from configs.schema import InputError
from scaling.averaging import Average, average
from scaling.backtest import FAR, Backtest, backtest, compute, refit
from scaling.fit import Fit
from scaling.uncertainty import Bootstrap, Prediction, bootstrap, predict

_PUBLISHED = {"alpha": 0.34, "beta": 0.28}  # Hoffmann et al. 2022, arXiv:2203.15556, rounded
# Mean standardised error, observed less forecast, to expect of a form whose limit is fitted, of one
# without, and of one with published exponents. On groups of the public tables it was -1.0 to -1.9,
# +.1 to -1.2, and -.4 to -1.2; the values are rounded towards none.
_LEAN_LIMIT, _LEAN_NONE, _LEAN_PUBLISHED = -0.8, -0.3, -0.5
_LEAN_UP_TO = 0.03  # the standard deviation that it is seen at: a wider forecast leans no further
_LEAN_VARIANCE = 0.5  # between tables, about that mean
_WIDER = 1.3  # variance of standardised errors about the mean there
_TABLES = 4.0  # how many cutoffs that variance counts for, against those of the table
_ALIKE = 0.5  # correlation of standardised errors at two cutoffs, which share most of their rows
_SHARPNESS = 3.0  # cutoffs' worth of evidence between forms that one backtest has


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """A predicted observation with a calibrated interval, and what makes it as wide as it is."""

    point: float
    lower: float
    upper: float
    why: str
    warning: str  # empty within the backtested range
    ratio: float  # of the target to the largest row, in the backtest's unit
    backtested_ratio: float  # the largest of the backtest; 1 where there is none
    level: float
    plain: Prediction  # the bootstrap's interval, which holds if the law does
    backtest: Backtest


@dataclass(frozen=True)
class _Form:
    """One form's forecasts of the logarithm (m,), and how its forecasts within the table fared."""

    forecast: Average
    error_k: np.ndarray  # standardised, observed minus predicted, a mean for each cutoff
    score_k: np.ndarray  # log density of what was observed, a mean for each cutoff
    lean: float  # the error_k to expect before any is seen
    share: float  # of the weight, before any is seen

    @property
    def _seen(self) -> float:
        """How much the backtest counts against `lean`: the weight in a normal posterior's mean."""
        k = len(self.error_k)
        noise = (1 + (k - 1) * _ALIKE) / k if k else np.inf
        return float(_LEAN_VARIANCE / (_LEAN_VARIANCE + noise))

    @property
    def _shown(self) -> float:
        """Mean error of the backtest."""
        return float(self.error_k.mean()) if len(self.error_k) else 0.0

    @property
    def moved_m(self) -> np.ndarray:
        """The logarithm's shift to expect of these forecasts (m,)."""
        own_m = np.sqrt(self.forecast.variance_m)
        leant_m = self.lean * np.minimum(own_m, _LEAN_UP_TO)
        return self._seen * self._shown * own_m + (1 - self._seen) * leant_m

    @property
    def widened(self) -> float:
        """Factor on the variance: what public tables ask for, or more if this one does."""
        worth = 1 / (1 + _ALIKE)
        expected = self._seen * self._shown + (1 - self._seen) * self.lean
        seen = worth * float(((self.error_k - expected) ** 2).sum())
        mean = (_TABLES * _WIDER + seen) / (_TABLES + worth * len(self.error_k))
        return max(mean, _WIDER)


def forecast(
    fit: Fit,
    at: Mapping[str, float],
    level: float = 0.95,
    seed: int = 0,
    draws: Bootstrap | None = None,
    tested: Backtest | None = None,
) -> Forecast:
    """What one new run at `at` (the law's symbols) would give, with an interval that covers.

    `draws` and `tested` are the fit's bootstrap and backtest where they are at hand. A table too
    small for a backtest gives the width that is typical of public sweeps, and `why` says so.

    Raises InputError for a symbol that is missing or not positive.
    """
    return forecasts(fit, [at], level, seed, draws, tested)[0]


def forecasts(
    fit: Fit,
    places: Sequence[Mapping[str, float]],
    level: float = 0.95,
    seed: int = 0,
    draws: Bootstrap | None = None,
    tested: Backtest | None = None,
) -> list[Forecast]:
    """`forecast` at each of `places`, in the time of about one.

    Raises InputError for a symbol that is missing or not positive.
    """
    draws = bootstrap(fit, level=level, seed=seed) if draws is None else draws
    plain = [predict(fit, at, draws, level, seed) for at in places]
    tested = backtest(fit) if tested is None else tested
    columns = {name: np.array([float(at[name]) for at in places]) for name in fit.law.symbols}
    ratio_m = compute(fit.law, columns)[1] / compute(fit.law, fit.table)[1].max()
    reach = float(tested.ratio_n.max()) if len(tested.row_n) else 1.0
    forms = [_form(each, tested, columns) for each in _variants(fit)]
    weight = _weights(forms)
    own_fm = np.array([np.sqrt(each.forecast.variance_m) for each in forms])
    moved_fm = np.array([each.moved_m for each in forms])
    mean_fm = moved_fm + [each.forecast.mean_m for each in forms]
    mean_m = weight @ mean_fm
    wider = np.array([[each.widened - 1] for each in forms])
    causes_m = {
        "drift of the law": weight
        @ ([each.forecast.drift_m for each in forms] + own_fm**2 * wider),
        "parameters": weight @ [each.forecast.parameters_m for each in forms],
        "scatter of single runs": weight @ [each.forecast.scatter_m for each in forms],
        "difference of forms": weight @ (mean_fm - mean_m) ** 2,
    }
    quantile = float(norm.ppf((1 + level) / 2))
    found = []
    for m, at in enumerate(places):
        causes = {name: float(values[m]) for name, values in causes_m.items()}
        half = quantile * np.sqrt(sum(causes.values()))
        if not np.isfinite(mean_m[m] + half):
            raise InputError(
                f"law {fit.law.name} has no positive value at {dict(at)}: predict nearer the rows"
            )
        moved = float(weight @ moved_fm[:, m])
        found.append(
            Forecast(
                point=float(np.exp(mean_m[m])),
                lower=float(np.exp(mean_m[m] - half)),
                upper=float(np.exp(mean_m[m] + half)),
                why=_why(causes, half, level, moved, tested),
                warning=_warning(float(ratio_m[m]), reach, tested.by),
                ratio=float(ratio_m[m]),
                backtested_ratio=reach,
                level=level,
                plain=plain[m],
                backtest=tested,
            )
        )
    return found


def _variants(fit: Fit) -> list[Fit]:
    """The law; without a limit of the loss; with published exponents: where it has these.

    The limit and the exponents are what a table determines least: together they trade off.
    """
    found = [fit]
    for held in ({"E": 0.0}, _PUBLISHED):
        if set(held) <= set(fit.free) and len(held) < len(fit.free) - 1:
            starts = [replace(each, parameters={**each.parameters, **held}) for each in fit.minima]
            variant = replace(fit, fixed={**fit.fixed, **held}, minima=tuple(starts))
            parameters = refit(variant, np.ones(fit.n, bool))
            if parameters is not None:
                minimum = replace(starts[0], parameters=parameters)
                found.append(replace(variant, parameters=parameters, minima=(minimum,)))
    return found


def _form(fit: Fit, tested: Backtest, columns: Mapping[str, np.ndarray]) -> _Form:
    """A form's forecasts at `columns`, and its forecasts at the cutoffs of the backtest."""
    by_n = compute(fit.law, fit.table)[1]
    errors, scores = [], []
    for cutoff in np.unique(tested.cutoff_n):
        rows = by_n <= cutoff
        later = tested.row_n[tested.cutoff_n == cutoff]
        later = later[by_n[later] >= min(2.0 * cutoff, 0.7 * by_n[later].max())]
        parameters = refit(fit, rows)
        if parameters is None:
            continue
        place = {name: fit.table[name][later] for name in fit.law.symbols}
        then = average(fit, parameters, rows, place)
        spread_m = np.sqrt(then.variance_m)
        error_m = (np.log(fit.table[fit.law.observed][later]) - then.mean_m) / spread_m
        if np.isfinite(error_m).all():
            errors.append(float(error_m.mean()))
            scores.append(float((-(error_m**2) / 2 - np.log(spread_m)).mean()))
    published = set(_PUBLISHED) <= set(fit.fixed)
    lean = _LEAN_PUBLISHED if published else _LEAN_LIMIT if "E" in fit.free else _LEAN_NONE
    return _Form(
        forecast=average(fit, fit.parameters, np.ones(fit.n, bool), columns),
        error_k=np.array(errors),
        score_k=np.array(scores),
        lean=lean if fit.law.observed == "loss" else 0.0,
        share=2.0 if published else 1.0,
    )


def _weights(forms: Sequence[_Form]) -> np.ndarray:
    """How much each form counts (f,): by its share, and its score where all have one."""
    log_f = np.log([each.share for each in forms])
    if all(len(each.score_k) for each in forms):
        log_f += _SHARPNESS * np.array([each.score_k.mean() for each in forms])
    weight_f = np.exp(log_f - log_f.max())
    return np.asarray(weight_f / weight_f.sum())


def _why(
    causes: Mapping[str, float], half: float, level: float, moved: float, tested: Backtest
) -> str:
    """What makes the interval as wide as it is."""
    total = sum(causes.values())
    order = sorted(causes, key=lambda name: -causes[name])
    shares = ", ".join(f"{name} {causes[name] / total:.0%}" for name in order)
    cutoffs = len(np.unique(tested.cutoff_n))
    seen = f"a backtest at {cutoffs} cutoff{'s' if cutoffs > 1 else ''} and " if cutoffs else ""
    none = "" if cutoffs else " (too few rows for a backtest)"
    return (
        f"{level:.0%}: {np.expm1(half):.2%} either way, of its variance {shares}; moved by "
        f"{np.expm1(moved):+.2%} for the drift that {seen}public sweeps show{none}"
    )


def _warning(ratio: float, reach: float, by: str) -> str:
    """What to say of a target beyond the backtest."""
    if ratio > FAR:
        return (
            f"{by} is {ratio:.3g} times the largest row's: beyond {FAR:g} times no interval has "
            "been checked, do not rely on this one; make a run between first"
        )
    if ratio > max(reach, 1.0) * 1.0001:
        tested = f"the backtest reaches {reach:.3g} times" if reach > 1 else "there is no backtest"
        return (
            f"{by} is {ratio:.3g} times the largest row's, and {tested}: the interval's growth "
            "from there on is assumed, not tested"
        )
    return ""
