"""Documents on disk between stages: Parquet files, each small enough to be held in memory."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.disk import write

FIELDS = ("id", "text", "source", "url", "title", "date", "licence")
SUFFIX = ".parquet"

ROW_BITS = 32  # a document is named by one integer: shard << ROW_BITS | row


def path(out: Path, kind: str = "") -> Path:
    """The Parquet file of a task, such as 00003.parquet or, of kind tags, 00003.tags.parquet."""
    return out.with_name(f"{out.name}{'.' * bool(kind)}{kind}{SUFFIX}")


def save(file: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns of equal length. The same columns give the same bytes."""
    import pyarrow as pa
    from pyarrow import parquet

    content = io.BytesIO()
    parquet.write_table(pa.table(dict(columns)), content, compression="zstd")
    write(file, content.getvalue())


def load(file: Path, columns: Sequence[str] | None = None) -> dict[str, list[Any]]:
    """Columns as lists."""
    return _table(file, columns).to_pydict()


def load_arrays(file: Path, columns: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Columns as arrays; text becomes arrays of objects."""
    table = _table(file, columns)
    return {name: table[name].to_numpy() for name in table.column_names}


def _table(file: Path, columns: Sequence[str] | None) -> Any:
    from pyarrow import parquet

    return parquet.read_table(
        io.BytesIO(file.read_bytes()), columns=list(columns) if columns else None
    )


def save_array(file: Path, array: np.ndarray) -> None:
    """Write one array as .npy."""
    content = io.BytesIO()
    np.save(content, array)
    write(file, content.getvalue())


def load_array(file: Path) -> np.ndarray:
    """Read what save_array wrote."""
    return np.load(io.BytesIO(file.read_bytes()))


def places(shard: int, rows: np.ndarray) -> np.ndarray:
    """The names of documents, uint64: by them the earlier of two is told from the later."""
    return np.uint64(shard << ROW_BITS) | rows.astype(np.uint64)


def rows_of(shard: int, sorted_places: np.ndarray) -> np.ndarray:
    """The rows of those among sorted places that lie in a shard, int64."""
    bounds = np.array([shard << ROW_BITS, (shard + 1) << ROW_BITS], np.uint64)
    first, last = np.searchsorted(sorted_places, bounds)
    return (sorted_places[first:last] - bounds[0]).astype(np.int64)
