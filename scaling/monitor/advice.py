"""What the rest of a run gains and costs, and what to do about it."""

import math
from dataclasses import dataclass, replace

import numpy as np

from configs.schema import require
from scaling.monitor.forecast import Curve, Forecast, forecast
from scaling.monitor.source import Watched

_UNLIKELY = 0.1  # chance of more gain than min_gain that is not waited for, as in scaling/stopping
_DECAY = 0.2  # updates of a decay, as a share of those made
_FINAL = 0.1  # of the rate, where a decay ends


@dataclass(frozen=True)
class Outlook:
    """A run's end, what a further token gains, and advice."""

    end: Forecast  # by the schedule it has
    per_token: float  # nats that a further token gains at the present rate
    per_device_hour: float  # NaN where the speed is not known
    per_money: float  # NaN where the price is not known
    device_hours: float  # of the rest of the run
    money: float
    decayed: Forecast | None  # were the rate to fall from now on, over a fifth of the updates made
    stayed: Forecast | None  # were it to stay for as long
    advice: str  # "go on", "stop", "decay now" or "complete"
    why: str


def outlook(
    watched: Watched, price: float = 0.0, min_gain: float = 0.003, level: float = 0.95
) -> Outlook:
    """What to do with a run.

    Args:
        watched: the run as it stands.
        price: of an hour of one device, in any money; 0: not known.
        min_gain: nats a token that are not worth having. Seeds alone move the loss of one and the
            same recipe by .002 to .006 at 2.8B parameters.
        level: of the intervals.

    Raises InputError for a curve that no forecast should be drawn from (see `forecast`).
    """
    require(price >= 0, f"--price_per_hour={price:g} must not be negative")
    require(min_gain > 0, f"--min_gain={min_gain:g} must be positive: what gain is worth nothing?")
    curve = watched.curve
    done = watched.complete or watched.tokens <= curve.tokens_n[-1]
    now = float(curve.tokens_n[-1])
    end = forecast(curve, now if done else watched.tokens, level)
    hours_a_token = watched.devices / watched.tokens_per_second / 3600
    rest = 0.0 if done else watched.tokens - now
    decayed, stayed = (None, None) if done else _alternatives(curve, level)
    advice, why = _advise(watched, end, decayed, min_gain) if not done else _complete(watched, end)
    return Outlook(
        end=end,
        per_token=-end.slope,
        per_device_hour=-end.slope / hours_a_token,
        per_money=-end.slope / hours_a_token / price if price else math.nan,
        device_hours=rest * hours_a_token,
        money=rest * hours_a_token * price if price else math.nan,
        decayed=decayed,
        stayed=stayed,
        advice=advice,
        why=why,
    )


def _complete(watched: Watched, end: Forecast) -> tuple[str, str]:
    ended = f": {watched.ended}" if watched.ended else ""
    return "complete", f"the run has ended{ended}, at a smooth loss of {end.now:.4f}"


def _at_peak(curve: Curve) -> bool:
    """Whether the schedule is known and the rate has not fallen yet."""
    if curve.eta_t is None or curve.at_n is None:
        return False
    last = curve.eta_t[min(int(curve.at_n[-1]), len(curve.eta_t)) - 1]
    return bool(last > 0.99 * curve.eta_t.max())


def _with_rates(curve: Curve, rest: np.ndarray) -> Curve:
    """The curve, were its learning rates to go on like this."""
    if curve.eta_t is None or curve.at_n is None:
        return curve
    return replace(curve, eta_t=np.concatenate([curve.eta_t[: curve.at_n[-1]], rest]))


def _alternatives(curve: Curve, level: float) -> tuple[Forecast | None, Forecast | None]:
    """The loss if the rate fell from now on, and if it stayed for as long."""
    if not _at_peak(curve) or curve.at_n is None or curve.eta_t is None:
        return None, None
    updates = max(round(_DECAY * int(curve.at_n[-1])), 1)
    tokens = float(curve.tokens_n[-1]) + updates * curve.tokens_per_update
    rate = curve.eta_t[curve.at_n[-1] - 1]
    line = rate * np.linspace(1, _FINAL, updates + 1)[1:]
    rests = (line, np.full(updates, rate))
    decayed, stayed = (forecast(_with_rates(curve, r), tokens, level) for r in rests)
    return decayed, stayed


def _advise(
    watched: Watched, end: Forecast, decayed: Forecast | None, min_gain: float
) -> tuple[str, str]:
    """What to do, and the sentence why."""
    curve, tokens = watched.curve, watched.tokens
    gain = f"the rest of the run is expected to gain {end.now - end.point:.4f} nats"
    if decayed is None:
        most = end.now - end.at_best(_UNLIKELY)
        if most < min_gain:
            return "stop", f"{gain}, nine times in ten less than {most:.4f}, below {min_gain:g}"
        return "go on", f"{gain}, perhaps {most:.4f}: more than {min_gain:g}"
    stay = _stayed_to_the_end(curve, tokens, end)
    most = stay.now - stay.at_best(_UNLIKELY)
    if most >= min_gain:
        return "go on", f"{gain}, and the learning rate has not fallen yet"
    return "decay now", (
        f"at this learning rate all {tokens - curve.tokens_n[-1]:.4g} tokens that are left gain "
        f"{stay.now - stay.point:.4f} nats, nine times in ten less than {most:.4f}; a decay over "
        f"{_DECAY:.0%} of the updates made is expected to gain {decayed.now - decayed.point:.4f}"
    )


def _stayed_to_the_end(curve: Curve, tokens: float, end: Forecast) -> Forecast:
    """The end if the rate stayed as it is."""
    if curve.eta_t is None or curve.at_n is None:
        return end
    rest = curve.eta_t[curve.at_n[-1] :]
    rate = curve.eta_t[curve.at_n[-1] - 1]
    if np.allclose(rest, rate):
        return end
    return forecast(_with_rates(curve, np.full(len(rest), rate)), tokens, end.level)


def describe(watched: Watched, found: Outlook, price: float) -> str:
    """The outlook in lines for people."""
    curve, end = watched.curve, found.end
    lines = [
        f"{curve.name}: {curve.tokens_n[-1]:.4g} of {watched.tokens:.4g} tokens, {watched.kind} "
        f"loss {end.now:.4f} (smooth)",
        f"at the end: {end.point:.4f}, {end.level:.0%}: {end.lower:.4f} to {end.upper:.4f}",
        f"  {end.why}",
        f"at the present learning rate a million tokens gain {found.per_token * 1e6:.3g} nats"
        + _costs(found, price),
    ]
    if math.isfinite(found.device_hours) and found.device_hours:
        money = f", {found.money:.4g} in money" if math.isfinite(found.money) else ""
        lines.append(f"the rest takes {found.device_hours:.4g} device-hours{money}")
    if found.decayed and found.stayed:
        lines.append(
            f"in {_DECAY:.0%} more updates: {found.decayed.point:.4f} ({found.decayed.lower:.4f} "
            f"to {found.decayed.upper:.4f}) if the rate falls to {_FINAL:.0%}, "
            f"{found.stayed.point:.4f} if it stays"
        )
    return "\n".join([*lines, f"{found.advice}: {found.why}"])


def _costs(found: Outlook, price: float) -> str:
    hour = found.per_device_hour
    if not math.isfinite(hour):
        return ""
    return f", a device-hour {hour:.3g}" + (
        f", a unit of money {found.per_money:.3g}" * bool(price)
    )
