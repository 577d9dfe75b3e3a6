"""Attention over a split sequence by the backend that is named; started by test_numerics.py.

Prints how far its output and gradients on four devices lie from the reference's on one, relative to
the largest value, for full attention and for a window. The TPU's kernel is interpreted.
"""

import functools
import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel
from jax.sharding import AxisType, PartitionSpec

from model.attention import attention, chunked
from model.placement import SEQUENCE, Placement, pieces_in_time

PARTS, TIME, HEADS, KV_HEADS, WIDTH = 4, 1024, 4, 2, 64
PLATFORMS = {"splash": "tpu", "xla_chunked": "cpu"}


def run(backend: str, window: int) -> float:
    placement = Placement(PLATFORMS[backend], sequence=PARTS)
    order = pieces_in_time(placement, TIME)
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = ((2, TIME, heads, WIDTH) for heads in (HEADS, KV_HEADS, KV_HEADS, HEADS))
    arrays = [jax.random.normal(k, shape) for k, shape in zip(keys, shapes, strict=True)]
    segments = jnp.asarray(np.cumsum(np.random.default_rng(0).random((2, TIME)) < 0.01, axis=1))

    def outputs(backend: str, place: Placement, q: Any, k: Any, v: Any, cotangent: Any) -> Any:
        read = functools.partial(
            attention, segments_bs=segments, window=window, backend=backend, placement=place
        )
        out, pull = jax.vjp(read, q, k, v)
        return out, *pull(cotangent)

    want = jax.jit(functools.partial(outputs, "xla", Placement("cpu")))(*arrays)
    over_time = PartitionSpec(None, SEQUENCE)
    split = jax.shard_map(
        functools.partial(outputs, backend, placement),
        mesh=jax.make_mesh(
            (PARTS,), (SEQUENCE,), axis_types=(AxisType.Auto,), devices=jax.devices()[:PARTS]
        ),
        in_specs=(over_time,) * 4,
        out_specs=over_time,
        check_vma=False,
    )
    got = jax.jit(split)(*(a[:, order] for a in arrays))
    pairs = zip((a[:, order] for a in want), got, strict=True)
    return max(float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(a))) for a, b in pairs)


if __name__ == "__main__":
    interpreted = functools.partial(splash_attention_kernel.make_splash_mqa, interpret=True)
    splash_attention_kernel.make_splash_mqa = interpreted
    chunked.CHUNK = 48  # several in each of the two pieces that a device has, and a ragged end
    print(json.dumps([run(sys.argv[1], window) for window in (0, 200)]))
