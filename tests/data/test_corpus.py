"""A corpus becomes the same store whoever builds it, whole or not at all."""

import argparse
import inspect
import signal
from pathlib import Path

import numpy as np
import pytest

from configs.flags import load
from configs.schema import Corpus, InputError, Source
from data import corpus, encode, store, survey, tokenizer

CODE = list(tokenizer.chunks(inspect.getsource(argparse), 1500))[:60]


def _corpus(tmp_path, texts=CODE, **settings):
    folder = tmp_path / "text"
    folder.mkdir(exist_ok=True)
    for number, text in enumerate(texts):
        (folder / f"{number:03d}.py").write_bytes(text.encode())
    source = Source(kind="text", pattern=str(folder / "*.py"))
    return Corpus(**{"sources": (source,), "tokenizer": "bytes", "validation": 0.2, **settings})


def _documents(built, split, source=None):
    """The text of every document of a split."""
    stream = built.stream(split, source)
    ids = np.empty(stream.tokens, np.int32)
    stream.read(0, ids)
    return [built.tokenizer().decode(part) for part in np.split(ids, stream.ends[:-1])]


def _content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("spec", ["bytes", "chars", "bpe:340", "unigram:340"])
def test_all_text_is_in_the_store(tmp_path, spec):
    settings = _corpus(tmp_path, tokenizer=spec, split="documents", shard_tokens=5_000)
    summary = corpus.build(settings, tmp_path / "store")
    built = store.open_store(tmp_path / "store")
    built.verify()
    train, validation = (_documents(built, split) for split in store.SPLITS)
    assert sorted(train + validation) == sorted(CODE)
    assert train == [text for text in CODE if text in train]  # in the order of the source
    assert summary["documents"] == 60
    assert summary["text_bytes"] == sum(len(text.encode()) for text in CODE)
    assert summary["tokens"] == built.tokens("train") + built.tokens("validation")
    assert len(built.select("train")) > 2


def test_a_tail_is_the_last_share_of_each_documents_characters(tmp_path):
    text = "é" * 1000 + "x" * 115
    settings = _corpus(tmp_path, [text, "", "ab"], tokenizer="chars", validation=0.1, split="tail")
    corpus.build(settings, tmp_path / "store")
    built = store.open_store(tmp_path / "store")
    cut = int(len(text) * 0.9)
    assert _documents(built, "train") == [text[:cut], "a"]
    assert _documents(built, "validation") == [text[cut:], "b"]


def test_tiny_shakespeare_is_split_as_by_nanogpt(tmp_path, shared_data):
    path = shared_data / "text" / "tinyshakespeare.txt"
    recipe = load("configs/corpora/shakespeare_char.py")
    settings = Corpus(**{**vars(recipe), "sources": (Source(kind="text", pattern=str(path)),)})
    corpus.build(settings, tmp_path / "store")
    built = store.open_store(tmp_path / "store")
    assert built.vocab == 66
    assert [built.tokens(split) for split in store.SPLITS] == [1_003_854 + 1, 111_540 + 1]
    text = path.read_text()
    assert _documents(built, "train") + _documents(built, "validation") == [
        text[:1_003_854],
        text[1_003_854:],
    ]


def test_a_document_stays_in_its_split_when_others_come(tmp_path):
    held_out = []
    for texts in (CODE[:40], CODE):
        settings = _corpus(tmp_path, texts, split="documents")
        where = {
            document.id: part.split
            for document in survey.documents(settings)
            for part in survey.parts(settings, "documents", document)
        }
        held_out.append({name for name, split in where.items() if split == "validation"})
    assert held_out[0] == {name for name in held_out[1] if int(name[:3]) < 40}
    assert 0.1 < len(held_out[1]) / 60 < 0.3
    other = _corpus(tmp_path, split="documents", seed=1)
    moved = {
        document.id
        for document in survey.documents(other)
        if survey.parts(other, "documents", document)[0].split == "validation"
    }
    assert moved != held_out[1]


def test_auto_holds_out_documents_where_there_are_many(tmp_path, monkeypatch):
    assert survey.choose_split(_corpus(tmp_path))[0] == "tail"
    monkeypatch.setattr(survey, "MANY_DOCUMENTS", 60)
    assert survey.choose_split(_corpus(tmp_path))[0] == "documents"
    assert survey.choose_split(_corpus(tmp_path, split="tail"))[0] == "tail"


def test_the_store_does_not_depend_on_the_number_of_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "_SMALL", 0)
    monkeypatch.setattr(encode, "_BATCH", 3_000)
    settings = _corpus(tmp_path, tokenizer="bpe:340")
    for workers in (1, 2, 3):
        corpus.build(settings, tmp_path / str(workers), workers)
    assert _content(tmp_path / "1") == _content(tmp_path / "2") == _content(tmp_path / "3")


def _die(batch):
    signal.raise_signal(signal.SIGKILL)


def test_a_worker_that_dies_is_one_sentence():
    with pytest.raises(InputError, match="a worker process was killed"):
        list(encode._map(_die, [[]], workers=2))


def test_building_again_does_nothing(tmp_path, capsys):
    settings = _corpus(tmp_path)
    first = corpus.build(settings, tmp_path / "store")
    times = [path.stat().st_mtime_ns for path in sorted((tmp_path / "store").rglob("*"))]
    assert corpus.build(settings, tmp_path / "store") == first
    assert "complete already" in capsys.readouterr().out
    assert times == [path.stat().st_mtime_ns for path in sorted((tmp_path / "store").rglob("*"))]


@pytest.mark.parametrize("change", ["settings", "text"])
def test_a_store_of_something_else_is_left_alone(tmp_path, change):
    corpus.build(_corpus(tmp_path), tmp_path / "store")
    before = _content(tmp_path / "store")
    other = _corpus(tmp_path, tokenizer="chars") if change == "settings" else _corpus(tmp_path)
    if change == "text":
        (tmp_path / "text" / "999.py").write_text("new")
    with pytest.raises(InputError, match="built with other settings or from other text"):
        corpus.build(other, tmp_path / "store")
    assert _content(tmp_path / "store") == before


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "diary.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty and holds no token store"):
        corpus.build(_corpus(tmp_path), tmp_path / "store")
    assert _content(tmp_path / "store") == {Path("diary.txt"): b"mine"}


def test_an_interrupted_build_is_no_store_and_is_done_anew(tmp_path, monkeypatch):
    settings = _corpus(tmp_path, shard_tokens=5_000)
    corpus.build(settings, tmp_path / "straight")

    encode_batch, batches = encode._encode, []

    def interrupt(file, fingerprint, batch):
        batches.append(batch)
        if len(batches) == 9:
            raise KeyboardInterrupt
        return encode_batch(file, fingerprint, batch)

    with monkeypatch.context() as patch:
        patch.setattr(encode, "_BATCH", 3_000)
        patch.setattr(encode, "_encode", interrupt)
        with pytest.raises(KeyboardInterrupt):
            corpus.build(settings, tmp_path / "store")
    assert (tmp_path / "store" / "train" / "00000.tok").exists()
    with pytest.raises(InputError, match="no token store at"):
        store.open_store(tmp_path / "store")
    corpus.build(settings, tmp_path / "store")
    assert _content(tmp_path / "store") == _content(tmp_path / "straight")


def test_sources_are_counted_apart(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a" * 50)
    (tmp_path / "b.txt").write_bytes(b"b" * 30)
    both = tuple(Source(kind="text", pattern=str(tmp_path / f"{n}.txt"), name=n) for n in "ab")
    summary = corpus.build(_corpus(tmp_path, sources=both), tmp_path / "store")
    counts = {"a": (40, 10), "b": (24, 6)}
    assert summary["sources"] == {
        name: {
            split: {"documents": 1, "tokens": size + 1, "text_bytes": size}
            for split, size in zip(store.SPLITS, sizes, strict=True)
        }
        for name, sizes in counts.items()
    }
    built = store.open_store(tmp_path / "store")
    assert built.sources == ("a", "b")
    assert _documents(built, "validation", "b") == ["b" * 6]
    with pytest.raises(InputError, match="a source is named twice in a, a"):
        corpus.build(_corpus(tmp_path, sources=both[:1] * 2), tmp_path / "other")


def test_the_tokenizer_never_sees_what_is_held_out(tmp_path):
    settings = _corpus(tmp_path, ["train " * 40 + "secret " * 8] * 9, tokenizer="bpe:300")
    seen = survey.survey(settings, "tail")
    assert "train" in "".join(seen.sample)
    assert "secret" not in "".join(seen.sample)


def test_the_tokenizers_sample_is_bounded_random_and_repeatable(tmp_path):
    texts = [f"{i} " * 200 + "\n" for i in range(200)]
    whole = _corpus(tmp_path, texts, tokenizer="bpe:300")
    assert survey.survey(whole, "tail").sample == [text[: int(len(text) * 0.8)] for text in texts]
    some = _corpus(tmp_path, texts, tokenizer="bpe:300", tokenizer_bytes=20_000)
    sample = survey.survey(some, "tail").sample
    assert sample == survey.survey(some, "tail").sample
    assert 19_000 < len("".join(sample)) <= 20_000
    numbers = [int(text.split()[0]) for text in sample]
    assert numbers == sorted(numbers)
    assert 70 < np.mean(numbers) < 130  # from all over the corpus


def test_a_tokenizer_from_elsewhere_keeps_its_file(tmp_path, shared_data, capsys):
    path = shared_data / "tokenizer" / "cc_all.32000.model"
    summary = corpus.build(_corpus(tmp_path, tokenizer=str(path)), tmp_path / "store")
    assert "does not bring every text back" in capsys.readouterr().out
    assert not summary["lossless"]
    assert (tmp_path / "store" / "tokenizer.model").read_bytes() == path.read_bytes()
    # ... which another store can use in turn.
    again = _corpus(tmp_path, tokenizer=str(tmp_path / "store" / "tokenizer.model"))
    assert corpus.build(again, tmp_path / "again")["vocab"] == summary["vocab"] == 32101


def test_a_known_tokenizer_that_lacks_a_character_is_refused(tmp_path):
    path = tmp_path / "known.json"
    path.write_bytes(tokenizer.characters("def f(x):\n").serialized)
    with pytest.raises(InputError, match=r"the character .* is not among the \d+"):
        corpus.build(_corpus(tmp_path, tokenizer=str(path)), tmp_path / "store")


@pytest.mark.parametrize(
    ("texts", "settings", "sentence"),
    [
        (["", ""], {}, r"holds no text: check what it points to"),
        (CODE[:1], {"split": "documents", "validation": 1e-9}, "leaves no validation text"),
        (CODE[:1], {"split": "documents", "validation": 0.999999}, "leaves no train text"),
        (CODE, {"tokenizer": "words"}, "unknown tokenizer 'words': write bytes, chars,"),
        (CODE, {"tokenizer": "bpe:many"}, "tokenizer 'bpe:many' has no size"),
        (CODE, {"tokenizer": "missing.model"}, "cannot read the tokenizer missing.model"),
        (CODE, {"tokenizer": "bpe:50000"}, "no bpe:50000 tokenizer can be trained"),
        (CODE, {"max_document_bytes": 100}, "is one document of"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, texts, settings, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        corpus.build(_corpus(tmp_path, texts, **settings), tmp_path / "store")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store" / store.MANIFEST).exists()


def test_nothing_need_be_held_out(tmp_path):
    corpus.build(_corpus(tmp_path, validation=0.0), tmp_path / "store")
    built = store.open_store(tmp_path / "store")
    assert _documents(built, "train") == CODE
    assert built.tokens("validation") == 0
