"""Web crawls: WARC files, whose HTML becomes main text, and WET files, which hold text.

Records are framed here rather than by fastwarc, which takes a file that was cut short for whole
and gives up at the first damaged member. HTTP is fastwarc's, HTML is resiliparse's.
"""

import re
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any

from data.sources import files
from data.sources.record import Document, Fault, Piece, decode, licence, name, too_large

_HEADER = 1 << 16  # bytes that the header of a record may have
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)\s*\r\n", re.I)
_TYPE = re.compile(rb"\r\nwarc-type:\s*([a-z]+)", re.I)
_MEMBER = re.compile(rb"\x1f\x8b\x08[\x00-\x1f].{4}[\x00\x02\x04][\x00-\x0d\xff]", re.S)
_TITLE = re.compile(r"<title\b[^>]*>([^<]*)</title\s*>", re.I)
_HTML = {"text/html", "application/xhtml+xml"}


def read(piece: Piece, max_bytes: int) -> Iterator[Document | Fault]:
    """The main text of each page: a response with status 200 and HTML. Others are passed over."""
    return _read(piece, max_bytes, b"response", _page)


def read_wet(piece: Piece, max_bytes: int) -> Iterator[Document | Fault]:
    """The text of each conversion record. Others are passed over."""
    return _read(piece, max_bytes, b"conversion", _conversion)


def _read(
    piece: Piece, max_bytes: int, kind: bytes, convert: Callable[[Any, str], dict[str, str] | Fault]
) -> Iterator[Document | Fault]:
    from fastwarc.warc import WarcRecord

    identity = files.relative(piece.path, piece.source.pattern)
    for place, block in _blocks(piece.path, kind, max_bytes):
        if isinstance(block, Fault):
            yield block
            continue
        where = f"{piece.path} at byte {place}"
        try:
            record = WarcRecord.from_bytes(block)
            record.parse_http(auto_decode="all")
            found = convert(record, where)
        except (OSError, ValueError, LookupError) as error:
            found = Fault(where, f"is a record that cannot be read: {error}")
        if isinstance(found, Fault):
            yield found
        elif found:
            size = len(found["text"].encode())
            found["licence"] = found.get("licence") or piece.source.licence
            found["date"] = record.headers.get("WARC-Date") or ""
            found["url"] = (record.headers.get("WARC-Target-URI") or "").strip("<>")
            yield (
                too_large(size, max_bytes, where)
                if size > max_bytes
                else Document(f"{identity}:{place}", source=name(piece.source), **found)
            )


def _page(record: Any, where: str) -> dict[str, str] | Fault:
    """The main text, title and licence of an HTML page; nothing where it is another record."""
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    if record.http_headers.status_code != 200 or record.http_content_type not in _HTML:
        return {}
    body = record.reader.read()
    if not body and record.http_headers.get("Content-Encoding"):
        return Fault(where, "is a page whose Content-Encoding cannot be undone: leave it out")
    html = _decode(body, record.http_charset)
    tree: Any = HTMLTree.parse(html)
    found = {"text": extract_plain_text(tree, main_content=True), "title": ""}
    if title := _TITLE.search(html):  # resiliparse would go through the whole tree
        found["title"] = " ".join(unescape(title[1]).split())
    if "creativecommons.org" in html:
        links = tree.document.query_selector_all("[rel~=license]")
        named = (link.getattr("href") or "" for link in links)
        found["licence"] = next((licence(link) for link in named if "creativecommons" in link), "")
    return found


def _decode(body: bytes, charset: str | None) -> str:
    """HTML as text. What can be UTF-8 is, whatever a server says; only then is it believed."""
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    if b"\x1b" not in body and b"\0" not in body:  # which are in ISO-2022 and in UTF-16
        for encoding in ("utf-8", charset):
            try:
                return body.decode(encoding or "utf-8").removeprefix("\ufeff")
            except (UnicodeDecodeError, LookupError):
                continue
    return bytes_to_str(body, detect_encoding(body, from_html_meta=True) or "utf-8")


def _conversion(record: Any, where: str) -> dict[str, str] | Fault:
    text = decode(record.reader.read(), where)
    return text if isinstance(text, Fault) else {"text": text}


def _blocks(path: str, kind: bytes, max_bytes: int) -> Iterator[tuple[str, bytes | Fault]]:
    """The records of a kind, header and content, with their offsets.

    After damage it goes on with the next record, or the next gzip member.
    """
    start: int | None = 0
    while start is not None:
        window = files.Window(path, start)
        try:
            yield from _frames(window, path, kind, max_bytes)
            return
        except files.Broken as error:
            where = f"{path} at byte {error.offset}"
            yield "", Fault(where, f"cannot be read: {error.reason}")
            # A record is a member, so the next one is whole again.
            gzipped = path.endswith(".gz")
            start = files.find(path, _MEMBER, error.offset + 1) if gzipped else None


def _frames(
    window: files.Window, path: str, kind: bytes, max_bytes: int
) -> Iterator[tuple[str, bytes | Fault]]:
    while True:
        while window.data[:1].isspace():
            window.drop(1)
        end = window.data.find(b"\r\n\r\n")
        if end < 0 and len(window.data) < _HEADER and window.more():
            continue
        if not window.data:
            return
        place = window.place()
        where = f"{path} at byte {place}"
        header = bytes(window.data[: end + 4])
        length = _LENGTH.search(header)
        if not header.startswith(b"WARC/") or not length:
            cut = b"WARC/".startswith(window.data[:5]) and len(window.data) < _HEADER
            what = "is a record whose header was cut short" if cut else "is no WARC record"
            yield "", Fault(where, f"{what}: fetch the file again")
            window.drop(1)
            _seek(window)
            continue
        total = end + 4 + int(length[1])
        type_ = _TYPE.search(header)
        wanted = type_ is not None and type_[1].lower() == kind
        if wanted and int(length[1]) > max_bytes:
            yield "", too_large(int(length[1]), max_bytes, where)
            wanted = False
        while len(window.data) < total:
            if not wanted:
                total -= len(window.data)
                window.drop(len(window.data))
            if not window.more():
                yield "", Fault(where, "is a record that was cut short: fetch the file again")
                return
        if wanted:
            yield place, bytes(window.data[:total])
        window.drop(total)


def _seek(window: files.Window) -> None:
    """Go to the next header of a record, or to the end."""
    while (found := window.data.find(b"WARC/1.")) < 0:
        window.drop(max(0, len(window.data) - 6))
        if not window.more():
            found = len(window.data)
            break
    window.drop(found)
