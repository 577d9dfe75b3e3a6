"""Causal self-attention: one function, several backends (a file each), an explicit choice.

Shapes: b batch, t query time, s key time, n heads, k key/value heads, g heads per key/value head,
h head width. Every backend multiplies scores by 1 / sqrt(h) itself.

A token sees the tokens of its own segment at or before it, at most `window` of them (itself
included) when the window is not 0. Backends agree with `xla`, the reference, forward and backward.
"""

import jax

from configs.schema import InputError, Model
from model.attention import chunked, cudnn, kept, packed, reference, splash
from model.attention.reference import ATTENTION_OUTPUT, scores, visible, weigh
from model.placement import Placement

__all__ = ["ATTENTION_OUTPUT", "attention", "choose", "scores", "visible", "weigh"]

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
    short = "xla" if _obstacle("xla_kept", config, placement) else "xla_kept"
    long = "xla_chunked" if config.context >= LONG else short
    preferred = {"gpu": "cudnn", "tpu": "splash"}.get(placement.platform, long)
    # On this machine's own GPU, where it was compared with the reference, and nowhere unseen.
    if placement.platform == jax.default_backend() == "gpu":
        preferred = preferred if _obstacle("packed", config, placement) else "packed"
    return long if _obstacle(preferred, config, placement) else preferred


def _obstacle(backend: str, config: Model, placement: Placement) -> str:
    """Why a backend cannot run, or nothing."""
    platform = placement.platform
    if backend == "xla_kept":
        if placement.sequence > 1:
            return f"it needs whole windows and mesh.sequence={placement.sequence} splits them"
        if platform != "cpu":
            return f"it is made for CPUs and this is {platform}"
    if backend in ("cudnn", "packed"):
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
        if backend == "packed":
            return packed.obstacle(config.head_dim)
    if backend == "splash":
        if platform != "tpu":
            return f"splash attention needs a TPU and this is {platform}"
        pieces = 128 * placement.sequence
        if config.context % pieces:
            return f"splash attention needs a context that is a multiple of {pieces}, not " + str(
                config.context
            )
    return ""


BACKENDS = {
    "xla": reference.attend,
    "xla_kept": kept.attend,
    "xla_chunked": chunked.attend,
    "cudnn": cudnn.attend,
    "packed": packed.attend,
    "splash": splash.attend,
}
