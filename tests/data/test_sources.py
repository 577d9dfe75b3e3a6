"""Documents come in order and whole; what cannot be read is named with its place."""

import ast
import gzip
import json
import sysconfig
from pathlib import Path

import pytest
import zstandard

from configs.schema import InputError, Source
from data import sources

MAX = 1_000_000


def _texts(kind, pattern="", max_bytes=MAX):
    source = Source(kind=kind, pattern=str(pattern))
    return {document.id: document.text for document in sources.documents(source, max_bytes)}


def _jsonl(*texts):
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def test_each_file_is_a_document_as_it_is(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.txt").write_bytes("\ufeffé\r\n\t x\x00\n".encode())
    (tmp_path / "a.txt").write_bytes(b"")
    (tmp_path / "deep" / "c.txt").write_bytes(b"c")
    assert _texts("text", tmp_path / "*.txt") == {"a.txt": "", "b.txt": "\ufeffé\r\n\t x\x00\n"}
    assert list(_texts("text", tmp_path / "**" / "*.txt")) == ["a.txt", "b.txt", "deep/c.txt"]
    assert _texts("text", tmp_path / "deep" / "c.txt") == {"c.txt": "c"}
    (tmp_path / "[1].txt").write_bytes(b"brackets")
    assert _texts("text", tmp_path / "[1].txt") == {"[1].txt": "brackets"}


def test_paths_may_be_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"a")
    for pattern in ("a.txt", "*.txt", "./a.txt"):
        assert _texts("text", pattern) == {"a.txt": "a"}


@pytest.mark.parametrize("kind", ["text", "jsonl"])
def test_what_is_not_there_is_named(tmp_path, kind):
    with pytest.raises(InputError, match=r"no file matches .*missing\.txt: check the path"):
        _texts(kind, tmp_path / "missing.txt")
    with pytest.raises(InputError, match=r"no file matches .*nothing\*: check the path"):
        _texts(kind, tmp_path / "nothing*")
    with pytest.raises(InputError, match=r"is a folder: give a glob"):
        _texts(kind, tmp_path)
    with pytest.raises(InputError, match="needs a path or glob"):
        _texts(kind)


def test_unknown_kinds_are_refused():
    for use in (lambda source: list(sources.documents(source, MAX)), sources.fingerprint):
        with pytest.raises(InputError, match="unknown kind of source 'csv' in 'csv:x': choose one"):
            use(Source(kind="csv", pattern="x"))


def test_a_file_that_is_not_utf8_is_named_with_the_offset(tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"na\xefve")
    with pytest.raises(InputError, match=r"latin\.txt is not UTF-8 \(byte 0xef at offset 2\)"):
        _texts("text", tmp_path / "*.txt")


def test_a_document_over_the_bound_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "big.txt").open("wb") as file:
        file.truncate(10**12)  # takes no room on disk, and would take all memory
    with pytest.raises(InputError, match=r"big\.txt is one document of 1,000,000,000,000 bytes"):
        _texts("text", tmp_path / "big.txt")
    (tmp_path / "exact.txt").write_bytes(b"12345")
    assert _texts("text", tmp_path / "exact.txt", max_bytes=5) == {"exact.txt": "12345"}
    (tmp_path / "big.jsonl").write_bytes(_jsonl("a") + _jsonl("b" * 100))
    with pytest.raises(
        InputError, match=r"big\.jsonl:2 is one document .* over max_document_bytes"
    ):
        _texts("jsonl", tmp_path / "big.jsonl", max_bytes=50)


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        (".jsonl", lambda content: content),
        (".jsonl.gz", gzip.compress),
        (".jsonl.zst", zstandard.ZstdCompressor().compress),
        (".jsonl.zst", lambda c: b"".join(map(zstandard.compress, c.splitlines(keepends=True)))),
    ],
)
def test_json_lines_plain_and_compressed(tmp_path, suffix, pack):
    texts = ["é\n\t\x00", "", "𝄞 \u2028 ", "x" * 300_000]
    (tmp_path / f"a{suffix}").write_bytes(pack(_jsonl(*texts[:2]) + b"\n" + _jsonl(*texts[2:])))
    found = _texts("jsonl", tmp_path / f"*{suffix}")
    assert list(found.values()) == texts
    assert list(found) == [f"a{suffix}:{number}" for number in (1, 2, 4, 5)]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b'{"text": "cut', "is not JSON"),
        (b'{"body": "x"}', 'has no field "text" holding a string'),
        (b'{"text": 3}', 'has no field "text" holding a string'),
        (b'["text"]', 'has no field "text" holding a string'),
        (b'{"text": "\xff"}', r"is not UTF-8 \(byte 0xff at offset 10\)"),
        (b'{"text": "ab\\ud800"}', "holds half a surrogate pair at character 2"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, sentence):
    (tmp_path / "a.jsonl").write_bytes(_jsonl("fine") + line + b"\n")
    with pytest.raises(InputError, match=rf"a\.jsonl:2 {sentence}"):
        _texts("jsonl", tmp_path / "a.jsonl")


@pytest.mark.parametrize("suffix", ["gz", "zst"])
@pytest.mark.parametrize("damage", ["short", "other"])
def test_compressed_files_that_are_damaged_are_refused(tmp_path, suffix, damage):
    content = _jsonl(*map(str, range(10_000)))
    packed = gzip.compress(content) if suffix == "gz" else zstandard.compress(content)
    path = tmp_path / f"a.jsonl.{suffix}"
    path.write_bytes(packed[:-9] if damage == "short" else b"not compressed")
    with pytest.raises(InputError, match=rf"cannot read .*a\.jsonl\.{suffix} after line \d+: "):
        _texts("jsonl", path)


def test_the_standard_library_is_code_without_packages_and_tests():
    found = _texts("stdlib")
    assert {"os.py", "asyncio/__init__.py", "json/decoder.py"} <= set(found)
    assert list(found) == sorted(found, key=lambda name: name.split("/"))
    assert not any({"site-packages", "test", "tests"} & set(name.split("/")) for name in found)
    assert 3e6 < sum(map(len, found.values())) < 30e6
    assert found["os.py"] == (Path(sysconfig.get_path("stdlib")) / "os.py").read_text()
    ast.parse(found["asyncio/base_events.py"])
    with pytest.raises(InputError, match="takes no path"):
        _texts("stdlib", "os.py")


def test_the_fingerprint_sees_a_change(tmp_path):
    source = Source(kind="text", pattern=str(tmp_path / "*.txt"))
    (tmp_path / "a.txt").write_bytes(b"a")
    before = sources.fingerprint(source)
    assert before == sources.fingerprint(source)
    (tmp_path / "b.txt").write_bytes(b"b")
    assert before != sources.fingerprint(source)


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
@pytest.mark.filterwarnings("ignore")  # of TensorFlow Datasets and what it imports
def test_tensorflow_datasets(tmp_path, file_format):
    tfds = pytest.importorskip("tensorflow_datasets")
    texts = [f"text {i} é\n" for i in range(5)]
    tfds.dataset_builders.store_as_tfds_dataset(
        name="poems",
        version="1.0.0",
        features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
        split_datasets={"train": list(enumerate({"text": text} for text in texts))},
        data_dir=tmp_path,
        file_format=file_format,
    )
    found = _texts("tfds", f"{tmp_path}/poems/1.0.0[train]")
    assert sorted(found.values()) == texts
    assert found == _texts("tfds", f"{tmp_path}/poems/1.0.0")
    assert len(_texts("tfds", f"{tmp_path}/poems/1.0.0[train[:2]]")) == 2
    with pytest.raises(InputError, match=r"no split 'test': choose one of train"):
        _texts("tfds", f"{tmp_path}/poems/1.0.0[test]")
    with pytest.raises(InputError, match=r"example 0 is one document of \d+ bytes"):
        _texts("tfds", f"{tmp_path}/poems/1.0.0", max_bytes=3)
    with pytest.raises(InputError, match="dataset nosuchpoems cannot be opened or prepared"):
        _texts("tfds", "nosuchpoems")
