"""Parquet files, one document a row, read a row group at a time."""

from collections.abc import Iterator
from typing import Any

from configs.corpus import Source
from data.sources import files
from data.sources.record import DESCRIBED_BY, Document, Fault, Piece, described, field, name

_ROWS = 256  # held at once


def cut(source: Source, path: str, max_bytes: int) -> list[Piece]:
    """The file in ranges of `max_bytes`; a row group belongs to the one in which it begins."""
    size = files.size(path)
    starts = range(0, max(size, 1), max_bytes)
    return [Piece(source, path, start, min(start + max_bytes, size)) for start in starts]


def read(piece: Piece, max_bytes: int) -> Iterator[Document | Fault]:
    """A document of each row. A row group that is damaged is one fault, as is the whole file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = piece.source
    try:
        with files.open_binary(piece.path) as stream, pq.ParquetFile(stream) as file:
            columns = file.schema_arrow.names
            if source.text not in columns:
                if piece.start == 0:
                    what = f'has no column "{source.text}", but {", ".join(columns)}'
                    yield Fault(piece.path, f"{what}: name another as text")
                return
            wanted = [source.text, *(c for c in columns if c in DESCRIBED_BY and c != source.text)]
            first = 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group)
                if piece.start <= _begin(rows) < piece.stop:
                    try:
                        yield from _group(file, group, wanted, first, piece, max_bytes)
                    except (pa.ArrowException, OSError) as error:
                        where = f"{piece.path}: row group {group}"
                        yield Fault(where, f"cannot be read: {error}")
                first += rows.num_rows
    except (pa.ArrowException, OSError) as error:
        if piece.start == 0:
            yield Fault(piece.path, f"cannot be read: {error}")


def _begin(rows: Any) -> int:
    """The offset at which a row group begins."""
    column = rows.column(0)
    return min(
        offset
        for offset in (column.dictionary_page_offset, column.data_page_offset)
        if offset is not None
    )


def _group(
    file: Any, group: int, wanted: list[str], first: int, piece: Piece, max_bytes: int
) -> Iterator[Document | Fault]:
    identity = files.relative(piece.path, piece.source.pattern)
    called = name(piece.source)
    number = first
    for batch in file.iter_batches(_ROWS, row_groups=[group], columns=wanted):
        for record in batch.to_pylist():
            where = f"{piece.path}: row {number}"
            text = field(record, piece.source.text, max_bytes, where)
            if isinstance(text, Fault):
                yield text
            else:
                facts = described(record, piece.source)
                yield Document(f"{identity}:{number}", text, called, **facts)
            number += 1
