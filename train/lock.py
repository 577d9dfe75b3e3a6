"""One process at a time writes a directory of checkpoints."""

import fcntl
import os
import shutil
import socket
from pathlib import Path
from typing import IO

from configs.schema import InputError


def take(directory: Path) -> IO[str]:
    """Make a directory, lock it, and clear away what kills left in it.

    The kernel frees the lock when the process ends, however it ends.

    Returns:
        What holds the lock until it is closed.

    Raises:
        InputError: another process has it, or the directory cannot be written.
    """
    path = directory / "lock"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = path.open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            lock.flush()
            for left_over in (*directory.glob("*.saving"), *directory.glob("*.deleting")):
                shutil.rmtree(left_over)
        except BaseException:
            lock.close()
            raise
    except BlockingIOError:
        raise InputError(
            f"{path.read_text().strip() or 'another process'} is training in {directory}: wait for "
            "it, stop it, or choose another directory"
        ) from None
    except OSError as error:
        raise InputError(
            f"checkpoints cannot be written in {directory} ({error.strerror}): choose another place"
        ) from None
    return lock
