"""Attention a chunk of queries at a time, computed again for the backward pass: linear in memory.

Shapes: b batch, t query time, s key time, n heads, k key/value heads, g heads per key/value head,
h head width. c queries of a chunk.
"""

import jax
import jax.numpy as jnp

from model.attention import reference
from model.placement import Placement

CHUNK = 256  # queries a chunk


def attend(
    q_btnh: jax.Array,
    k_bskh: jax.Array,
    v_bskh: jax.Array,
    segments_bs: jax.Array | None,
    window: int,
    placement: Placement,
) -> jax.Array:
    """Queries in chunks: skips the upper triangle, and keeps one chunk's scores at a time.

    The backward pass computes each chunk's scores again, so memory grows with t, not t squared.
    """
    times_t = placement.times(k_bskh.shape[1])
    rows = jax.checkpoint(reference.rows, static_argnums=(5, 6, 7))
    chunks: list[jax.Array] = []
    for start, stop, first, last in _chunks(q_btnh.shape[1], window, placement):
        if chunks:  # else XLA runs them side by side, with the scores of all in memory
            q_btnh, chunks[-1] = jax.lax.optimization_barrier((q_btnh, chunks[-1]))
        q_bcnh, times_c = q_btnh[:, start:stop], times_t[start:stop]
        chunks.append(rows(q_bcnh, times_c, k_bskh, v_bskh, segments_bs, window, first, last))
    return jnp.concatenate(chunks, axis=1)


def _chunks(t: int, window: int, placement: Placement) -> list[tuple[int, int, int, int]]:
    """Where each chunk of queries starts and stops, and the first and last key it may see."""
    if placement.sequence == 1:
        ends = [(start, min(start + CHUNK, t)) for start in range(0, t, CHUNK)]
        return [(a, b, max(0, a - window + 1) if window else 0, b) for a, b in ends]
    # Which tokens a device holds is known only as it runs; the early piece of each lies in the
    # first half of the window.
    half, s = t // 2, t * placement.sequence
    starts = [*range(0, half, CHUNK), *range(half, t, CHUNK)]
    stops = [*starts[1:], t]
    return [(a, b, 0, s // 2 if a < half else s) for a, b in zip(starts, stops, strict=True)]
