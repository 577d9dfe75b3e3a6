"""Dumps of Wikipedia and other wikis (pages-articles XML): articles as plain text.

A dump is read as bytes, cut into <page> elements, and each of these is parsed on its own: so one
that is malformed costs no other, and a part of a dump is read like the whole. A piece reads the
pages that begin in its range, and on behind it to the end of the last of them.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import quote
from xml.etree import ElementTree

from configs.corpus import Source
from data.sources import files
from data.sources.record import Document, Fault, Piece, name, too_large
from data.sources.wikitext import plain

_LICENCE = "CC BY-SA"
_STREAM = re.compile(rb"BZh[1-9]1AY&SY")  # where one of many bz2 streams begins, with a block
# As they never are in text, where < is &lt;.
_OPEN, _CLOSE, _END = b"<page>", b"</page>", b"</mediawiki>"
_MARKUP = 2  # bytes of XML per byte of text that are read before a page counts as too large
_REST = 1 << 16  # and of what a page holds beside its text
_CUT_SHORT = "is a page that was cut short: fetch the file again"
_SITE = 1 << 20  # bytes in which a dump says of what wiki it is
_SEARCH = 1 << 26  # how far to look for the next stream before a dump counts as having but one


def cut(source: Source, path: str, max_bytes: int) -> list[Piece]:
    """The file in ranges of at least `max_bytes` where its packing allows."""
    size = files.size(path)
    starts = [0]
    if path.endswith(".bz2"):
        while (start := starts[-1] + max_bytes) < size:
            found = files.find(path, _STREAM, start, _SEARCH)
            if found is None:
                break
            starts.append(found)
    elif not files.packed(path):
        starts += range(max_bytes, size, max_bytes)
    stops = [*starts[1:], size]
    return [Piece(source, path, *bounds) for bounds in zip(starts, stops, strict=True)]


def read(piece: Piece, max_bytes: int) -> Iterator[Document | Fault]:
    """The articles (namespace 0) that are no redirects, in the order of the dump."""
    identity = files.relative(piece.path, piece.source.pattern)
    base, gone = _site(piece.path)
    for place, page in _pages(piece, max_bytes):
        if isinstance(page, Fault):
            yield page
        elif b"<redirect" not in page and (b"<ns>0</ns>" in page or b"<ns>" not in page):
            where = f"{piece.path} at byte {place}"
            found = _article(page, where, base, gone, max_bytes)
            yield (
                found
                if isinstance(found, Fault)
                else Document(
                    f"{identity}:{found.pop('number') or place}",
                    source=name(piece.source),
                    licence=piece.source.licence or _LICENCE,
                    **found,
                )
            )


def _site(path: str) -> tuple[str, frozenset[str]]:
    """Where the wiki's articles are, and its own names for the namespaces of what is left out."""
    window = files.Window(path)
    with suppress(files.Broken):  # which is told where the pages are read
        while _OPEN not in window.data and len(window.data) < _SITE and window.more():
            pass
    head = bytes(window.data).partition(_OPEN)[0].decode("utf-8", "replace")
    base = re.search(r"<base>([^<]*/)[^</]*</base>", head)
    names = re.findall(r'<namespace key="(?:-2|6|14)"[^>]*>([^<]+)<', head)
    return base[1] if base else "", frozenset(called.lower() for called in names)


def _pages(piece: Piece, max_bytes: int) -> Iterator[tuple[str, bytes | Fault]]:
    """The <page> elements that begin in the piece, with their offsets.

    After damage it goes on with the next bz2 stream. What is damaged behind the piece is told by
    the piece that it belongs to.
    """
    start: int | None = piece.start
    last = piece.stop >= files.size(piece.path)
    while start is not None and (start < piece.stop or start == piece.start):
        window = files.Window(piece.path, start, piece.stop)
        try:
            yield from _elements(window, piece.path, last, max_bytes)
            return
        except files.Broken as error:
            if last or error.offset < piece.stop:
                where = f"{piece.path} at byte {error.offset}"
                yield "", Fault(where, f"cannot be read: {error.reason}")
            packed = piece.path.endswith(".bz2")
            start = files.find(piece.path, _STREAM, error.offset + 1) if packed else None


def _elements(
    window: files.Window, path: str, last: bool, max_bytes: int
) -> Iterator[tuple[str, bytes | Fault]]:
    ended = False
    while True:
        begin = window.data.find(_OPEN)
        if window.limit is not None and begin >= window.limit:
            return
        if begin >= 0:
            window.drop(begin)
            place, page = _page(window, path, max_bytes)
            ended = ended or (isinstance(page, Fault) and page.what == _CUT_SHORT)
            yield place, page
            continue
        ended = ended or _END in window.data
        if window.limit is not None and len(window.data) >= window.limit + len(_OPEN):
            return
        window.drop(max(0, len(window.data) - len(_END)))
        if not window.more():
            break
    if last and not ended and not _closes(path, bytes(window.data)):
        where = f"{path} at byte {window.place(len(window.data))}"
        yield "", Fault(where, "ends without </mediawiki>: fetch the file again")


def _closes(path: str, tail: bytes) -> bool:
    """Whether the file ends as it should, when its last piece begins in the middle of the end."""
    if files.packed(path):
        return bool(tail.strip()) and _END.endswith(tail.strip())
    with files.open_binary(path) as file:
        file.seek(max(0, files.size(path) - 2 * len(_END)))
        return _END in file.read()


def _page(window: files.Window, path: str, max_bytes: int) -> tuple[str, bytes | Fault]:
    """The element at the start of the window, which then begins behind it."""
    place = window.place()
    where = f"{path} at byte {place}"
    passed = 0  # bytes of a page that is too large
    seen = len(_OPEN)
    while (end := window.data.find(_CLOSE, seen)) < 0 and window.data.find(_OPEN, seen) < 0:
        if len(window.data) > _MARKUP * max_bytes + _REST:
            passed += len(window.data) - len(_CLOSE)
            window.drop(len(window.data) - len(_CLOSE))
        seen = max(0 if passed else len(_OPEN), len(window.data) - len(_CLOSE))
        if not window.more():
            window.drop(len(window.data))
            return "", Fault(where, _CUT_SHORT)
    following = window.data.find(_OPEN, seen, end if end >= 0 else None)
    if following >= 0:
        window.drop(following)
        what = "is malformed XML (a page without </page>): mend or leave it out"
        return "", Fault(where, what)
    end += len(_CLOSE)
    page = bytes(window.data[:end]) if not passed and end <= _MARKUP * max_bytes + _REST else None
    window.drop(end)
    return (place, page) if page else ("", too_large(passed + end, max_bytes, where))


def _article(
    page: bytes, where: str, base: str, gone: frozenset[str], max_bytes: int
) -> dict[str, str] | Fault:
    try:
        element = ElementTree.fromstring(page)
    except ElementTree.ParseError as error:
        return Fault(where, f"is malformed XML ({error}): mend or leave it out")
    revisions = element.findall("revision")
    markup = revisions[-1].find("text") if revisions else None
    if markup is None:
        return Fault(where, "is a page without a text: mend or leave it out")
    text = plain(markup.text or "", gone)
    size = len(text.encode())
    if size > max_bytes:
        return too_large(size, max_bytes, where)
    title = element.findtext("title") or ""
    return {
        "number": element.findtext("id") or "",
        "text": text,
        "title": title,
        "url": base + quote(title.replace(" ", "_"), safe=";@$!*(),/~:") if base else "",
        "date": revisions[-1].findtext("timestamp") or "",
    }
