"""A corpus becomes the same store whoever builds it, whole or not at all."""

import argparse
import gzip
import inspect
import json
from pathlib import Path

import numpy as np
import pytest

from configs.corpus import Clean, Corpus, Source
from configs.flags import load
from configs.schema import InputError
from data import corpus, pipeline, store, tokenizer
from data.disk import place
from data.engine.local import open_local
from data.stages import encode, learn, shards
from data.stages.unique import Selected

CODE = list(tokenizer.chunks(inspect.getsource(argparse), 1500))[:60]


def _corpus(tmp_path, texts=CODE, **settings):
    folder = tmp_path / "text"
    folder.mkdir(exist_ok=True)
    for number, text in enumerate(texts):
        (folder / f"{number:03d}.py").write_bytes(text.encode())
    source = Source(kind="text", pattern=str(folder / "*.py"))
    return Corpus(**{"sources": (source,), "tokenizer": "bytes", "validation": 0.2, **settings})


def _build(settings, out, workers=1, work=None):
    with open_local(workers) as engine:
        return corpus.build(settings, out, engine, work)


def _documents(built, split, source=None):
    """The text of every document of a split."""
    stream = built.stream(split, source)
    ids = np.empty(stream.tokens, np.int32)
    stream.read(0, ids)
    return [built.tokenizer().decode(part) for part in np.split(ids, stream.ends[:-1])]


def _content(folder):
    """What lies in a store's folder, without the report, whose page says the same."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("spec", ["bytes", "chars", "bpe:340", "unigram:340"])
def test_all_text_is_in_the_store(tmp_path, spec):
    settings = _corpus(tmp_path, tokenizer=spec, split="documents", shard_tokens=5_000)
    summary = _build(settings, tmp_path / "store")
    built = store.open_store(tmp_path / "store")
    built.verify()
    train, validation = (_documents(built, split) for split in store.SPLITS)
    assert sorted(train + validation) == sorted(CODE)
    assert train != [text for text in CODE if text in train]  # not in the order of the source
    assert summary["documents"] == 60
    assert summary["text_bytes"] == sum(len(text.encode()) for text in CODE)
    assert summary["tokens"] == built.tokens("train") + built.tokens("validation")
    assert len(built.select("train")) > 2


def test_a_tail_is_the_last_share_of_each_documents_characters(tmp_path):
    text = "é" * 1000 + "x" * 115
    settings = _corpus(tmp_path, [text, "", "ab"], tokenizer="chars", validation=0.1, split="tail")
    _build(settings, tmp_path / "store")
    built = store.open_store(tmp_path / "store")
    cut = int(len(text) * 0.9)
    assert sorted(_documents(built, "train")) == ["a", text[:cut]]
    assert sorted(_documents(built, "validation")) == ["b", text[cut:]]


def test_tiny_shakespeare_is_split_as_by_nanogpt(tmp_path, shared_data):
    path = shared_data / "text" / "tinyshakespeare.txt"
    recipe = load("configs/corpora/shakespeare_char.py")
    settings = Corpus(**{**vars(recipe), "sources": (Source(kind="text", pattern=str(path)),)})
    _build(settings, tmp_path / "store")
    built = store.open_store(tmp_path / "store")
    assert built.vocab == 66
    assert [built.tokens(split) for split in store.SPLITS] == [1_003_854 + 1, 111_540 + 1]
    text = path.read_text()
    assert _documents(built, "train") + _documents(built, "validation") == [
        text[:1_003_854],
        text[1_003_854:],
    ]


def test_a_document_stays_in_its_split_when_others_come():
    def held_out(names, seed):
        split = encode.Split("documents", 0.2, seed)
        return {name for name in names if "validation" in encode.parts(split, name, "text")}

    names = [f"{number:03d}.py" for number in range(200)]
    assert held_out(names[:80], 0) == {name for name in held_out(names, 0) if name < "080"}
    assert 0.1 < len(held_out(names, 0)) / 200 < 0.3
    assert held_out(names, 0) != held_out(names, 1)


def test_auto_holds_out_documents_where_there_are_many(tmp_path, monkeypatch):
    assert _build(_corpus(tmp_path), tmp_path / "few")["split"] == "tail"
    monkeypatch.setattr(pipeline, "MANY_DOCUMENTS", 60)
    assert _build(_corpus(tmp_path), tmp_path / "many")["split"] == "documents"
    assert _build(_corpus(tmp_path, split="tail"), tmp_path / "asked")["split"] == "tail"


def test_building_again_does_nothing(tmp_path, capsys):
    settings = _corpus(tmp_path)
    first = _build(settings, tmp_path / "store")
    times = [path.stat().st_mtime_ns for path in sorted((tmp_path / "store").rglob("*"))]
    assert _build(settings, tmp_path / "store") == first
    assert "complete already" in capsys.readouterr().out
    assert times == [path.stat().st_mtime_ns for path in sorted((tmp_path / "store").rglob("*"))]


@pytest.mark.parametrize("change", ["settings", "text"])
def test_a_store_of_something_else_is_left_alone(tmp_path, change):
    _build(_corpus(tmp_path), tmp_path / "store")
    before = _content(tmp_path / "store")
    other = _corpus(tmp_path, tokenizer="chars") if change == "settings" else _corpus(tmp_path)
    if change == "text":
        (tmp_path / "text" / "999.py").write_text("new")
    with pytest.raises(InputError, match="built with other settings or from other text"):
        _build(other, tmp_path / "store")
    assert _content(tmp_path / "store") == before


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "diary.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty and holds no token store"):
        _build(_corpus(tmp_path), tmp_path / "store")
    assert _content(tmp_path / "store") == {Path("diary.txt"): b"mine"}


def test_sources_are_counted_apart(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a" * 50)
    (tmp_path / "b.txt").write_bytes(b"b" * 30)
    both = tuple(Source(kind="text", pattern=str(tmp_path / f"{n}.txt"), name=n) for n in "ab")
    summary = _build(_corpus(tmp_path, sources=both), tmp_path / "store")
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
        _build(_corpus(tmp_path, sources=both[:1] * 2), tmp_path / "other")


def _sample(tmp_path, texts, size, share):
    columns = dict.fromkeys(shards.FIELDS, [""] * len(texts))
    columns |= {"text": texts, "id": [f"{n}" for n in range(len(texts))]}
    shards.save(tmp_path / "0.parquet", columns)
    shards.save_array(tmp_path / "0.npy", np.full(len(texts), -1, np.int16))
    shard = Selected(0, tmp_path / "0", tmp_path / "0")
    learn.learn_shard(shard, tmp_path / "learnt", encode.Split("tail", 0.2, 0), share)
    return learn.sample([tmp_path / "learnt"], size)


def test_the_tokenizer_never_sees_what_is_held_out(tmp_path):
    sample = _sample(tmp_path, ["train " * 40 + "secret " * 8] * 9, 10_000, 1.0)
    assert "train" in "".join(sample)
    assert "secret" not in "".join(sample)


def test_the_tokenizers_sample_is_bounded_random_and_repeatable(tmp_path):
    texts = [f"{i} " * 200 + "\n" for i in range(200)]
    every = [text[: int(len(text) * 0.8)] for text in texts]
    assert _sample(tmp_path, texts, 10**6, 1.0) == every
    sample = _sample(tmp_path, texts, 20_000, 0.5)
    assert sample == _sample(tmp_path, texts, 20_000, 0.5) == _sample(tmp_path, texts, 20_000, 1.0)
    assert 19_000 < len("".join(sample)) <= 20_000
    numbers = [int(text.split()[0]) for text in sample]
    assert numbers == sorted(numbers)
    assert 70 < np.mean(numbers) < 130  # from all over the corpus


def test_a_tokenizer_from_elsewhere_keeps_its_file(tmp_path, shared_data, capsys):
    path = shared_data / "tokenizer" / "cc_all.32000.model"
    summary = _build(_corpus(tmp_path, tokenizer=str(path)), tmp_path / "store")
    assert "does not bring every text back" in capsys.readouterr().out
    assert not summary["lossless"]
    assert (tmp_path / "store" / "tokenizer.model").read_bytes() == path.read_bytes()
    # ... which another store can use in turn.
    again = _corpus(tmp_path, tokenizer=str(tmp_path / "store" / "tokenizer.model"))
    assert _build(again, tmp_path / "again")["vocab"] == summary["vocab"] == 32101


def test_a_known_tokenizer_that_lacks_a_character_is_refused(tmp_path):
    path = tmp_path / "known.json"
    path.write_bytes(tokenizer.characters("def f(x):\n").serialized)
    with pytest.raises(InputError, match=r"the character .* is not among the \d+"):
        _build(_corpus(tmp_path, tokenizer=str(path)), tmp_path / "store")


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
        (
            CODE,
            {"max_document_bytes": 100, "max_faults": 9},
            "10 records or files could not be used, more than",
        ),
        (CODE, {"max_document_bytes": 100, "max_faults": 0}, "a record or file could not be used"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, texts, settings, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        _build(_corpus(tmp_path, texts, **settings), tmp_path / "store")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store" / store.MANIFEST).exists()


def test_a_corpus_of_which_nothing_is_left_says_why(tmp_path):
    settings = _corpus(tmp_path, clean=Clean(languages=("th",)))
    with pytest.raises(InputError, match="no document is left of those read: all went for lang"):
        _build(settings, tmp_path / "store")


def test_nothing_need_be_held_out(tmp_path):
    _build(_corpus(tmp_path, validation=0.0), tmp_path / "store")
    built = store.open_store(tmp_path / "store")
    assert sorted(_documents(built, "train")) == sorted(CODE)
    assert built.tokens("validation") == 0


def test_names_that_nothing_has_are_refused(tmp_path):
    for settings, sentence in (
        ({"languages": ("eng", "en")}, "clean.languages: eng is none of the languages"),
        ({"words": str(tmp_path / "none.txt")}, "none.txt"),
        ({"classifier": str(tmp_path / "none.npz"), "reject": "toxic"}, "none.npz"),
    ):
        with pytest.raises(InputError, match=sentence):
            _build(_corpus(tmp_path, clean=Clean(**settings)), tmp_path / "store")
    assert not (tmp_path / "store").exists()


def _jsonl(tmp_path, lines):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(lines))
    return Source(kind="jsonl", pattern=str(path), name="a")


def test_what_cannot_be_read_is_named_left_out_and_counted(tmp_path, capsys):
    good = [b'{"text": "text %d"}' % number for number in range(30)]
    bad = [b'{"text": ', b'{"title": "no text"}', b'{"text": "\xff"}', b'{"text": "\\ud800"}']
    source = _jsonl(tmp_path, [*good[:10], *bad, *good[10:]])
    summary = _build(_corpus(tmp_path, sources=(source,), max_faults=4), tmp_path / "store")
    assert summary["documents"] == 60  # both parts of each
    assert summary["counters"]["faults"] == 4
    said = capsys.readouterr().out
    for line in (11, 12, 13, 14):
        assert f"left out: {source.pattern}:{line} " in said
    report = json.loads((tmp_path / "store" / "report.json").read_text())
    assert len(report["faults"]) == 4
    assert report["funnel"][0]["documents"] == [34, 30]
    with pytest.raises(InputError, match="4 records or files could not be used, more than max_f"):
        _build(_corpus(tmp_path, sources=(source,), max_faults=3), tmp_path / "other")


def test_a_file_cut_short_gives_what_is_there_and_a_fault(tmp_path):
    lines = [b'{"text": "text %d %d"}' % (n, n * 7919 % 104729) for n in range(5000)]
    packed = gzip.compress(b"\n".join(lines))
    (tmp_path / "a.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    source = Source(kind="jsonl", pattern=str(tmp_path / "a.jsonl.gz"), name="a")
    summary = _build(_corpus(tmp_path, sources=(source,), split="documents"), tmp_path / "store")
    assert summary["counters"]["faults"] == 1
    assert 2000 < summary["documents"] < 3000
    with pytest.raises(InputError, match=r"a record or file could not be used.*a\.jsonl\.gz"):
        _build(_corpus(tmp_path, sources=(source,), max_faults=0), tmp_path / "other")


@pytest.mark.usefixtures("bucket")
def test_a_store_is_built_in_a_bucket(tmp_path):
    settings = _corpus(tmp_path, shard_tokens=5_000, documents=True)
    _build(settings, tmp_path / "here")
    summary = _build(settings, place("gs://bucket/there"), work=place("gs://bucket/work"))
    assert summary["out"] == "gs://bucket/there"
    assert _content(tmp_path / "there") == _content(tmp_path / "here")
    assert (tmp_path / "work").is_dir()
    assert _build(settings, place("gs://bucket/there"))["tokens"] == summary["tokens"]
    with pytest.raises(InputError, match=r"train/00000\.tok cannot be read in place: copy"):
        store.open_store("gs://bucket/there").stream("train")
