"""JSON lines: every good line is a document, every bad one a fault with its number."""

import gzip
import io
import json
import tracemalloc

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from configs.corpus import Source
from data import sources
from data.sources import jsonl


def _lines(*texts):
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        (".jsonl", lambda content: content),
        (".jsonl.gz", gzip.compress),
        (".jsonl.zst", zstandard.ZstdCompressor().compress),
        (".jsonl.zst", lambda c: b"".join(map(zstandard.compress, c.splitlines(keepends=True)))),
    ],
)
def test_plain_and_compressed(tmp_path, texts, suffix, pack):
    written = ["é\n\t\x00", "", "𝄞 \u2028 ", "x" * 300_000]
    content = _lines(*written[:2]) + b"\n" + _lines(*written[2:])
    (tmp_path / f"a{suffix}").write_bytes(pack(content.removesuffix(b"\n")))
    found = texts("jsonl", tmp_path / f"*{suffix}")
    assert list(found.values()) == written
    assert list(found) == [f"a{suffix}:{number}" for number in (1, 2, 4, 5)]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b'{"text": "cut', "is not JSON (Unterminated string"),
        (b"[" * 100_000, "is not JSON (maximum recursion"),
        (b'{"body": "x"}', 'has no field "text" holding a string: mend or remove the record'),
        (b'{"text": 3}', 'has no field "text" holding a string'),
        (b'["text"]', 'has no field "text" holding a string'),
        (b'{"text": "\xff"}', "is not UTF-8 (byte 0xff at offset 10)"),
        (b'{"text": "ab\\ud800"}', "holds half a surrogate pair at character 2"),
        (b'{"text": "' + b"b" * 2_000_000 + b'"}', "is one document of 2,000,013 bytes, over"),
    ],
)
def test_a_bad_line_is_named_and_the_others_arrive(tmp_path, gather, line, sentence):
    (tmp_path / "a.jsonl").write_bytes(_lines("before") + line + b"\n" + _lines("after"))
    documents, faults = gather("jsonl", tmp_path / "a.jsonl")
    assert [(document.id, document.text) for document in documents] == [
        ("a.jsonl:1", "before"),
        ("a.jsonl:3", "after"),
    ]
    assert len(faults) == 1
    assert faults[0].startswith(f"{tmp_path}/a.jsonl:2 {sentence}")


@pytest.mark.parametrize("suffix", ["gz", "zst"])
@pytest.mark.parametrize("damage", ["short", "other"])
def test_compressed_files_that_are_damaged(tmp_path, gather, suffix, damage):
    content = _lines(*(f"{i} {hash((i,))}" for i in range(10_000)))
    packed = gzip.compress(content) if suffix == "gz" else zstandard.compress(content)
    path = tmp_path / f"a.jsonl.{suffix}"
    path.write_bytes(packed[:-1000] if damage == "short" else b"not compressed")
    documents, faults = gather("jsonl", path)
    whole = [f"a.jsonl.{suffix}:{number}" for number in range(1, 10_001)]
    found = [document.id for document in documents]
    assert found == whole[: len(found)]
    offset = len(packed) - 1000 if damage == "short" else 0
    place = f"{path} after line {len(found)}, at byte {offset}, cannot be read: "
    assert len(faults) == 1
    assert faults[0].startswith(place)
    if damage == "short":
        assert len(found) > (5000 if suffix == "gz" else -1)
        assert "ends before its end marker" in faults[0]


def test_a_document_over_the_bound_is_never_held(tmp_path):
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(_lines("before"))
        file.seek(5 * 10**7, 1)
        file.write(b"\n" + _lines("after"))
    piece = sources.Piece(Source(kind="jsonl", pattern=str(path)), str(path), 0, 0)
    tracemalloc.start()
    found = list(jsonl.read(piece, 10**6))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 10**6
    assert isinstance(found[1], sources.Fault)
    assert "is one document of 50,000,001 bytes" in found[1].what
    ids = [item.id for item in found if isinstance(item, sources.Document)]
    assert ids == ["a.jsonl:1", "a.jsonl:3"]


def test_what_records_say_of_themselves(tmp_path, gather):
    pile = {"text": "x", "meta": {"pile_set_name": "Pile-CC"}}
    dolma = {
        "text": "y",
        "created": "2020-01-02T03:04:05Z",
        "metadata": {
            "url": "http://e.org/",
            "title": "T",
            "license": "https://creativecommons.org/licenses/by/4.0/",
        },
    }
    own = {"text": "z", "url": 3, "timestamp": 86400, "license": ["MIT", "BSD"], "title": None}
    lines = "".join(json.dumps(record) + "\n" for record in (pile, dolma, own))
    (tmp_path / "a.jsonl").write_text(lines)
    documents, _ = gather("jsonl", tmp_path / "a.jsonl", name="web", licence="unknown")
    facts = [(d.source, d.url, d.title, d.date, d.licence) for d in documents]
    assert facts == [
        ("web", "", "", "", "unknown"),
        ("web", "http://e.org/", "T", "2020-01-02T03:04:05Z", "CC BY 4.0"),
        ("web", "", "", "1970-01-02T00:00:00Z", "MIT, BSD"),
    ]


def test_the_text_may_have_another_name(tmp_path, gather):
    (tmp_path / "a.jsonl").write_text('{"content": "x", "text": "no"}\n{"text": "no"}\n')
    documents, faults = gather("jsonl", tmp_path / "a.jsonl", text="content")
    assert [document.text for document in documents] == ["x"]
    assert ':2 has no field "content" holding a string' in faults[0]


def test_what_json_does_not_know_but_python_does(tmp_path, texts):
    (tmp_path / "a.jsonl").write_text('{"text": "x", "score": NaN}\n')
    assert texts("jsonl", tmp_path / "a.jsonl") == {"a.jsonl:1": "x"}


@given(st.binary(max_size=300), st.integers(1, 40))
def test_lines_are_those_of_a_plain_reader(tmp_path_factory, content, max_bytes):
    path = tmp_path_factory.mktemp("lines") / "a"
    path.write_bytes(content)
    expected = [
        (number, line) for number, line in enumerate(io.BytesIO(content), 1) if not line.isspace()
    ]
    found = list(jsonl._lines(str(path), max_bytes))
    assert [number for number, _ in found] == [number for number, _ in expected]
    for (_, line), (_, item) in zip(expected, found, strict=True):
        if len(line) <= max_bytes:
            assert item == line
        else:
            assert f"of {len(line):,} bytes" in str(item)
