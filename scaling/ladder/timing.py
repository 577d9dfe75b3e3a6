"""How long a ladder will take: seconds of an update and of a start, measured for each size."""

import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from configs.schema import InputError
from scaling.ladder import jobs, work
from scaling.ladder.design import Size, Trunk

FILE = "timing.json"
_UPDATES = 20  # of the short run that times a size
_KINDS = ("train", "eval")
_SETTLED = 3  # updates after which a step takes what it takes


@dataclass(frozen=True)
class Timing:
    """What one size takes on this machine."""

    step: float  # seconds of an update
    start: float  # seconds of a process beside its updates: start, compiling, saving
    evaluation: float  # seconds of one, which every branch ends with
    source: str  # "a short run" or "this ladder's runs"


def measure(recipe: Path, size: Size, warmup: int, share: int, kept: Path) -> Timing:
    """Time a few updates of a size by a short run, with evaluation, in a folder that is removed.

    `warmup` is the recipe's; what is compiled stays in the folder `kept`, for the trunk.

    Raises InputError where the run cannot be made: so would all others.
    """
    with tempfile.TemporaryDirectory(prefix="ladder-") as folder:
        workdir, log = Path(folder, "run"), Path(folder, "log")
        arguments = [
            *(f"--config={recipe}", f"--workdir={workdir}", f"--config.steps={_UPDATES}"),
            "--config.log_every=1",
        ]
        if warmup > _UPDATES:
            arguments.append("--config.schedule.warmup=0")
        began = time.monotonic()
        process = work.start("train", arguments, log, 0, share, kept)
        try:
            code = process.wait()
        finally:
            process.kill()
        wall = time.monotonic() - began
        if code == work.WRONG_INPUT:
            raise InputError(f"{size.name}: {work.last_words(log)}")
        seconds = _seconds(workdir, _SETTLED)
        if not seconds:
            raise InputError(
                f"{size.name}: a run of {_UPDATES} updates to time it ended with code {code} "
                f"({work.last_words(log)}): look at the recipe, or give --notime"
            )
        evaluation = _evaluation(workdir)
    step = statistics.median(seconds)
    return Timing(step, max(wall - _UPDATES * step - evaluation, 0.0), evaluation, "a short run")


def known(out: Path, trunks: Sequence[Trunk]) -> dict[str, Timing]:
    """Timings of sizes from an earlier start of this ladder, the step from its runs if possible."""
    try:
        stored = json.loads((out / FILE).read_text())
    except (OSError, ValueError):
        stored = {}
    found = {name: Timing(**each) for name, each in stored.items()}
    for trunk in trunks:
        seconds = _seconds(out / "trunks" / trunk.size.name, 0)
        before = found.get(trunk.size.name)
        if len(seconds) >= _SETTLED and before:
            step = statistics.median(seconds)
            found[trunk.size.name] = replace(before, step=step, source="this ladder's runs")
    return found


def save(out: Path, timings: Mapping[str, Timing]) -> None:
    """Keep timings for the next start of this ladder."""
    values = {name: asdict(each) for name, each in timings.items()}
    (out / FILE).write_text(json.dumps(values, indent=1) + "\n")


def seconds_left(out: Path, trunk: Trunk, timing: Timing) -> float:
    """What a size still takes: its updates, evaluations, and the start of each part."""
    unfinished = [
        run for run in trunk.runs if not jobs.finished(out / "runs" / run.name, run.steps)
    ]
    return jobs.left(out, trunk) * timing.step + 2 * len(unfinished) * timing.start


def makespan(seconds: Sequence[float], workers: int) -> float:
    """How long jobs take that are begun in this order, each by the first worker that is free."""
    free = [0.0] * workers
    for each in seconds:
        place = free.index(min(free))
        free[place] += each
    return max(free)


def _evaluation(workdir: Path) -> float:
    """Seconds from the last update to the end of the evaluation, its compiling included."""
    rows = list(jobs.rows(workdir))
    ends = [max((r["seconds"] for r in rows if r["kind"] == k), default=0.0) for k in _KINDS]
    return max(ends[1] - ends[0], 0.0)


def _seconds(workdir: Path, settled: int) -> list[float]:
    """Measured seconds of updates."""
    found = [row.get("step_seconds") for row in jobs.rows(workdir) if row["kind"] == "train"]
    return [value for value in found if value][settled:]
