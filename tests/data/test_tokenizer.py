"""Text comes back as it was, whatever it holds, and never writes the end of a document."""

import argparse
import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import InputError
from data import tokenizer

SAMPLE = [inspect.getsource(argparse), "\tDie Würde des Menschen ist unantastbar. 67\n" * 20]
TRICKY = st.text(
    st.one_of(
        st.sampled_from("\u2581\u2581 \n\t\r\x00<>|0xAe\u2047\u2585\ufeff\u2028\ufffd\u0301"),
        st.characters(exclude_categories=["Cs"]),
    )
)
LITERAL = [
    "<eod>",
    "</s>",
    "<unk>",
    "<s>",
    "<pad>",
    "<0x41>",
    "<0x0A>",
    "\u2581",
    "a\u2581 \u2581b",
]


@pytest.fixture(scope="module")
def trained():
    return {kind: tokenizer.train(kind, 400, SAMPLE) for kind in ("bpe", "unigram")}


@given(TRICKY)
def test_every_text_comes_back(trained, text):
    for known in [tokenizer.utf8(), *trained.values()]:
        ids = known.encode(text)
        assert ids.dtype == np.int32
        assert ids.ndim == 1
        assert known.decode(ids) == text
        assert known.eod not in ids
        assert ids.size == 0 or 0 <= ids.min() <= ids.max() < known.vocab


@pytest.mark.parametrize("text", LITERAL)
def test_no_text_writes_a_special_piece(trained, text):
    for known in [tokenizer.utf8(), *trained.values()]:
        ids = known.encode(text)
        assert known.eod not in ids
        assert known.decode(ids) == text


def test_every_code_point_comes_back(trained):
    points = np.setdiff1d(np.arange(0x110000), np.arange(0xD800, 0xE000)).astype(np.uint32)
    text = points.tobytes().decode("utf-32-le")
    assert trained["bpe"].decode(trained["bpe"].encode(text)) == text


def test_the_end_of_a_document_decodes_to_nothing(trained):
    for known in [tokenizer.utf8(), tokenizer.characters("ab"), *trained.values()]:
        ids = np.concatenate([known.encode("ab"), [known.eod], known.encode("a")])
        assert known.decode(ids) == "aba"


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_training_is_reproducible_and_learns_the_language(trained, kind):
    again = tokenizer.train(kind, 400, iter(SAMPLE))
    assert again.serialized == trained[kind].serialized
    assert again.vocab == 400
    assert again.lossless
    text = "def f(x):\n    return x + 1\n"
    assert len(again.encode(text)) < 0.8 * len(text)
    assert len(again.encode("        ")) <= 2  # indentation is a piece, not eight
    assert len(again.encode("\n\n\n")) == 3


@pytest.mark.parametrize(("kind", "vocab"), [("bpe", 100), ("bpe", 100_000), ("unigram", 100_000)])
def test_a_size_the_text_cannot_give_is_one_sentence(kind, vocab):
    with pytest.raises(InputError, match=rf"no {kind}:{vocab} tokenizer can be trained") as caught:
        tokenizer.train(kind, vocab, SAMPLE)
    assert "\n" not in str(caught.value)


def test_long_documents_are_encoded_in_chunks_with_the_same_result(trained, monkeypatch):
    text = SAMPLE[0] + SAMPLE[1]
    whole = trained["bpe"].encode(text)
    monkeypatch.setattr(tokenizer, "_CHUNK", 200)
    np.testing.assert_array_equal(trained["bpe"].encode(text), whole)
    oneline = text.replace("\n", " ")
    assert trained["bpe"].decode(trained["bpe"].encode(oneline)) == oneline


@given(st.text(alphabet="ab\n"), st.integers(1, 5))
def test_chunks_are_the_text(text, size):
    chunks = list(tokenizer.chunks(text, size))
    assert "".join(chunks) == text
    assert all(len(chunk) <= size for chunk in chunks)


def test_characters_are_numbered_by_code_point():
    known = tokenizer.characters("héllo\n\U0001f600")
    assert known.vocab == 7
    assert known.encode("\nhlo\U0001f600").tolist() == [0, 1, 2, 3, 5]
    assert known.decode(range(7)) == "\nhlo\xe9\U0001f600"
    assert known.lossless


def test_an_unknown_character_is_named():
    with pytest.raises(InputError, match=r"the character 'é' at position 2 is not among the 3"):
        tokenizer.characters("abc").encode("abéa")


def test_what_is_saved_is_what_is_loaded(trained, tmp_path):
    for known in [tokenizer.utf8(), tokenizer.characters("ab\né"), *trained.values()]:
        path = tmp_path / known.file
        path.write_bytes(known.serialized)
        loaded = tokenizer.load(path)
        assert (loaded.kind, loaded.vocab, loaded.eod) == (known.kind, known.vocab, known.eod)
        assert loaded.fingerprint == known.fingerprint
        assert loaded.encode("ab\n").tolist() == known.encode("ab\n").tolist()


def test_fingerprints_differ(trained):
    known = [tokenizer.utf8(), *map(tokenizer.characters, ["ab", "ac"]), *trained.values()]
    assert len({one.fingerprint for one in known}) == len(known)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.model", b"not a model", "cannot be the tokenizer: it is not a sentencepiece model"),
        ("a.model", b"", "cannot be the tokenizer"),
        ("a.json", b"{", "does not describe a tokenizer"),
        ("a.json", b'{"kind": "words"}', "does not describe a tokenizer"),
        ("a.json", b'{"kind": "chars", "known": ""}', "does not describe a tokenizer"),
    ],
)
def test_files_that_are_no_tokenizer_are_refused(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        tokenizer.load(tmp_path / name)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"cannot read the tokenizer .*a\.model: No such file"):
        tokenizer.load(tmp_path / "a.model")


def test_a_model_from_elsewhere(shared_data):
    known = tokenizer.load(shared_data / "tokenizer" / "cc_all.32000.model")
    assert (known.vocab, known.eod) == (32101, 1)
    assert not known.lossless
    assert known.decode(known.encode("Hello  \n world </s>")) != "Hello  \n world </s>"
    assert known.decode(known.encode("Hello world")) == "Hello world"
    assert known.eod not in known.encode("a </s> b")
