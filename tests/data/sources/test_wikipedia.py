"""Dumps: every article once, however the dump is packed and cut; markup becomes what is read."""

import bz2
import gzip
import re
from xml.sax.saxutils import escape

import pytest

from configs.corpus import Source
from data import sources

SITE = (
    '<mediawiki xml:lang="de"><siteinfo><base>https://de.wikipedia.org/wiki/Wikipedia:Haupt</base>'
    '<namespaces><namespace key="6" case="x">Datei</namespace>'
    '<namespace key="14" case="x">Kategorie</namespace></namespaces></siteinfo>\n'
)
END = "</mediawiki>\n"
LEFT = re.compile(r"\{\{|\}\}|\[\[|\]\]|\|thumb|<ref|\{\||\|\}|</\w+>")


def _page(number, text="Text.", title="", ns=0, extra=""):
    return (
        f"<page><title>{escape(title or f'Seite {number}')}</title><ns>{ns}</ns><id>{number}</id>"
        f"{extra}<revision><id>1</id><timestamp>2016-04-22T10:19:33Z</timestamp>"
        f'<text xml:space="preserve">{escape(text)}</text></revision></page>\n'
    )


def _ids(documents):
    return [int(document.id.rpartition(":")[2]) for document in documents]


def test_a_real_dump(shared_data, gather):
    path = shared_data / "web" / "enwiki-pages-articles-shortened.xml.bz2"
    documents, faults = gather("wikipedia", path, max_bytes=10**7)
    assert not faults
    assert len(documents) == 106  # of 206 pages 100 are redirects
    first = documents[0]
    assert first.id == "enwiki-pages-articles-shortened.xml.bz2:12"
    assert (first.title, first.url) == ("Anarchism", "https://en.wikipedia.org/wiki/Anarchism")
    assert (first.date, first.licence) == ("2016-04-22T10:19:33Z", "CC BY-SA")
    assert first.text.startswith("Anarchism is a political philosophy that advocates self-governed")
    assert "\n\nEtymology and terminology\n\nThe term anarchism is a compound" in first.text
    marked = [document.title for document in documents if LEFT.search(document.text)]
    assert len(marked) <= 1
    by_title = {document.title: document.text for document in documents}
    assert "Autism is a neurodevelopmental disorder" in by_title["Autism"]
    assert all(len(text) > 200 for title, text in by_title.items() if "disambig" not in title)


@pytest.mark.parametrize("stream", [50, 700, 5000])
def test_pieces_give_the_same_documents_as_the_whole(tmp_path, gather, stream):
    """Also where streams end in the middle of a page, as those of parallel bzip2 do."""
    content = (SITE + "".join(_page(i, f"Text {i}. " * i) for i in range(40)) + END).encode()
    path = tmp_path / "a.xml.bz2"
    parts = [content[i : i + stream] for i in range(0, len(content), stream)]
    path.write_bytes(b"".join(map(bz2.compress, parts)))
    expected, faults = gather("wikipedia", path)
    assert not faults
    assert _ids(expected) == list(range(40))
    assert expected[7].text == ("Text 7. " * 7).strip()
    for size in (1, 500, 3000):
        assert gather("wikipedia", path, piece_bytes=size) == (expected, [])
    assert len(sources.pieces(Source(kind="wikipedia", pattern=str(path)), 1)) == len(parts)
    (tmp_path / "a.xml").write_bytes(content)
    for size in (stream, stream + 1):
        found, faults = gather("wikipedia", tmp_path / "a.xml", piece_bytes=size)
        assert not faults
        assert [document.text for document in found] == [document.text for document in expected]
        assert _ids(found) == _ids(expected)


def test_only_articles(tmp_path, gather):
    pages = [
        _page(1, "Ein [[Datei:x.jpg|thumb|Bild]]Artikel [[Kategorie:X]]", "Ä & B/C?"),
        _page(2, "#REDIRECT [[x]]", extra='<redirect title="x" />'),
        _page(3, ns=1),
        _page(4, ""),
    ]
    (tmp_path / "a.xml.gz").write_bytes(gzip.compress((SITE + "".join(pages) + END).encode()))
    documents, faults = gather("wikipedia", tmp_path / "a.xml.gz")
    assert not faults
    assert _ids(documents) == [1, 4]
    assert documents[0].text == "Ein Artikel"
    assert documents[0].url == "https://de.wikipedia.org/wiki/%C3%84_%26_B/C%3F"
    assert gather("wikipedia", tmp_path / "a.xml.gz", licence="GFDL")[0][0].licence == "GFDL"


@pytest.mark.parametrize(
    ("page", "what"),
    [
        (_page(2).replace("</title>", ""), "is malformed XML (mismatched tag"),
        (_page(2).replace("Text.", "a < b & c"), "is malformed XML (not well-formed"),
        (_page(2).replace("</page>", ""), "is malformed XML (a page without </page>)"),
        (_page(2).replace("Text.", "\x01"), "is malformed XML (not well-formed"),
        (_page(2).replace("revision>", "draft>"), "is a page without a text"),
        (_page(2, "x" * 1001), "is one document of 1,001 bytes, over max_document_bytes=1,000"),
        (_page(2, "x" * 500_000), "is one document of 500,1"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".bz2"])
def test_a_bad_page_costs_no_other(tmp_path, gather, page, what, suffix):
    path = tmp_path / f"a.xml{suffix}"
    content = (SITE + _page(1) + page + _page(3) + END).encode()
    path.write_bytes(bz2.compress(content) if suffix else content)
    documents, faults = gather("wikipedia", path, max_bytes=1000)
    assert _ids(documents) == [1, 3]
    place = f"0+{len(SITE + _page(1))}" if suffix else len(SITE + _page(1))
    assert len(faults) == 1
    assert faults[0].startswith(f"{path} at byte {place} {what}")


def test_dumps_that_were_cut_short(tmp_path, gather):
    streams = [bz2.compress(part.encode()) for part in (SITE, _page(1), _page(2), END)]
    path = tmp_path / "a.xml.bz2"
    ends = [sum(map(len, streams[:i])) for i in range(5)]
    for length in {*range(ends[1] + 1, ends[4], 5), *ends[2:4]}:
        path.write_bytes(b"".join(streams)[:length])
        documents, faults = gather("wikipedia", path)
        complete = sum(length >= end for end in ends[2:4])
        assert _ids(documents) in ([1, 2][:complete], [1, 2][: complete + 1])
        assert len(faults) == 1
        assert faults[0].startswith(f"{path} at byte ")
    content = SITE + _page(1) + _page(2)
    (tmp_path / "a.xml").write_text(content[:-20])
    documents, faults = gather("wikipedia", tmp_path / "a.xml")
    assert _ids(documents) == [1]
    assert faults == [
        f"{tmp_path}/a.xml at byte {len(SITE + _page(1))} is a page that was cut short: "
        "fetch the file again"
    ]


def test_a_damaged_stream_leaves_what_lies_before_it(tmp_path, gather):
    streams = [bz2.compress(part.encode()) for part in (SITE, _page(1), _page(2), _page(3), END)]
    at = sum(map(len, streams[:2]))
    content = bytearray(b"".join(streams))
    content[at + 40] ^= 0xFF
    (tmp_path / "a.xml.bz2").write_bytes(content)
    documents, faults = gather("wikipedia", tmp_path / "a.xml.bz2")
    assert _ids(documents) == [1, 3]
    assert len(faults) == 1
    assert faults[0].startswith(f"{tmp_path}/a.xml.bz2 at byte {at} cannot be read")
    assert gather("wikipedia", tmp_path / "a.xml.bz2", piece_bytes=1) == (documents, faults)
