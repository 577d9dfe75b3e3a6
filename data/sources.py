"""Where documents come from: one reader per kind of source, each a stream in a fixed order.

kind     pattern                                one document is
text     path or glob                           a UTF-8 file
jsonl    path or glob (.jsonl, .gz or .zst)     the field "text" of a line
tfds     dataset name, "name[split]" or folder  the feature "text" of an example
stdlib   nothing                                a .py file of the running interpreter's library

Whatever cannot be read is an InputError that names the file and the place in it.
"""

import gzip
import io
import json
import re
import sysconfig
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from configs.schema import InputError, Source
from data.lazy_tensorflow import tensorflow

# What lies in the library's folder and is not read: installed packages, tests (some of them broken
# on purpose), and generated tables.
_NOT_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
_NOT_LIBRARY |= {"encodings", "pydoc_data"}


@dataclass(frozen=True)
class Document:
    """A text, the name of its source, and an id that does not depend on where the corpus lies."""

    id: str
    text: str
    source: str


def name(source: Source) -> str:
    """What reports call the source."""
    return source.name or (f"{source.kind}:{source.pattern}" if source.pattern else source.kind)


def documents(source: Source, max_bytes: int) -> Iterator[Document]:
    """All documents of `source` in a fixed order. One of more than `max_bytes` is an error."""
    for identity, text in _reader(source)(source.pattern, max_bytes):
        yield Document(identity, text, name(source))


def fingerprint(source: Source) -> list[list]:
    """What must be unchanged for the documents to be the same: names, sizes, times of change."""
    _reader(source)  # refuses an unknown kind
    if source.kind == "tfds":
        return [[source.pattern]]
    _, paths = _library() if source.kind == "stdlib" else _files(source.pattern)
    stats = [(path, path.stat()) for path in paths]
    return [[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in stats]


def _reader(source: Source) -> Callable[[str, int], Iterator[tuple[str, str]]]:
    readers = {"text": _text, "jsonl": _jsonl, "tfds": _tfds, "stdlib": _stdlib}
    if source.kind not in readers:
        raise InputError(
            f"unknown kind of source {source.kind!r} in {name(source)!r}: "
            f"choose one of {', '.join(readers)}"
        )
    return readers[source.kind]


def _files(pattern: str) -> tuple[Path, list[Path]]:
    """The part of the pattern before any wildcard, and the files that match, sorted."""
    if not pattern:
        raise InputError("a text or jsonl source needs a path or glob, as in text:DIR/*.txt")
    whole = Path(pattern).expanduser()
    if whole.is_dir():
        raise InputError(f"{whole} is a folder: give a glob such as {whole}/*.txt")
    fixed = list(takewhile(lambda part: not set(part) & set("*?["), whole.parts[:-1]))
    root = whole.parent if whole.exists() else Path(*fixed)
    found = [whole] if whole.exists() else root.glob(str(whole.relative_to(root)))
    paths = sorted(path for path in found if not path.is_dir())
    if not paths:
        raise InputError(f"no file matches {whole}: check the path")
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path} is not a regular file: copy what it holds into one")
    return root, paths


def _text(pattern: str, max_bytes: int) -> Iterator[tuple[str, str]]:
    root, paths = _files(pattern)
    for path in paths:
        yield path.relative_to(root).as_posix(), _read_text(path, max_bytes)


def _read_text(path: Path, max_bytes: int) -> str:
    """A whole file. Its size is looked at before any of it is read."""
    try:
        _check_size(path.stat().st_size, max_bytes, str(path))
        return _decode(path.read_bytes(), str(path))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _check_size(size: int, max_bytes: int, where: str) -> None:
    if size > max_bytes:
        raise InputError(
            f"{where} is one document of {size:,} bytes, over max_document_bytes={max_bytes:,}: "
            "split it, or raise the bound if there is memory for it"
        )


def _decode(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where} is not UTF-8 (byte 0x{raw[error.start]:02x} at offset {error.start}): "
            "convert it or leave it out"
        ) from error


def _stdlib(pattern: str, max_bytes: int) -> Iterator[tuple[str, str]]:
    if pattern:
        raise InputError(f"the stdlib source takes no path, but was given {pattern!r}")
    root, paths = _library()
    for path in paths:
        yield path.relative_to(root).as_posix(), _read_text(path, max_bytes)


def _library() -> tuple[Path, list[Path]]:
    """The folder of the standard library and its source files, sorted."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = [
        path for path in root.rglob("*.py") if _NOT_LIBRARY.isdisjoint(path.relative_to(root).parts)
    ]
    if not paths:
        raise InputError(
            f"this interpreter has no library sources under {root}: use another Python, "
            "or another source"
        )
    return root, sorted(paths)


def _jsonl(pattern: str, max_bytes: int) -> Iterator[tuple[str, str]]:
    root, paths = _files(pattern)
    for path in paths:
        for number, line in _lines(path, max_bytes):
            where = f"{path}:{number}"
            _check_size(len(line), max_bytes, where)
            if line.strip():
                yield f"{path.relative_to(root).as_posix()}:{number}", _field(line, where)


def _lines(path: Path, max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Numbered lines; of a line that is too long, no more than shows that it is."""
    number = 0
    try:
        with _open(path) as stream:
            while line := stream.readline(max_bytes + 1):
                number += 1
                yield number, line
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path} after line {number}: {error}") from error


def _open(path: Path) -> io.BufferedIOBase:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    if path.suffix == ".zst":
        return io.BufferedReader(_Chunks(_unpack_zstandard(path)))
    return path.open("rb")


def _unpack_zstandard(path: Path) -> Iterator[bytes]:
    """Decompressed chunks. zstandard's own reader takes a file that was cut short for whole."""
    import zstandard

    frame = zstandard.ZstdDecompressor().decompressobj()
    try:
        with path.open("rb") as file:
            while packed := file.read(1 << 16):
                while packed:
                    if frame.eof:
                        frame = zstandard.ZstdDecompressor().decompressobj()
                    yield frame.decompress(packed)
                    packed = frame.unused_data if frame.eof else b""
    except zstandard.ZstdError as error:
        raise OSError(error) from error
    if not frame.eof:
        raise EOFError("the compressed data ends before its end marker")


class _Chunks(io.RawIOBase):
    """Chunks of bytes as a readable file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._ready = chunk
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size


def _field(line: bytes, where: str) -> str:
    """The "text" of one JSON line."""
    try:
        record = json.loads(_decode(line, where))
    except json.JSONDecodeError as error:
        raise InputError(f"{where} is not JSON ({error}): mend or remove the line") from error
    text = record.get("text") if isinstance(record, dict) else None
    if not isinstance(text, str):
        raise InputError(f'{where} has no field "text" holding a string: mend or remove the line')
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where} holds half a surrogate pair at character {error.start}, which is no text: "
            "mend or remove the line"
        ) from error
    return text


def _tfds(pattern: str, max_bytes: int) -> Iterator[tuple[str, str]]:
    """A TensorFlow dataset: prepared in a folder, or by name, downloaded where need be."""
    match = re.fullmatch(r"(.+?)(?:\[(.+)\])?", pattern)
    if not match:
        raise InputError("a tfds source needs a dataset name or folder, as in tfds:lm1b[train]")
    dataset, split = match[1], match[2] or "train"
    builder = _tfds_builder(dataset)
    if split.partition("[")[0] not in builder.info.splits:
        raise InputError(
            f"dataset {dataset} has no split {split!r}: "
            f"choose one of {', '.join(builder.info.splits)}"
        )
    if "text" not in builder.info.features:
        raise InputError(f"dataset {dataset} has no feature 'text': it cannot be a source")
    for number, example in enumerate(_tfds_examples(builder, split)):
        where = f"{dataset}[{split}] example {number}"
        raw = example["text"]
        _check_size(len(raw), max_bytes, where)
        yield f"{builder.info.full_name}[{split}]:{number}", _decode(bytes(raw), where)


def _tfds_builder(dataset: str) -> Any:
    try:
        tensorflow()
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise InputError(
            "a tfds source needs tensorflow-datasets: install it, or use text or jsonl"
        ) from error
    try:
        if Path(dataset).expanduser().is_dir():
            return tfds.builder_from_directory(str(Path(dataset).expanduser()))
        builder = tfds.builder(dataset)
        builder.download_and_prepare()
        return builder
    except Exception as error:  # whatever a dataset's own code raises
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"dataset {dataset} cannot be opened or prepared: {reason}") from error


def _tfds_examples(builder: Any, split: str) -> Iterator[dict]:
    """Examples in stored order. ArrayRecord datasets offer no tf.data view, others no other."""
    import tensorflow_datasets as tfds

    if builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
        return iter(builder.as_data_source(split))
    in_order = tfds.ReadConfig(interleave_cycle_length=1)
    dataset = builder.as_dataset(split=split, read_config=in_order, shuffle_files=False)
    return iter(dataset.as_numpy_iterator())
