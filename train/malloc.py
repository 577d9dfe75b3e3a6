"""Memory that is freed stays with the process: what training on a CPU under glibc needs.

XLA on a CPU takes its temporary buffer from malloc anew in each update. glibc would return such a
large one to the kernel at once, and the next update would pay a page fault for each page of it.
"""

import os
import platform
import sys
from glob import glob

# One arena: in the others glibc maps what is larger than 64 MB anew each time, whatever is asked.
KEEP = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
}
_ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/accel*", "/dev/vfio/[0-9]*", "/dev/kfd")


def keep_memory() -> None:
    """Start this process over with malloc set to keep what it has: glibc reads that only then."""
    on_cpu = os.environ.get("JAX_PLATFORMS") == "cpu" or not any(map(glob, _ACCELERATORS))
    already = os.environ.keys() >= KEEP.keys()
    if on_cpu and not already and platform.libc_ver()[0] == "glibc":
        os.execve(sys.executable, sys.orig_argv, KEEP | dict(os.environ))
