"""Texts have one key where they are equal but for whitespace, and the smallest place stays."""

import hashlib

import numpy as np

from data.dedup import exact


def test_only_whitespace_makes_no_difference():
    texts = ["a b", " a\n\tb ", "a\u2003b", "ab", "A b", "a, b", "", " ", "\ud800"]
    keys = [tuple(key) for key in exact.keys(texts).tolist()]
    assert len({keys[0], keys[1], keys[2]}) == len({keys[6], keys[7]}) == 1
    assert len(set(keys)) == 6
    digest = hashlib.blake2b(b"a b", digest_size=16).digest()
    assert exact.keys(["a b"]).tobytes() == digest
    assert exact.keys([]).shape == (0, 2)


def test_the_smallest_place_stays_whatever_the_order():
    random = np.random.default_rng(0)
    keys = random.integers(0, 4, (200, 2), dtype=np.uint64)
    places = random.permutation(2**32 + np.arange(200)).astype(np.uint64)
    smallest: dict[tuple, int] = {}
    for key, place in zip(map(tuple, keys.tolist()), places.tolist(), strict=True):
        smallest[key] = min(place, smallest.get(key, place))
    expected = {
        place: smallest[key]
        for key, place in zip(map(tuple, keys.tolist()), places.tolist(), strict=True)
        if place != smallest[key]
    }
    doomed, survivors = exact.duplicates(keys, places)
    assert doomed.tolist() == sorted(expected)
    assert dict(zip(doomed.tolist(), survivors.tolist(), strict=True)) == expected


def test_nothing_is_doomed_where_keys_differ():
    doomed, survivors = exact.duplicates(exact.keys(["a", "b"]), np.arange(2, dtype=np.uint64))
    assert len(doomed) == len(survivors) == 0
