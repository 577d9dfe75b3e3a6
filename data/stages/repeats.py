"""Repeated stretches of ids: all but the first occurrence is cut out (Lee et al. 2022,
arXiv:2107.06499). See data/dedup/substrings.py for why this finds all of them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data import tokenizer
from data.dedup import substrings
from data.stages import shards
from data.stages.encode import TEXT_BYTES, TOKENS, ids_of, parts_of, save
from data.stages.unique import by_partition, joined

SPARSITY = 8  # there is an anchor for about so many tokens, or fewer
_POSITION_BITS = 40  # a window is named by shard << 40 | position of its first id

Numbered = tuple[int, Path]  # the number of a shard, and what its encoded files begin with


def send_anchors(shard: Numbered, length: int, partitions: int) -> Iterator[tuple[int, bytes]]:
    """[hash, place] of every anchor, by hash."""
    ids, ends = _texts(shard[1])
    yield from _send(shard[0], *substrings.anchors(ids, ends, length), partitions)


def find_shared(sent: Sequence[bytes], out: Path) -> dict[str, Any]:
    """OUT.npy: the places of anchors that occur more than once, sorted."""
    records = joined(sent, 2)
    found = substrings.shared(records[:, 0], records[:, 1])
    shards.save_array(ids_of(out), found)
    return {"anchors": len(records), "shared": len(found)}


def send_windows(
    shard: Numbered, shared: Sequence[Path], length: int, partitions: int
) -> Iterator[tuple[int, bytes]]:
    """[hash, place] of every window around a shared anchor, by hash."""
    ids, ends = _texts(shard[1])
    anchors = _mine(shard[0], shared)
    yield from _send(shard[0], *substrings.window_hashes(ids, ends, length, anchors), partitions)


def find(sent: Sequence[bytes], out: Path, length: int) -> dict[str, Any]:
    """OUT.npy: the places of windows that go, sorted."""
    records = joined(sent, 2)
    doomed = substrings.repeats(records[:, 0], records[:, 1], length)
    shards.save_array(ids_of(out), doomed)
    return {"windows": len(records), "doomed": len(doomed)}


def cut_shard(
    shard: Numbered, out: Path, found: Sequence[Path], length: int, known: Path
) -> dict[str, Any]:
    """The encoded shard without what doomed windows cover; parts of which nothing is left go.

    Returns:
        What `save` does, and removed: [stretches, tokens, parts].
    """
    ids, ends = _texts(shard[1])
    table = shards.load_array(parts_of(shard[1]))
    spans = substrings.spans(_mine(shard[0], found), length)
    left, left_ends, kept = substrings.cut(ids, ends, spans)
    decode = tokenizer.load(known).decode
    parts = np.split(left, left_ends[:-1]) if kept.any() else []
    rows = []
    for part, row in zip(parts, table[kept].tolist(), strict=True):
        if len(part) < row[TOKENS]:
            row[TOKENS] = len(part)
            row[TEXT_BYTES] = len(decode(part[:-1].tolist()).encode())
        rows.append(tuple(row))
    removed = [len(spans), len(ids) - len(left), int((~kept).sum())]
    return save(left, rows, out) | {"removed": removed}


def _texts(encoded: Path) -> tuple[np.ndarray, np.ndarray]:
    """Ids, and where parts end in them, int64."""
    table = shards.load_array(parts_of(encoded))
    return shards.load_array(ids_of(encoded)), np.cumsum(table[:, TOKENS].astype(np.int64))


def _send(
    number: int, hashes: np.ndarray, positions: np.ndarray, partitions: int
) -> Iterator[tuple[int, bytes]]:
    places = np.uint64(number << _POSITION_BITS) | positions.astype(np.uint64)
    records = np.stack([hashes, places], axis=1)
    yield from by_partition(records, hashes % np.uint64(partitions))


def _mine(number: int, files: Sequence[Path]) -> np.ndarray:
    """The positions in a shard that sorted files of places name, int64, rising."""
    bounds = np.array([number << _POSITION_BITS, (number + 1) << _POSITION_BITS], np.uint64)
    mine = [np.zeros(0, np.uint64)]
    for each in files:
        places = shards.load_array(ids_of(each))
        mine.append(places[slice(*np.searchsorted(places, bounds))] - bounds[0])
    return np.sort(np.concatenate(mine)).astype(np.int64)
