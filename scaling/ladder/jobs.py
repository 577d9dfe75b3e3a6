"""What is to be done next for the runs of one size, read off the disk: kills lose nothing.

    OUT/recipes/SIZE.py   the config of the size
    OUT/trunks/SIZE       a run directory, trained from one branch point to the next
    OUT/runs/NAME         a run directory: a copy of the trunk that went on with its own decay
    OUT/logs/NAME.log     what training printed

The learning rate of a warm-up, stable and decay schedule is constant up to the branch point
whatever the length of the run, and batches depend on the seed and the step alone: so the run is,
bit for bit, the one that would have been trained by itself.
"""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.schema import InputError
from scaling.ladder.design import Run, Trunk

NOT_FINITE = 3  # exit codes of `python -m train`
STOPPED = 75
_GLANCE = 64  # windows that a trunk is evaluated on, which no row of the ladder is made of
_COPIED = ("config.json", "run.json", "metrics.jsonl", "tokenizer.json", "tokenizer.model")
_CHECKPOINT = re.compile("0|[1-9][0-9]*")


@dataclass(frozen=True)
class Part:
    """One call of `python -m train`: a stretch of a trunk, or of a branch to its end."""

    name: str  # of the run directory: "trunk 4x64" or the run's
    workdir: Path
    recipe: Path
    first: int
    last: int
    decay: int

    @property
    def arguments(self) -> list[str]:
        """Of `python -m train`."""
        return [
            f"--config={self.recipe}",
            f"--workdir={self.workdir}",
            f"--config.steps={self.last}",
            f"--config.schedule.decay={self.decay}",
            "--allow_change",  # of these two, which is what a branch is
            *([f"--config.evaluation.windows={_GLANCE}"] if self.is_trunk else []),
        ]

    @property
    def is_trunk(self) -> bool:
        """Whether it stays at the constant rate: nobody asks for the loss at its end."""
        return self.decay == 0


def next_part(out: Path, trunk: Trunk) -> Part | None:
    """The next thing to train; a branch whose time has come is copied off the trunk first.

    None where all of the size's runs are finished, or cannot be because training gave up.
    """
    name, recipe = trunk.size.name, out / "recipes" / f"{trunk.size.name}.py"
    trained = out / "trunks" / name
    for run in trunk.runs:
        branch = out / "runs" / run.name
        if finished(branch, run.steps) or gave_up(branch):
            continue
        reached = _reached(trained)
        if not branch.exists() and reached == run.stable:
            _copy(trained, branch, reached)
        if branch.exists() or reached > run.stable:  # a trunk that is past it cannot serve
            return Part(run.name, branch, recipe, _reached(branch), run.steps, run.decay)
        if gave_up(trained):
            return None
        return Part(f"trunk {name}", trained, recipe, reached, run.stable, 0)
    return None


def left(out: Path, trunk: Trunk) -> int:
    """Updates that are still to be made for a size."""
    reached, total, at = _reached(out / "trunks" / trunk.size.name), 0, 0
    for run in trunk.runs:
        branch = out / "runs" / run.name
        if finished(branch, run.steps) or gave_up(branch):
            continue
        if branch.exists() or reached > run.stable:
            total += run.steps - _reached(branch)
        else:
            at = run.stable
            total += run.decay
    return total + max(at - reached, 0)


def finished(workdir: Path, steps: int) -> bool:
    """Whether the run in a directory has been trained for so many updates, to the end."""
    return any(row.get("event") == "finished" and row["step"] == steps for row in rows(workdir))


def gave_up(workdir: Path) -> str:
    """Why training gave up, where that is what happened last, or an empty text."""
    events = [row for row in rows(workdir) if row["kind"] == "event"]
    if events and events[-1]["event"] == "gave up":
        return str(events[-1]["reason"])
    return ""


def rows(workdir: Path) -> Iterator[dict[str, Any]]:
    """The rows of a run's metrics; a line that was cut short is left out."""
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "kind" in row and "step" in row:
            yield row


def failed(out: Path, run: Run) -> str:
    """Why a run that is not finished has none to show, as far as its directories tell."""
    branch, trunk = out / "runs" / run.name, out / "trunks" / run.size.name
    if reason := gave_up(branch):
        return f"diverged: {reason}"
    if not branch.exists() and (reason := gave_up(trunk)):
        return f"its trunk diverged: {reason}"
    return ""


def _reached(workdir: Path) -> int:
    """The step of the newest complete checkpoint; 0 without one."""
    names = [path.name for path in (workdir / "checkpoints").glob("*")]
    return max((int(name) for name in names if _CHECKPOINT.fullmatch(name)), default=0)


def _copy(trunk: Path, branch: Path, step: int) -> None:
    """Copy what a run goes on from; the directory appears at once, complete."""
    draft = branch.with_name(branch.name + ".copying")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for name in _COPIED:
            if (trunk / name).exists():
                shutil.copy2(trunk / name, draft / name)
        shutil.copytree(trunk / "checkpoints" / str(step), draft / "checkpoints" / str(step))
        draft.rename(branch)
    except OSError as error:
        raise InputError(
            f"{branch}: the trunk could not be copied ({error.strerror}): make room or choose "
            "another --out, and run the same command again"
        ) from error
