"""Plain text, one document a file; also the source code of the running interpreter's library."""

import sysconfig
from collections.abc import Iterator
from pathlib import Path

from configs.corpus import Source
from configs.schema import InputError
from data.sources import files
from data.sources.record import Document, Fault, Piece, decode, name, too_large

# What lies in the library's folder and is not read: installed packages, tests (some of them broken
# on purpose), and generated tables.
_NOT_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
_NOT_LIBRARY |= {"encodings", "pydoc_data"}


def read(piece: Piece, max_bytes: int) -> Iterator[Document | Fault]:
    """A UTF-8 file, as it is."""
    raw = whole(piece, max_bytes)
    text = raw if isinstance(raw, Fault) else decode(raw, piece.path)
    if isinstance(text, Fault):
        yield text
        return
    pattern = piece.source.pattern or str(_library() / "*")
    identity = files.relative(piece.path, pattern)
    yield Document(identity, text, name(piece.source), licence=piece.source.licence)


def whole(piece: Piece, max_bytes: int) -> bytes | Fault:
    """The bytes of a file, unpacked where it is packed; no more are held than are allowed."""
    size = files.size(piece.path)
    if size > max_bytes:
        return too_large(size, max_bytes, piece.path)
    parts: list[bytes] = []
    length = 0
    try:
        for _, data in files.chunks(piece.path):
            parts.append(data)
            length += len(data)
            if length > max_bytes:
                return too_large(f"more than {max_bytes:,}", max_bytes, piece.path)
    except files.Broken as error:
        return broken(piece.path, error)
    return b"".join(parts)


def broken(path: str, error: files.Broken) -> Fault:
    """The fault of a file of which the rest is lost."""
    return Fault(f"{path} at byte {error.offset}", f"cannot be read: {error.reason}")


def library(source: Source) -> list[str]:
    """The source files of the standard library, sorted."""
    if source.pattern:
        raise InputError(f"the stdlib source takes no path, but was given {source.pattern!r}")
    root = _library()
    paths = [
        path for path in root.rglob("*.py") if _NOT_LIBRARY.isdisjoint(path.relative_to(root).parts)
    ]
    if not paths:
        raise InputError(
            f"this interpreter has no library sources under {root}: use another Python, "
            "or another source"
        )
    return [str(path) for path in sorted(paths)]


def _library() -> Path:
    return Path(sysconfig.get_path("stdlib"))
