"""Near duplicates: documents are signed, meet where a band of their signatures agrees, are
compared; where the comparison of signatures leaves doubt, their n-grams settle it.

To compare two documents of different shards, what is known of the first is sent to the shard of the
second. So no task holds more than one shard and what is sent there.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs.corpus import Dedup
from data.dedup import clusters, minhash
from data.stages import shards
from data.stages.unique import Selected, array_of, by_partition, joined, save_doomed, size_of, some

LookUp = Callable[[int, np.ndarray], list[np.ndarray]]  # shard, places there -> uint64 of each
NO, YES, DOUBTFUL = range(3)
Judge = Callable[[list[np.ndarray], list[np.ndarray]], np.ndarray]  # of pairs: NO, YES, DOUBTFUL

_ROW_BITS = np.uint64(shards.ROW_BITS)


def sign_shard(shard: Selected, out: Path, dedup: Dedup) -> dict[str, Any]:
    """The MinHash signatures of a shard, with the place and size of each document.

    OUT.npy is uint32 [documents, bands * rows], OUT.places.npy is uint64 [documents, 2].
    """
    rows = shard.rows()
    every = shards.load(shards.path(shard.cleaned), ("text",))["text"]
    texts = [every[row] for row in rows.tolist()]
    sizes = np.array([len(text.encode()) for text in texts], np.uint64)
    shards.save_array(array_of(out), minhash.signatures(texts, dedup))
    shards.save_array(_places(out), np.stack([shards.places(shard.number, rows), sizes], axis=1))
    return {"documents": len(rows)}


def send_bands(signed: Path, dedup: Dedup, partitions: int) -> Iterator[tuple[int, bytes]]:
    """[key of a band, place] of each document and band, by key."""
    keys = minhash.band_keys(shards.load_array(array_of(signed)), dedup.bands)
    places = np.broadcast_to(shards.load_array(_places(signed))[:, :1], keys.shape)
    sent = np.stack([keys.ravel(), places.ravel()], axis=1)
    sent = sent[sent[:, 0] != 0]  # documents without words meet nobody
    yield from by_partition(sent, sent[:, 0] % np.uint64(partitions))


def meet(sent: Sequence[bytes], out: Path) -> dict[str, Any]:
    """OUT.npy: pairs of places that share a key, uint64 [pairs, 2], the earlier first."""
    records = joined(sent, 2)
    pairs = clusters.distinct(clusters.candidates(records[:, 0], records[:, 1]))
    shards.save_array(array_of(out), pairs)
    return {"pairs": len(pairs)}


def send_pairs(file: Path) -> Iterator[tuple[int, bytes]]:
    """Pairs, by the shard of the first."""
    pairs = shards.load_array(file)
    yield from by_partition(pairs, pairs[:, 0] >> _ROW_BITS)


def attach(sent: Sequence[bytes], out: Path, look_up: LookUp) -> dict[str, Any]:
    """OUT.npy: the pairs whose first document lies in a shard, with what is known of it.

    `out` is numbered by shard. See _pack for what is in the file.
    """
    pairs = clusters.distinct(joined(sent, 2))
    first, which = np.unique(pairs[:, 0], return_inverse=True)
    known = look_up(int(out.name), first) if len(pairs) else []
    shards.save_array(array_of(out), _pack(pairs, [known[each] for each in which.tolist()]))
    return {"pairs": len(pairs)}


def send_attached(attached: Path) -> Iterator[tuple[int, bytes]]:
    """Pairs with what is known of the first, by the shard of the second."""
    pairs, known = _unpack(shards.load_array(array_of(attached)))
    second = pairs[:, 1] >> _ROW_BITS
    for shard in np.unique(second).tolist():
        rows = np.flatnonzero(second == shard)
        yield int(shard), _pack(pairs[rows], [known[row] for row in rows.tolist()]).tobytes()


def compare(sent: Sequence[bytes], out: Path, look_up: LookUp, judge: Judge) -> dict[str, Any]:
    """OUT.npy: pairs that are similar; OUT.doubtful.npy: pairs of which that is not known."""
    several = [_unpack(np.frombuffer(content, np.uint64)) for content in sent]
    pairs = np.concatenate([np.zeros((0, 2), np.uint64), *(pairs for pairs, _ in several)])
    verdicts = np.zeros(0, np.int8)
    if len(pairs):
        second, which = np.unique(pairs[:, 1], return_inverse=True)
        known = look_up(int(out.name), second)
        first = [each for _, part in several for each in part]
        verdicts = judge(first, [known[each] for each in which.tolist()])
    shards.save_array(array_of(out), pairs[verdicts == YES])
    shards.save_array(doubtful_of(out), pairs[verdicts == DOUBTFUL])
    return {"pairs": int((verdicts == YES).sum()), "doubtful": int((verdicts == DOUBTFUL).sum())}


def signatures_of(shard: int, places: np.ndarray, signed: Path) -> list[np.ndarray]:
    """A LookUp: signatures, two values in one word."""
    out = signed / f"{shard:05d}"
    rows = np.searchsorted(shards.load_array(_places(out))[:, 0], places)
    signatures = shards.load_array(array_of(out))[rows].astype(np.uint64)
    return list(signatures)


def by_signature(first: list[np.ndarray], second: list[np.ndarray], dedup: Dedup) -> np.ndarray:
    """A Judge of signatures."""
    agreement = clusters.agreement(np.stack(first), np.stack(second))
    verdicts = np.where(agreement >= dedup.similarity, YES, NO)
    return np.where(minhash.doubtful(agreement, dedup), DOUBTFUL, verdicts)


def shingles_of(shard: int, places: np.ndarray, cleaned: Path, dedup: Dedup) -> list[np.ndarray]:
    """A LookUp: sets of n-gram hashes."""
    texts = shards.load(shards.path(cleaned / f"{shard:05d}"), ("text",))["text"]
    rows = shards.rows_of(shard, places)
    return minhash.shingle_sets([texts[row] for row in rows.tolist()], dedup)


def by_shingles(first: list[np.ndarray], second: list[np.ndarray], dedup: Dedup) -> np.ndarray:
    """A Judge of sets of n-gram hashes."""
    similarity = [minhash.jaccard(a, b, dedup) for a, b in zip(first, second, strict=True)]
    return np.where(np.array(similarity) >= dedup.similarity, YES, NO)


def join(similar: Sequence[Path], out: Path, signed: Sequence[Path]) -> dict[str, Any]:
    """Doom each document that is similar to an earlier one that stays."""
    pairs = [shards.load_array(array_of(each)) for each in similar]
    doomed, stay = clusters.survivors(np.concatenate([np.zeros((0, 2), np.uint64), *pairs]))
    save_doomed(doomed, stay, out)
    sizes = [size_of(shards.load_array(_places(each)), doomed)[1] for each in signed]
    return {"dropped": [len(doomed), sum(sizes)], "some": some(doomed, stay)}


def doubtful_of(out: Path) -> Path:
    """The file of a task's doubtful pairs."""
    return out.with_name(f"{out.name}.doubtful.npy")


def _places(out: Path) -> Path:
    return out.with_name(f"{out.name}.places.npy")


def _pack(pairs: np.ndarray, known: list[np.ndarray]) -> np.ndarray:
    """One row of uint64: how many pairs, the pairs, the lengths of what is known, all of that."""
    head = np.array([len(pairs)], np.uint64)
    sizes = np.array([len(each) for each in known], np.uint64)
    return np.concatenate([head, pairs.ravel(), sizes, *known])


def _unpack(packed: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    count = int(packed[0])
    pairs = packed[1 : 1 + 2 * count].reshape(count, 2)
    ends = np.cumsum(packed[1 + 2 * count : 1 + 3 * count].astype(np.int64))
    return pairs, np.split(packed[1 + 3 * count :], ends[:-1]) if count else []
