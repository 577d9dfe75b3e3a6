"""What readers give: documents, and faults where there should have been one."""

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from configs.corpus import Source


@dataclass(frozen=True)
class Document:
    """A text and what is known of it; what is not known is empty."""

    id: str  # does not depend on where the corpus lies, nor on how it was cut into pieces
    text: str
    source: str  # the name of its source
    url: str = ""
    title: str = ""
    date: str = ""  # ISO 8601
    licence: str = ""


@dataclass(frozen=True)
class Piece:
    """What one task reads: a file, or the part of it that begins in a range of bytes.

    Of a TFDS dataset `path` is the name with the split, and the range is one of examples.
    """

    source: Source
    path: str
    start: int
    stop: int


@dataclass(frozen=True)
class Fault:
    """A record, or the rest of a file, that cannot be used."""

    where: str  # file, and line or byte
    what: str

    def __str__(self) -> str:
        return f"{self.where} {self.what}"


def name(source: Source) -> str:
    """What reports call the source."""
    return source.name or (f"{source.kind}:{source.pattern}" if source.pattern else source.kind)


def too_large(size: int | str, max_bytes: int, where: str) -> Fault:
    """The fault of a document of more bytes than memory is meant for."""
    amount = size if isinstance(size, str) else f"{size:,}"
    return Fault(
        where,
        f"is one document of {amount} bytes, over max_document_bytes={max_bytes:,}: "
        "split it, or raise the bound if there is memory for it",
    )


def decode(raw: bytes, where: str, encoding: str = "utf-8") -> str | Fault:
    """The text of bytes, or the fault that names the first byte which is none."""
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        called = "UTF-8" if codecs.lookup(encoding).name == "utf-8" else encoding
        return Fault(
            where,
            f"is not {called} (byte 0x{raw[error.start]:02x} at offset {error.start}): "
            "convert it or leave it out",
        )


def field(record: object, key: str, max_bytes: int, where: str) -> str | Fault:
    """The text that a record holds under a key."""
    text = record.get(key) if isinstance(record, Mapping) else None
    if isinstance(text, bytes):
        text = decode(text, where)
    if isinstance(text, Fault):
        return text
    if not isinstance(text, str):
        what = f'has no field "{key}" holding a string: mend or remove the record'
        return Fault(where, what)
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError as error:
        return Fault(
            where,
            f"holds half a surrogate pair at character {error.start}, which is no text: "
            "mend or remove the record",
        )
    return too_large(size, max_bytes, where) if size > max_bytes else text


_FIELDS = {  # of a document, and how records call them
    "url": ("url",),
    "title": ("title",),
    "date": ("date", "timestamp", "created"),
    "licence": ("licence", "license"),
}
DESCRIBED_BY = frozenset(key for keys in _FIELDS.values() for key in keys) | {"meta", "metadata"}


def described(record: Mapping[str, Any], source: Source) -> dict[str, str]:
    """Url, title, date and licence, where a record says them under a common name.

    They may also lie one level down, in "meta" or "metadata".
    """
    levels = [record, *(record.get(key) for key in ("meta", "metadata"))]
    found = dict.fromkeys(_FIELDS, "")
    for level in levels:
        if isinstance(level, Mapping):
            for name, keys in _FIELDS.items():
                for key in keys:
                    if key in level:
                        found[name] = found[name] or _plain(name, level[key])
    found["licence"] = licence(found["licence"]) or source.licence
    return found


def _plain(name: str, value: object) -> str:
    if name == "date":
        return iso_date(value)
    if isinstance(value, list):
        return ", ".join(part for part in value if isinstance(part, str))
    if not isinstance(value, str):
        return ""
    return value.encode("utf-8", "replace").decode()


_CREATIVE_COMMONS = re.compile(
    r"creativecommons\.org/(?:licenses/([a-z-]+)|publicdomain/(zero|mark))(?:/(\d\.\d))?", re.I
)


def licence(value: str) -> str:
    """A licence's short name where the value is a link to Creative Commons, else the value."""
    match = _CREATIVE_COMMONS.search(value)
    if not match:
        return value
    known, public, version = match.groups()
    short = {"zero": "CC0", "mark": "Public Domain Mark"}[public.lower()] if public else "CC"
    return " ".join(part for part in (short, (known or "").upper(), version or "") if part)


_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_ISO = re.compile(
    r"\d{4}(?:-\d\d(?:-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?)?)?$"
)
_WRITTEN = re.compile(r"([a-z]{3})[a-z]*\.?\s+(\d{1,2}),?\s+(\d{4})$", re.I)  # July 26, 2008
_WRITTEN_SHORT = re.compile(r"([a-z]{3})[a-z]*\.?,?\s+(\d{4})$", re.I)  # July, 2008


def iso_date(value: object) -> str:
    """A date in ISO 8601: from that, from seconds or milliseconds since 1970, or as written out.

    Empty where it is none of these.
    """
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _since_1970(value)
    if not isinstance(value, str):
        return ""
    value = value.strip()
    if _ISO.match(value):
        return value.replace(" ", "T", 1)
    for pattern in (_WRITTEN, _WRITTEN_SHORT):
        match = pattern.match(value)
        if match and match[1].lower() in _MONTHS:
            month = f"{match[match.lastindex or 0]}-{_MONTHS.index(match[1].lower()) + 1:02d}"
            return f"{month}-{int(match[2]):02d}" if match.lastindex == 3 else month
    try:
        return parsedate_to_datetime(value).isoformat()
    except (ValueError, TypeError, IndexError, OverflowError):
        return ""


def _since_1970(value: float) -> str:
    try:
        moment = datetime.fromtimestamp(value / 1000 if abs(value) > 1e11 else value, UTC)
    except (ValueError, OverflowError, OSError):
        return ""
    return moment.isoformat().replace("+00:00", "Z")
