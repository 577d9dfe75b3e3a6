"""Where documents come from: one reader per kind of source, each a stream in a fixed order.

kind         pattern                                  one document is
text         path or glob                             a UTF-8 file
jsonl        path or glob                             the field `text` of a line
parquet      path or glob                             the column `text` of a row
warc         path or glob                             the main text of an HTML page
wet          path or glob                             a conversion record
wikipedia    path or glob of pages-articles .xml      an article
gutenberg    path or glob                             a book without header and licence
tfds         dataset name, "name[split]" or folder    the feature `text` of an example
huggingface  "name[:config][split]"                   the same; needs the library datasets
stdlib       nothing                                  a .py file of the interpreter's library

Where it says `text`, `Source.text` may name another. A path may begin with gs://, and a file end in
.gz, .bz2 or .zst. What cannot be read is a `Fault` in the stream, in the place of the document.
"""

import math
from collections.abc import Callable, Iterator
from importlib import import_module

from configs.corpus import Source
from configs.schema import InputError
from data.sources import files
from data.sources.record import Document, Fault, Piece, name

__all__ = ["KINDS", "Document", "Fault", "Piece", "fingerprint", "name", "pieces", "read", "weight"]

# Module and function. Imported where they are needed, with the libraries that they stand on.
_READERS = {
    "text": ("text", "read"),
    "jsonl": ("jsonl", "read"),
    "parquet": ("parquet", "read"),
    "warc": ("warc", "read"),
    "wet": ("warc", "read_wet"),
    "wikipedia": ("wikipedia", "read"),
    "gutenberg": ("gutenberg", "read"),
    "tfds": ("prepared", "tfds_read"),
    "huggingface": ("prepared", "huggingface_read"),
    "stdlib": ("text", "read"),
}
_CUT = {"wikipedia", "parquet"}
_PREPARED = {"tfds", "huggingface"}
KINDS = tuple(_READERS)


def pieces(source: Source, max_bytes: int) -> list[Piece]:
    """What tasks read, in order: files, and ranges of about `max_bytes` of those that can be cut.

    Raises InputError where nothing can be read at all: an unknown kind, a pattern that matches no
    file or what is none, a dataset that is not there.
    """
    _check(source)
    if source.kind in _PREPARED:
        make = _function("prepared", f"{source.kind}_pieces")
        return make(source, max_bytes)
    if source.kind in _CUT:
        cut = _function(source.kind, "cut")
        return [piece for path in _paths(source) for piece in cut(source, path, max_bytes)]
    return [Piece(source, path, 0, files.size(path)) for path in _paths(source)]


def weight(piece: Piece) -> float:
    """Its bytes on disk; infinite where that is not known."""
    return math.inf if piece.source.kind in _PREPARED else piece.stop - piece.start


def read(piece: Piece, max_bytes: int) -> Iterator[Document | Fault]:
    """The documents of a piece, each of at most `max_bytes`, and what stood in their way.

    They come as they are read, in the order of the file. Their ids depend neither on where the
    files lie nor on how they were cut.
    """
    return _function(*_READERS[piece.source.kind])(piece, max_bytes)


def fingerprint(source: Source) -> list[list]:
    """What must be unchanged for the documents to be the same: names, sizes, times of change."""
    _check(source)
    if source.kind in _PREPARED:
        return [[source.pattern]]
    return [files.stamp(path) for path in _paths(source)]


def _check(source: Source) -> None:
    if source.kind not in _READERS:
        raise InputError(
            f"unknown kind of source {source.kind!r} in {name(source)!r}: "
            f"choose one of {', '.join(KINDS)}"
        )


def _paths(source: Source) -> list[str]:
    if source.kind == "stdlib":
        return _function("text", "library")(source)
    return files.match(source.pattern, source.kind)


def _function(module: str, called: str) -> Callable:
    return getattr(import_module(f"data.sources.{module}"), called)
