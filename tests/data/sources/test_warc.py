"""Crawls: pages become text, and what is cut short or damaged costs no other record."""

import gzip
import io

import pytest
from fastwarc.warc import ArchiveIterator

WORDS = "This sentence is the main content of the page, and there are many like it. " * 12


def _html(number, charset="utf-8", head=""):
    page = f"<html><head>{head}<title>Title\n &amp; {number}</title></head><body><nav>Menu</nav>"
    page += f"<main><h1>Page {number}</h1><p>Naïve {number}. {WORDS}</p></main></body></html>"
    return page.encode(charset)


def _record(number, body=None, kind="response", status="200 OK", **headers):
    body = _html(number) if body is None else body
    headers = {"Content-Type": "text/html; charset=UTF-8"} | {
        key.replace("_", "-"): value for key, value in headers.items()
    }
    http = f"HTTP/1.1 {status}\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items())
    block = body if kind == "conversion" else http.encode() + b"\r\n" + body
    what = "text/plain" if kind == "conversion" else "application/http; msgtype=response"
    return (
        (
            f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:{number}>\r\n"
            f"WARC-Date: 2024-05-18T01:58:1{number}Z\r\nWARC-Target-URI: http://e.org/{number}\r\n"
            f"Content-Type: {what}\r\nContent-Length: {len(block)}\r\n\r\n"
        ).encode()
        + block
        + b"\r\n\r\n"
    )


RECORDS = [_record(number) for number in range(6)]
MEMBERS = [gzip.compress(record) for record in RECORDS]
STARTS = [sum(map(len, MEMBERS[:number])) for number in range(7)]


def _urls(documents):
    return [int(document.url.removeprefix("http://e.org/")) for document in documents]


def test_a_real_page(shared_data, gather):
    documents, faults = gather("warc", shared_data / "web" / "whirlwind.warc.gz")
    assert not faults
    (page,) = documents
    assert page.id == "whirlwind.warc.gz:1023"
    assert page.url == "https://an.wikipedia.org/wiki/Escopete"
    assert page.title == "Escopete - Biquipedia, a enciclopedia libre"
    assert page.date == "2024-05-18T01:58:10Z"
    assert page.licence == "CC BY-SA 4.0"
    assert page.text.startswith("Escopete\n\nDe Biquipedia\n")
    assert "Escopete ye un municipio" in page.text
    assert "mover a la barra lateral" not in page.text  # the menu


def test_a_real_conversion(shared_data, gather):
    documents, faults = gather("wet", shared_data / "web" / "whirlwind.warc.wet.gz")
    assert not faults
    (page,) = documents
    assert (page.url, page.date) == (
        "https://an.wikipedia.org/wiki/Escopete",
        "2024-05-18T01:58:10Z",
    )
    assert len(page.text.encode()) == 4456
    assert page.text.startswith("Escopete - Biquipedia, a enciclopedia libre\nIr al contenido\n")


@pytest.mark.parametrize("packing", ["plain", "members", "whole"])
def test_records_are_where_fastwarc_finds_them(tmp_path, gather, packing):
    content = b"".join(MEMBERS if packing == "members" else RECORDS)
    path = tmp_path / ("a.warc" if packing == "plain" else "a.warc.gz")
    path.write_bytes(gzip.compress(content) if packing == "whole" else content)
    documents, faults = gather("warc", path)
    assert not faults
    assert _urls(documents) == list(range(6))
    if packing != "whole":
        offsets = [record.stream_pos for record in ArchiveIterator(io.BytesIO(content))]
        assert [document.id for document in documents] == [f"{path.name}:{at}" for at in offsets]
    first = documents[1]
    assert first.text == f"Page 1\n\nNaïve 1. {WORDS.strip()}"
    assert (first.title, first.date, first.licence) == ("Title & 1", "2024-05-18T01:58:11Z", "")


def test_what_is_no_page_is_passed_over(tmp_path, gather):
    records = [
        _record(0, kind="request"),
        _record(1, status="404 Not Found"),
        _record(2, Content_Type="image/png"),
        _record(3, kind="conversion", body=b"text"),
        _record(4, Content_Type="application/xhtml+xml"),
    ]
    (tmp_path / "a.warc").write_bytes(b"".join(records))
    documents, faults = gather("warc", tmp_path / "a.warc")
    assert (_urls(documents), faults) == ([4], [])
    documents, faults = gather("wet", tmp_path / "a.warc")
    assert (_urls(documents), faults) == ([3], [])


@pytest.mark.parametrize(
    ("body", "declared"),
    [
        (_html(1, "latin-1"), "text/html; charset=iso-8859-1"),
        (_html(1), "text/html; charset=iso-8859-1"),  # a server that does not know its files
        (_html(1, "latin-1", '<meta charset="windows-1252">'), "text/html"),
        (_html(1, "latin-1", '<meta charset="windows-1252">'), "text/html; charset=nonsense"),
        (b"\xef\xbb\xbf" + _html(1), "text/html"),
    ],
)
def test_encodings_are_found_out(tmp_path, gather, body, declared):
    (tmp_path / "a.warc").write_bytes(_record(1, body, Content_Type=declared))
    documents, faults = gather("warc", tmp_path / "a.warc")
    assert not faults
    assert documents[0].text.startswith("Page 1\n\nNaïve 1.")


def test_packed_pages_are_unpacked(tmp_path, gather):
    packed = gzip.compress(_html(1))
    records = _record(1, packed, Content_Encoding="gzip")
    records += _record(2, packed[:50], Content_Encoding="gzip") + RECORDS[3]
    (tmp_path / "a.warc").write_bytes(records)
    documents, faults = gather("warc", tmp_path / "a.warc")
    assert _urls(documents) == [1, 3]
    assert documents[0].text.startswith("Page 1\n\nNaïve 1.")
    assert "is a page whose Content-Encoding cannot be undone" in faults[0]


def test_licences_of_pages(tmp_path, gather):
    links = [
        '<a rel="license" href="https://creativecommons.org/licenses/by/4.0/">x</a>',
        '<link rel="nofollow license" href="//creativecommons.org/publicdomain/zero/1.0/">',
        '<a href="https://creativecommons.org/licenses/by/4.0/">an article on it</a>',
        '<a rel="license" href="/terms">creativecommons.org</a>',
    ]
    records = [_record(i, _html(i, head=link)) for i, link in enumerate(links)]
    (tmp_path / "a.warc").write_bytes(b"".join(records))
    documents, _ = gather("warc", tmp_path / "a.warc", licence="unknown")
    assert [d.licence for d in documents] == ["CC BY 4.0", "CC0 1.0", "unknown", "unknown"]


@pytest.mark.parametrize("lost", [1, 5, 8, 9, 30, len(MEMBERS[5]) - 1])
def test_a_packed_file_that_was_cut_short(tmp_path, gather, lost):
    content = b"".join(MEMBERS)[:-lost]
    (tmp_path / "a.warc.gz").write_bytes(content)
    documents, faults = gather("warc", tmp_path / "a.warc.gz")
    assert _urls(documents)[:5] == list(range(5))
    assert faults == [
        f"{tmp_path}/a.warc.gz at byte {len(content)} cannot be read: "
        "the compressed data ends before its end marker"
    ]


@pytest.mark.parametrize("left", [3, 60, 400, len(RECORDS[5]) - 5])
def test_a_plain_file_that_was_cut_short(tmp_path, gather, left):
    start = sum(map(len, RECORDS[:5]))
    (tmp_path / "a.warc").write_bytes(b"".join(RECORDS)[: start + left])
    documents, faults = gather("warc", tmp_path / "a.warc")
    assert _urls(documents) == list(range(5))
    assert len(faults) == 1
    assert faults[0].startswith(f"{tmp_path}/a.warc at byte {start} is a record ")
    assert "cut short: fetch the file again" in faults[0]


def test_the_next_member_is_read_after_a_damaged_one(tmp_path, gather):
    content = bytearray(b"".join(MEMBERS))
    content[STARTS[2] + 60] ^= 0xFF
    (tmp_path / "a.warc.gz").write_bytes(content)
    documents, faults = gather("warc", tmp_path / "a.warc.gz")
    assert _urls(documents) == [0, 1, 3, 4, 5]
    assert [document.id for document in documents][2] == f"a.warc.gz:{STARTS[3]}"
    assert len(faults) == 1
    assert faults[0].startswith(f"{tmp_path}/a.warc.gz at byte {STARTS[2]} cannot be read: ")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_the_next_record_is_read_after_what_is_none(tmp_path, gather, pack):
    parts = [RECORDS[0], b"junk\r\n\r\n", RECORDS[1].replace(b"Content-Length", b"Length", 1)]
    parts[2] = parts[2].replace(b"Content-Length", b"Length")
    parts.append(RECORDS[2])
    path = tmp_path / ("a.warc" if pack is bytes else "a.warc.gz")
    path.write_bytes(b"".join(map(pack, parts)))
    documents, faults = gather("warc", path)
    assert _urls(documents) == [0, 2]
    starts = [sum(len(pack(part)) for part in parts[:i]) for i in (1, 2)]
    assert [fault.partition(" is ")[0] for fault in faults] == [
        f"{path} at byte {start}" for start in starts
    ]


def test_a_record_over_the_bound_is_passed_over(tmp_path, gather):
    huge = _record(1, b"<p>" + b"a" * 3_000_000)
    content = b"".join(map(gzip.compress, (RECORDS[0], huge, RECORDS[2])))
    (tmp_path / "a.warc.gz").write_bytes(content)
    documents, faults = gather("warc", tmp_path / "a.warc.gz", max_bytes=10_000)
    assert _urls(documents) == [0, 2]
    assert len(faults) == 1
    assert faults[0].startswith(
        f"{tmp_path}/a.warc.gz at byte {STARTS[1]} is one document of 3,000,"
    )


def test_a_conversion_that_is_not_utf8(tmp_path, gather):
    records = [_record(i, text, "conversion") for i, text in enumerate((b"a", b"na\xefve", b"c"))]
    (tmp_path / "a.warc.wet").write_bytes(b"".join(records))
    documents, faults = gather("wet", tmp_path / "a.warc.wet")
    assert [document.text for document in documents] == ["a", "c"]
    assert faults == [
        f"{tmp_path}/a.warc.wet at byte {len(records[0])} is not UTF-8 (byte 0xef at offset 2): "
        "convert it or leave it out"
    ]
