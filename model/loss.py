"""Cross-entropy over a large vocabulary without the table of logits.

Shapes: b batch, t time, c chunk of time, d width, v padded vocabulary.

Logits of all tokens in float32 would be the largest array of the step by far. Time is cut into
chunks; the gradient of a chunk is computed while its logits are still there, so that the backward
pass neither stores nor repeats them.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from configs.schema import Model
from model.inputs import Targets
from model.linear import linear_float32

# Float32 logits alive at once on a device: 8 MiB on a CPU, where they should stay in its caches. An
# accelerator gets 1 GiB, since every chunk reads the output table and adds to its gradient.
CHUNK_LOGITS = 2**21
ACCELERATOR_FACTOR = 128

Sums = dict[str, jax.Array]


def logits(config: Model, x_bcd: jax.Array, head_vd: jax.Array) -> jax.Array:
    """Float32 scores [b, c, v]; ids beyond the vocabulary (padding) can never be chosen."""
    z_bcv = linear_float32(x_bcd, head_vd)
    if config.logit_softcap:
        z_bcv = config.logit_softcap * jnp.tanh(z_bcv / config.logit_softcap)
    if config.padded_vocab > config.vocab:
        real_v = jnp.arange(config.padded_vocab) < config.vocab
        z_bcv = jnp.where(real_v[None, None], z_bcv, -jnp.inf)
    return z_bcv


def _chunk(
    config: Model, z_loss: float, x_bcd: jax.Array, head_vd: jax.Array, targets: Targets
) -> tuple[jax.Array, Sums]:
    """The sums over one chunk: -log softmax(z)[target], plus z_loss * log(sum exp z)^2."""
    z_bcv = logits(config, x_bcd, head_vd)
    top_bc = jax.lax.stop_gradient(jnp.max(z_bcv, axis=-1))
    total_bc = jnp.log(jnp.sum(jnp.exp(z_bcv - top_bc[..., None]), axis=-1)) + top_bc
    chosen_bc = jnp.take_along_axis(z_bcv, targets.tokens_bt[..., None], axis=-1)[..., 0]
    loss_b = jnp.sum((total_bc - chosen_bc) * targets.weights_bt, axis=1)
    penalty = z_loss * jnp.sum(jnp.square(total_bc) * targets.weights_bt)
    correct_b = jnp.sum(jnp.where(chosen_bc >= top_bc, targets.weights_bt, 0), axis=1)
    sums = {"loss": loss_b, "weight": jnp.sum(targets.weights_bt, axis=1), "correct": correct_b}
    return jnp.sum(loss_b) + penalty, sums


def _chunks(config: Model, x_btd: jax.Array, targets: Targets) -> tuple[jax.Array, Targets]:
    """Cut time into equal chunks on a new leading axis, padding the last with weight 0."""
    b, t, _ = x_btd.shape
    factor = 1 if jax.default_backend() == "cpu" else ACCELERATOR_FACTOR
    alive = CHUNK_LOGITS * factor * jax.device_count()  # the batch is spread over all devices
    count = min(t, -(-b * t * config.padded_vocab // alive))
    length = -(-t // count)

    def cut(a: jax.Array) -> jax.Array:
        widths = [(0, 0), (0, count * length - t)] + [(0, 0)] * (a.ndim - 2)
        parts = jnp.pad(a, widths).reshape(b, count, length, *a.shape[2:])
        return jnp.moveaxis(parts, 1, 0)

    return cut(x_btd), Targets(*map(cut, targets))


def _over_chunks(sums: Sums) -> Sums:
    return {name: jnp.sum(sum_cb, axis=0) for name, sum_cb in sums.items()}


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def cross_entropy(
    config: Model, z_loss: float, x_btd: jax.Array, head_vd: jax.Array, targets: Targets
) -> tuple[jax.Array, Sums]:
    """Sum of the training loss over all targets, in nats.

    Args:
        config: vocabulary, padding and soft-cap of the logits.
        z_loss: weight of the squared log-normaliser (Chowdhery et al. 2022, section 5).
        x_btd: what the network made of the inputs, in the compute dtype.
        head_vd: float32 output table.
        targets: ids and weights.

    Returns:
        The float32 sum that is differentiated (z-loss included), and each window's sums [b] for
        reports: `loss` (without z-loss), `weight` (number of targets), `correct` (targets ranked
        first). The latter carry no gradient.
    """
    step = functools.partial(_chunk, config, z_loss)
    xs, cut_targets = _chunks(config, x_btd, targets)
    totals, sums = jax.lax.map(lambda chunk: step(chunk[0], head_vd, chunk[1]), (xs, cut_targets))
    return jnp.sum(totals), _over_chunks(sums)


def _forward(
    config: Model, z_loss: float, x_btd: jax.Array, head_vd: jax.Array, targets: Targets
) -> tuple[tuple[jax.Array, Sums], tuple[jax.Array, jax.Array]]:
    gradient = jax.value_and_grad(
        functools.partial(_chunk, config, z_loss), argnums=(0, 1), has_aux=True
    )

    def step(dhead_vd: jax.Array, chunk: tuple[jax.Array, Targets]) -> tuple[jax.Array, Any]:
        (total, sums), (dx_bcd, dhead_chunk_vd) = gradient(chunk[0], head_vd, chunk[1])
        return dhead_vd + dhead_chunk_vd, (total, sums, dx_bcd)

    chunks = _chunks(config, x_btd, targets)
    dhead_vd, (totals, sums, dx) = jax.lax.scan(step, jnp.zeros_like(head_vd), chunks)
    b, t, d = x_btd.shape
    dx_btd = jnp.moveaxis(dx, 0, 1).reshape(b, -1, d)[:, :t]
    return (jnp.sum(totals), _over_chunks(sums)), (dx_btd, dhead_vd)


def _backward(
    config: Model,
    z_loss: float,
    saved: tuple[jax.Array, jax.Array],
    cotangents: tuple[jax.Array, Sums],
) -> tuple[jax.Array, jax.Array, None]:
    del config, z_loss
    dx_btd, dhead_vd = saved
    scale = cotangents[0]
    return dx_btd * scale.astype(dx_btd.dtype), dhead_vd * scale, None


cross_entropy.defvjp(_forward, _backward)
