"""Attention with its backward pass written out, for short windows on a CPU.

Shapes: b batch, t query time, s key time, c queries of a chunk, e keys that a chunk meets, k
key/value heads, g heads per key/value head, h head width.

Left to differentiate `reference.weigh`, XLA on a CPU transposes the scores inside its products, and
computes the softmax again, an element at a time, in the copies that it makes for them. Here heads
come first from the start, the weights are kept for the backward pass, and a chunk of queries meets
only the keys up to its end, so that nearly half of the products are never made.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from model.attention.reference import MASKED, heads_first, visible_rows
from model.placement import Placement

CHUNK = 64  # queries a chunk

Saved = tuple[jax.Array, jax.Array, jax.Array, list[jax.Array]]


def attend(
    q_btnh: jax.Array,
    k_btkh: jax.Array,
    v_btkh: jax.Array,
    segments_bt: jax.Array | None,
    window: int,
    _: Placement,
) -> jax.Array:
    """What the reference computes, of whole windows."""
    return _attend(q_btnh, k_btkh, v_btkh, segments_bt, window)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(
    q_btnh: jax.Array,
    k_btkh: jax.Array,
    v_btkh: jax.Array,
    segments_bt: jax.Array | None,
    window: int,
) -> jax.Array:
    return _forward(q_btnh, k_btkh, v_btkh, segments_bt, window)[0]


def _forward(
    q_btnh: jax.Array,
    k_btkh: jax.Array,
    v_btkh: jax.Array,
    segments_bt: jax.Array | None,
    window: int,
) -> tuple[jax.Array, Saved]:
    b, t, n, h = q_btnh.shape
    kv_heads = k_btkh.shape[2]
    q_bkgth = heads_first(q_btnh).reshape(b, kv_heads, n // kv_heads, t, h)
    k_bkth, v_bkth = heads_first(k_btkh), heads_first(v_btkh)
    reads, kept = [], []
    for start, stop, first in _chunks(t, window):
        k_bkeh, v_bkeh = k_bkth[:, :, first:stop], v_bkth[:, :, first:stop]
        scores_bkgce = jnp.einsum(
            "bkgch,bkeh->bkgce",
            q_bkgth[:, :, :, start:stop],
            k_bkeh,
            preferred_element_type=jnp.float32,
        )
        mask_bce = visible_rows(jnp.arange(start, stop), segments_bt, window, first, stop)
        scores_bkgce = jnp.where(mask_bce[:, None, None], scores_bkgce * h**-0.5, MASKED)
        weights_bkgce = jax.nn.softmax(scores_bkgce, axis=-1).astype(v_bkth.dtype)
        kept.append(weights_bkgce)
        reads.append(jnp.einsum("bkgce,bkeh->bkgch", weights_bkgce, v_bkeh))
    read_bnth = jnp.concatenate(reads, axis=3).reshape(b, n, t, h)
    return heads_first(read_bnth), (q_bkgth, k_bkth, v_bkth, kept)


def _backward(
    window: int, saved: Saved, d_read_btnh: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    q_bkgth, k_bkth, v_bkth, kept = saved
    b, kv_heads, g, t, h = q_bkgth.shape
    d_read_bkgth = heads_first(d_read_btnh).reshape(b, kv_heads, g, t, h)
    dq = []
    dk_bkth, dv_bkth = (
        jnp.zeros(k_bkth.shape, jnp.float32) for _ in range(2)
    )  # summed over chunks
    for (start, stop, first), weights_bkgce in zip(_chunks(t, window), kept, strict=True):
        k_bkeh, v_bkeh = k_bkth[:, :, first:stop], v_bkth[:, :, first:stop]
        q_bkgch, d_read_bkgch = (x[:, :, :, start:stop] for x in (q_bkgth, d_read_bkgth))
        d_weights = jnp.einsum(
            "bkgch,bkeh->bkgce", d_read_bkgch, v_bkeh, preferred_element_type=jnp.float32
        )
        # The derivative of the softmax: w (dw - sum(w dw)).
        weights = weights_bkgce.astype(jnp.float32)
        mean = jnp.sum(weights * d_weights, axis=-1, keepdims=True)
        d_scores_bkgce = (weights * (d_weights - mean) * h**-0.5).astype(q_bkgth.dtype)
        # Else what makes these goes into the transposing copies of the products below.
        d_scores_bkgce, weights_bkgce = jax.lax.optimization_barrier(
            (d_scores_bkgce, weights_bkgce)
        )
        dq.append(jnp.einsum("bkgce,bkeh->bkgch", d_scores_bkgce, k_bkeh))
        to_keys = functools.partial(
            jnp.einsum, "bkgce,bkgch->bkeh", preferred_element_type=jnp.float32
        )
        dk_bkth = dk_bkth.at[:, :, first:stop].add(to_keys(d_scores_bkgce, q_bkgch))
        dv_bkth = dv_bkth.at[:, :, first:stop].add(to_keys(weights_bkgce, d_read_bkgch))
    dq_bnth = jnp.concatenate(dq, axis=3).reshape(b, kv_heads * g, t, h)
    dk_btkh, dv_btkh = (heads_first(x).astype(q_bkgth.dtype) for x in (dk_bkth, dv_bkth))
    return heads_first(dq_bnth), dk_btkh, dv_btkh, None


_attend.defvjp(_forward, _backward)


def _chunks(t: int, window: int) -> Iterator[tuple[int, int, int]]:
    """Where each chunk of queries starts and stops, and the first key that it may see."""
    for start in range(0, t, CHUNK):
        yield start, min(start + CHUNK, t), max(0, start - window + 1) if window else 0
