"""One task of a stage, wherever it runs: first its files, then its mark.

A task is done when its mark is there: a JSON file with what it counted. Files and marks appear
whole under their names or not at all, so a job that was killed at any moment goes on where it was,
and tasks that run twice do no harm: both write the same.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from configs.schema import InputError
from data.disk import write

Work = Callable[..., dict[str, Any]]  # (task, out) -> what it counted; its files begin with `out`
Emit = Callable[[Any], Iterable[tuple[int, bytes]]]  # task -> (partition, what is sent there)
Reduce = Callable[[Sequence[bytes], Path], dict[str, Any]]  # (what was sent, in order, out)

MARK = ".json"
ERROR = ".error"
_PARTS = ".parts"


def result(out: Path) -> dict[str, Any] | None:
    """What a task counted, or None where it is not done."""
    mark = out.with_name(out.name + MARK)
    return json.loads(mark.read_bytes()) if mark.exists() else None


def do(work: Work, task: Any, out: Path) -> dict[str, Any]:
    """Do a task unless it is done, and say what it counted."""
    found = result(out)
    if found is None:
        found = work(task, out)
        write(out.with_name(out.name + MARK), json.dumps(found).encode())
    return found


def try_to(action: Callable[..., dict[str, Any]], *arguments: Any, out: Path) -> None:
    """Do something on a machine far away, and leave word where the input is at fault."""
    try:
        action(*arguments, out)
    except InputError as error:
        write(out.with_name(out.name + ERROR), str(error).encode())


def spill(emit: Emit, task: Any, out: Path) -> dict[str, Any]:
    """Write what a task sends to all partitions into one file; return where each part lies."""
    parts: dict[str, list[int]] = {}
    content = []
    position = 0
    for partition, sent in emit(task):
        parts[str(partition)] = [position, len(sent)]
        content.append(sent)
        position += len(sent)
    write(out.with_name(out.name + _PARTS), b"".join(content))
    return {"parts": parts}


def gather(reduce: Reduce, pieces: list[tuple[Path, int, int]], out: Path) -> dict[str, Any]:
    """Read from files of `spill` what was sent to one partition, and reduce it."""
    sent = []
    for path, start, size in pieces:
        with path.with_name(path.name + _PARTS).open("rb") as file:
            file.seek(start)
            sent.append(file.read(size))
    return reduce(sent, out)


def clear(outs: list[Path]) -> None:
    """Delete what `spill` wrote."""
    for out in outs:
        out.with_name(out.name + _PARTS).unlink(missing_ok=True)
