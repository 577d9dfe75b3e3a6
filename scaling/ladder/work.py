"""Training the runs of a ladder on this machine, several at once, each with its share of cores."""

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.schema import InputError
from scaling.ladder import jobs
from scaling.ladder.design import Trunk
from scaling.ladder.jobs import Part

WRONG_INPUT = 2  # exit code of `python -m train`: the same for all runs, so nothing goes on
ENVIRONMENT = dict(os.environ)  # of the runs, whatever this process sets for itself
_POLL = 0.2  # seconds
_STATUS = 30.0
_PATIENCE = 120.0  # seconds in which a run that was asked to stop saves


@dataclass
class _Busy:
    """A trunk that is being worked on."""

    trunk: Trunk
    part: Part
    process: subprocess.Popen
    began: float


def work(
    out: Path,
    trunks: Sequence[Trunk],
    workers: int,
    say: Callable[[str], None],
    status: Callable[[], str],
) -> dict[str, str]:
    """Train until all runs are finished or have given up; `trunks` are begun in their order.

    Returns:
        Sizes that failed otherwise than by diverging, with the reason: the same command tries
        them again.

    Raises:
        InputError: what stops all runs, such as a full disk or missing data.
    """
    waiting = [trunk for trunk in trunks if jobs.next_part(out, trunk)]
    failures: dict[str, str] = {}
    slots: list[_Busy | None] = [None] * min(workers, len(waiting))
    shown = time.monotonic()
    with _terminating() as running:
        while waiting or any(slots):
            for place, busy in enumerate(slots):
                if busy and busy.process.poll() is None:
                    continue
                slots[place] = None
                trunk = _after(out, busy, failures, say) if busy else None
                trunk = trunk or (waiting.pop(0) if waiting else None)
                if trunk is None:
                    continue
                others = sum(slot is not None for slot in slots)
                share = min(len(slots), others + 1 + len(waiting))
                started = slots[place] = _begin(out, trunk, place, share, say)
                running.append(started.process)
            if time.monotonic() - shown > _STATUS:
                shown = time.monotonic()
                say(status())
            time.sleep(_POLL)
    return failures


def start(
    module: str,
    arguments: Sequence[str],
    log: Path,
    place: int = 0,
    share: int = 1,
    kept: Path | None = None,
) -> subprocess.Popen:
    """Start a module of ours, tied to this process, on part `place` of `share` parts of the cores.

    In a session of its own: Ctrl-C reaches this process alone, which then stops it in order. What
    JAX compiles stays in the folder `kept`.
    """
    cores = ""
    if share > 1 and hasattr(os, "sched_getaffinity"):
        mine = sorted(os.sched_getaffinity(0))
        count = max(1, len(mine) // share)
        at = place * count % len(mine)
        cores = ",".join(map(str, mine[at : at + count]))
    command = [sys.executable, "-m", "scaling.ladder.child", str(os.getpid()), cores, module]
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            return subprocess.Popen(
                [*command, *arguments],
                env={"JAX_COMPILATION_CACHE_DIR": str(kept), **ENVIRONMENT}
                if kept
                else ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise InputError(f"{log}: {error.strerror}; make room or choose another --out") from error


def compiled(out: Path) -> Path:
    """Where programs are kept: one folder a machine, since another may not be able to run them.

    A trunk goes on with the program that it began with, and all runs of a size evaluate alike.
    """
    return (out / "compiled" / platform.node()).resolve()


def last_words(log: Path) -> str:
    """The error that a module of ours ended with, or its last line."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return errors[-1] if errors else lines[-1] if lines else "it said nothing"


def log_of(out: Path, part: Part) -> Path:
    """Where a part's output goes."""
    return out / "logs" / f"{part.name.replace(' ', '-')}.log"


def _begin(out: Path, trunk: Trunk, place: int, share: int, say: Callable[[str], None]) -> _Busy:
    part = jobs.next_part(out, trunk)
    assert part is not None
    say(f"{part.name}: step {part.first} to {part.last}")
    process = start("train", part.arguments, log_of(out, part), place, share, compiled(out))
    return _Busy(trunk, part, process, time.monotonic())


def _after(
    out: Path, busy: _Busy, failures: dict[str, str], say: Callable[[str], None]
) -> Trunk | None:
    """The trunk to go on with after a part has ended; None where its runs are done or failed."""
    part, code, log = busy.part, busy.process.returncode, log_of(out, busy.part)
    seconds = time.monotonic() - busy.began
    if code == WRONG_INPUT:
        raise InputError(f"{part.name}: {last_words(log)}")
    if code == jobs.NOT_FINITE:
        say(f"{part.name} diverged and is left out: {jobs.gave_up(part.workdir)}")
    elif code == 0:
        say(f"{part.name}: done in {seconds:.0f} s")
    reason = ""
    following = jobs.next_part(out, busy.trunk)
    if code == jobs.STOPPED:
        reason = "it was stopped by a signal"
    elif code not in (0, jobs.NOT_FINITE):
        reason = f"it ended with code {code} ({last_words(log)}), see {log}"
    elif following == part:
        reason = f"it ended without an error, and without going on, see {log}"
    if reason:
        failures[busy.trunk.size.name] = f"{part.name} failed: {reason}"
        say(f"{part.name} failed, and the rest of its size waits for another try: {reason}")
        return None
    return busy.trunk if following else None


@contextmanager
def _terminating() -> Iterator[list[subprocess.Popen]]:
    """A list of processes that are stopped in order when the block ends in any way but a kill."""
    running: list[subprocess.Popen] = []

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield running
    finally:
        signal.signal(signal.SIGTERM, before)
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
