"""Laying documents into windows of a fixed length.

Conceptually a split is one stream: an end-of-document token, then every document closed by one. The
token store holds that stream without its first token, so stored token k stands at stream position
k + 1. A window is `context + 1` tokens: the inputs are all but the last, the targets all but the
first. It is made of pieces, runs (start, length) of stored tokens that are its targets; its first
token is the one before the first piece in the stream. Both layouts make every stored token a target
exactly once.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data import order

GROUP_DOCUMENTS = 1_000_000  # best fit plans so many documents together


@dataclass(frozen=True)
class Plan:
    """`count` windows; `pieces(i)` are those of window i, in order, at most `context` tokens."""

    count: int
    pieces: Callable[[int], list[tuple[int, int]]]


def concat(tokens: int, context: int) -> Plan:
    """Cut the stream every `context` tokens; only the last window can be short."""

    def pieces(window: int) -> list[tuple[int, int]]:
        start = window * context
        return [(start, min(context, tokens - start))]

    return Plan(-(-tokens // context), pieces)


def bestfit(ends: np.ndarray, context: int, seed: int) -> Plan:
    """Whole documents wherever they fit, by best-fit decreasing (arXiv 2404.10830).

    `ends` are the rising positions in the store at which documents end. A document longer than
    `context` is cut at its multiples; what is left of it is packed like a short document. Documents
    are planned in random groups drawn by `seed`, so that a plan does not only join equals.
    """
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    shuffled = order.permute(np.arange(len(ends)), len(ends), order.key(seed, "bestfit"))
    groups = [
        shuffled[at : at + GROUP_DOCUMENTS] for at in range(0, len(shuffled), GROUP_DOCUMENTS)
    ]
    planned = [_plan_group(starts[group], ends[group], context) for group in groups]
    piece_starts, piece_lengths, piece_counts = (
        np.concatenate(part) for part in zip(*planned, strict=True)
    )
    firsts = np.concatenate([[0], np.cumsum(piece_counts)])

    def pieces(window: int) -> list[tuple[int, int]]:
        first, last = firsts[window], firsts[window + 1]
        return list(
            zip(piece_starts[first:last].tolist(), piece_lengths[first:last].tolist(), strict=True)
        )

    return Plan(len(piece_counts), pieces)


def _plan_group(
    starts: np.ndarray, ends: np.ndarray, context: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts and lengths of all pieces in window order, and the number of pieces per window."""
    cuts = -(-(ends - starts) // context)
    position = np.arange(cuts.sum()) - np.repeat(np.cumsum(cuts) - cuts, cuts)
    piece_starts = np.repeat(starts, cuts) + context * position
    lengths = np.minimum(context, np.repeat(ends, cuts) - piece_starts)
    bins = best_fit_decreasing(lengths, context)
    # The rest of a cut document goes first in its window: there its true preceding token is input.
    by_window = np.argsort(2 * bins + (position == 0), kind="stable")
    return piece_starts[by_window], lengths[by_window].astype(np.int32), np.bincount(bins)


def best_fit_decreasing(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """The bin of every length: longest first, each into the fullest bin that has room for it.

    Lengths lie in [1, capacity]; bins are numbered 0, 1, ... A bin that took the longest remaining
    length stays the fullest with room for another, so a whole run of k equal lengths is dealt to
    all bins of equal room at once: the result has as many bins as one-by-one best fit.
    """
    narrow = np.uint16 if capacity < 2**16 else np.int64  # numpy sorts 16 bits by radix
    longest_first = np.argsort((capacity - lengths).astype(narrow), kind="stable")
    bins = np.empty(len(lengths), np.int64)
    open_bins: dict[int, list[np.ndarray]] = {}  # by room left
    rooms = 0  # bit r is set where open_bins[r] holds bins
    opened = placed = 0
    sizes, counts = np.unique(lengths, return_counts=True)
    for size, count in zip(sizes[::-1].tolist(), counts[::-1].tolist(), strict=True):
        while count:
            fitting = rooms >> size
            if fitting:
                room = size + (fitting & -fitting).bit_length() - 1
                group = open_bins[room].pop()
                rooms ^= 0 if open_bins[room] else 1 << room
            else:
                room = capacity
                group = np.arange(opened, opened - (-count // (capacity // size)))
                opened += len(group)
            share = room // size  # items a bin of this group takes
            taken = min(count, share * len(group))
            used = -(-taken // share)
            bins[longest_first[placed : placed + taken]] = np.repeat(group[:used], share)[:taken]
            placed, count = placed + taken, count - taken
            last_share = taken - share * (used - 1)
            for left, rest in (
                (room, group[used:]),
                (room - share * size, group[: used - 1]),
                (room - last_share * size, group[used - 1 : used]),
            ):
                if left and len(rest):
                    open_bins.setdefault(left, []).append(rest)
                    rooms |= 1 << left
    return bins
