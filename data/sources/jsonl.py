"""JSON lines, one document a line, as The Pile and most collections have them."""

import json
from collections.abc import Iterator
from typing import Any

import orjson

from data.sources import files
from data.sources.record import Document, Fault, Piece, decode, described, field, name, too_large


def read(piece: Piece, max_bytes: int) -> Iterator[Document | Fault]:
    """A document of each line that is not blank. One of more than `max_bytes` is a fault."""
    source, called = piece.source, name(piece.source)
    identity = files.relative(piece.path, source.pattern)
    for number, line in _lines(piece.path, max_bytes):
        where = f"{piece.path}:{number}"
        if isinstance(line, Fault):
            yield line
            continue
        record = _parse(line, where)
        text = record
        if not isinstance(record, Fault):
            text = field(record, source.text, max_bytes, where)
        if isinstance(text, Fault):
            yield text
        else:
            yield Document(f"{identity}:{number}", text, called, **described(record, source))


def _lines(path: str, max_bytes: int) -> Iterator[tuple[int, bytes | Fault]]:
    """Numbered lines that are not blank; of one that is too long, only its length is kept."""
    number, length = 1, 0  # of the line that is being gathered
    parts: list[bytes] = []

    def line() -> bytes | Fault:
        if length > max_bytes:
            return too_large(length, max_bytes, f"{path}:{number}")
        return b"".join(parts)

    try:
        for _, data in files.chunks(path):
            for part in _split(data):
                length += len(part)
                if length <= max_bytes:
                    parts.append(part)
                else:
                    parts.clear()
                if part.endswith(b"\n"):
                    found = line()
                    if isinstance(found, Fault) or not found.isspace():
                        yield number, found
                    number, length, parts = number + 1, 0, []
    except files.Broken as error:
        where = f"{path} after line {number - 1}, at byte {error.offset},"
        yield number, Fault(where, f"cannot be read: {error.reason}")
        return
    if length and (isinstance(found := line(), Fault) or not found.isspace()):
        yield number, found


def _split(data: bytes) -> list[bytes]:
    """Lines with what ends them; the last may lack it."""
    parts = [part + b"\n" for part in data.split(b"\n")]
    parts[-1] = parts[-1][:-1]
    return parts if parts[-1] else parts[:-1]


def _parse(line: bytes, where: str) -> Any:
    """The record of a line. What orjson refuses, such as NaN, the standard library may take."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        pass
    text = decode(line.rstrip(), where)
    if isinstance(text, Fault):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return Fault(where, f"is not JSON ({error}): mend or remove the line")
