"""Run a module as a program that ends when the process that started it does, however that ends.

    python -m scaling.ladder.child PARENT CORES MODULE [ARGUMENT ...]

Without this a killed ladder would leave its training runs behind, which hold the locks that the
same command then finds taken. Only Linux can be asked for it; elsewhere they go on. CORES, such as
"0,1", are those it may use; empty: all.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>; kept when the process becomes another program


def main() -> None:
    """The command."""
    parent, cores, module, *arguments = sys.argv[1:]
    if cores:
        os.sched_setaffinity(0, map(int, cores.split(",")))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent):  # it ended before it could be tied to
            sys.exit(1)
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])


if __name__ == "__main__":
    main()
