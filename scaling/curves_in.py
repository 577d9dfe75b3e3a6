"""Where tables of runs come from: files and folders of several makes, read into raw columns.

CSV (also .gz) with W&B's exports of charts and runs; JSON and JSON Lines, nested keys joined by
dots; Parquet; TensorBoard's event files; and run directories as docs/run_directory.md lays down.
Cells stay what they were: numbers, texts, or None where there is nothing.
"""

import ast
import csv
import gzip
import io
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from configs.schema import InputError, require

_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
_CHART = " - "  # between run and metric in the header of a chart that W&B exported
_EVENTS = "events.out.tfevents."
Record = dict[str, Any]


@dataclass(frozen=True)
class Raw:
    """A table as it was found: cells by column and row, and where each row stands."""

    columns: dict[str, list]
    rows: list[int]  # number of the row in its file, from 1; a header is not counted
    files: list[str]  # the file of each row
    defaults: dict[str, str] = field(default_factory=dict)  # columns it would be read with
    conventions: dict[str, str] = field(default_factory=dict)
    runs: bool = False  # our run directories: several rows of a run are points of one curve


def load(path: str) -> Raw:
    """The rows of a file, or of all files of a folder: then `file` names the one a row is from.

    Raises InputError where there is nothing to read, or a file is damaged.
    """
    place = Path(path)
    require(place.exists(), f"{path}: no such file or folder")
    try:
        if place.is_dir():
            return _folder(place)
        if place.name.startswith(_EVENTS):
            return _collect([(path, _events(place))])
        if place.name == "metrics.jsonl":
            return _runs([place.parent])
        return _collect([(path, _file(place))])
    except (UnicodeDecodeError, csv.Error, EOFError, OSError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error


def _folder(place: Path) -> Raw:
    """Run directories, or else folders of event files, or else files that are tables."""
    runs = sorted(found.parent for found in place.rglob("metrics.jsonl"))
    if runs:
        return _runs(runs)
    logs = sorted({found.parent for found in place.rglob(_EVENTS + "*")})
    if logs:
        return _collect([(str(log), _events(log)) for log in logs], str(place))
    tables = [f for f in sorted(place.iterdir()) if f.name.removesuffix(".gz").endswith(_TABLES)]
    require(
        bool(tables),
        f"{place}: neither a run directory (metrics.jsonl), nor event files of TensorBoard, nor "
        f"files ending in {', '.join(_TABLES)}",
    )
    return _collect([(str(table), _file(table)) for table in tables], str(place))


def _collect(parts: list[tuple[str, Iterator[Record]]], folder: str = "") -> Raw:
    """One table of the records of several files. A column that a record lacks is None there."""
    columns: dict[str, list] = {}
    rows: list[int] = []
    files: list[str] = []
    for name, records in parts:
        for number, record in enumerate(records, start=1):
            if folder:
                record.setdefault("file", Path(name).relative_to(folder).as_posix())
            for key, cell in record.items():
                cells = columns.setdefault(key, [])
                cells.extend([None] * (len(rows) - len(cells)))
                cells.append(cell)
            rows.append(number)
            files.append(name)
    for cells in columns.values():
        cells.extend([None] * (len(rows) - len(cells)))
    require(bool(rows), f"{folder or parts[0][0]}: there are no rows in it")
    return Raw(columns, rows, files)


def _file(place: Path) -> Iterator[Record]:
    """The records of one file, by the end of its name."""
    name = place.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        return _parquet(place)
    require(
        name.endswith(_TABLES),
        f"{place}: a table ends in {', '.join(_TABLES)}, the textual ones perhaps in .gz after it",
    )
    packed = place.read_bytes()
    text = (gzip.decompress(packed) if place.name.endswith(".gz") else packed).decode("utf-8-sig")
    if name.endswith((".csv", ".tsv")):
        return _csv(place, text, "\t" if name.endswith(".tsv") else ",")
    return _json(place, text, lines=name.endswith(".jsonl"))


def _csv(place: Path, text: str, delimiter: str) -> Iterator[Record]:
    """Rows below a header. A chart exported by W&B becomes one row for each of its runs."""
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    header = next(reader, [])
    require(len(set(header)) == len(header), f"{place}: the header names a column twice: {header}")
    chart = len(header) > 1 and all(_CHART in name for name in header[1:])
    for number, cells in enumerate((row for row in reader if row), start=1):
        require(
            len(cells) == len(header),
            f"{place}: row {number} has {len(cells)} cells and the header {len(header)}",
        )
        record = dict(zip(header, cells, strict=True))
        if chart:
            yield from _unfold(header[0], record)
        else:
            yield flat({key: _nested(cell) for key, cell in record.items()})


def _unfold(axis: str, record: Record) -> Iterator[Record]:
    """The rows of one line of a W&B chart: "RUN - METRIC", beside their __MIN and __MAX."""
    found: dict[str, Record] = {}
    for name, cell in record.items():
        if name != axis and cell != "" and not name.endswith(("__MIN", "__MAX")):
            run, _, metric = name.rpartition(_CHART)
            found.setdefault(run, {"run": run, axis: record[axis]})[metric] = cell
    yield from found.values()


def _nested(cell: str) -> Any:
    """A cell, or the dictionary it spells: W&B's runs are often saved with theirs in one cell."""
    if not cell.startswith("{"):
        return cell
    try:
        return json.loads(cell)
    except json.JSONDecodeError:
        try:
            return ast.literal_eval(cell)
        except (SyntaxError, ValueError):
            return cell


def _json(place: Path, text: str, lines: bool) -> Iterator[Record]:
    """One object a line; or a list of objects; or one object of lists, a column each."""
    try:
        if lines:
            items = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            items = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{place}: no JSON: {error}") from error
    if isinstance(items, dict) and items and all(isinstance(v, list) for v in items.values()):
        require(
            len({len(v) for v in items.values()}) == 1, f"{place}: its columns differ in length"
        )
        items = [dict(zip(items, row, strict=True)) for row in zip(*items.values(), strict=True)]
    items = items if isinstance(items, list) else [items]
    for number, item in enumerate(items, start=1):
        require(isinstance(item, dict), f"{place}: row {number} is no JSON object")
        yield flat(item)


def _parquet(place: Path) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        records = pq.read_table(place).to_pylist()
    except pa.ArrowException as error:
        raise InputError(f"{place}: cannot be read as Parquet: {error}") from error
    for record in records:
        yield flat(record)


def flat(record: Record, prefix: str = "") -> Record:
    """A record with the keys of inner objects joined by dots: {"summary": {"loss": 3}} and so on.

    Of a setting that W&B writes as {"value": 3, "desc": null} the value is taken.
    """
    out: Record = {}
    for key, cell in record.items():
        if isinstance(cell, dict) and set(cell) <= {"value", "desc"} and "value" in cell:
            out[f"{prefix}{key}"] = cell["value"]
        elif isinstance(cell, dict):
            out.update(flat(cell, f"{prefix}{key}."))
        else:
            out[f"{prefix}{key}"] = cell
    return out


def _events(place: Path) -> Iterator[Record]:
    """Scalars of TensorBoard's event files, a record for each step: step, wall_time and tags.

    The frames are those of TFRecord: length (8 bytes), its checksum (4), data, its checksum (4).
    They are read here, since TensorBoard's own reader imports TensorFlow where there is one.
    """
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    files = sorted(place.glob(_EVENTS + "*")) if place.is_dir() else [place]
    steps: dict[int, Record] = {}
    for file in files:
        content = file.read_bytes()
        start = 0
        while start + 16 <= len(content):
            (size,) = struct.unpack_from("<Q", content, start)
            if start + 16 + size > len(content):
                break  # cut short, as in a run that is going on
            try:
                event = Event.FromString(content[start + 12 : start + 12 + size])
            except DecodeError as error:
                raise InputError(f"{file}: damaged at byte {start}: {error}") from error
            start += 16 + size
            for value in event.summary.value:
                scalar = _scalar(value)
                if scalar is not None:
                    record = steps.setdefault(event.step, {"step": event.step})
                    record |= {"wall_time": event.wall_time, value.tag: scalar}
    for step in sorted(steps):
        yield steps[step]


def _scalar(value: Any) -> float | None:
    """The number of a summary, in the form of old writers or of new ones; None for other things."""
    if value.HasField("simple_value"):
        return float(value.simple_value)
    if not value.HasField("tensor") or any(d.size != 1 for d in value.tensor.tensor_shape.dim):
        return None
    tensor = value.tensor
    if tensor.float_val or tensor.double_val:
        return float([*tensor.float_val, *tensor.double_val][0])
    kind = {4: "<f4", 8: "<f8"}.get(len(tensor.tensor_content))
    return None if kind is None else float(np.frombuffer(tensor.tensor_content, kind)[0])


def _runs(places: list[Path]) -> Raw:
    """Evaluations of our runs, with the exact counts of run.json and settings of config.json."""
    raw = _collect([(str(place), _evaluations(place)) for place in places])
    same = ("loss", "run", "schedule", "batch", "warmup", "depth", "width")
    defaults = {"N": "parameters.total", "D": "tokens", "C": "flops"} | {n: n for n in same}
    conventions = {"N": "total", "C": "palm", "loss": "nats"}
    return Raw(raw.columns, raw.rows, raw.files, defaults, conventions, runs=True)


def _evaluations(place: Path) -> Iterator[Record]:
    about = {"run": place.name, **_settings(place)}
    with (place / "metrics.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue  # cut short by a crash, as docs/run_directory.md allows
            if record.get("kind") == "eval":
                yield {**about, **flat(record)}


def _settings(place: Path) -> Record:
    """Counts of run.json, and from config.json what diagnosis asks for, times in tokens."""
    found: dict[str, Record] = {}
    for name in ("run.json", "config.json"):
        try:
            found[name] = flat(json.loads((place / name).read_text()))
        except FileNotFoundError as error:
            raise InputError(f"{place}: no run directory: there is no {name}") from error
        except json.JSONDecodeError as error:
            raise InputError(f"{place}: {name} is no JSON: {error}") from error
    run, config = found["run.json"], found["config.json"]
    out = {name: run[name] for name in run if name.startswith(("parameters.", "flops_per_token."))}
    out |= {f"config.{name}": cell for name, cell in config.items()}
    batch = config["batch.size"] * config["model.context"]
    return out | {
        "schedule": config["schedule.kind"],
        "batch": batch,
        "warmup": config["schedule.warmup"] * batch,
        "depth": config["model.layers"],
        "width": config["model.width"],
    }
