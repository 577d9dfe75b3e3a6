"""When a run should end before its last update, from its evaluations alone.

The decision is a function of what was recorded and of the limits, so that a run that was killed and
goes on, and every process of a run on several hosts, decides the same.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from configs.schema import InputError

_UNLIKELY = 0.1  # chance of a gain above min_gain at which a run ends


@dataclass(frozen=True)
class Evaluation:
    """A validation loss on the way."""

    step: int  # updates finished
    tokens: float  # read so far
    loss: float  # nats a token; NaN where it was not finite
    standard_error: float = 0.0  # of the loss


@dataclass(frozen=True)
class Stop:
    """That a run should end, and why."""

    rule: str  # "target", "patience" or "min_gain"
    step: int  # of the evaluation that decided
    reason: str


def decide(
    evaluations: Sequence[Evaluation],
    target: float = 0.0,
    patience: int = 0,
    min_gain: float = 0.0,
    tokens: float = 0.0,
    eta_t: np.ndarray | None = None,
) -> Stop | None:
    """Whether a run should end at its last evaluation, by the first rule that says so.

    Args:
        evaluations: all of the run, in order.
        target: ends it where the validation loss is at most this, nats a token; 0: never.
        patience: ends it at so many evaluations in a row without an improvement; 0: never. One is
            an improvement if its loss is below that of the last improvement by more than its own
            standard error, so that many small gains count as soon as together they are one.
        min_gain: ends it where, by the forecast of scaling.monitor, chances are nine in ten that
            all the rest of the run lowers the loss by less than this, nats a token; 0: never.
            Where no forecast can be made yet, it goes on.
        tokens: that the whole run reads; for min_gain.
        eta_t: learning rate of every update of the whole run; for min_gain. Without it the rate
            counts as constant, which for a schedule that falls would stop too early.
    """
    if not evaluations:
        return None
    return (
        _reached(evaluations[-1], target)
        or _stalled(evaluations, patience)
        or _not_worth(evaluations, min_gain, tokens, eta_t)
    )


def _reached(last: Evaluation, target: float) -> Stop | None:
    if not (target > 0 and last.loss <= target):
        return None
    reason = f"the validation loss of {last.loss:.4f} has reached the target of {target:g}"
    return Stop("target", last.step, reason)


def _stalled(past: Sequence[Evaluation], patience: int) -> Stop | None:
    if patience <= 0:
        return None
    best, waited = past[0], 0
    for each in past[1:]:
        improved = each.loss < best.loss - each.standard_error or math.isnan(best.loss)
        best, waited = (each, 0) if improved else (best, waited + 1)
    if waited < patience:
        return None
    reason = (
        f"{waited} evaluations in a row did not lower the validation loss of {best.loss:.4f} at "
        f"step {best.step} by more than their standard errors"
    )
    return Stop("patience", past[-1].step, reason)


def _not_worth(
    past: Sequence[Evaluation], min_gain: float, tokens: float, eta_t: np.ndarray | None
) -> Stop | None:
    if min_gain <= 0 or past[-1].tokens >= tokens:
        return None
    from scaling.monitor.forecast import Curve, forecast  # takes SciPy, which other runs need not

    curve = Curve(
        tokens_n=np.array([each.tokens for each in past], float),
        loss_n=np.array([each.loss for each in past], float),
        at_n=np.array([each.step for each in past]),
        eta_t=eta_t,
    )
    try:
        end = forecast(curve, tokens)
    except InputError:  # too few evaluations, or none of a curve that can be forecast
        return None
    most = end.now - end.at_best(_UNLIKELY)
    if most >= min_gain:
        return None
    reason = (
        f"the rest of the run is expected to lower the validation loss of {end.now:.4f} by "
        f"{end.now - end.point:.4f} nats, nine times in ten by less than {most:.4f}"
    )
    return Stop("min_gain", past[-1].step, f"{reason}, below min_gain={min_gain:g}")
