"""Pieces of a source -> shards of documents, and what could not be read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data import sources
from data.stages import shards


def together(pieces: Sequence[sources.Piece], size: int) -> list[tuple[sources.Piece, ...]]:
    """Consecutive pieces of a source as tasks of about `size` bytes: there are many small files."""
    tasks: list[list[sources.Piece]] = []
    room = -1.0
    for piece in pieces:
        room -= sources.weight(piece)
        if room < 0 or tasks[-1][0].source != piece.source:
            tasks.append([])
            room = size - sources.weight(piece)
        tasks[-1].append(piece)
    return [tuple(task) for task in tasks]


def read_pieces(
    pieces: Sequence[sources.Piece], out: Path, max_bytes: int, max_faults: int, shard_bytes: int
) -> dict[str, Any]:
    """Read all of some pieces.

    Args:
        pieces: of one source, in order.
        out: shards are OUT-0000.parquet and so on.
        max_bytes: a longer document is a fault.
        max_faults: after one more the rest is not read, as the job will stop.
        shard_bytes: of text in a shard, or one document.

    Returns:
        source, shards (for each its documents and text_bytes), empty (documents without text),
        faults (a sentence each).
    """
    found: dict[str, Any] = {"shards": [], "empty": 0, "faults": []}
    found["source"] = sources.name(pieces[0].source)
    batch: list[sources.Document] = []
    size = 0
    for read in (read for piece in pieces for read in sources.read(piece, max_bytes)):
        if isinstance(read, sources.Fault):
            found["faults"].append(str(read))
            if len(found["faults"]) > max_faults:
                break
        elif not read.text:
            found["empty"] += 1
        else:
            batch.append(read)
            size += len(read.text.encode())
            if size >= shard_bytes:
                _save(batch, size, out, found)
                batch, size = [], 0
    if batch:
        _save(batch, size, out, found)
    return found


def shard(out: Path, number: int) -> Path:
    """The file of a task's shard."""
    return shards.path(out.with_name(f"{out.name}-{number:04d}"))


def _save(batch: list[sources.Document], size: int, out: Path, found: dict[str, Any]) -> None:
    columns = {field: [getattr(document, field) for document in batch] for field in shards.FIELDS}
    shards.save(shard(out, len(found["shards"])), columns)
    found["shards"].append({"documents": len(batch), "text_bytes": size})
