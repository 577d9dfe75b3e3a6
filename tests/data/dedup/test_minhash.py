"""Signatures estimate Jaccard similarity; with the exact check, what joins is similar indeed."""

from types import SimpleNamespace

import numpy as np
import pytest
import rensa

from configs.corpus import Dedup
from configs.schema import InputError
from data.dedup import clusters, minhash

DEFAULT = Dedup()


def words(random, count):
    """Words of letters, as all numbers are one; none comes twice, in any calls, with any luck."""
    letters = {ord(digit): letter for digit, letter in zip("0123456789", "ghijklmnop", strict=True)}
    return [f"{value:x}".translate(letters) for value in random.integers(2**40, 2**60, count)]


def pair(random, shingles, replaced):
    """Two texts of so many 5-grams, one word in six replaced: 5 of them differ for each of it."""
    first = words(random, shingles + 4)
    second = list(first)
    for place, word in zip(range(5, 5 + 6 * replaced, 6), words(random, replaced), strict=True):
        second[place] = word
    return " ".join(first), " ".join(second)


def similarity(shingles, replaced):
    return (shingles - 5 * replaced) / (shingles + 5 * replaced)


def jaccard(first, second):
    one, other = minhash.shingle_sets([first, second], DEFAULT)
    return minhash.jaccard(one, other, DEFAULT)


def joined(texts):
    """All of fuzzy deduplication, on texts whose places are their indices: {doomed: survivor}."""
    places = np.arange(len(texts), dtype=np.uint64)
    signatures = minhash.signatures(texts, DEFAULT)
    keys = minhash.band_keys(signatures, DEFAULT.bands)
    found = clusters.candidates(keys.ravel(), np.repeat(places, DEFAULT.bands))
    edges = clusters.distinct(found)
    agreement = clusters.agreements(edges, signatures, places)
    similar = agreement >= DEFAULT.similarity
    for edge in np.flatnonzero(minhash.doubtful(agreement, DEFAULT)):
        earlier, later = edges[edge]
        similar[edge] = jaccard(texts[earlier], texts[later]) >= DEFAULT.similarity
    doomed, survivors = clusters.survivors(edges[similar])
    return dict(zip(doomed.tolist(), survivors.tolist(), strict=True)), len(edges)


def test_agreement_estimates_similarity():
    random = np.random.default_rng(0)
    for shingles, replaced in ((370, 6), (400, 20), (200, 20)):
        texts = [pair(random, shingles, replaced) for _ in range(150)]
        first, second = (
            minhash.signatures([both[side] for both in texts], DEFAULT) for side in (0, 1)
        )
        shares = clusters.agreement(first, second)
        true = similarity(shingles, replaced)
        exact = [jaccard(*both) for both in texts]
        assert exact == pytest.approx([true] * 150)
        deviation = np.sqrt(true * (1 - true) / 112)
        assert shares.mean() == pytest.approx(true, abs=4 * deviation / np.sqrt(150))
        assert shares.std() == pytest.approx(deviation, rel=0.25)


def test_near_duplicates_are_found_and_no_others_joined():
    random = np.random.default_rng(1)
    near = [pair(random, 370, 6) for _ in range(300)]
    assert similarity(370, 6) == 0.85
    far = [pair(random, 400, 20 + index % 3) for index in range(600)]
    assert max(similarity(400, replaced) for replaced in (20, 21, 22)) == 0.6
    result, compared = joined([text for both in near + far for text in both])
    assert all(doomed == survivor + 1 for doomed, survivor in result.items())
    assert sum(doomed < 600 for doomed in result) >= 0.95 * 300
    assert sum(doomed >= 600 for doomed in result) == 0
    assert compared > 300 + 600 / 10  # pairs at .6 did meet: the check is what kept them apart


def test_a_chain_of_edits_keeps_what_is_far_from_its_start():
    random = np.random.default_rng(2)
    text = words(random, 404)
    chain = []
    for step in range(6):  # each 8 words further: .82 to the one before, .67 to the one before that
        for place in range(5 + 6 * step, 400, 48):
            text[place] = words(random, 1)[0]
        chain.append(" ".join(text))
    result, _ = joined(chain)
    assert result == {1: 0, 3: 2, 5: 4}
    assert jaccard(chain[0], chain[1]) > 0.7
    assert jaccard(chain[0], chain[2]) < 0.7


def test_normalisation_and_what_stands_beside_a_text_change_nothing():
    text = "On 12 May, the café — well known — closed; nobody knew why. " * 2
    same = "on 7 may the CAFE well-known closed nobody knew: why\n" * 2
    alone = minhash.signatures([text], DEFAULT)
    several = minhash.signatures(["other words here", same, "", text], DEFAULT)
    np.testing.assert_array_equal(several[[1, 3]], np.repeat(alone, 2, axis=0))
    assert minhash.signatures([], DEFAULT).shape == (0, 112)


def test_signatures_are_pinned():
    """Signatures of one corpus are made at different times: what they are does not change."""
    small = Dedup(bands=2, rows=2)
    assert minhash.signatures(["to be or not to be that"], small).tolist() == [
        [2169057068, 1395361731, 1511330417, 474503671]
    ]


def test_short_documents_are_one_shingle_and_empty_ones_none():
    texts = ["Three little words", "three, little WORDS!", "three little", "", "...", "one two"]
    signatures = minhash.signatures(texts, DEFAULT)
    keys = minhash.band_keys(signatures, DEFAULT.bands)
    assert (keys[0] == keys[1]).all()
    assert len(np.unique(keys[[0, 2, 5]])) == 3 * 14
    assert (keys[3:5] == 0).all()
    assert (keys[[0, 2, 5]] != 0).all()
    assert joined(texts)[0] == {1: 0}
    assert [len(found) for found in minhash.shingle_sets(texts, DEFAULT)] == [1, 1, 1, 0, 0, 1]
    nothing = np.zeros(0, np.uint64)
    assert minhash.jaccard(nothing, nothing, DEFAULT) == 0


def test_band_keys_are_equal_where_bands_are(monkeypatch):
    monkeypatch.setattr(minhash, "_KEYED", 7)
    signatures = np.random.default_rng(0).integers(0, 2, (60, 9), dtype=np.uint32)
    keys = minhash.band_keys(signatures, 3)
    bands = [
        (band, *row[3 * band : 3 * band + 3]) for row in signatures.tolist() for band in range(3)
    ]
    met = set(zip(bands, keys.ravel().tolist(), strict=True))
    assert len(met) == len(set(bands)) == len(np.unique(keys)) == 24


def test_long_documents_are_known_by_their_smallest_hashes():
    small = Dedup(max_shingles=300)
    random = np.random.default_rng(3)
    first, second = pair(random, 3000, 48)  # .852
    moved = " ".join(words(random, 100)) + " " + first
    half = " ".join(first.split()[:1500])
    texts = [first, second, moved, half]
    capped, whole = minhash.shingle_sets(texts, small), minhash.shingle_sets(texts, DEFAULT)
    for some, everything in zip(capped, whole, strict=True):
        np.testing.assert_array_equal(some, everything[:300])
    signatures = minhash.signatures(texts, small)
    for row, some in zip(signatures, capped, strict=True):
        digest = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
            some, np.array([0, len(some)], np.uint64), 112, minhash._SEED
        )
        assert digest.to_rows() == [row.tolist()]
    for other in (1, 2, 3):
        true = minhash.jaccard(whole[0], whole[other], DEFAULT)
        estimate = minhash.jaccard(capped[0], capped[other], small)
        assert estimate == pytest.approx(true, abs=3 * 0.5 / np.sqrt(300))
        seen = clusters.agreement(signatures[:1], signatures[other : other + 1])[0]
        assert seen <= true + 3 * np.sqrt(true * (1 - true) / 112)


def test_doubtful_is_within_three_deviations():
    shares = np.array([0.5, 0.56, 0.58, 0.7, 0.82, 0.84, 1.0], np.float32)
    expected = [False, False, True, True, True, False, False]
    assert minhash.doubtful(shares, DEFAULT).tolist() == expected


def test_another_algorithm_is_refused(monkeypatch):
    monkeypatch.setattr(rensa, "RMinHash", SimpleNamespace(ALGORITHM_VERSION=3))
    with pytest.raises(InputError, match=r"algorithm 3.*install rensa 0\.5"):
        minhash.signatures(["a"], DEFAULT)
