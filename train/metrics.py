"""What a run measures, as rows: metrics.jsonl, TensorBoard, the terminal, and the clock.

A row is a dict of numbers with "kind" and "step"; docs/run_directory.md lists the keys. Nothing
here may stop a run: a sink that fails is reported once, and training goes on.
"""

import json
import math
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TextIO, TypeVar

from train.record import METRICS, TENSORBOARD

Row = dict[str, Any]
WAITS = ("data", "save", "evaluation")  # what else than updates takes the loop's time
Result = TypeVar("Result")


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a metrics file. What is no JSON object (a line cut short) is left out."""
    if not path.exists():
        return
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "step" in row:
            yield row


def truncate(path: Path, step: int) -> None:
    """Drop the rows of later steps, which a resumed run will write again.

    The file is replaced in one move, so that a crash in here loses nothing.
    """
    kept = [row for row in read_rows(path) if row["step"] <= step]
    if not path.exists():
        return
    draft = path.with_suffix(".tmp")
    with draft.open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in kept)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def one_late(results: Iterable[Result]) -> Iterator[Result]:
    """Yield each result after the next one was asked for.

    Results of jitted functions are promises: read one late, the device always has work waiting.
    """
    waiting: deque[Result] = deque()
    for result in results:
        waiting.append(result)
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting


class JsonLines:
    """Appends rows to a file, one JSON object a line, each on its way as soon as it is written."""

    def __init__(self, path: Path):
        self._file = path.open("ab", buffering=0)
        self._whole = True

    def write(self, row: Row) -> None:
        """Append a row. NaN and infinity, which JSON does not know, become null."""
        finite = {k: None if _infinite(v) else v for k, v in row.items()}
        line = (json.dumps(finite) + "\n").encode()
        if not self._whole:  # what a full disk left of the row before is a line of its own
            line = b"\n" + line
        self._whole = False
        written = self._file.write(line)
        if written != len(line):
            raise OSError(f"wrote {written} of {len(line)} bytes: the disk is full")
        self._whole = True

    def sync(self) -> None:
        """Wait until the rows would survive a power failure."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _infinite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


class TensorBoard:
    """Writes the numbers of rows as scalars named kind/key.

    Events are written here and now: SummaryWriter's thread would die unseen on a full disk and
    then block whoever writes.
    """

    def __init__(self, folder: Path, first_step: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder.mkdir(exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"), f".{os.getpid()}")
        # Has TensorBoard forget what an earlier process wrote for the steps that come again.
        start = SessionLog(status=SessionLog.START)
        self._writer.write_event(Event(step=first_step, session_log=start))

    def write(self, row: Row) -> None:
        """Add the row's numbers."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        numbers = {k: v for k, v in row.items() if isinstance(v, int | float) and k != "step"}
        values = [
            Summary.Value(tag=f"{row['kind']}/{k}", simple_value=v) for k, v in numbers.items()
        ]
        event = Event(wall_time=time.time(), step=row["step"], summary=Summary(value=values))
        self._writer.write_event(event)
        self._writer.flush()

    def sync(self) -> None:
        """Nothing: the rows are in metrics.jsonl."""

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


class Sinks:
    """All places rows go to, none unless `writing`. A place that fails is warned about once."""

    def __init__(self, workdir: Path, first_step: int, writing: bool = True):
        self._sinks: tuple[JsonLines | TensorBoard, ...] = ()
        if writing:
            self._sinks = (
                JsonLines(workdir / METRICS),
                TensorBoard(workdir / TENSORBOARD, first_step),
            )
        self._failed: set[type] = set()

    def write(self, row: Row) -> None:
        """Write a row everywhere."""
        self._each("write", row)

    def sync(self) -> None:
        """Make what was written durable."""
        self._each("sync")

    def close(self) -> None:
        """Close all."""
        self._each("close")

    def _each(self, method: str, *args: Row) -> None:
        for sink in self._sinks:
            try:
                getattr(sink, method)(*args)
            except OSError as error:
                if type(sink) not in self._failed:
                    name = type(sink).__name__
                    print(f"warning: {name} failed ({error}); training goes on", file=sys.stderr)
                self._failed.add(type(sink))


class Meter:
    """The wall clock of a run, of its updates, and of what its loop waits for meanwhile."""

    def __init__(self) -> None:
        self._origin = time.monotonic()
        self._mark: tuple[int, float] | None = None
        self._last = (0, 0.0)
        self._waited = dict.fromkeys(WAITS, 0.0)

    @property
    def seconds(self) -> float:
        """Seconds that this run has been worked on, in all its processes."""
        return time.monotonic() - self._origin

    def add(self, seconds: float) -> None:
        """Count what earlier processes have worked on this run."""
        self._origin -= seconds

    def finished(self, step: int) -> None:
        """The device has finished this step."""
        self._last = (step, self.seconds)
        if self._mark is None:
            self._mark = self._last

    def lap(self) -> float:
        """Mean seconds an update took since the last lap or pause; NaN when none was timed."""
        (first, began), (last, ended) = self._mark or self._last, self._last
        self._mark = self._last
        return (ended - began) / (last - first) if last > first else math.nan

    def pause(self) -> None:
        """What comes now (compiling, evaluation, a checkpoint) is no part of an update."""
        self._mark = None

    @contextmanager
    def waiting(self, cause: Literal["data", "save", "evaluation"]) -> Iterator[None]:
        """Count the time of a `with` block as time in which the loop waits for `cause`."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._waited[cause] += time.monotonic() - began

    def awaited(self, batches: Iterator[Result]) -> Iterator[Result]:
        """The batches, each counted as waiting for data until it is there."""
        while True:
            with self.waiting("data"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def waits(self) -> dict[str, float]:
        """Seconds waited since they were last asked for, under the names that rows have."""
        waited = {f"{cause}_seconds": seconds for cause, seconds in self._waited.items()}
        self._waited = dict.fromkeys(WAITS, 0.0)
        return waited


class Console:
    """The terminal: a line that is rewritten where that is possible, else a line now and then."""

    def __init__(self, out: TextIO | None = None, every_seconds: float = 5.0):
        self._out = out or sys.stdout
        self._every = every_seconds
        self._last = -math.inf
        self._open = False

    def say(self, text: str) -> None:
        """Print lines that stay."""
        self._write(f"\n{text}\n" if self._open else f"{text}\n")
        self._open = False

    def progress(self, text: str) -> None:
        """Show where the run is."""
        if self._out.isatty():
            self._write(f"\r\x1b[K{text}")
            self._open = True
        elif time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            self._write(f"{text}\n")

    def _write(self, text: str) -> None:
        with suppress(OSError):  # nobody is looking any more, as after `| head`
            self._out.write(text)
            self._out.flush()


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def quantity(value: float) -> str:
    """A large number in short: 12.3k, 4.56M."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
