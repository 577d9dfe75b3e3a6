"""What chips can do at best: the one table of hardware figures.

All figures are of one JAX device, which is a chip except where a chip shows up as two (TPU v2, v3,
7x). Sources, read in November 2026:

    TPU      cloud.google.com/tpu/docs/{v2,v3,v4,v5e,v5p,v6e,tpu7x}: bf16 peak, memory bandwidth,
             interconnect (both directions of all links: halved and divided by the links),
             data-centre network. v4's links: Jouppi et al. 2023 (arXiv:2304.01433), 50 GB/s each
             way, of which "How to Scale Your Model" (jax-ml.github.io/scaling-book, part 2) counts
             45; v5e's network: 6.4 Tb/s a pod of 256; v4's: the scaling book's 25 GB/s a host.
             Memory is what libtpu lets a program use, a little less than the chip has; it says so
             when a program needs more.
    NVIDIA   datasheets of the A100, L4, L40, L40S, H100, H200, B200 and GB200; memory in decimal
             gigabytes, so that some is left for the CUDA context. NVLink's figure is of both
             directions, halved here. Network: one 400 Gb/s adapter a GPU (DGX H100 datasheet).
"""

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """The figures of one JAX device; 0 where nobody publishes it or nothing here needs it.

    Attributes:
        kind: how its `device_kind` begins.
        flops: dense bfloat16 operations a second, without structured sparsity.
        memory: bytes that a program may use.
        memory_bandwidth: bytes a second from and to that memory.
        link: bytes a second that one link to a neighbour carries one way.
        links: such links a device has; an NVLink switch counts as one.
        network: bytes a second into the network between slices or nodes.
        per_cycle: operations a cycle, for what a compiler states in cycles.
    """

    kind: str
    flops: float
    memory: float = 0
    memory_bandwidth: float = 0
    link: float = 0
    links: int = 0
    network: float = 0
    per_cycle: float = 0


# The first whose kind fits counts.
CHIPS = (
    Chip("TPU v2", 46e12 / 2),
    Chip("TPU v3", 123e12 / 2),
    Chip("TPU v4 lite", 138e12),  # Jouppi et al. 2021, "Ten Lessons": TPU v4i
    Chip("TPU v4", 275e12, 30.75 * GIB, 1.2e12, 45e9, 6, 6.25e9, 8 * 128 * 128 * 2),
    Chip("TPU v5 lite", 197e12, 15.75 * GIB, 819e9, 50e9, 4, 3.125e9, 4 * 128 * 128 * 2),
    Chip("TPU v5e", 197e12, 15.75 * GIB, 819e9, 50e9, 4, 3.125e9, 4 * 128 * 128 * 2),
    Chip("TPU v5", 459e12, 95.73 * GIB, 2.765e12, 100e9, 6, 6.25e9, 8 * 128 * 128 * 2),
    Chip("TPU v6", 918e12, 31.24 * GIB, 1.638e12, 100e9, 4, 12.5e9, 4 * 256 * 256 * 2),
    # Half of the chip's 2307 TFLOP/s, 7380 GB/s, and of its network; a link serves both halves.
    Chip("TPU7x", 2307e12 / 2, 94.74 * GIB, 3.69e12, 50e9, 6, 6.25e9, 4 * 256 * 256 * 2),
    Chip("NVIDIA A100", 312e12),
    Chip("NVIDIA L40S", 362e12),
    Chip("NVIDIA L40", 181e12),
    Chip("NVIDIA L4", 121e12),
    Chip("NVIDIA H100 PCIe", 756e12),
    Chip("NVIDIA H100 NVL", 835e12),
    Chip("NVIDIA H100", 989.4e12, 80e9, 3.35e12, 450e9, 1, 50e9),
    Chip("NVIDIA GH200", 989.4e12),
    Chip("NVIDIA H200", 989.4e12, 141e9, 4.8e12, 450e9, 1, 50e9),
    Chip("NVIDIA B200", 2250e12),
    Chip("NVIDIA GB200", 2500e12),
)


def find(device_kind: str) -> Chip | None:
    """The figures of a device by its `device_kind`, or None: it is unknown, as a CPU is."""
    return next((chip for chip in CHIPS if device_kind.startswith(chip.kind)), None)
