"""Who is compared with whom, and that all who go are similar to one who stays."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.dedup import clusters

EDGES = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 12)).filter(lambda pair: pair[0] < pair[1]),
    max_size=30,
)
U64 = np.uint64


def array(edges):
    return np.array(edges, U64).reshape(-1, 2)


def pairs(edges):
    return {tuple(pair) for pair in edges.tolist()}


def test_all_pairs_of_a_group_are_compared():
    keys = np.array([7, 9, 7, 0, 0, 9, 7, 8, 2**64 - 1, 2**64 - 1], U64)
    places = np.array([5, 1, 3, 8, 9, 2, 4, 6, 2**40, 7], U64)
    expected = {(3, 4), (3, 5), (4, 5), (1, 2), (7, 2**40)}
    found = clusters.candidates(keys, places)
    assert len(found) == len(expected)
    assert pairs(found) == expected
    assert clusters.candidates(keys[:0], places[:0]).shape == (0, 2)


@pytest.mark.parametrize("size", [16, 17, 500])
def test_a_large_group_is_compared_with_its_smallest_and_neighbours(size):
    random = np.random.default_rng(size)
    places = random.permutation(10 * np.arange(size)).astype(U64)
    ranked = np.sort(places).tolist()
    if size == 16:
        expected = set(combinations(ranked, 2))
    else:
        expected = set(pairwise(ranked))
        expected |= {(ranked[hub], place) for hub in range(4) for place in ranked[hub + 1 :]}
    found = clusters.candidates(np.full(size, 3, U64), places)
    assert pairs(found) == expected
    assert len(found) == len(expected)


@given(EDGES, st.sampled_from([1, 2**20, 2**33 + 1, 2**59 + 2**20 + 1]))
@settings(max_examples=60, deadline=None)
def test_distinct_sorts_by_the_later_place(edges, scale):
    edges = [(a * scale, b * scale) for a, b in edges]
    expected = sorted(set(edges), key=lambda pair: pair[::-1])
    assert clusters.distinct(array(edges)).tolist() == [list(pair) for pair in expected]


@given(EDGES, st.randoms())
@settings(max_examples=100, deadline=None)
def test_survivors_are_those_of_one_walk_over_rising_places(edges, random):
    similar = set(edges)
    kept: list[int] = []
    expected = {}
    for place in range(13):
        near = [other for other in kept if (other, place) in similar]
        if near:
            expected[place] = near[0]
        else:
            kept.append(place)
    random.shuffle(edges)
    doomed, survivors = clusters.survivors(array(edges))
    assert doomed.tolist() == sorted(expected)
    assert survivors.tolist() == [expected[place] for place in doomed.tolist()]


def test_the_end_of_a_chain_stays():
    doomed, survivors = clusters.survivors(array([(2, 3), (1, 2)]))
    assert doomed.tolist() == [2]
    assert survivors.tolist() == [1]


def test_agreement_is_the_share_of_equal_values(monkeypatch):
    monkeypatch.setattr(clusters, "_CHUNK", 3)
    random = np.random.default_rng(0)
    signatures = random.integers(0, 3, (9, 6), dtype=np.uint32)
    places = np.sort(random.choice(2**40, 9, replace=False)).astype(U64)
    rows = np.array(list(combinations(range(9), 2)))
    shares = clusters.agreements(places[rows], signatures, places)
    expected = [sum(x == y for x, y in zip(*signatures[pair], strict=True)) / 6 for pair in rows]
    assert shares.dtype == np.float32
    np.testing.assert_allclose(shares, expected, rtol=1e-6)
    assert len(clusters.agreements(array([]), signatures, places)) == 0
