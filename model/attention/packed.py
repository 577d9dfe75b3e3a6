"""Attention inside packed documents on NVIDIA GPUs, without a mask of t * s.

Shapes: b batch, t query time, s key time, n heads, k key/value heads, h head width.

Documents lie one after the other, so what a query may see is an interval: from `start` to itself.
Tokamax's Mosaic kernel (github.com/openxla/tokamax, Apache 2.0, optional) takes just that, skips
the blocks outside, and keeps one number a query and head. Why not the packed form of cuDNN (THD),
which JAX reaches by a private function: it wants the most documents of a window as a constant, has
no right answer for a window with more, keeps that many numbers a query and head, and read keys at
wrong places with grouped queries up to JAX 0.11.0.

Tokamax calls itself heavily under development, and its mask is not public: so version and result
are checked before `auto` may choose it (`obstacle`). Windows of one document go to cuDNN.
"""

import functools
import importlib
import importlib.util
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from model.attention import cudnn, reference
from model.placement import Placement

VERSION = "0.0.17"  # the one whose private mask this is written for
CAPABILITY = "9.0"  # Hopper
WIDTHS = (64, 128)  # head widths that are checked
FAILURES = (ImportError, AttributeError, TypeError, ValueError, RuntimeError)  # JAX's included
TOLERANCE = 2.0  # times the error of the reference in bfloat16


def starts(segments_bt: jax.Array, window: int) -> jax.Array:
    """The first key each query may see, int32 [b, t]; the last is the query's own.

    Args:
        segments_bt: document numbers; a document's tokens lie together.
        window: how many tokens a query sees, itself included; 0 for all of its document.
    """
    b, t = segments_bt.shape
    time_bt = jnp.broadcast_to(jnp.arange(t, dtype=jnp.int32), (b, t))
    changes = segments_bt[:, 1:] != segments_bt[:, :-1]
    opens_bt = jnp.concatenate([jnp.ones((b, 1), bool), changes], axis=1)
    starts_bt = jax.lax.cummax(jnp.where(opens_bt, time_bt, 0), axis=1)
    return jnp.maximum(starts_bt, time_bt - window + 1) if window else starts_bt


def attend(
    q_btnh: jax.Array,
    k_bskh: jax.Array,
    v_bskh: jax.Array,
    segments_bt: jax.Array | None,
    window: int,
    placement: Placement,
) -> jax.Array:
    """Documents by tokamax, whole windows by cuDNN."""
    if segments_bt is None:
        return cudnn.attend(q_btnh, k_bskh, v_bskh, None, window, placement)
    return _intervals("mosaic_gpu", q_btnh, k_bskh, v_bskh, starts(segments_bt, window))


def _intervals(
    kernel: str, q_btnh: jax.Array, k_bskh: jax.Array, v_bskh: jax.Array, starts_bt: jax.Array
) -> jax.Array:
    """What queries read of the keys from `starts_bt` to their own."""
    api, base = (
        importlib.import_module(f"tokamax._src.ops.attention.{name}") for name in ("api", "base")
    )
    if kernel == "mosaic_gpu" and jax.default_backend() != "gpu":
        _as_if_on_hopper()
    mask = base.Mask(k_start=starts_bt[:, None], is_causal=True)
    return api.IMPLEMENTATIONS[kernel](q_btnh, k_bskh, v_bskh, mask=mask)


@functools.cache
def _as_if_on_hopper() -> None:
    """Have tokamax compile: it asks this process's own device, which is not what runs the kernel.

    For the rest of the process, since backward passes are traced later.
    """
    utils: Any = importlib.import_module("tokamax._src.gpu_utils")
    utils._compute_capability = lambda device=None: float(CAPABILITY)
    utils.has_mosaic_gpu_support = lambda device=None: True


def obstacle(width: int) -> str:
    """Why this backend cannot run, or nothing.

    On a machine whose own device is a GPU, the first call compares it with the reference, forward
    and backward, on that device. Where one compiles for a GPU that is not here, nothing can be
    compared.
    """
    if importlib.util.find_spec("tokamax") is None:
        return "it needs tokamax, which is not installed"
    if (found := metadata.version("tokamax")) != VERSION:
        return f"it is written for tokamax {VERSION} and this is {found}"
    if width not in WIDTHS:
        return f"it needs a head_dim of {' or '.join(map(str, WIDTHS))}, not {width}"
    if jax.default_backend() != "gpu":
        return ""
    capability = getattr(jax.devices()[0], "compute_capability", "unknown")
    if capability != CAPABILITY:
        return f"it is made for GPUs of compute capability {CAPABILITY} and this is {capability}"
    return _disagreement(width)


@functools.cache
def _disagreement(width: int) -> str:
    """What is wrong with the kernel on this device, found once a process; nothing: it agrees.

    Grouped queries, documents that begin anywhere (one of a single token), and a window: output
    and three gradients have to err no more than the reference does in bfloat16.
    """
    try:
        with jax.ensure_compile_time_eval():
            ratio = _worst_ratio(width, "mosaic_gpu")
    except FAILURES as error:
        return f"its kernel does not run here ({type(error).__name__}: {str(error)[:200]})"
    if ratio <= TOLERANCE:
        return ""
    return (
        f"on this device its result is {ratio:.3g} times as far from the reference as rounding to "
        "bfloat16 explains"
    )


def _worst_ratio(width: int, kernel: str, length: int = 512) -> float:
    """The largest error against float32, in errors of the reference in bfloat16."""
    keys = jax.random.split(jax.random.key(0), 4)
    drawn = [
        jax.random.normal(key, (2, length, heads, width))
        for key, heads in zip(keys, (4, 2, 2, 4), strict=True)
    ]
    cuts = np.array([[1, length // 3 + 1, length // 2], [5, 6, length - 1]])
    segments_bt = jnp.asarray((np.arange(length) >= cuts[..., None]).sum(1), jnp.int32)
    placement, worst = Placement("gpu"), 0.0
    for window in (0, length // 4 + 1):

        def truth(q: jax.Array, k: jax.Array, v: jax.Array, window: int = window) -> jax.Array:
            return reference.attend(q, k, v, segments_bt, window, placement)

        def fused(q: jax.Array, k: jax.Array, v: jax.Array, window: int = window) -> jax.Array:
            return _intervals(kernel, q, k, v, starts(segments_bt, window))

        want = _both_ways(truth, drawn)
        rounded = [array.astype(jnp.bfloat16) for array in drawn]
        usual, got = _both_ways(truth, rounded), _both_ways(fused, rounded)
        for exact, one, other in zip(want, usual, got, strict=True):
            error = np.abs(other - exact).max() / np.abs(one - exact).max()
            worst = max(worst, float(error) if np.isfinite(error) else np.inf)
    return worst


def _both_ways(function: Any, arrays: list[jax.Array]) -> list[np.ndarray]:
    """Output and gradients of q, k and v, for the cotangent that comes last, in float32."""
    *inputs, cotangent = arrays

    @jax.jit
    def run(*inputs: jax.Array) -> tuple[jax.Array, ...]:
        out, pull = jax.vjp(function, *inputs)
        return (out, *pull(cotangent))

    with jax.default_matmul_precision("highest"):  # else float32 products are TF32 on a GPU
        return [np.asarray(array, np.float32) for array in run(*inputs)]
