"""What the hardware could do at best: the peak that MFU is a share of, always with its name."""

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp

# Dense bfloat16 operations per second of one JAX device (no structured sparsity), by the beginning
# of `device_kind`; the first that fits counts. Where a chip shows up as two devices (TPU v2, v3,
# 7x), half the chip's figure.
_DENSE_BF16 = (
    ("TPU v2", 46e12 / 2),  # cloud.google.com/tpu/docs/v2
    ("TPU v3", 123e12 / 2),  # cloud.google.com/tpu/docs/v3
    ("TPU v4 lite", 138e12),  # Jouppi et al. 2021, "Ten Lessons": TPU v4i
    ("TPU v4", 275e12),  # cloud.google.com/tpu/docs/v4
    ("TPU v5 lite", 197e12),  # cloud.google.com/tpu/docs/v5e
    ("TPU v5e", 197e12),
    ("TPU v5", 459e12),  # cloud.google.com/tpu/docs/v5p
    ("TPU v6", 918e12),  # cloud.google.com/tpu/docs/v6e
    ("TPU7x", 2307e12 / 2),  # cloud.google.com/tpu/docs/tpu7x
    ("NVIDIA A100", 312e12),  # NVIDIA A100 datasheet
    ("NVIDIA L40S", 362e12),  # NVIDIA L40S, L40 and L4 datasheets
    ("NVIDIA L40", 181e12),
    ("NVIDIA L4", 121e12),
    ("NVIDIA H100 PCIe", 756e12),  # NVIDIA H100 datasheet, as the next three
    ("NVIDIA H100 NVL", 835e12),
    ("NVIDIA H100", 989.4e12),
    ("NVIDIA GH200", 989.4e12),
    ("NVIDIA H200", 989.4e12),  # NVIDIA H200 datasheet
    ("NVIDIA B200", 2250e12),  # NVIDIA DGX B200 datasheet
    ("NVIDIA GB200", 2500e12),  # NVIDIA GB200 NVL72 datasheet
)


class Peak(NamedTuple):
    """Operations per second of one device, and where the figure comes from."""

    flops: float
    name: str


def device_peak(compute_dtype: str) -> Peak:
    """The peak of one local device: from the table, else measured by multiplying matrices.

    The table's figure is the dense bfloat16 one whatever the run computes in, so that runs compare.
    """
    kind = jax.local_devices()[0].device_kind
    for prefix, flops in _DENSE_BF16:
        if kind.startswith(prefix):
            return Peak(flops, f"{prefix}, dense bfloat16")
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
