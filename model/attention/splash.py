"""Splash attention, the block-sparse kernel for TPUs that comes with JAX.

Shapes: b batch, t query time, s key time, n heads, k key/value heads, g heads per key/value head,
h head width.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from model.attention.reference import ATTENTION_OUTPUT
from model.placement import SEQUENCE, Placement, pieces_in_time


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


def attend(
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
