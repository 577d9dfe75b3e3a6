"""Planted evaluation texts are found, counted, and nothing else is."""

import random

import numpy as np

from data.dedup import contamination


def words(seed, count):
    return random.Random(seed).choices([f"w{i}" for i in range(5000)], k=count)


def test_planted_passages_are_counted_by_set():
    first, second = words(1, 40), words(2, 13)
    indexes = [contamination.index([" ".join(text)], 13)[0] for text in (first, second)]
    clean = words(3, 500)
    texts = [
        " ".join(clean),
        " ".join(clean + first + clean),
        " ".join(clean + first[5:18] + clean),
        " ".join(clean + first[5:17] + clean),
        " ".join(clean + second + second + clean + first[:14]),
        "",
    ]
    expected = [[0, 0], [28, 0], [1, 0], [0, 0], [2, 1], [0, 0]]
    assert contamination.hits(texts, indexes).tolist() == expected
    assert contamination.hits(texts, indexes).dtype == np.int32
    assert contamination.hits([], indexes).shape == (0, 2)
    assert contamination.hits(texts, []).shape == (6, 0)


def test_case_punctuation_and_whitespace_hide_nothing():
    known = "The quick brown fox doesn't jump over the lazy dog, not even on Sundays!"
    found, _ = contamination.index([known], 13)
    hidden = "…so: «THE QUICK—\nBROWN» fox; doesnt jump\tover the 'lazy' dog not even on sundays"
    assert contamination.hits([hidden.replace("—", "")], [found]).tolist() == [[2]]
    assert contamination.hits([hidden.replace("lazy", "old")], [found]).tolist() == [[0]]


def test_short_evaluation_texts_are_found_whole_or_left_out():
    texts = ["seven words are too few to find", "eight words are just enough to be found", "!"]
    found, ignored = contamination.index(texts, 13)
    assert ignored == 2
    assert {length: len(hashes) for length, hashes in found.items()} == {8: 1}
    documents = [f"before it {texts[1]} after it", texts[1], f"before it {texts[0]} after it"]
    assert contamination.hits(documents, [found]).ravel().tolist() == [1, 1, 0]


def test_an_index_is_the_set_of_n_grams():
    text = "a b c d a b c d a b"
    found, ignored = contamination.index([text, text], 3)
    assert ignored == 0
    assert list(found) == [3]
    assert len(found[3]) == 4
    assert (np.diff(found[3].astype(object)) > 0).all()
    assert contamination.hits([text], [found]).tolist() == [[4]]


def test_many_texts_agree_with_sets_of_tuples():
    evaluation = [words(seed, 60) for seed in range(50)]
    generator = random.Random(0)
    documents = []
    for seed in range(300):
        document, planted = words(1000 + seed, 300), generator.choice(evaluation)
        start, length = generator.randrange(40), generator.randrange(8, 20)
        documents.append(document + planted[start : start + length] + document)

    def grams(text):
        return {tuple(text[i : i + 13]) for i in range(len(text) - 12)}

    known = set().union(*map(grams, evaluation))
    found, _ = contamination.index([" ".join(text) for text in evaluation], 13)
    counts = contamination.hits([" ".join(text) for text in documents], [found])[:, 0]
    expected = [len(grams(text) & known) for text in documents]
    assert counts.tolist() == expected
    assert 0 < (counts > 0).sum() < 300
