"""Attention as it is defined: all scores at once. What every backend has to agree with.

Shapes: b batch, t query time, s key time, n heads, k key/value heads, g heads per key/value head,
h head width.
"""

import jax
import jax.numpy as jnp

from model.placement import Placement

ATTENTION_OUTPUT = "attention_output"  # what remat="attention" keeps
MASKED = -1e30  # finite: a padded row with nothing to see must not become nan


def scores(q_btnh: jax.Array, k_bskh: jax.Array) -> jax.Array:
    """q k' / sqrt(h) in float32: [b, k, g, t, s]."""
    b, t, n, h = q_btnh.shape
    kv_heads = k_bskh.shape[2]
    q_btkgh = q_btnh.reshape(b, t, kv_heads, n // kv_heads, h)
    scores_bkgts = jnp.einsum(
        "btkgh,bskh->bkgts", q_btkgh, k_bskh, preferred_element_type=jnp.float32
    )
    return scores_bkgts * h**-0.5


def weigh(
    q_btnh: jax.Array, k_bskh: jax.Array, v_bskh: jax.Array, mask_bts: jax.Array
) -> jax.Array:
    """softmax(q k' / sqrt(h)) v where the mask allows, with scores in float32.

    mask_bts may have b = 1. Also the attention of decoding, where s is the cache's length.
    """
    b, t, n, h = q_btnh.shape
    scores_bkgts = jnp.where(mask_bts[:, None, None], scores(q_btnh, k_bskh), MASKED)
    weights_bkgts = jax.nn.softmax(scores_bkgts, axis=-1).astype(v_bskh.dtype)
    return jnp.einsum("bkgts,bskh->btkgh", weights_bkgts, v_bskh).reshape(b, t, n, h)


def visible(query_positions: jax.Array, key_positions: jax.Array, window: int) -> jax.Array:
    """Which keys each query may see by position: at or before it, and within the window.

    Positions are [..., t] and [..., s]; the result is bool [..., t, s].
    """
    distance = query_positions[..., :, None] - key_positions[..., None, :]
    near = distance >= 0
    return near & (distance < window) if window else near


def attend(
    q_btnh: jax.Array,
    k_bskh: jax.Array,
    v_bskh: jax.Array,
    segments_bs: jax.Array | None,
    window: int,
    placement: Placement,
) -> jax.Array:
    """The reference: all scores at once, t * s of them in memory."""
    s = k_bskh.shape[1]
    return rows(q_btnh, placement.times(s), k_bskh, v_bskh, segments_bs, window, 0, s)


def rows(
    q_btnh: jax.Array,
    times_t: jax.Array,
    k_bskh: jax.Array,
    v_bskh: jax.Array,
    segments_bs: jax.Array | None,
    window: int,
    first: int,
    last: int,
) -> jax.Array:
    """What the queries at `times_t` read, none of which can see keys outside first..last - 1."""
    mask_bts = visible_rows(times_t, segments_bs, window, first, last)
    return weigh(q_btnh, k_bskh[:, first:last], v_bskh[:, first:last], mask_bts)


def visible_rows(
    times_t: jax.Array, segments_bs: jax.Array | None, window: int, first: int, last: int
) -> jax.Array:
    """Which keys of first..last - 1 the queries at `times_t` may see: bool [b or 1, t, s]."""
    mask_bts = visible(times_t, jnp.arange(first, last), window)[None]
    if segments_bs is None:
        return mask_bts
    own_bt = jnp.take(segments_bs, times_t, axis=1, mode="clip")
    return mask_bts & (own_bt[:, :, None] == segments_bs[:, None, first:last])


def heads_first(x_btnh: jax.Array) -> jax.Array:
    """Time and heads exchanged."""
    return jnp.swapaxes(x_btnh, 1, 2)
