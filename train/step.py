"""One update.

Shapes: b windows in the batch, m windows in a microbatch, t tokens in a window.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import model
from configs.schema import Config
from model.loss import Sums
from train.optimizers import build
from train.schedules import schedule
from train.state import State

Metrics = dict[str, jax.Array]


def make_step(config: Config, eod: int) -> Callable[[State, jax.Array], tuple[State, Metrics]]:
    """The train step for windows int32 [b, t + 1]; b may be any size of the batch ramp.

    Args:
        config: the run.
        eod: the corpus's end-of-document id.

    Returns:
        A jitted function of the state (donated) and a batch to the new state and float32 scalars:
        loss (nats a target, without z-loss), accuracy, targets, gradient_norm (before clipping),
        learning_rate, skipped and skipped_total.
    """
    optimizer = build(config, model.declare(config.model))
    rate = schedule(config)

    def loss(params: model.Params, window_mt: jax.Array, key: jax.Array) -> tuple[jax.Array, Sums]:
        return model.loss(
            config.model,
            params,
            window_mt,
            eod=eod,
            attend_across=config.data.attend_across,
            key=key if config.model.dropout else None,
            z_loss=config.z_loss,
        )

    def step(state: State, window_bt: jax.Array) -> tuple[State, Metrics]:
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        gradients, sums = accumulate(loss, state.params, window_bt, config.batch.microbatch, key)
        targets = jnp.maximum(sums["weight"], 1)
        gradients = jax.tree.map(lambda g: g / targets, gradients)
        norm = optax.tree.norm(gradients)

        updates, moments = optimizer.update(gradients, state.optimizer, state.params)
        updated = (optax.apply_updates(state.params, updates), moments)
        finite = jnp.isfinite(norm) & jnp.isfinite(sums["loss"])
        params, moments = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old), updated, (state.params, state.optimizer)
        )
        skipped = jnp.where(finite, 0, state.skipped + 1)
        skipped_total = state.skipped_total + jnp.where(finite, 0, 1)
        metrics = {
            "loss": sums["loss"] / targets,
            "accuracy": sums["correct"] / targets,
            "targets": sums["weight"],
            "gradient_norm": norm,
            "learning_rate": rate(state.step - state.skipped_total),
            "skipped": skipped,
            "skipped_total": skipped_total,
        }
        metrics = {name: value.astype(jnp.float32) for name, value in metrics.items()}
        return State(state.step + 1, params, moments, skipped, skipped_total), metrics

    return jax.jit(step, donate_argnums=0)


def accumulate(
    loss: Callable[..., tuple[jax.Array, Sums]],
    params: model.Params,
    window_bt: jax.Array,
    microbatch: int,
    key: jax.Array,
) -> tuple[Any, Sums]:
    """Sums of gradients and of losses over the batch, one microbatch at a time.

    Sums and weights stay apart, so that microbatches with few targets do not count for more.
    """
    gradient = jax.grad(loss, has_aux=True)
    rows, length = window_bt.shape
    count = rows // microbatch
    # Every count-th row: with rows spread over devices, each microbatch is spread over them too.
    windows = jnp.swapaxes(window_bt.reshape(microbatch, count, length), 0, 1)

    def add(total: Any, part: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        window_mt, index = part
        gradients, sums = gradient(params, window_mt, jax.random.fold_in(key, index))
        sums = {name: jnp.sum(sum_m) for name, sum_m in sums.items()}
        return jax.tree.map(jnp.add, total, (gradients, sums)), None

    zeros = {name: jnp.zeros(()) for name in ("loss", "weight", "correct")}
    start = (jax.tree.map(jnp.zeros_like, params), zeros)
    if count == 1:
        return add(start, (windows[0], jnp.int32(0)))[0]
    return jax.lax.scan(add, start, (windows, jnp.arange(count)))[0]


def make_evaluation(config: Config, eod: int) -> Callable[[model.Params, jax.Array], Sums]:
    """A jitted function of parameters and windows to each window's sums (see model.loss)."""

    def evaluate(params: model.Params, window_bt: jax.Array) -> Sums:
        options: dict[str, Any] = {"eod": eod, "attend_across": config.data.attend_across}
        return model.loss(config.model, params, window_bt, **options)[1]

    return jax.jit(evaluate)
