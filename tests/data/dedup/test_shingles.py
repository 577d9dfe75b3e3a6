"""Words and n-grams have equal hashes exactly where plain Python finds them equal."""

import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.dedup import shingles

TRICKY = (
    "aAbB zé\u0301ÉßİΣςﬁ가\u1100\u1161क़ \n\t\r\x00\u00a0\u2003\ud800"
    "019٣²½.,-'\u2019—+$€©\u00ad\u200b中文かカが\U00020000"
)
TEXTS = st.lists(st.text(st.sampled_from(TRICKY), max_size=30), max_size=6)


def plain_words(text, fold):
    """The fold rules one after the other, on strings."""
    text = unicodedata.normalize("NFC", text)
    if fold == "fineweb":
        text = re.sub(r"\d+", "0", text)
    folded = ""
    for character in text:
        category = unicodedata.category(character)
        if character.isspace() or category in ("Cc", "Cs"):
            folded += " "
        elif category[0] in "PS":
            folded += " " if fold == "fineweb" else ""
        elif category != "Cf":
            folded += character.lower() if fold == "fineweb" else character.lower()[0]
    if fold == "fineweb":
        apart = unicodedata.normalize("NFD", folded)
        folded = "".join(c for c in apart if unicodedata.category(c) != "Mn")
        folded = unicodedata.normalize("NFC", folded)
    return re.sub(r"([\u3040-\u30ff\u4e00-\u9fff\U00020000-\U0003ffff])", r" \1 ", folded).split()


def plain_grams(words, n, short):
    if short and 0 < len(words) < n:
        return [tuple(words)]
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def assert_one_to_one(things, hashes):
    assert len(things) == len(hashes)
    assert len(set(zip(things, hashes, strict=True))) == len(set(things)) == len(set(hashes))


@pytest.mark.parametrize("fold", ["fineweb", "gpt3"])
@given(texts=TEXTS)
@settings(max_examples=80, deadline=None)
def test_words_are_equal_where_folded_strings_are(fold, texts):
    hashes, ends = shingles.words(texts, fold)
    expected = [plain_words(text, fold) for text in texts]
    assert np.diff(ends, prepend=0).tolist() == [len(words) for words in expected]
    assert_one_to_one([word for words in expected for word in words], hashes.tolist())


@given(
    texts=st.lists(st.lists(st.sampled_from("abc"), max_size=9), max_size=5),
    n=st.integers(1, 5),
    short=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_grams_are_equal_where_their_words_are(texts, n, short):
    words = shingles.words([" ".join(text) for text in texts], "gpt3")
    hashes, ends = shingles.grams(*words, n, short)
    expected = [plain_grams(text, n, short) for text in texts]
    assert np.diff(ends, prepend=0).tolist() == [len(grams) for grams in expected]
    assert_one_to_one([gram for grams in expected for gram in grams], hashes.tolist())


def test_folds_say_what_is_equal():
    def equal(a, b, fold):
        return shingles.words([a], fold)[0].tolist() == shingles.words([b], fold)[0].tolist()

    assert equal("On 12 May, 1999: café!", "on 7 may 3 CAFE", "fineweb")
    assert equal("well-known", "well known", "fineweb")
    assert not equal("well-known", "well known", "gpt3")
    assert equal("Don't — stop.", "dont stop", "gpt3")
    assert not equal("12", "13", "gpt3")
    assert equal("e\u0301te\u0301", "été", "gpt3")
    assert not equal("été", "ete", "gpt3")
    assert not equal("ab c", "a bc", "gpt3")


def test_how_texts_are_batched_and_cut_changes_nothing(monkeypatch):
    texts = ["one two three " * 40, "", "four\nfive " * 90, "été 中文 12 13 " * 50, "x"]
    words = shingles.words(texts, "fineweb")
    grams = shingles.grams(*words, 5, short=True)
    monkeypatch.setattr(shingles, "_BATCH", 64)
    monkeypatch.setattr(shingles, "_PIECE", 37)
    for again, once in zip(shingles.words(texts, "fineweb"), words, strict=True):
        np.testing.assert_array_equal(again, once)
    for again, once in zip(shingles.grams(*words, 5, short=True), grams, strict=True):
        np.testing.assert_array_equal(again, once)
    assert [texts[part] for part in shingles.batches(texts)] == [
        texts[:1],
        texts[1:3],
        texts[3:4],
        texts[4:],
    ]


def test_a_word_longer_than_a_piece_is_cut():
    hashes, ends = shingles.words(["x" * ((1 << 20) + 5)], "gpt3")
    assert ends.tolist() == [2]
    assert hashes[1] == shingles.words(["xxxxx"], "gpt3")[0][0]


def test_hashes_are_pinned():
    """Signatures are stored: what a word's and an n-gram's hash is does not change."""
    words = shingles.words(["to be or"], "fineweb")
    assert words[0].tolist() == [10734744353109931548, 16897001636029830243, 4765703219532014773]
    assert shingles.grams(*words, 2)[0].tolist() == [17153369997477469631, 3272386942896120380]
