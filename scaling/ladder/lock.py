"""One ladder at a time works in a folder; jobs of it on a cluster work side by side."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.schema import InputError


@contextmanager
def held(out: Path, job: str = "") -> Iterator[None]:
    """Hold a ladder's folder, or one job of it, while the `with` block runs.

    A whole ladder shuts out everything else, a job another ladder and itself. The kernel lets go
    when the process ends, however it ends. Raises InputError where somebody else has it.
    """
    with _locked(out / "lock", shared=bool(job)):
        if not job:
            yield
            return
        with _locked(out / "jobs" / f"{job}.lock", shared=False):
            yield


@contextmanager
def _locked(path: Path, shared: bool) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; choose another --out") from error
    with file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise InputError(
                f"{file.read().strip() or 'another process'} is at work in {path.parent}: wait "
                "for it, stop it, or choose another --out"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
