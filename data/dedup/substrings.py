"""Passages of many tokens that are there more than once (Lee et al. 2022, arXiv:2107.06499).

Every window of `length` tokens inside a document is hashed; of equal windows all but the first go,
and with them the tokens they cover. What this finds is what a suffix array finds, up to collisions
of 64-bit hashes, and needs nothing but a grouping by hash:

    hashes, positions = window_hashes(tokens, ends, length)       of each shard, to groups by hash
    doomed = repeats(hashes, places, length)                      of each group, back to the shards
    tokens, ends, kept = cut(tokens, ends, spans(doomed positions, length))

Sixteen bytes for every token are a lot to move. Windows can be chosen first, without missing any:

    hashes, positions = anchors(tokens, ends, length)             one in thirteen, to groups by hash
    chosen = shared(hashes, places)                               of each group, back to the shards
    hashes, positions = window_hashes(tokens, ends, length, chosen positions)        and as above

Anchors are the half windows, of length // 2 tokens, with the smallest hash in each window
(winnowing: Schleimer, Wilkerson and Aiken 2003). Which one that is depends on the window's tokens
alone. So equal windows have equal anchors at equal offsets; these are shared; and windows with a
shared anchor are all kept: a window left out is equal to no other.

A shard is `tokens`, uint16 or uint32, and `ends`, where documents end in them. The last token of
each document is the id that closes it: it is in no window and is never cut. A place is the number
of the shard << 40 | position, uint64.
"""

import numpy as np

from data.dedup.clusters import repeated
from data.dedup.shingles import powers_of
from data.order import splitmix64

_BASE = 0xA0761D6478BD642F
_BLOCK = 1 << 18  # positions hashed at a time, whose vectors stay in the processor's cache


def window_hashes(
    tokens: np.ndarray, ends: np.ndarray, length: int, anchors: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Hashes, uint64, and first positions, int64 and rising, of windows inside documents.

    Of all windows, or of those around one of `anchors`, positions of half windows.
    """
    chosen = _inside(len(tokens), ends, length)
    if anchors is not None:
        chosen &= _covered(len(tokens), anchors - (length - length // 2), length - length // 2 + 1)
    hashes, positions = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for start in range(0, len(tokens) - length + 1, _BLOCK):
        block = np.flatnonzero(chosen[start : start + _BLOCK])
        if len(block):
            hashes.append(_rolling(tokens[start : start + _BLOCK + length - 1], length)[block])
            positions.append(block + start)
    return np.concatenate(hashes), np.concatenate(positions)


def anchors(tokens: np.ndarray, ends: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes, uint64, and positions, int64 and rising, of the half windows that stand for windows.

    In each window the half window with the smallest hash; all of them where several have it.
    """
    half = length // 2
    reach = length - half  # of the offsets 0 ... reach of half windows in a window
    inside = _inside(len(tokens), ends, length)
    hashes, positions = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for start in range(0, len(tokens) - half + 1, _BLOCK):
        low = max(0, start - reach)  # where the first window with a half window of this block is
        part = _rolling(tokens[low : start + _BLOCK + length - 1], half)
        smallest = _slide(np.minimum, part, reach + 1)
        smallest[~inside[low : low + len(smallest)]] = 0
        # Half window j is the smallest of a window in which it is iff it equals the largest of the
        # smallest values of those windows, none of which can be above it.
        padded = np.zeros(len(part) + reach, np.uint64)
        padded[reach : reach + len(smallest)] = smallest
        block = np.flatnonzero(_slide(np.maximum, padded, reach + 1) == part)
        block = block[(block >= start - low) & (block < start - low + _BLOCK)]
        hashes.append(part[block])
        positions.append(block + low)
    return np.concatenate(hashes), np.concatenate(positions)


def shared(hashes: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The places whose hash occurs more than once, rising."""
    return np.sort(repeated(hashes, places)[1])


def repeats(hashes: np.ndarray, places: np.ndarray, length: int) -> np.ndarray:
    """The places of windows that go, rising: of equal hashes all but the smallest place.

    Except those that overlap it. A run of one token, whose windows are all equal, thus keeps its
    first `length` tokens; without the exception it would keep one.
    """
    hashes, places = repeated(hashes, places)
    first = np.ones(len(hashes), bool)
    first[1:] = hashes[1:] != hashes[:-1]
    earliest = places[np.maximum.accumulate(np.where(first, np.arange(len(hashes)), 0))]
    return np.sort(places[places - earliest >= length])


def spans(positions: np.ndarray, length: int) -> np.ndarray:
    """The union of the windows at `positions`, which rise: [k, 2] int64, disjoint and rising."""
    positions = np.asarray(positions, np.int64)
    apart = np.flatnonzero(np.diff(positions) > length) + 1
    starts = positions[np.concatenate([np.zeros(min(1, len(positions)), np.int64), apart])]
    stops = positions[np.concatenate([apart - 1, [-1] * min(1, len(positions))]).astype(int)]
    return np.stack([starts, stops + length], axis=1)


def cut(
    tokens: np.ndarray, ends: np.ndarray, spans: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A shard without the tokens in `spans`: (tokens, ends, bool per document: is it still there).

    A document of which nothing is left but the id that closes it is dropped.
    """
    gone = np.zeros(len(tokens), bool)
    for start, stop in spans.tolist():
        gone[start:stop] = True
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    left = np.concatenate([[0], np.cumsum(~gone)])
    kept = left[ends] - left[starts] > 1
    gone[np.asarray(ends, np.int64)[~kept] - 1] = True
    return tokens[~gone], np.cumsum((left[ends] - left[starts])[kept]), kept


def _rolling(tokens: np.ndarray, length: int) -> np.ndarray:
    """Hashes of all windows of `tokens`, as in data.dedup.shingles: uint64 [positions]."""
    count = len(tokens) - length + 1
    if count <= 0:
        return np.zeros(0, np.uint64)
    powers, inverses = powers_of(_BASE, 1 << len(tokens).bit_length())
    prefix = np.zeros(len(tokens) + 1, np.uint64)
    np.cumsum(tokens * powers[: len(tokens)], out=prefix[1:])
    return splitmix64((prefix[length:] - prefix[:count]) * inverses[:count])


def _slide(smaller: np.ufunc, values: np.ndarray, width: int) -> np.ndarray:
    """Minima (or maxima) of all windows of `width` values, by windows twice as wide each time."""
    have = 1
    while have < width:
        step = min(have, width - have)
        values = smaller(values[:-step], values[step:])
        have += step
    return values


def _inside(tokens: int, ends: np.ndarray, length: int) -> np.ndarray:
    """Where windows lie in one document and without its last token: bool [tokens]."""
    inside = np.ones(tokens, bool)
    for back in range(1, length + 1):  # windows that begin here reach the end; so do earlier ends'
        reaching = np.asarray(ends, np.int64) - back
        inside[reaching[reaching >= 0]] = False
    return inside


def _covered(tokens: int, starts: np.ndarray, width: int) -> np.ndarray:
    """Which positions lie in one of the ranges [start, start + width): bool [tokens]."""
    change = np.zeros(tokens + 1, np.int64)
    np.add.at(change, np.maximum(starts, 0), 1)
    np.add.at(change, np.minimum(starts + width, tokens), -1)
    return np.cumsum(change[:-1]) > 0
