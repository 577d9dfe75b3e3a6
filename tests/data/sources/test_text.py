"""Plain text and the standard library; dates and licences as records write them."""

import ast
import gzip
import sysconfig
from pathlib import Path

import pytest

from configs.schema import InputError
from data.sources import record


def test_a_file_that_is_not_utf8_is_named_with_the_offset(tmp_path, gather):
    for name, content in (("a", b"fine"), ("latin", b"na\xefve"), ("z", b"fine too")):
        (tmp_path / f"{name}.txt").write_bytes(content)
    documents, faults = gather("text", tmp_path / "*.txt")
    assert [document.id for document in documents] == ["a.txt", "z.txt"]
    assert faults == [
        f"{tmp_path}/latin.txt is not UTF-8 (byte 0xef at offset 2): convert it or leave it out"
    ]


def test_a_document_over_the_bound_is_refused_before_it_is_read(tmp_path, gather, texts):
    with (tmp_path / "big.txt").open("wb") as file:
        file.truncate(10**12)  # takes no room on disk, and would take all memory
    (tmp_path / "bomb.txt.gz").write_bytes(gzip.compress(b"a" * 10_000_000))
    (tmp_path / "exact.txt").write_bytes(b"12345")
    documents, faults = gather("text", tmp_path / "*", max_bytes=20_000)
    assert [document.text for document in documents] == ["12345"]
    assert [fault.partition(": ")[0].removeprefix(f"{tmp_path}/") for fault in faults] == [
        "big.txt is one document of 1,000,000,000,000 bytes, over max_document_bytes=20,000",
        "bomb.txt.gz is one document of more than 20,000 bytes, over max_document_bytes=20,000",
    ]
    assert texts("text", tmp_path / "exact.txt", max_bytes=5) == {"exact.txt": "12345"}
    assert gather("text", tmp_path / "exact.txt", max_bytes=4)[0] == []


def test_a_packed_file_that_was_cut_short_is_a_fault(tmp_path, gather):
    packed = gzip.compress(b"a text that is long enough")
    (tmp_path / "a.txt.gz").write_bytes(packed[:-3])
    assert gather("text", tmp_path / "a.txt.gz") == (
        [],
        [
            f"{tmp_path}/a.txt.gz at byte {len(packed) - 3} cannot be read: "
            "the compressed data ends before its end marker"
        ],
    )


def test_the_standard_library_is_code_without_packages_and_tests(texts, gather):
    found = texts("stdlib")
    assert {"os.py", "asyncio/__init__.py", "json/decoder.py"} <= set(found)
    assert list(found) == sorted(found, key=lambda name: name.split("/"))
    assert not any({"site-packages", "test", "tests"} & set(name.split("/")) for name in found)
    assert 3e6 < sum(map(len, found.values())) < 30e6
    assert found["os.py"] == (Path(sysconfig.get_path("stdlib")) / "os.py").read_text()
    ast.parse(found["asyncio/base_events.py"])
    with pytest.raises(InputError, match=r"takes no path, but was given 'os\.py'"):
        gather("stdlib", "os.py")


@pytest.mark.parametrize(
    ("written", "iso"),
    [
        ("2024-05-18T01:58:10Z", "2024-05-18T01:58:10Z"),
        ("2024-05-18 01:58:10", "2024-05-18T01:58:10"),
        ("2019", "2019"),
        ("July 26, 2008", "2008-07-26"),
        ("Sept. 3 1999", "1999-09-03"),
        ("October, 1993", "1993-10"),
        ("Fri, 31 May 2024 01:16:46 GMT", "2024-05-31T01:16:46+00:00"),
        (0, "1970-01-01T00:00:00Z"),
        (1_700_000_000_000, "2023-11-14T22:13:20Z"),
        (1e300, ""),
        ("yesterday", ""),
        (True, ""),
        (None, ""),
    ],
)
def test_dates_become_iso_8601(written, iso):
    assert record.iso_date(written) == iso


@pytest.mark.parametrize(
    ("link", "short"),
    [
        ("https://creativecommons.org/licenses/by-sa/4.0/deed.en", "CC BY-SA 4.0"),
        ("//creativecommons.org/licenses/by-nc-nd/2.5/", "CC BY-NC-ND 2.5"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "CC0 1.0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "Public Domain Mark 1.0"),
        ("MIT", "MIT"),
        ("", ""),
    ],
)
def test_licences_have_short_names(link, short):
    assert record.licence(link) == short
