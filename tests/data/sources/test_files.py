"""Files are found, unpacked and known to be whole, here and in a bucket."""

import bz2
import gzip
import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from configs.corpus import Source
from configs.schema import InputError
from data import sources
from data.sources import files

PACK: dict[str, Any] = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstandard.compress}
KINDS_OF_FILES = [kind for kind in sources.KINDS if kind not in ("tfds", "huggingface", "stdlib")]


def _content(path, **where):
    return b"".join(data for _, data in files.chunks(str(path), **where))


def _next(chunks):
    try:
        return next(chunks)[1]
    except files.Broken as error:
        return error


def test_each_file_is_a_document_as_it_is(tmp_path, texts):
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.txt").write_bytes("\ufeffé\r\n\t x\x00\n".encode())
    (tmp_path / "a.txt").write_bytes(b"")
    (tmp_path / "deep" / "c.txt").write_bytes(b"c")
    assert texts("text", tmp_path / "*.txt") == {"a.txt": "", "b.txt": "\ufeffé\r\n\t x\x00\n"}
    assert list(texts("text", tmp_path / "**" / "*.txt")) == ["a.txt", "b.txt", "deep/c.txt"]
    assert texts("text", tmp_path / "deep" / "c.txt") == {"c.txt": "c"}
    (tmp_path / "[1].txt").write_bytes(b"brackets")
    assert texts("text", tmp_path / "[1].txt") == {"[1].txt": "brackets"}
    (tmp_path / "d.txt.gz").write_bytes(gzip.compress(b"packed"))
    assert texts("text", tmp_path / "d.*") == {"d.txt.gz": "packed"}


def test_paths_may_be_relative(tmp_path, monkeypatch, texts):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"a")
    for pattern in ("a.txt", "*.txt", "./a.txt"):
        assert texts("text", pattern) == {"a.txt": "a"}


@pytest.mark.parametrize("kind", KINDS_OF_FILES)
def test_what_is_not_there_is_named(tmp_path, gather, kind):
    with pytest.raises(InputError, match=r"no file matches .*missing\.txt: check the path"):
        gather(kind, tmp_path / "missing.txt")
    with pytest.raises(InputError, match=r"no file matches .*nothing\*: check the path"):
        gather(kind, tmp_path / "nothing*")
    with pytest.raises(InputError, match=r"is a folder: give a glob"):
        gather(kind, tmp_path)
    with pytest.raises(InputError, match=f"a {kind} source needs a path or glob"):
        gather(kind)


def test_pipes_are_refused(tmp_path, gather):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(InputError, match=r"pipe\.txt is not a regular file"):
        gather("text", tmp_path / "*.txt")


def test_unknown_kinds_are_refused():
    source = Source(kind="csv", pattern="x")
    for use in (lambda: sources.pieces(source, 1), lambda: sources.fingerprint(source)):
        with pytest.raises(InputError, match="unknown kind of source 'csv' in 'csv:x': choose one"):
            use()


def test_pieces_travel(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"abc")
    (tmp_path / "b.txt").write_bytes(b"")
    found = sources.pieces(Source(kind="text", pattern=f"{tmp_path}/*"), 1)
    assert [(piece.path, piece.start, piece.stop) for piece in found] == [
        (f"{tmp_path}/a.txt", 0, 3),
        (f"{tmp_path}/b.txt", 0, 0),
    ]
    assert pickle.loads(pickle.dumps(found)) == found


def test_the_fingerprint_sees_a_change(tmp_path):
    source = Source(kind="text", pattern=str(tmp_path / "*.txt"))
    (tmp_path / "a.txt").write_bytes(b"a")
    before = sources.fingerprint(source)
    assert before == sources.fingerprint(source)
    (tmp_path / "b.txt").write_bytes(b"b")
    assert before != sources.fingerprint(source)


@pytest.mark.parametrize("suffix", PACK)
def test_packed_files_give_what_was_packed(tmp_path, suffix):
    random = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8).tobytes()
    parts = [b"", b"a" * 5_000_000, random, b"x", b"", b"end" * 40_000]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"".join(map(PACK[suffix], parts)))
    assert _content(path) == b"".join(parts)
    begin = [0]
    for part in parts:
        begin.append(begin[-1] + len(PACK[suffix](part)))
    seen = [at for at, _ in files.chunks(str(path))]
    assert set(seen) == {at for at, part in zip(begin, parts, strict=False) if part}
    assert max(len(data) for _, data in files.chunks(str(path))) < 40_000_000
    assert _content(path, start=begin[2]) == b"".join(parts[2:])


def test_gzip_may_be_padded(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"a") + b"\0" * 100 + gzip.compress(b"b") + b"\0")
    assert list(files.chunks(str(tmp_path / "a.gz"))) == [(0, b"a"), (121, b"b")]


@pytest.mark.parametrize("suffix", PACK)
def test_packed_files_that_were_cut_short_are_noticed(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    parts = [np.random.default_rng(i).bytes(200) for i in range(2)]
    whole = b"".join(map(PACK[suffix], parts))
    first = len(PACK[suffix](parts[0]))
    for length in {*range(0, len(whole), 9), first, first + 1, len(whole) - 1}:
        path.write_bytes(whole[:length])
        if length == first:
            assert _content(path) == parts[0]
            continue
        seen = b""
        chunks = files.chunks(str(path))
        while isinstance(found := _next(chunks), bytes):
            seen += found
        assert isinstance(found, files.Broken)
        assert found.reason == "the compressed data ends before its end marker"
        assert found.offset == length
        assert b"".join(parts).startswith(seen)
        assert len(seen) >= (200 if length > first else 0)


@pytest.mark.parametrize("suffix", PACK)
def test_damage_is_found_where_it_is(tmp_path, suffix):
    parts = [PACK[suffix](np.random.default_rng(i).bytes(500)) for i in range(3)]
    damaged = bytearray(b"".join(parts))
    damaged[len(parts[0]) + 5 if suffix == ".zst" else len(parts[0]) + 300] ^= 0xFF
    (tmp_path / f"a{suffix}").write_bytes(damaged)
    with pytest.raises(files.Broken) as caught:
        _content(tmp_path / f"a{suffix}")
    assert caught.value.offset == len(parts[0])


def test_a_range_of_a_plain_file_is_cut_at_its_end(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(np.random.default_rng(0).bytes(200_000))
    found = list(files.chunks(str(path), 10, 100_000))
    assert b"".join(data for _, data in found) == path.read_bytes()[10:]
    assert 100_000 in [at for at, _ in found]


def test_find_sees_what_lies_across_reads(tmp_path):
    path = tmp_path / "a"
    for at in (0, 5, 2**20 - 3, 2**20, 2**20 + 1):
        path.write_bytes(b"." * at + b"needle" + b"." * 10 + b"needle")
        assert files.find(str(path), re.compile(b"needle"), 0) == at
        assert files.find(str(path), re.compile(b"needle"), at + 1) == at + 16
        assert files.find(str(path), re.compile(b"needle"), at + 17) is None


@pytest.mark.usefixtures("bucket")
def test_buckets(tmp_path):
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "b"}\n{"text": "c"}\n'))
    (tmp_path / "web" / "a.jsonl").write_bytes(b'{"text": "a"}\n')
    source = Source(kind="jsonl", pattern="gs://bucket/web/*.jsonl*")
    found = sources.pieces(source, 10**6)
    assert [piece.path for piece in found] == [
        "gs://bucket/web/a.jsonl",
        "gs://bucket/web/b.jsonl.gz",
    ]
    documents: list[Any] = [item for piece in found for item in sources.read(piece, 100)]
    assert [(item.id, item.text) for item in documents] == [
        ("a.jsonl:1", "a"),
        ("b.jsonl.gz:1", "b"),
        ("b.jsonl.gz:2", "c"),
    ]
    before = sources.fingerprint(source)
    assert before[0][:2] == ["gs://bucket/web/a.jsonl", 14]
    (tmp_path / "web" / "a.jsonl").write_bytes(b'{"text": "aa"}\n')
    assert sources.fingerprint(source) != before
    with pytest.raises(InputError, match="no file matches gs://bucket/none: check the path"):
        sources.pieces(Source(kind="jsonl", pattern="gs://bucket/none"), 1)
    with pytest.raises(InputError, match=r"gs://bucket/web is a folder"):
        sources.pieces(Source(kind="jsonl", pattern="gs://bucket/web"), 1)


def test_ids_do_not_know_where_the_corpus_lies(tmp_path, texts):
    for place in ("one", "another/place"):
        folder = Path(tmp_path, place, "books")
        folder.mkdir(parents=True)
        (folder / "a.txt").write_bytes(b"a")
    assert texts("text", tmp_path / "one/**/*.txt") == texts(
        "text", tmp_path / "another/place/**/*.txt"
    )
