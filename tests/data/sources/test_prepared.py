"""TensorFlow Datasets, and Hugging Face's where they are."""

import importlib.util
import sys
import types

import pytest

from configs.corpus import Source
from configs.schema import InputError
from data import sources


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
@pytest.mark.filterwarnings("ignore")  # of TensorFlow Datasets and what it imports
def test_tensorflow_datasets(tmp_path, gather, texts, file_format):
    tfds = pytest.importorskip("tensorflow_datasets")
    written = [f"text {i} é\n" for i in range(50)]
    tfds.dataset_builders.store_as_tfds_dataset(
        name="poems",
        version="1.0.0",
        features=tfds.features.FeaturesDict(
            {"text": tfds.features.Text(), "url": tfds.features.Text()}
        ),
        split_datasets={"train": [(i, {"text": t, "url": "u"}) for i, t in enumerate(written)]},
        data_dir=tmp_path,
        file_format=file_format,
    )
    found = texts("tfds", f"{tmp_path}/poems/1.0.0[train]")
    assert sorted(found.values()) == sorted(written)
    assert found == texts("tfds", f"{tmp_path}/poems/1.0.0")
    assert found == texts("tfds", f"{tmp_path}/poems/1.0.0", piece_bytes=200)
    source = Source(kind="tfds", pattern=f"{tmp_path}/poems/1.0.0")
    assert len(sources.pieces(source, 200)) > 2
    assert sources.fingerprint(source) == [[source.pattern]]
    assert gather("tfds", source.pattern)[0][0].url == "u"
    assert len(texts("tfds", f"{tmp_path}/poems/1.0.0[train[:2]]")) == 2
    documents, faults = gather("tfds", source.pattern, max_bytes=9)
    assert len(documents) == 0
    assert "example 0 is one document of" in faults[0]
    assert len(faults) == 50
    with pytest.raises(InputError, match=r"no split 'test': choose one of train"):
        gather("tfds", f"{tmp_path}/poems/1.0.0[test]")
    with pytest.raises(InputError, match=r"has no feature 'body': name another"):
        gather("tfds", source.pattern, text="body")
    with pytest.raises(InputError, match="dataset nosuchpoems cannot be opened or prepared"):
        gather("tfds", "nosuchpoems")
    with pytest.raises(InputError, match="needs a dataset name or folder"):
        gather("tfds", "")


@pytest.mark.skipif(
    importlib.util.find_spec("datasets") is not None, reason="the library is installed"
)
def test_without_the_library_there_is_one_sentence(gather):
    with pytest.raises(InputError, match="needs the library datasets: install it"):
        gather("huggingface", "poems[train]")
    with pytest.raises(InputError, match="needs a dataset name"):
        gather("huggingface", "")


def test_streams_of_hugging_face(monkeypatch, gather):
    """The library is not needed to see how it is asked, and what is made of its answers."""
    asked = []

    def load_dataset(path, name, *, split, streaming):
        asked.append((path, name, split, streaming))
        if path == "missing":
            raise FileNotFoundError("no such dataset\nand more")

        def examples():
            yield {"text": "a", "meta": {"url": "u"}}
            yield {"text": None}
            yield {"text": "c"}
            if split == "broken":
                raise OSError("the connection was lost")

        return examples()

    library = types.ModuleType("datasets")
    monkeypatch.setattr(library, "load_dataset", load_dataset, raising=False)
    monkeypatch.setitem(sys.modules, "datasets", library)
    documents, faults = gather("huggingface", "org/poems:small[test]")
    assert asked[-1] == ("org/poems", "small", "test", True)
    assert [(d.id, d.text, d.url) for d in documents] == [
        ("org/poems:small[test]:0", "a", "u"),
        ("org/poems:small[test]:2", "c", ""),
    ]
    assert faults == [
        'org/poems:small[test] example 1 has no field "text" holding a string: '
        "mend or remove the record"
    ]
    assert gather("huggingface", "poems")[0]
    assert asked[-1] == ("poems", None, "train", True)
    documents, faults = gather("huggingface", "poems[broken]")
    assert len(documents) == 2
    assert faults[1].endswith("example 3 cannot be read, nor what follows: the connection was lost")
    with pytest.raises(InputError, match=r"dataset missing cannot be opened: no such dataset$"):
        gather("huggingface", "missing")
