"""Repeated passages are those that a search through all pairs of windows finds."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.dedup import substrings

SHARD = 40  # bits below its number
CLOSE = 9
DOCUMENTS = st.lists(st.lists(st.integers(0, 1), max_size=24), max_size=5)
SHARDS = st.lists(DOCUMENTS, min_size=1, max_size=3)


def flat(documents):
    """(tokens, ends) of documents, each closed."""
    ids = [token for document in documents for token in [*document, CLOSE]]
    return np.array(ids, np.uint16), np.cumsum([len(document) + 1 for document in documents])


def plain_windows(shards, length):
    """(window, place) of all windows in documents, by rising place."""
    for number, documents in enumerate(shards):
        start = 0
        for document in documents:
            for offset in range(len(document) - length + 1):
                window = tuple(document[offset : offset + length])
                yield window, (number << SHARD) + start + offset
            start += len(document) + 1


def plain_doomed(shards, length):
    first: dict[tuple, int] = {}
    doomed = set()
    for window, place in plain_windows(shards, length):
        if place - first.setdefault(window, place) >= length:
            doomed.add(place)
    return sorted(doomed)


def places_of(number, positions):
    return positions.astype(np.uint64) + np.uint64(number << SHARD)


def doomed_by(shards, length, winnow):
    flats = [flat(documents) for documents in shards]
    chosen = [None] * len(shards)
    if winnow:
        found = [substrings.anchors(tokens, ends, length) for tokens, ends in flats]
        places = [places_of(number, positions) for number, (_, positions) in enumerate(found)]
        shared = substrings.shared(
            np.concatenate([hashes for hashes, _ in found]), np.concatenate(places)
        )
        chosen = [
            (shared[shared >> SHARD == number] & (2**SHARD - 1)).astype(np.int64)
            for number in range(len(shards))
        ]
    found = [
        substrings.window_hashes(tokens, ends, length, near)
        for (tokens, ends), near in zip(flats, chosen, strict=True)
    ]
    places = [places_of(number, positions) for number, (_, positions) in enumerate(found)]
    hashes = np.concatenate([hashes for hashes, _ in found])
    order = np.random.default_rng(0).permutation(len(hashes))
    return substrings.repeats(hashes[order], np.concatenate(places)[order], length).tolist()


@pytest.mark.parametrize("winnow", [False, True])
@given(shards=SHARDS, length=st.integers(2, 9), block=st.sampled_from([3, 16, 1 << 18]))
@settings(max_examples=100, deadline=None)
def test_finds_what_a_search_through_all_windows_finds(winnow, shards, length, block):
    before, substrings._BLOCK = substrings._BLOCK, block
    try:
        assert doomed_by(shards, length, winnow) == plain_doomed(shards, length)
    finally:
        substrings._BLOCK = before


def test_windows_have_one_hash_where_their_tokens_are_equal():
    random = np.random.default_rng(0)
    documents = [random.integers(0, 3, size).tolist() for size in (0, 300, 4, 5, 2000)]
    tokens, ends = flat(documents)
    hashes, positions = substrings.window_hashes(tokens, ends, 5)
    windows = list(plain_windows([documents], 5))
    assert positions.tolist() == [place for _, place in windows]
    texts = [window for window, _ in windows]
    assert len(set(zip(texts, hashes.tolist(), strict=True))) == len(set(texts)) == 3**5
    assert len(np.unique(hashes)) == 3**5


@pytest.mark.parametrize("width", [(np.uint16, 2**16), (np.uint32, 200_000)])
def test_planted_passages_are_cut(width):
    dtype, vocab = width
    random = np.random.default_rng(0)
    documents = [random.integers(1, vocab, 400) for _ in range(20)]
    documents[7] = np.concatenate([documents[7][:100], documents[3][50:120], documents[7][100:]])
    documents[9] = np.concatenate([documents[9][:30], documents[4][:49], documents[9][30:]])
    documents[12] = documents[2].copy()
    tokens = np.concatenate([np.append(document, 0) for document in documents]).astype(dtype)
    ends = np.cumsum([len(document) + 1 for document in documents])
    hashes, positions = substrings.window_hashes(tokens, ends, 50)
    doomed = substrings.repeats(hashes, positions.astype(np.uint64), 50)
    spans = substrings.spans(doomed, 50)
    starts = np.concatenate([[0], ends])
    assert spans.tolist() == [
        [starts[7] + 100, starts[7] + 170],
        [starts[12], starts[12] + 400],
    ]
    left, left_ends, kept = substrings.cut(tokens, ends, spans)
    assert left.dtype == dtype
    assert np.flatnonzero(~kept).tolist() == [12]
    documents[7] = np.delete(documents[7], slice(100, 170))
    del documents[12]
    for document, (start, stop) in zip(documents, pairwise([0, *left_ends]), strict=True):
        assert left[start:stop].tolist() == [*document.tolist(), 0]


def test_a_run_of_one_token_keeps_its_first_window():
    documents = [[1] + [7] * 500 + [2], [7] * 300, [3] * 90]
    tokens, ends = flat(documents)
    doomed = doomed_by([documents], 50, winnow=False)
    left, left_ends, kept = substrings.cut(tokens, ends, substrings.spans(np.array(doomed), 50))
    assert left.tolist() == [1] + [7] * 50 + [2, CLOSE] + [3] * 90 + [CLOSE]
    assert left_ends.tolist() == [53, 144]
    assert kept.tolist() == [True, False, True]


def test_spans_are_the_union_of_windows():
    found = substrings.spans(np.array([3, 4, 9, 20, 30, 41]), 10)
    assert found.tolist() == [[3, 19], [20, 40], [41, 51]]
    assert substrings.spans(np.zeros(0, np.uint64), 10).shape == (0, 2)


def test_nothing_to_cut_changes_nothing():
    tokens, ends = flat([[1, 2], [], [3]])
    left, left_ends, kept = substrings.cut(tokens, ends, np.zeros((0, 2), np.int64))
    assert left.tolist() == [1, 2, CLOSE, 3, CLOSE]
    assert left_ends.tolist() == [3, 5]
    assert kept.tolist() == [True, False, True]


def test_anchors_are_few():
    tokens = np.random.default_rng(0).integers(0, 30_000, 100_000, dtype=np.uint16)
    hashes, positions = substrings.anchors(tokens, np.array([100_000]), 50)
    assert len(hashes) / 100_000 == pytest.approx(2 / 27, rel=0.05)
    assert np.diff(positions).max() <= 26
    assert len(substrings.anchors(tokens, np.arange(50, 100_001, 50), 50)[0]) == 0
