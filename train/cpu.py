"""What training on a CPU needs before Python starts: freed memory that stays, and devices.

XLA on a CPU takes its temporary buffer from malloc anew in each update. glibc would return such a
large one to the kernel at once, and the next update would pay a page fault for each page of it.

All cores of a CPU are one device, but only large operations are divided over them: a small model
keeps one of them busy. A recipe whose mesh asks for several devices gets as many, each a thread
with windows of its own.
"""

import math
import os
import platform
import sys
from glob import glob

from configs.schema import Config

KEEP = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
}
# In all arenas but the first, glibc maps what is larger than a heap anew each time, whatever is
# asked. In a single one, threads that compile or compute wait for one another at each allocation.
ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}
_HEAP = 2**26  # bytes
_ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/accel*", "/dev/vfio/[0-9]*", "/dev/kfd")


def settle(config: Config, alone: bool) -> None:
    """Start this process over in the environment that the run wants, where it is another one.

    Args:
        config: the run.
        alone: no other processes train with this one; else each has what it was started with.
    """
    if os.environ.get("JAX_PLATFORMS") != "cpu" and any(map(glob, _ACCELERATORS)):
        return
    wanted = devices(config) if alone else {}
    if platform.libc_ver()[0] == "glibc":
        wanted |= memory(config)
    if not os.environ.keys() >= wanted.keys():
        os.execve(sys.executable, sys.orig_argv, wanted | dict(os.environ))


def memory(config: Config) -> dict[str, str]:
    """Variables that glibc reads, for what an update of this run allocates."""
    model, rows = config.model, config.batch.microbatch / _asked(config)
    # A block keeps about 16 numbers a token and channel for its backward pass.
    numbers = rows * model.context * (16 * model.layers * model.width + model.vocab)
    return KEEP | (ONE_ARENA if 4 * numbers > _HEAP else {})


def devices(config: Config) -> dict[str, str]:
    """The variable that JAX reads, where the mesh asks for a number of devices."""
    chosen = "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    count = _asked(config)
    return {} if chosen or count == 1 else {"JAX_NUM_CPU_DEVICES": str(count)}


def _asked(config: Config) -> int:
    """How many devices the mesh makes by its own numbers; 1 where it takes what it finds."""
    m = config.mesh
    sizes = (m.slices, m.stage, m.data, m.fsdp, m.sequence, m.tensor)
    return 1 if -1 in sizes else math.prod(sizes)
