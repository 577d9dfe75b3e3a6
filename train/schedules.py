"""The learning rate over a run.

A run makes T = `config.steps` updates. The update that leads from step k to step k + 1
(k = 0 .. T - 1) uses the rate `schedule(config)(k)`. With a warm-up of w updates:

    updates             0 .. w-1                 w-1 .. T-1
    share of the peak   (k+1)/w, rising to 1     the kind's curve, falling from 1

so no update is wasted on a rate of 0, update w-1 runs at the peak (update 0 where there is no
warm-up), and linear, cosine and wsd reach `schedule.final` exactly at the last update, T-1.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from configs.schema import Config


def schedule(config: Config) -> Callable[[jax.typing.ArrayLike], jax.Array]:
    """The rate as a function of the step.

    Returns:
        A function of the step k (an int or an integer scalar, traced or not) that gives the
        float32 learning rate of the update from k to k + 1.
    """
    peak, warmup = config.optimizer.learning_rate, config.schedule.warmup
    curve = _CURVES[config.schedule.kind]

    def rate(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step)
        rise = (step + 1).astype(jnp.float32) / max(warmup, 1)
        return peak * jnp.minimum(jnp.minimum(rise, 1.0), curve(config, step))

    return rate


def _constant(config: Config, step: jax.Array) -> jax.Array:
    return jnp.ones((), jnp.float32)


def _linear(config: Config, step: jax.Array) -> jax.Array:
    return _fall(config, 1.0 - _progress(step, _peak(config), config.steps - 1))


def _cosine(config: Config, step: jax.Array) -> jax.Array:
    """Half a cosine wave: Loshchilov & Hutter 2017 (SGDR), equation 5, one cycle."""
    angle = jnp.pi * _progress(step, _peak(config), config.steps - 1)
    return _fall(config, 0.5 * (1.0 + jnp.cos(angle)))


def _inverse_sqrt(config: Config, step: jax.Array) -> jax.Array:
    """sqrt(w / (k+1)): Vaswani et al. 2017, equation 3, as a share of its peak."""
    return jnp.sqrt(max(config.schedule.warmup, 1) / (step + 1).astype(jnp.float32))


def _warmup_stable_decay(config: Config, step: jax.Array) -> jax.Array:
    """The peak, then a line over the last `schedule.decay` updates: Hu et al. 2024 (MiniCPM)."""
    if not config.schedule.decay:
        return _constant(config, step)
    last = config.steps - 1
    return _fall(config, 1.0 - _progress(step, last - config.schedule.decay, last))


def _peak(config: Config) -> int:
    """The first update at the peak rate."""
    return max(config.schedule.warmup - 1, 0)


def _progress(step: jax.Array, first: int, last: int) -> jax.Array:
    """0 up to update `first`, 1 from update `last` on, a line between."""
    return jnp.clip((step - first).astype(jnp.float32) / max(last - first, 1), 0.0, 1.0)


def _fall(config: Config, remaining: jax.Array) -> jax.Array:
    """From 1 (all remaining) to `schedule.final` (nothing), exact at both ends."""
    return remaining + config.schedule.final * (1.0 - remaining)


_CURVES = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "inverse_sqrt": _inverse_sqrt,
    "wsd": _warmup_stable_decay,
}
