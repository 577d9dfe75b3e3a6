"""Documents that are there more than once, and what the stages that remove them share.

A document is named by its place, shard << 32 | row, and of documents that are alike the one of the
smallest place stays. Each kind of duplicates ends in files OUT.npy of [doomed place, the place that
stays], sorted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data import order
from data.dedup import exact
from data.stages import shards
from data.stages.select import KEPT, SAMPLES


@dataclass(frozen=True)
class Selected:
    """A shard after selection, and the duplicates known so far.

    Attributes:
        number: of the shard.
        cleaned: what its files from clean_shard begin with.
        selected: what its file from select_shard begins with.
        doomed: what the files of duplicates begin with.
    """

    number: int
    cleaned: Path
    selected: Path
    doomed: tuple[Path, ...] = ()

    def rows(self) -> np.ndarray:
        """The rows that are still there, int64, rising."""
        there = shards.load_array(array_of(self.selected)) == KEPT
        for each in self.doomed:
            there[shards.rows_of(self.number, shards.load_array(array_of(each))[:, 0])] = False
        return np.flatnonzero(there)


def send_keys(shard: Selected, partitions: int) -> Iterator[tuple[int, bytes]]:
    """[key, key, place, bytes] of each document, by key."""
    rows = shard.rows()
    tags = shards.load_arrays(shards.path(shard.cleaned, "tags"), ("key", "key_2", "text_bytes"))
    sent = np.stack(
        [
            tags["key"][rows],
            tags["key_2"][rows],
            shards.places(shard.number, rows),
            tags["text_bytes"][rows].astype(np.uint64),
        ],
        axis=1,
    )
    yield from by_partition(sent, sent[:, 0] % np.uint64(partitions))


def equal_keys(sent: Sequence[bytes], out: Path) -> dict[str, Any]:
    """Doom all but the first of documents with the same key."""
    records = joined(sent, 4)
    doomed, stay = exact.duplicates(records[:, :2], records[:, 2])
    save_doomed(doomed, stay, out)
    return {"dropped": size_of(records[:, 2:], doomed), "some": some(doomed, stay)}


def save_doomed(doomed: np.ndarray, stay: np.ndarray, out: Path) -> None:
    """Write [doomed place, the place that stays], sorted."""
    pairs = np.stack([doomed, stay], axis=1).astype(np.uint64)
    shards.save_array(array_of(out), pairs[np.argsort(pairs[:, 0])])


def some(doomed: np.ndarray, stay: np.ndarray) -> list[list[int]]:
    """A few [key, doomed place, the place that stays], those of lowest key, to be looked at."""
    keys = order.splitmix64(doomed)
    chosen = np.argsort(keys)[:SAMPLES]
    return np.stack([keys, doomed, stay], axis=1)[chosen].tolist()


def size_of(named: np.ndarray, doomed: np.ndarray) -> list[int]:
    """[documents, bytes] of the doomed, from [place, bytes] of all."""
    return [len(doomed), int(named[np.isin(named[:, 0], doomed), 1].sum())]


def by_partition(records: np.ndarray, which: np.ndarray) -> Iterator[tuple[int, bytes]]:
    """Rows of an array as bytes, together by partition."""
    if not len(records):
        return
    ordered = np.argsort(which, kind="stable")
    partitions, starts = np.unique(which[ordered], return_index=True)
    for partition, rows in zip(partitions.tolist(), np.split(ordered, starts[1:]), strict=True):
        yield int(partition), np.ascontiguousarray(records[rows]).tobytes()


def joined(sent: Sequence[bytes], columns: int) -> np.ndarray:
    """What was sent, as rows of so many uint64."""
    return np.frombuffer(b"".join(sent), np.uint64).reshape(-1, columns)


def array_of(out: Path) -> Path:
    """The file of a task's array."""
    return out.with_name(f"{out.name}.npy")
