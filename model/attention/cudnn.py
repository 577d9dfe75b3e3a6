"""cuDNN's fused attention, for NVIDIA GPUs.

Shapes: b batch, t query time, s key time, n heads, k key/value heads, g heads per key/value head,
h head width.
"""

import jax

from model.placement import Placement


def attend(
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
