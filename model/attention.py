"""Causal self-attention: one function, several backends, an explicit choice.

Shapes: b batch, t query time, s key time, n heads, k key/value heads, g heads per key/value head,
h head width. Every backend multiplies scores by 1 / sqrt(h) itself.

A token sees the tokens of its own segment at or before it, at most `window` of them (itself
included) when the window is not 0. Backends agree with `xla`, the reference, forward and backward.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.schema import InputError, Model
from model.placement import SEQUENCE, Placement, pieces_in_time

ATTENTION_OUTPUT = "attention_output"  # what remat="attention" keeps
MASKED = -1e30  # finite: a padded row with nothing to see must not become nan
CHUNK = 256  # queries a chunk of xla_chunked
LONG = 1024  # from this length on, auto prefers chunks on CPU


def attention(
    q_btnh: jax.Array,
    k_btkh: jax.Array,
    v_btkh: jax.Array,
    segments_bs: jax.Array | None,
    window: int,
    backend: str,
    placement: Placement,
) -> jax.Array:
    """Attend causally within segments (Vaswani et al. 2017, eq. 1).

    Where the sequence is split, keys and values of all of it are put together here.

    Args:
        q_btnh: queries.
        k_btkh: keys; n is a multiple of k (grouped queries share a key/value head).
        v_btkh: values.
        segments_bs: int32 document ids of whole windows, or None when a window is one document.
        window: how many tokens a query sees, itself included; 0 for all.
        backend: a name that `choose` returned.
        placement: which tokens of their windows these are.

    Returns:
        What each head read, [b, t, n, h], in the dtype of q.
    """
    k_bskh, v_bskh = placement.whole_sequence(k_btkh), placement.whole_sequence(v_btkh)
    return BACKENDS[backend](q_btnh, k_bskh, v_bskh, segments_bs, window, placement)


def choose(config: Model, placement: Placement) -> str:
    """The backend that runs: the one asked for, or for "auto" the best that can run there.

    Raises:
        InputError: the backend asked for cannot run this model on this platform.
    """
    asked = config.attention
    if asked != "auto":
        obstacle = _obstacle(asked, config, placement)
        if obstacle:
            raise InputError(f"model.attention={asked} cannot run: {obstacle}; choose auto or xla")
        return asked
    long = "xla_chunked" if config.context >= LONG else "xla"
    preferred = {"gpu": "cudnn", "tpu": "splash"}.get(placement.platform, long)
    return long if _obstacle(preferred, config, placement) else preferred


def _obstacle(backend: str, config: Model, placement: Placement) -> str:
    """Why a backend cannot run, or nothing."""
    platform = placement.platform
    if backend == "cudnn":
        if placement.sequence > 1:
            return f"cuDNN needs whole windows and mesh.sequence={placement.sequence} splits them"
        if platform != "gpu":
            return f"cuDNN needs a GPU and this is {platform}"
        if config.compute_dtype != "bfloat16":
            return f"cuDNN needs model.compute_dtype=bfloat16, not {config.compute_dtype}"
        if config.head_dim % 8 or config.head_dim > 256:
            return (
                f"cuDNN needs a head_dim that is a multiple of 8 up to 256, not {config.head_dim}"
            )
        if config.context % 2:  # only where documents are masked, which is not known here
            return f"cuDNN needs an even context, not {config.context}"
    if backend == "splash":
        if platform != "tpu":
            return f"splash attention needs a TPU and this is {platform}"
        pieces = 128 * placement.sequence
        if config.context % pieces:
            return f"splash attention needs a context that is a multiple of {pieces}, not " + str(
                config.context
            )
    return ""


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


def _xla(
    q_btnh: jax.Array,
    k_bskh: jax.Array,
    v_bskh: jax.Array,
    segments_bs: jax.Array | None,
    window: int,
    placement: Placement,
) -> jax.Array:
    """The reference: all scores at once, t * s of them in memory."""
    s = k_bskh.shape[1]
    return _rows(q_btnh, placement.times(s), k_bskh, v_bskh, segments_bs, window, 0, s)


def _rows(
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
    mask_bts = visible(times_t, jnp.arange(first, last), window)[None]
    if segments_bs is not None:
        own_bt = jnp.take(segments_bs, times_t, axis=1, mode="clip")
        mask_bts = mask_bts & (own_bt[:, :, None] == segments_bs[:, None, first:last])
    return weigh(q_btnh, k_bskh[:, first:last], v_bskh[:, first:last], mask_bts)


def _xla_chunked(
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
    rows = jax.checkpoint(_rows, static_argnums=(5, 6, 7))
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


def _cudnn(
    q_btnh: jax.Array,
    k_bskh: jax.Array,
    v_bskh: jax.Array,
    segments_bt: jax.Array | None,
    window: int,
    _: Placement,
) -> jax.Array:
    """cuDNN's fused kernel. Segments become a dense mask, which costs t * s bytes and speed."""
    mask = None
    if segments_bt is not None:
        mask = (segments_bt[:, :, None] == segments_bt[:, None, :])[:, None]
    return jax.nn.dot_product_attention(
        q_btnh,
        k_bskh,
        v_bskh,
        mask=mask,
        is_causal=True,
        local_window_size=(window - 1, 0) if window else None,
        implementation="cudnn",
    )


@functools.cache
def _splash_kernel(heads: int, length: int, window: int, placement: Placement) -> Any:
    """The kernel of the query heads that share a key/value head."""
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as kernel,
    )
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_mask as masks,
    )

    shape, parts = (length, length), placement.sequence
    mask: Any
    if window:
        mask = masks.LocalMask(shape, (window - 1, 0), 0, parts)
    else:
        mask = masks.CausalMask(shape, 0, parts)
    if parts > 1:
        mask.q_sequence = pieces_in_time(placement, length)
    # Large blocks keep the matrix unit busy; the kernel's own default is 128.
    block = math.gcd(512, length // parts)
    sides = ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute", "q_dq", "kv_dq")
    blocks: Any = {f"block_{side}": block for side in sides}
    return kernel, kernel.make_splash_mqa(
        mask=masks.MultiHeadMask([mask] * heads),
        block_sizes=kernel.BlockSizes(**blocks),
        head_shards=1,
        q_seq_shards=parts,
        residual_checkpoint_name=ATTENTION_OUTPUT,
    )


def _own_part(attend: Any, placement: Placement) -> Any:
    """The kernel for this device's queries, out of the one for those of all devices."""
    mesh = jax.sharding.AbstractMesh((1, placement.sequence), ("heads", SEQUENCE))
    specs = attend.manual_sharding_spec(
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("heads", SEQUENCE))
    )

    def cut(array: jax.Array, spec: jax.sharding.PartitionSpec) -> jax.Array:
        for dim, name in enumerate(spec):
            if name == SEQUENCE:
                share = array.shape[dim] // placement.sequence
                start = placement.index(SEQUENCE) * share
                array = jax.lax.dynamic_slice_in_dim(jnp.asarray(array), start, share, dim)
        return array

    return jax.tree.map(cut, attend, specs)


def _splash(
    q_btnh: jax.Array,
    k_bskh: jax.Array,
    v_bskh: jax.Array,
    segments_bs: jax.Array | None,
    window: int,
    placement: Placement,
) -> jax.Array:
    """The TPU's block-sparse kernel: packing is native, masked blocks are never computed."""
    b, t, n, h = q_btnh.shape
    s, kv_heads = k_bskh.shape[1:3]
    group = n // kv_heads
    with jax.ensure_compile_time_eval():
        kernel, attend = _splash_kernel(group, s, window, placement)
    if placement.sequence > 1:
        attend = _own_part(attend, placement)
    q_btnh = q_btnh * np.float32(h**-0.5).astype(q_btnh.dtype)
    q_bkgth = jnp.moveaxis(q_btnh.reshape(b, t, kv_heads, group, h), 1, 3)
    k_bksh, v_bksh = (jnp.swapaxes(a, 1, 2) for a in (k_bskh, v_bskh))
    if segments_bs is None:
        segments_bs = jnp.zeros((b, s), jnp.int32)

    def one(
        q_gth: jax.Array, k_sh: jax.Array, v_sh: jax.Array, own_t: jax.Array, all_s: jax.Array
    ) -> jax.Array:
        return attend(q_gth, k_sh, v_sh, kernel.SegmentIds(own_t, all_s))

    of_heads = jax.vmap(one, in_axes=(0, 0, 0, None, None))
    out_bkgth = jax.vmap(of_heads)(
        q_bkgth, k_bksh, v_bksh, placement.take(segments_bs), segments_bs
    )
    return jnp.moveaxis(out_bkgth, 3, 1).reshape(b, t, n, h)


BACKENDS = {"xla": _xla, "xla_chunked": _xla_chunked, "cudnn": _cudnn, "splash": _splash}
