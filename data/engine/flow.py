"""Stages in folders that are named by what decides their content.

A stage's folder is its name and a hash of its settings and of the stages before it. So a build
that changes a threshold finds all that comes before the threshold done, and one that was killed
finds the stages, and of a stage the tasks, that were finished.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from data.disk import write
from data.engine import task as tasks_of
from data.engine.task import Emit, Reduce, Work

FORMAT = 1  # of what stages write; a change makes folders of earlier versions useless


class Engine(Protocol):
    """What runs the tasks of a stage. Results come in the order of tasks or partitions."""

    def map(self, name: str, work: Work, tasks: Sequence[Any], folder: Path) -> list[dict]:
        """work(task, out) for every task, where `out` is folder/00000 and so on."""
        ...

    def group(
        self,
        name: str,
        emit: Emit,
        reduce: Reduce,
        tasks: Sequence[Any],
        partitions: int,
        folder: Path,
    ) -> list[dict]:
        """reduce(what all tasks emit for a partition, in their order, out), for every partition."""
        ...


@dataclass(frozen=True)
class Stage:
    """A finished stage: where its files lie, and what each of its tasks counted."""

    folder: Path
    fingerprint: str
    results: list[dict[str, Any]]

    def outs(self) -> tuple[Path, ...]:
        """What the names of each task's files begin with."""
        return tuple(out(self.folder, number) for number in range(len(self.results)))


@dataclass(frozen=True)
class Flow:
    """Runs stages in a folder for intermediate results."""

    engine: Engine
    work: Path

    def map(
        self,
        name: str,
        work: Work,
        tasks: Sequence[Any],
        depends: Sequence[Any] = (),
        after: Sequence[Stage] = (),
    ) -> Stage:
        """work(task, out) for every task.

        Args:
            name: of the stage.
            work: writes files whose names begin with `out`; returns what it counted.
            tasks: follow from what the stage depends on.
            depends: all that decides the result beside the stages before; hashed by repr.
            after: the stages it reads.
        """
        folder, fingerprint = self._folder(name, depends, after)
        found = _finished(folder)
        if found is None:
            found = self.engine.map(name, work, tasks, folder)
            _finish(folder, found)
        return Stage(folder, fingerprint, found)

    def group(
        self,
        name: str,
        emit: Emit,
        reduce: Reduce,
        tasks: Sequence[Any],
        partitions: int,
        depends: Sequence[Any] = (),
        after: Sequence[Stage] = (),
    ) -> Stage:
        """A map whose tasks send bytes to partitions, and a reduction of each partition."""
        folder, fingerprint = self._folder(name, (*depends, partitions), after)
        found = _finished(folder)
        if found is None:
            found = self.engine.group(name, emit, reduce, tasks, partitions, folder)
            _finish(folder, found)
        return Stage(folder, fingerprint, found)

    def _folder(
        self, name: str, depends: Sequence[Any], after: Sequence[Stage]
    ) -> tuple[Path, str]:
        known = [FORMAT, name, *map(repr, depends), *(stage.fingerprint for stage in after)]
        fingerprint = hashlib.sha256(json.dumps(known).encode()).hexdigest()
        return self.work / f"{name}-{fingerprint[:16]}", fingerprint


def out(folder: Path, number: int) -> Path:
    """What the names of a task's files begin with."""
    return folder / f"{number:05d}"


def _finished(folder: Path) -> list[dict] | None:
    found = tasks_of.result(folder / "stage")
    return None if found is None else found["results"]


def _finish(folder: Path, results: list[dict]) -> None:
    write(folder / f"stage{tasks_of.MARK}", json.dumps({"results": results}).encode())
