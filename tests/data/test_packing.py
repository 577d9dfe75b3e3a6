"""Every stored token is a target exactly once, and best fit packs as tightly as best fit can."""

from itertools import chain

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data import packing

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=60)


def _targets(plan):
    """The places in the store that are targets, window by window."""
    return [
        [place for start, length in plan.pieces(i) for place in range(start, start + length)]
        for i in range(plan.count)
    ]


def _naive_best_fit_decreasing(lengths, capacity):
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [(room, i) for i, room in enumerate(rooms) if room >= length]
        if fitting:
            rooms[min(fitting)[1]] -= length
        else:
            rooms.append(capacity - length)
    return rooms


@given(LENGTHS, st.integers(1, 50))
def test_each_stored_token_is_a_target_once(lengths, context):
    ends = np.cumsum(lengths)
    for plan in (packing.concat(int(ends[-1]), context), packing.bestfit(ends, context, seed=0)):
        windows = _targets(plan)
        assert sorted(chain(*windows)) == list(range(ends[-1]))
        assert all(0 < len(window) <= context for window in windows)


@given(LENGTHS, st.integers(1, 50))
def test_best_fit_is_what_one_by_one_best_fit_is(lengths, capacity):
    lengths = np.minimum(lengths, capacity)
    bins = packing.best_fit_decreasing(lengths, capacity)
    rooms = capacity - np.bincount(bins, weights=lengths).astype(int)
    assert sorted(rooms.tolist()) == sorted(_naive_best_fit_decreasing(lengths, capacity))


@given(LENGTHS, st.integers(1, 50))
def test_best_fit_cuts_only_what_is_too_long(lengths, context):
    ends = np.cumsum(lengths)
    plan = packing.bestfit(ends, context, seed=0)
    starts = {start for i in range(plan.count) for start, _ in plan.pieces(i)}
    document_starts = set((ends - lengths).tolist())
    cuts = starts - document_starts
    long = [(end - n, n) for end, n in zip(ends.tolist(), lengths, strict=True) if n > context]
    assert cuts == {at for start, n in long for at in range(start + context, start + n, context)}


def test_the_rest_of_a_cut_document_comes_first():
    # 7 tokens in windows of 5: what is left, 2 tokens from place 5 on, shares a window with a
    # document of 3, and only as the first piece does it follow its true preceding token.
    for seed in range(8):
        plan = packing.bestfit(np.array([7, 10]), 5, seed)
        assert sorted(map(plan.pieces, range(plan.count))) == [[(0, 5)], [(5, 2), (7, 3)]]


def test_documents_of_1500_and_300_share_a_window_of_2048():
    plan = packing.bestfit(np.array([1500, 1800]), 2048, seed=0)
    assert plan.count == 1
    assert plan.pieces(0) == [(0, 1500), (1500, 300)]
    # Two of the long ones do not: best fit never cuts what fits, concatenation does.
    ends = np.array([1500, 3000, 3300])
    assert sorted(
        len(plan.pieces(i)) for plan in [packing.bestfit(ends, 2048, 0)] for i in (0, 1)
    ) == [1, 2]
    assert packing.concat(3300, 2048).pieces(1) == [(2048, 1252)]


def test_best_fit_fills_windows_of_realistic_documents():
    random = np.random.default_rng(0)
    lengths = np.maximum(1, random.lognormal(6, 1.2, 200_000)).astype(np.int64)
    for context in (1024, 2048):
        plan = packing.bestfit(np.cumsum(lengths), context, seed=0)
        assert lengths.sum() / (plan.count * context) > 0.999


def test_documents_are_planned_in_groups_drawn_by_the_seed(monkeypatch):
    monkeypatch.setattr(packing, "GROUP_DOCUMENTS", 10)
    ends = np.cumsum(np.arange(1, 48))
    plans = [packing.bestfit(ends, 50, seed) for seed in (0, 0, 1)]
    windows = [_targets(plan) for plan in plans]
    assert windows[0] == windows[1] != windows[2]
    assert sorted(chain(*windows[0])) == list(range(ends[-1]))
