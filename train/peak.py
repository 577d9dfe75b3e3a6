"""What the hardware could do at best: the peak that MFU is a share of, always with its name."""

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp

from parallel.chips import find


class Peak(NamedTuple):
    """Operations per second of one device, and where the figure comes from."""

    flops: float
    name: str


def device_peak(compute_dtype: str) -> Peak:
    """The peak of one local device: from the table, else measured by multiplying matrices.

    The table's figure is the dense bfloat16 one whatever the run computes in, so that runs compare.
    """
    kind = jax.local_devices()[0].device_kind
    chip = find(kind)
    if chip:
        return Peak(chip.flops, f"{chip.kind}, dense bfloat16")
    return Peak(_measured(compute_dtype), f"measured matmul, {compute_dtype}")


def _measured(dtype: str, size: int = 1024, rounds: int = 20) -> float:
    """One device's speed at a square product, in operations per second.

    That of the fastest quarter of the rounds: what else the machine does slows others down. Random
    values: some hardware multiplies zeros faster.
    """
    x = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(jnp.matmul).lower(x, x).compile()
    times = []
    for _ in range(rounds):
        start = time.monotonic()
        product(x, x).block_until_ready()
        times.append(time.monotonic() - start)
    # CPU "devices" are names for the same cores: a product on one of them takes all cores.
    sharing = jax.local_device_count() if jax.default_backend() == "cpu" else 1
    return 2 * size**3 / sorted(times)[rounds // 4] / sharing
