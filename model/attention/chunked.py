"""Attention a chunk of queries at a time, scored again in the backward pass: linear in memory.

Shapes: b batch, t query time, s key time, n heads, k key/value heads, g heads per key/value head,
h head width. m chunks of c queries, e keys that a chunk meets.

Chunks are the turns of loops, since a compiler may run what is not a loop side by side, with the
scores of all chunks in memory at once (XLA on CPUs does where it drops optimization barriers). All
turns of a loop meet as many keys. So there is a loop for every few chunks, which meets no key after
their last query; with a window one for all of them, whose turns begin further and further on. The
forward pass leaves the logarithm of each softmax's sum, from which the backward pass has the
weights at once (Dao et al. 2022, arXiv:2205.14135, appendix B).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from model.attention.reference import ATTENTION_OUTPUT, MASKED, heads_first, visible
from model.placement import Placement

CHUNK = 128  # queries a chunk
LOOPS = 8  # at most; about 1 / LOOPS of the products are of queries and keys that come later

Saved = tuple[jax.Array, jax.Array, jax.Array, jax.Array | None, jax.Array, jax.Array]


class Loop(NamedTuple):
    """The queries start..stop - 1 in chunks, and how many keys each chunk meets.

    A chunk meets the last that it may see, so those from the first on where `keys` covers `stop`.
    """

    start: int
    stop: int
    keys: int

    @property
    def moves(self) -> bool:
        """Whether the keys of a chunk begin further on than those of the one before."""
        return self.keys < self.stop

    @property
    def shape(self) -> tuple[int, int]:
        """How many chunks, and queries in each: the last may be longer than what is left."""
        queries = self.stop - self.start
        count = -(-queries // CHUNK)
        return count, CHUNK if self.moves else -(-queries // count)


def attend(
    q_btnh: jax.Array,
    k_bskh: jax.Array,
    v_bskh: jax.Array,
    segments_bs: jax.Array | None,
    window: int,
    placement: Placement,
) -> jax.Array:
    """What the reference computes, with one chunk's scores in memory at a time."""
    loops = _loops(q_btnh.shape[1], window, placement)
    times_t = placement.times(k_bskh.shape[1])
    return _attend(q_btnh, k_bskh, v_bskh, segments_bs, times_t, window, loops)


def _loops(t: int, window: int, placement: Placement) -> tuple[Loop, ...]:
    if placement.sequence > 1:
        # Which tokens a device holds is known only as it runs; the early piece of each lies in the
        # first half of the window.
        half, s = t // 2, t * placement.sequence
        return Loop(0, half, s // 2), Loop(half, t, s)
    if 0 < window <= t - CHUNK:
        return (Loop(0, t, CHUNK + window - 1),)
    queries = CHUNK * max(2, -(-t // (LOOPS * CHUNK)))  # one chunk alone would not be a loop
    return tuple(
        Loop(start, min(start + queries, t), min(start + queries, t))
        for start in range(0, t, queries)
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _attend(
    q_btnh: jax.Array,
    k_bskh: jax.Array,
    v_bskh: jax.Array,
    segments_bs: jax.Array | None,
    times_t: jax.Array,
    window: int,
    loops: tuple[Loop, ...],
) -> jax.Array:
    return _forward(q_btnh, k_bskh, v_bskh, segments_bs, times_t, window, loops)[0]


def _forward(
    q_btnh: jax.Array,
    k_bskh: jax.Array,
    v_bskh: jax.Array,
    segments_bs: jax.Array | None,
    times_t: jax.Array,
    window: int,
    loops: tuple[Loop, ...],
) -> tuple[jax.Array, Saved]:
    b, t, n, h = q_btnh.shape
    kv_heads = k_bskh.shape[2]
    q_bkgth = heads_first(q_btnh).reshape(b, kv_heads, n // kv_heads, t, h)
    # Else masks, which follow from times alone, are made for all chunks at once and before: where
    # layers are scanned, JAX keeps what does not depend on what is differentiated.
    q_bkgth, times_t = jax.lax.optimization_barrier((q_bkgth, times_t))
    k_bksh, v_bksh = heads_first(k_bskh), heads_first(v_bskh)
    reads, logs = [], []
    for loop in loops:

        def turn(chunk: _Chunk, loop: Loop = loop) -> tuple[jax.Array, jax.Array]:
            k_bkeh, v_bkeh = (_keys(x, chunk.first, loop, 2) for x in (k_bksh, v_bksh))
            scores_bkgce = _scores(chunk, k_bkeh, segments_bs, window, loop)
            top_bkgc = jnp.max(scores_bkgce, axis=-1)
            weights_bkgce = jnp.exp(scores_bkgce - top_bkgc[..., None])
            sum_bkgc = jnp.sum(weights_bkgce, axis=-1)
            read_bkgch = jnp.einsum("bkgce,bkeh->bkgch", weights_bkgce.astype(v_bkeh.dtype), v_bkeh)
            read_bkgch = (read_bkgch / sum_bkgc[..., None]).astype(q_btnh.dtype)
            return read_bkgch, top_bkgc + jnp.log(sum_bkgc)

        read, log = jax.lax.map(turn, _chunks(q_bkgth, segments_bs, times_t, loop))
        reads.append(_join(read, loop, 3))
        logs.append(_join(log, loop, 3))
    log_bkgt = checkpoint_name(jnp.concatenate(logs, axis=3), ATTENTION_OUTPUT)
    read_bnth = jnp.concatenate(reads, axis=3).reshape(b, n, t, h)
    return heads_first(read_bnth), (q_bkgth, k_bksh, v_bksh, segments_bs, times_t, log_bkgt)


def _backward(
    window: int, loops: tuple[Loop, ...], saved: Saved, d_read_btnh: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None, None]:
    q_bkgth, k_bksh, v_bksh, segments_bs, times_t, log_bkgt = saved
    b, kv_heads, g, t, h = q_bkgth.shape
    d_read_bkgth = heads_first(d_read_btnh).reshape(b, kv_heads, g, t, h)
    sums = jnp.zeros(k_bksh.shape, jnp.float32), jnp.zeros(v_bksh.shape, jnp.float32)
    dq = []
    for loop in loops:

        def turn(
            sums: tuple[jax.Array, jax.Array],
            of_chunk: tuple[_Chunk, jax.Array, jax.Array],
            loop: Loop = loop,
        ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
            chunk, d_read_bkgch, log_bkgc = of_chunk
            k_bkeh, v_bkeh = (_keys(x, chunk.first, loop, 2) for x in (k_bksh, v_bksh))
            scores_bkgce = _scores(chunk, k_bkeh, segments_bs, window, loop)
            weights = jnp.exp(scores_bkgce - log_bkgc[..., None])
            d_weights = jnp.einsum(
                "bkgch,bkeh->bkgce", d_read_bkgch, v_bkeh, preferred_element_type=jnp.float32
            )
            # The derivative of the softmax: w (dw - sum(w dw)).
            mean = jnp.sum(weights * d_weights, axis=-1, keepdims=True)
            d_scores_bkgce = (weights * (d_weights - mean) * h**-0.5).astype(q_bkgth.dtype)
            # Else what makes these goes into the transposing copies of the products below.
            d_scores_bkgce, weights_bkgce = jax.lax.optimization_barrier(
                (d_scores_bkgce, weights.astype(v_bkeh.dtype))
            )
            to_keys = functools.partial(
                jnp.einsum, "bkgce,bkgch->bkeh", preferred_element_type=jnp.float32
            )
            parts = to_keys(d_scores_bkgce, chunk.q_bkgch), to_keys(weights_bkgce, d_read_bkgch)
            dk_bksh, dv_bksh = (
                jax.lax.dynamic_update_slice_in_dim(
                    total, _keys(total, chunk.first, loop, 2) + part, chunk.first, 2
                )
                for total, part in zip(sums, parts, strict=True)
            )
            return (dk_bksh, dv_bksh), jnp.einsum("bkgce,bkeh->bkgch", d_scores_bkgce, k_bkeh)

        chunks = _chunks(q_bkgth, segments_bs, times_t, loop)
        of_chunks = chunks, _cut(d_read_bkgth, loop, 3), _cut(log_bkgt, loop, 3)
        sums, dq_bkgch = jax.lax.scan(turn, sums, of_chunks)
        dq.append(_join(dq_bkgch, loop, 3))
    dq_bnth = jnp.concatenate(dq, axis=3).reshape(b, kv_heads * g, t, h)
    dk_bskh, dv_bskh = (heads_first(x).astype(k_bksh.dtype) for x in sums)
    return heads_first(dq_bnth), dk_bskh, dv_bskh, None, None


_attend.defvjp(_forward, _backward)


class _Chunk(NamedTuple):
    """Some queries, when and in which documents they are, and the first key they meet."""

    q_bkgch: jax.Array
    times_c: jax.Array
    own_bc: jax.Array | None
    first: jax.Array


def _chunks(
    q_bkgth: jax.Array, segments_bs: jax.Array | None, times_t: jax.Array, loop: Loop
) -> _Chunk:
    """All chunks of a loop, on a leading axis."""
    count, length = loop.shape
    own = None
    if segments_bs is not None:
        own = _cut(jnp.take(segments_bs, times_t, axis=1, mode="clip"), loop, 1)
    first = jnp.zeros(count, jnp.int32)
    if loop.moves:
        ends = loop.start + length * jnp.arange(1, count + 1, dtype=jnp.int32)
        first = jnp.clip(ends - loop.keys, 0, loop.stop - loop.keys)
    return _Chunk(_cut(q_bkgth, loop, 3), _cut(times_t, loop, 0), own, first)


def _scores(
    chunk: _Chunk, k_bkeh: jax.Array, segments_bs: jax.Array | None, window: int, loop: Loop
) -> jax.Array:
    """q k' / sqrt(h) in float32, where a query may see the key."""
    scores_bkgce = jnp.einsum(
        "bkgch,bkeh->bkgce", chunk.q_bkgch, k_bkeh, preferred_element_type=jnp.float32
    )
    times_e = chunk.first + jnp.arange(loop.keys, dtype=jnp.int32)
    mask_bce = visible(chunk.times_c, times_e, window)[None]
    if segments_bs is not None and chunk.own_bc is not None:
        own_be = _keys(segments_bs, chunk.first, loop, 1)
        mask_bce &= chunk.own_bc[:, :, None] == own_be[:, None]
    scale = chunk.q_bkgch.shape[-1] ** -0.5
    return jnp.where(mask_bce[:, None, None], scores_bkgce * scale, MASKED)


def _keys(x: jax.Array, first: jax.Array, loop: Loop, dim: int) -> jax.Array:
    """What a chunk meets, of something that there is for every key."""
    if not loop.moves:
        return jax.lax.slice_in_dim(x, 0, loop.keys, axis=dim)
    return jax.lax.dynamic_slice_in_dim(x, first, loop.keys, dim)


def _cut(x: jax.Array, loop: Loop, dim: int) -> jax.Array:
    """A loop's part of something that there is for every query: m first, and c where t was."""
    count, length = loop.shape
    part = jax.lax.slice_in_dim(x, loop.start, loop.stop, axis=dim)
    padding = [(0, 0)] * x.ndim
    padding[dim] = (0, count * length - part.shape[dim])
    part = jnp.pad(part, padding)
    return jnp.moveaxis(part.reshape(*x.shape[:dim], count, length, *x.shape[dim + 1 :]), dim, 0)


def _join(x: jax.Array, loop: Loop, dim: int) -> jax.Array:
    """The inverse of `_cut`."""
    count, length = loop.shape
    x = jnp.moveaxis(x, 0, dim)
    x = x.reshape(*x.shape[:dim], count * length, *x.shape[dim + 2 :])
    return jax.lax.slice_in_dim(x, 0, loop.stop - loop.start, axis=dim)
