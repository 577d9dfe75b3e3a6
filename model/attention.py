"""Causal self-attention: one function, several backends, an explicit choice.

Shapes: b batch, t query time, s key time, n heads, k key/value heads, g heads per key/value head,
h head width. Queries are already scaled by nothing: every backend applies 1 / sqrt(h) itself.

A token sees the tokens of its own segment at or before it, at most `window` of them (itself
included) when the window is not 0. Backends agree with `xla`, the reference, forward and backward.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.schema import InputError, Model

ATTENTION_OUTPUT = "attention_output"  # what remat="attention" keeps
MASKED = -1e30  # finite: a padded row with nothing to see must not become nan
CHUNK = 256  # queries a chunk of xla_chunked
LONG = 1024  # from this length on, auto prefers chunks on CPU


def attention(
    q_btnh: jax.Array,
    k_bskh: jax.Array,
    v_bskh: jax.Array,
    segments_bt: jax.Array | None,
    window: int,
    backend: str,
) -> jax.Array:
    """Attend causally within segments (Vaswani et al. 2017, eq. 1).

    Args:
        q_btnh: queries.
        k_bskh: keys, s = t; n is a multiple of k (grouped queries share a key/value head).
        v_bskh: values.
        segments_bt: int32 document ids, or None when a window is one document.
        window: how many tokens a query sees, itself included; 0 for all.
        backend: a name that `choose` returned.

    Returns:
        What each head read, [b, t, n, h], in the dtype of q.
    """
    return BACKENDS[backend](q_btnh, k_bskh, v_bskh, segments_bt, window)


def choose(config: Model, platform: str) -> str:
    """The backend that runs: the one asked for, or for "auto" the best that can run here.

    Raises:
        InputError: the backend asked for cannot run this model on this platform.
    """
    asked = config.attention
    if asked != "auto":
        obstacle = _obstacle(asked, config, platform)
        if obstacle:
            raise InputError(f"model.attention={asked} cannot run: {obstacle}; choose auto or xla")
        return asked
    long = "xla_chunked" if config.context >= LONG else "xla"
    preferred = {"gpu": "cudnn", "tpu": "splash"}.get(platform, long)
    return long if _obstacle(preferred, config, platform) else preferred


def _obstacle(backend: str, config: Model, platform: str) -> str:
    """Why a backend cannot run, or nothing."""
    if backend == "cudnn":
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
        if config.context % 128:
            return (
                f"splash attention needs a context that is a multiple of 128, not {config.context}"
            )
    return ""


def weigh(
    q_btnh: jax.Array, k_bskh: jax.Array, v_bskh: jax.Array, mask_bts: jax.Array
) -> jax.Array:
    """softmax(q k' / sqrt(h)) v where the mask allows, with scores in float32.

    mask_bts may have b = 1. Also the attention of decoding, where s is the cache's length.
    """
    b, t, n, h = q_btnh.shape
    kv_heads = k_bskh.shape[2]
    q_btkgh = q_btnh.reshape(b, t, kv_heads, n // kv_heads, h)
    scores_bkgts = jnp.einsum(
        "btkgh,bskh->bkgts", q_btkgh, k_bskh, preferred_element_type=jnp.float32
    )
    scores_bkgts = scores_bkgts * h**-0.5
    scores_bkgts = jnp.where(mask_bts[:, None, None], scores_bkgts, MASKED)
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
    segments_bt: jax.Array | None,
    window: int,
) -> jax.Array:
    """The reference: all scores at once, t * s of them in memory."""
    t = q_btnh.shape[1]
    return _rows(q_btnh, k_bskh, v_bskh, segments_bt, window, 0, t)


def _rows(
    q_btnh: jax.Array,
    k_bskh: jax.Array,
    v_bskh: jax.Array,
    segments_bt: jax.Array | None,
    window: int,
    start: int,
    stop: int,
) -> jax.Array:
    """Output rows start..stop, reading only the keys that any of them can see."""
    first = max(0, start - window + 1) if window else 0
    mask_bts = visible(jnp.arange(start, stop), jnp.arange(first, stop), window)[None]
    if segments_bt is not None:
        same = segments_bt[:, start:stop, None] == segments_bt[:, None, first:stop]
        mask_bts = mask_bts & same
    return weigh(q_btnh[:, start:stop], k_bskh[:, first:stop], v_bskh[:, first:stop], mask_bts)


def _xla_chunked(
    q_btnh: jax.Array,
    k_bskh: jax.Array,
    v_bskh: jax.Array,
    segments_bt: jax.Array | None,
    window: int,
) -> jax.Array:
    """Queries in chunks: skips the upper triangle, and keeps one chunk's scores at a time.

    The backward pass computes each chunk's scores again, so memory grows with t, not t squared.
    """
    t = q_btnh.shape[1]
    rows = jax.checkpoint(_rows, static_argnums=(4, 5, 6))
    chunks: list[jax.Array] = []
    for start in range(0, t, CHUNK):
        if chunks:  # else XLA runs them side by side, with the scores of all in memory
            q_btnh, chunks[-1] = jax.lax.optimization_barrier((q_btnh, chunks[-1]))
        stop = min(start + CHUNK, t)
        chunks.append(rows(q_btnh, k_bskh, v_bskh, segments_bt, window, start, stop))
    return jnp.concatenate(chunks, axis=1)


def _cudnn(
    q_btnh: jax.Array,
    k_bskh: jax.Array,
    v_bskh: jax.Array,
    segments_bt: jax.Array | None,
    window: int,
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
def _splash_kernel(heads: int, length: int, window: int) -> Any:
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as kernel,
    )
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_mask as masks,
    )

    shape = (length, length)
    mask = masks.LocalMask(shape, (window - 1, 0), 0) if window else masks.CausalMask(shape)
    return kernel, kernel.make_splash_mha(
        mask=masks.MultiHeadMask([mask] * heads),
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=ATTENTION_OUTPUT,
    )


def _splash(
    q_btnh: jax.Array,
    k_bskh: jax.Array,
    v_bskh: jax.Array,
    segments_bt: jax.Array | None,
    window: int,
) -> jax.Array:
    """The TPU's block-sparse kernel: packing is native, masked blocks are never computed."""
    b, t, n, h = q_btnh.shape
    with jax.ensure_compile_time_eval():
        kernel, attend = _splash_kernel(n, t, window)
    repeat = n // k_bskh.shape[2]
    q_bnth = jnp.swapaxes(q_btnh * np.float32(h**-0.5).astype(q_btnh.dtype), 1, 2)
    k_bnsh = jnp.repeat(jnp.swapaxes(k_bskh, 1, 2), repeat, axis=1)
    v_bnsh = jnp.repeat(jnp.swapaxes(v_bskh, 1, 2), repeat, axis=1)
    if segments_bt is None:
        segments_bt = jnp.zeros((b, t), jnp.int32)
    out_bnth = jax.vmap(lambda q, k, v, ids: attend(q, k, v, kernel.SegmentIds(ids, ids)))(
        q_bnth, k_bnsh, v_bnsh, segments_bt
    )
    return jnp.swapaxes(out_bnth, 1, 2)


BACKENDS = {"xla": _xla, "xla_chunked": _xla_chunked, "cudnn": _cudnn, "splash": _splash}
