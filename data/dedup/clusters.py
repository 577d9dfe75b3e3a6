"""From documents that share a key to the documents that go, each for a survivor it is similar to.

Similarity is no equivalence: of A, B and C, B may be near to both and A far from C. Taking whole
connected components would remove C for A. Here documents are taken in the order of their places,
and one goes only if a smaller place that itself stays was found similar to it; so C stays. The
result depends on the set of similar pairs alone, and costs time linear in their number.

A place names a document: number of its shard << 32 | row in it, uint64. `edges` are pairs of two
places, uint64 [m, 2], the smaller first.
"""

import numpy as np

_ALL_PAIRS = 16  # documents of one key that are all compared with each other
_HUBS = 4  # of a larger group: the smallest places, with which all others are compared
_ROW_BITS = 32  # of a place, below the number of the shard
_CHUNK = 1 << 16  # pairs of signatures compared at a time


def repeated(keys: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Those (key, place) whose key occurs more than once, by rising key, then rising place."""
    order = np.argsort(keys)
    keys = keys[order]
    several = np.zeros(len(keys), bool)
    several[1:] = keys[1:] == keys[:-1]
    several[:-1] |= several[1:]
    # Sorting by both costs many times as much, and most keys are gone by now.
    keys, places = keys[several], places[order[several]]
    order = np.lexsort((places, keys))
    return keys[order], places[order]


def candidates(keys: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Pairs of places that share a key and are to be compared: edges, some more than once.

    `keys` and `places` are uint64 [n]; key 0 is shared by nobody. All pairs of a group of up to 16:
    with the smallest place alone, the comparison of two others would hang on whether that one is
    similar to them. Of a larger group, which would have pairs without number, each document with
    the 4 smallest places and with the place before it, so that some are compared that are not
    similar to any of the 4.
    """
    known = keys != 0
    keys, places = repeated(keys[known], places[known])
    first = np.ones(len(keys), bool)
    first[1:] = keys[1:] != keys[:-1]
    starts = np.flatnonzero(first)
    sizes = np.diff(starts, append=len(keys))
    rank = np.arange(len(keys)) - np.repeat(starts, sizes)
    size = np.repeat(sizes, sizes)
    later, distance = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    active = np.flatnonzero(size <= _ALL_PAIRS)
    for step in range(1, _ALL_PAIRS):
        active = active[rank[active] >= step]
        later.append(active)
        distance.append(np.full(len(active), step))
    large = np.flatnonzero(size > _ALL_PAIRS)
    for hub in range(_HUBS):
        others = large[rank[large] > hub]
        later.append(others)
        distance.append(rank[others] - hub)
    others = large[rank[large] > _HUBS]
    later.append(others)
    distance.append(np.ones(len(others), np.int64))
    ends = np.concatenate(later)
    return np.stack([places[ends - np.concatenate(distance)], places[ends]], axis=1)


def distinct(edges: np.ndarray) -> np.ndarray:
    """Each edge once, by rising later place, then rising earlier place."""
    shards, rows = edges >> _ROW_BITS, edges & (2**_ROW_BITS - 1)
    row_bits = int(rows.max(initial=0)).bit_length()
    if row_bits + int(shards.max(initial=0)).bit_length() > 32:
        edges = edges[np.lexsort((edges[:, 0], edges[:, 1]))]
        new = np.ones(len(edges), bool)
        new[1:] = (edges[1:] != edges[:-1]).any(axis=1)
        return edges[new]
    # Both places in one word: sorting plain words is 25 times as fast as sorting by two keys.
    short = (shards << row_bits) | rows
    packed = np.sort((short[:, 1] << 32) | short[:, 0])
    new = np.ones(len(packed), bool)
    new[1:] = packed[1:] != packed[:-1]
    short = np.stack([packed[new] & (2**32 - 1), packed[new] >> 32], axis=1)
    return (short >> row_bits << _ROW_BITS) | (short & (2**row_bits - 1))


def agreement(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Share of equal values of pairs of signatures: uint32 [m, values] each, to float32 [m]."""
    return (a == b).mean(axis=1, dtype=np.float32)


def agreements(edges: np.ndarray, signatures: np.ndarray, places: np.ndarray) -> np.ndarray:
    """`agreement` of every edge, float32 [m].

    `signatures` are those of the documents at `places`, which rise; both may be memory-mapped.
    """
    rows = np.searchsorted(places, edges)
    shares = [
        agreement(signatures[part[:, 0]], signatures[part[:, 1]])
        for part in np.split(rows, range(_CHUNK, len(rows), _CHUNK))
    ]
    return np.concatenate(shares)


def survivors(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Who goes, and for whom: (doomed places, their surviving places), uint64 [m], doomed rising.

    `edges` are all pairs found similar, in any order. A place goes if one of its edges leads to a
    smaller place that stays, and goes for the smallest of these: every removed document is similar
    to one that is kept, and no two kept ones are known to be similar.
    """
    survivor: dict[int, int] = {}
    for earlier, later in distinct(edges).tolist():
        if later not in survivor and earlier not in survivor:
            survivor[later] = earlier
    return np.array(list(survivor), np.uint64), np.array(list(survivor.values()), np.uint64)
