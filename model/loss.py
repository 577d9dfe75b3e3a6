"""Cross-entropy over a large vocabulary without the table of logits.

Shapes: b batch, t time, c chunk of time, d width, v padded vocabulary.

Logits of all tokens in float32 would be the largest array of the step by far. Time is cut into
chunks; the gradient of a chunk is computed while its logits are still there, so that the backward
pass neither stores nor repeats them.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from configs.schema import Model
from model.inputs import Targets
from model.linear import linear_float32, linear_float32_gradients
from model.placement import TENSOR, Placement

# Float32 logits alive at once on a device: 8 MiB on a CPU, where they should stay in its caches,
# but of no fewer tokens than these, since every chunk reads the output table and adds to its
# gradient. For that reason an accelerator gets 1 GiB.
CHUNK_LOGITS = 2**21
CHUNK_TOKENS = 256
ACCELERATOR_FACTOR = 128

Sums = dict[str, jax.Array]


def logits(
    config: Model,
    x_bcd: jax.Array,
    head_vd: jax.Array,
    multiply: Callable[[jax.Array, jax.Array], jax.Array] = linear_float32,
) -> jax.Array:
    """Float32 scores [b, c, v]; ids beyond the vocabulary (padding) can never be chosen."""
    return _score(config, multiply(x_bcd, head_vd), 0)


def _score(config: Model, z_bcv: jax.Array, first: jax.Array | int) -> jax.Array:
    """The scores that products with the ids from `first` on stand for."""
    if config.width_ratio != 1:  # muP: a sum of that many more terms
        z_bcv = z_bcv / config.width_ratio
    if config.logit_softcap:
        z_bcv = config.logit_softcap * jnp.tanh(z_bcv / config.logit_softcap)
    if config.padded_vocab > config.vocab:
        real_v = first + jnp.arange(z_bcv.shape[-1]) < config.vocab
        z_bcv = jnp.where(real_v[None, None], z_bcv, -jnp.inf)
    return z_bcv


def _chunk(
    config: Model,
    z_loss: float,
    placement: Placement,
    z_bcv: jax.Array,
    targets: Targets,
) -> tuple[jax.Array, Sums]:
    """The sums over one chunk: -log softmax(z)[target], plus z_loss * log(sum exp z)^2.

    Each device of tensor has the products z with some ids; they share what is differentiated.
    """
    ids = z_bcv.shape[-1]
    first = placement.index(TENSOR) * ids
    z_bcv = _score(config, z_bcv, first)
    top_bc = placement.tensor_max(jax.lax.stop_gradient(jnp.max(z_bcv, axis=-1)))
    part_bc = jnp.sum(jnp.exp(z_bcv - top_bc[..., None]), axis=-1)
    total_bc = jnp.log(placement.tensor_sum(part_bc)) + top_bc
    own_bc = targets.tokens_bt - first
    chosen_bc = jnp.take_along_axis(z_bcv, jnp.clip(own_bc, 0, ids - 1)[..., None], axis=-1)[..., 0]
    if placement.tensor > 1:
        is_here_bc = (own_bc >= 0) & (own_bc < ids)
        chosen_bc = placement.tensor_sum(jnp.where(is_here_bc, chosen_bc, 0))
    loss_b = jnp.sum((total_bc - chosen_bc) * targets.weights_bt, axis=1)
    penalty = z_loss * jnp.sum(jnp.square(total_bc) * targets.weights_bt)
    correct_b = jnp.sum(jnp.where(chosen_bc >= top_bc, targets.weights_bt, 0), axis=1)
    sums = {"loss": loss_b, "weight": jnp.sum(targets.weights_bt, axis=1), "correct": correct_b}
    return (jnp.sum(loss_b) + penalty) / placement.tensor, sums


def _chunks(
    placement: Placement, ids: int, x_btd: jax.Array, targets: Targets
) -> tuple[jax.Array, Targets]:
    """Cut time into equal chunks on a new leading axis, padding the last with weight 0."""
    b, t, _ = x_btd.shape
    if placement.platform == "cpu":
        alive = max(CHUNK_LOGITS, CHUNK_TOKENS * ids)
    else:
        alive = CHUNK_LOGITS * ACCELERATOR_FACTOR
    count = min(t, -(-b * t * ids // alive))
    length = -(-t // count)
    count = -(-t // length)  # else most of the last chunks could be padding

    def cut(a: jax.Array) -> jax.Array:
        widths = [(0, 0), (0, count * length - t)] + [(0, 0)] * (a.ndim - 2)
        parts = jnp.pad(a, widths).reshape(b, count, length, *a.shape[2:])
        return jnp.moveaxis(parts, 1, 0)

    return cut(x_btd), Targets(*map(cut, targets))


def _over_chunks(sums: Sums) -> Sums:
    return {name: jnp.sum(sum_cb, axis=0) for name, sum_cb in sums.items()}


def cross_entropy(
    config: Model,
    z_loss: float,
    placement: Placement,
    x_btd: jax.Array,
    head_vd: jax.Array,
    targets: Targets,
) -> tuple[jax.Array, Sums]:
    """Sum of the training loss over all targets, in nats.

    Args:
        config: vocabulary, padding and soft-cap of the logits.
        z_loss: weight of the squared log-normaliser (Chowdhery et al. 2022, section 5).
        placement: how head and tokens are split over devices.
        x_btd: what the network made of the inputs, in the compute dtype.
        head_vd: float32 output table, or this device's share of it.
        targets: ids and weights.

    Returns:
        The float32 sum that is differentiated (z-loss included), or this device's part of it, and
        each window's sums [b] for reports: `loss` (without z-loss), `weight` (number of targets),
        `correct` (targets ranked first). The latter carry no gradient.
    """
    return _cross_entropy(config, z_loss, placement, placement.enter(x_btd), head_vd, targets)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _cross_entropy(
    config: Model,
    z_loss: float,
    placement: Placement,
    x_btd: jax.Array,
    head_vd: jax.Array,
    targets: Targets,
) -> tuple[jax.Array, Sums]:
    whole_vd = _whole(placement, head_vd, x_btd)

    def step(chunk: tuple[jax.Array, Targets]) -> tuple[jax.Array, Sums]:
        x_bcd, own = chunk
        return _chunk(config, z_loss, placement, linear_float32(x_bcd, whole_vd), own)

    chunks = _chunks(placement, len(whole_vd), x_btd, targets)
    totals, sums = jax.lax.map(step, chunks)
    return jnp.sum(totals), _over_chunks(sums)


def _whole(placement: Placement, head_vd: jax.Array, x_btd: jax.Array) -> jax.Array:
    """The columns of all of fsdp, fetched once for all chunks, in the dtype they are used in."""
    return head_vd if placement.fsdp == 1 else placement.matrix(head_vd.astype(x_btd.dtype), 1)


def _forward(
    config: Model,
    z_loss: float,
    placement: Placement,
    x_btd: jax.Array,
    head_vd: jax.Array,
    targets: Targets,
) -> tuple[tuple[jax.Array, Sums], tuple[jax.Array, jax.Array]]:
    chunk_gradient = jax.value_and_grad(
        functools.partial(_chunk, config, z_loss, placement), has_aux=True
    )
    whole_vd = _whole(placement, head_vd, x_btd)

    def step(dhead_vd: jax.Array, chunk: tuple[jax.Array, Targets]) -> tuple[jax.Array, Any]:
        x_bcd, own = chunk
        (total, sums), dz_bcv = chunk_gradient(linear_float32(x_bcd, whole_vd), own)
        dx_bcd, part_vd = linear_float32_gradients(x_bcd, whole_vd, dz_bcv, head_vd.dtype)
        return dhead_vd + part_vd, (total, sums, dx_bcd)

    chunks = _chunks(placement, len(whole_vd), x_btd, targets)
    dhead_vd = jnp.zeros(whole_vd.shape, head_vd.dtype)
    dhead_vd, (totals, sums, dx) = jax.lax.scan(step, dhead_vd, chunks)
    b, t, d = x_btd.shape
    dx_btd = jnp.moveaxis(dx, 0, 1).reshape(b, -1, d)[:, :t]
    dhead_vd = placement.matrix_gradient(dhead_vd, 1)
    return (jnp.sum(totals), _over_chunks(sums)), (dx_btd, dhead_vd)


def _backward(
    config: Model,
    z_loss: float,
    placement: Placement,
    saved: tuple[jax.Array, jax.Array],
    cotangents: tuple[jax.Array, Sums],
) -> tuple[jax.Array, jax.Array, None]:
    del config, z_loss, placement
    dx_btd, dhead_vd = saved
    scale = cotangents[0]
    return dx_btd * scale.astype(dx_btd.dtype), dhead_vd * scale, None


_cross_entropy.defvjp(_forward, _backward)
