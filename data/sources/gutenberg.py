"""Books of Project Gutenberg: plain text between a header and a licence, which are taken off."""

import codecs
import re
from collections.abc import Iterator

from data.sources import files
from data.sources.record import Document, Fault, Piece, decode, iso_date, name
from data.sources.text import whole

_LICENCE = "Public domain in the USA"
# From 2001 on, before that, and at first.
_START = re.compile(
    r"^[ \t]*\*{3} ?START OF (?:THE|THIS) PROJECT GUTENBERG [^\n]*?(?:\n[^\n]+?){0,2}\*{3}[^\n]*$"
    r"|^[^\n]*\*END ?\*? ?THE SMALL PRINT[^\n]*$"
    r"|^[^\n]*\*END\*[^\n]*$",
    re.M | re.I,
)
_END = re.compile(
    r"^[ \t]*\*{3} ?END OF (?:THE|THIS) PROJECT GUTENBERG"
    r"|^[ \t]*\**[ \t]*(?:This is the )?End of (?:the |this )?Project Gutenberg",
    re.M | re.I,
)
_CREDITS = re.compile(
    r"\s*(?:Produced|E-?text prepared|Transcribed|This e-?text was|Scanned|HTML version) (?:by\b|"
    r"and\b|from\b|produced\b|prepared\b)[^\n]*(?:\n[^\n]+)*",
    re.I,
)
_FIELD = re.compile(
    r"^(Title|Author|Posting Date|Release Date|Character set encoding|Copyright Status):[ \t]*"
    r"([^\n]+(?:\n[ \t]+[^\n]+)*)",
    re.M | re.I,
)
_NUMBER = re.compile(r"\[(?:e-?(?:book|text)) ?#(\d+)\]", re.I)
_COPYRIGHTED = re.compile(r"COPYRIGHTED Project Gutenberg", re.I)


def read(piece: Piece, max_bytes: int) -> Iterator[Document | Fault]:
    """The book in a file, with what its header says of it."""
    raw = whole(piece, max_bytes)
    text = raw if isinstance(raw, Fault) else _decode(raw, piece.path)
    if isinstance(text, Fault):
        yield text
        return
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    start = _START.search(text)
    if not start:
        yield Fault(
            piece.path,
            'has no line "*** START OF THE PROJECT GUTENBERG EBOOK": give it as a text source',
        )
        return
    end = _END.search(text, start.end())
    if not end and "START OF" in start[0].upper():
        what = 'has no line "*** END OF THE PROJECT GUTENBERG EBOOK", so it was cut short'
        yield Fault(piece.path, f"{what}: fetch it again")
        return
    header = text[: start.end()]
    body = text[start.end() : end.start() if end else len(text)]
    credit = _CREDITS.match(body)
    body = body[credit.end() :] if credit else body
    fields = {key.lower(): " ".join(value.split()) for key, value in _FIELD.findall(header)}
    number = _NUMBER.search(header)
    date = fields.get("release date") or fields.get("posting date") or ""
    by = [part for part in (fields.get("title"), fields.get("author")) if part]
    own = "" if _COPYRIGHTED.search(header) else _LICENCE
    yield Document(
        files.relative(piece.path, piece.source.pattern),
        body.strip("\n") + "\n",
        name(piece.source),
        url=f"https://www.gutenberg.org/ebooks/{number[1]}" if number else "",
        title=", by ".join(by),
        date=iso_date(date.partition("[")[0]),
        licence=own or piece.source.licence,
    )


def _decode(raw: bytes, where: str) -> str | Fault:
    """The text of a book. Many were turned into UTF-8 while their headers still say Latin-1."""
    text = decode(raw, where)
    if isinstance(text, str):
        return text
    declared = re.search(rb"Character set encoding:[ \t]*([^\r\n]+)", raw[:20_000], re.I)
    called = declared[1].decode("ascii", "replace").strip().lower() if declared else "latin-1"
    if "8859" in called or "latin" in called:
        return raw.decode("latin-1")
    try:
        codec = codecs.lookup(called.removeprefix("unicode").strip())
    except LookupError:
        return text
    return decode(raw, where, codec.name)
