"""Ours and py3langid's own loop are of one mind about every text."""

# ruff: noqa: RUF001 (letters of other scripts are what this is about)

import random
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from benchmarks.language import SENTENCES
from data.clean import language


@pytest.fixture(scope="module")
def peer():
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def check(peer, texts):
    codes, probabilities = language.identify(texts)
    expected = [peer.classify(text) for text in texts]
    assert codes == [code for code, _ in expected]
    np.testing.assert_allclose(probabilities, [score for _, score in expected], atol=1e-3)
    assert probabilities.dtype == np.float32


def test_many_languages_and_lengths(peer):
    pick = random.Random(1)
    joined = "".join(pick.choices(SENTENCES, k=3000))
    cuts = [
        joined[(i := pick.randrange(len(joined))) : i + pick.randint(0, 900)] for _ in range(80)
    ]
    check(peer, [*SENTENCES, *cuts])


def test_the_sentences_are_known_for_what_they_are():
    codes, probabilities = language.identify([sentence * 5 for sentence in SENTENCES])
    assert codes == ["en", "de", "fr", "es", "pl", "ru", "el", "ar", "hi", "zh", "ja", "ko", "th"]
    assert probabilities.min() > 0.5
    assert set(codes) < language.known()


def test_odd_texts(peer):
    odd = [
        "",
        "\n",
        "123 456",
        "\x00\x01",
        "DER AUSSCHUSS TRAF SICH AM DONNERSTAG",
        "\ud800 half a surrogate pair",
        "ÿÿÿÿ þþþ",
        unicodedata.normalize("NFD", SENTENCES[4]),
        "Скупштина је усвојила буџет",
        "Skupština je usvojila budžet i zakon o radu",
        "🙂" * 50,
        "",
    ]
    check(peer, odd)
    for text in odd:
        check(peer, [text])


@settings(max_examples=15, deadline=None)
@given(texts=st.lists(st.text(max_size=60), max_size=6))
def test_any_text(peer, texts):
    check(peer, texts)


def test_blocks_lanes_and_neighbours_do_not_matter(monkeypatch):
    pick = random.Random(2)
    texts = ["".join(pick.choices(SENTENCES, k=pick.randint(1, 40))) for _ in range(60)]
    codes, probabilities = language.identify(texts)
    monkeypatch.setattr(language, "_BLOCK", 1000)
    monkeypatch.setattr(language, "_LANE", 37)
    monkeypatch.setattr(language, "_DOCUMENTS", 3)
    for order in (list(range(60)), list(reversed(range(60)))):
        again, same = language.identify([texts[i] for i in order])
        assert again == [codes[i] for i in order]
        np.testing.assert_allclose(same, probabilities[order], atol=1e-5)


def test_a_text_longer_than_a_block(peer, monkeypatch):
    monkeypatch.setattr(language, "_BLOCK", 5000)
    check(peer, ["".join(SENTENCES) * 20, "short", SENTENCES[5] * 100])


def test_the_state_depends_on_few_bytes():
    """From any two states the same few bytes lead to one: what lanes that begin early rest on.

    All pairs of a state and the first are followed over all bytes at once, until none differ.
    States that share a row of the table go the same way, so pairs of rows do.
    """
    model = language._model()
    rows = model.rows_s[model.moves.reshape(-1, 256)] >> 8
    pairs = np.delete(np.arange(len(rows)), rows[0, 0xFF]) * len(rows) + rows[0, 0xFF]
    for _ in range(language._EARLY - 1):
        parts = []
        for part in np.array_split(pairs, max(1, len(pairs) // 8192)):
            ours, theirs = rows[part // len(rows)].astype(np.int64), rows[part % len(rows)]
            parts.append(np.unique((ours * len(rows) + theirs)[ours != theirs]))
        pairs = np.unique(np.concatenate(parts))
        if not len(pairs):
            return
    pytest.fail(f"{len(pairs)} pairs of states still differ")
