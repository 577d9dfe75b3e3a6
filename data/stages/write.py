"""Ids -> the shards of the token store, in each of them documents in random order.

A part goes to the cell, which is the shard of the store, that its key points to, and lies there in
the order of keys: so neighbours in a source are not neighbours in the store, and neither the number
of workers nor the order of tasks leaves a trace.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data import store
from data.stages import shards
from data.stages.encode import GROUP, KEY, TEXT_BYTES, TOKENS, ids_of, parts_of


class Cell(NamedTuple):
    """One shard of the store to be: its split, its number there, and its source."""

    split: str
    number: int
    source: str


def send_parts(encoded: Path, cells: dict[int, tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
    """Parts by cell: how many, their [group, key, tokens, text_bytes], their ids.

    `cells` says for each group the number of its first cell and how many it has.
    """
    ids, table = shards.load_array(ids_of(encoded)), shards.load_array(parts_of(encoded))
    ends = np.cumsum(table[:, TOKENS].astype(np.int64))
    cell = np.empty(len(table), np.int64)
    for row, (of, key) in enumerate(table[:, [GROUP, KEY]].tolist()):
        first, count = cells[of]
        cell[row] = first + (key * count >> 64)
    for number in np.unique(cell).tolist():
        rows = np.flatnonzero(cell == number)
        several = [ids[ends[row] - int(table[row, TOKENS]) : ends[row]] for row in rows.tolist()]
        head = np.array([len(rows)], np.uint64).tobytes() + table[rows].tobytes()
        yield number, head + np.concatenate(several).tobytes()


def write_cell(
    sent: Sequence[bytes], out: Path, cells: Sequence[Cell], folder: Path, dtype: str
) -> dict[str, Any]:
    """Write the shard of the store that has the number of `out` among the cells.

    Returns:
        shard: its entry in the manifest, or None where nothing was sent.
    """
    tables, several = [], []
    for content in sent:
        count = int(np.frombuffer(content, np.uint64, 1)[0])
        tables.append(np.frombuffer(content, np.uint64, 4 * count, 8).reshape(-1, 4))
        ids = np.frombuffer(content, dtype, offset=8 + 32 * count)
        several += np.split(ids, np.cumsum(tables[-1][:, TOKENS].astype(np.int64))[:-1])
    if not tables:
        return {"shard": None}
    table = np.concatenate(tables)
    rows = np.argsort(table[:, KEY], kind="stable")
    cell = cells[int(out.name)]
    shard = store.write_shard(
        folder,
        f"{cell.split}/{cell.number:05d}",
        cell.split,
        cell.source,
        np.concatenate([several[row] for row in rows.tolist()]),
        np.cumsum(table[rows, TOKENS].astype(np.int64)),
        int(table[:, TEXT_BYTES].sum()),
    )
    return {"shard": asdict(shard)}
