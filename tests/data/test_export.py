"""A corpus leaves as a TensorFlow dataset, and comes back as a source."""

import json
from typing import Any

import pytest

from configs.corpus import Corpus, Source
from configs.schema import InputError
from data import corpus, sources


@pytest.fixture
def store(tmp_path):
    """A function that builds a store of 40 documents, with what is known of them or without."""

    def build(documents):
        lines = [
            json.dumps({"text": f"text {n}\n", "url": f"http://a.example/{n}", "license": "CC0"})
            for n in range(40)
        ]
        (tmp_path / "a.jsonl").write_text("\n".join(lines))
        source = Source(kind="jsonl", pattern=str(tmp_path / "a.jsonl"), name="a")
        recipe = Corpus(
            sources=(source,),
            tokenizer="bytes",
            split="documents",
            validation=0.2,
            documents=documents,
        )
        corpus.build(recipe, tmp_path / "store")
        return tmp_path / "store"

    return build


def test_documents_come_back_as_they_were(store, tmp_path):
    import tensorflow_datasets as tfds

    from data import tfds_corpus  # registers it

    path = store(documents=True)
    loaded, info = tfds.load(
        "isoflop_corpus",
        builder_kwargs={"path": path},
        data_dir=tmp_path / "tfds",
        split=["train", "validation"],
        with_info=True,
    )
    assert info.version == tfds_corpus.IsoflopCorpus.VERSION
    examples = [example for split in loaded for example in split.as_numpy_iterator()]
    assert {e["text"].decode() for e in examples} == {f"text {n}\n" for n in range(40)}
    assert {e["licence"] for e in examples} == {b"CC0"}
    assert 0 < len(list(loaded[1])) < 20
    source = Source(kind="tfds", pattern=f"{info.data_dir}[validation]")
    read: list[Any] = [d for p in sources.pieces(source, 10**6) for d in sources.read(p, 10**6)]
    assert {d.text for d in read} == {e["text"].decode() for e in loaded[1].as_numpy_iterator()}
    assert all(d.url.startswith("http://a.example/") for d in read)


def test_a_store_without_documents_is_refused(store, tmp_path):
    from data.tfds_corpus import IsoflopCorpus

    with pytest.raises(InputError, match="holds ids and no documents"):
        IsoflopCorpus(path=store(documents=False), data_dir=tmp_path / "tfds")
