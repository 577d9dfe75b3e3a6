"""Datasets of TensorFlow Datasets and, where that library is installed, of Hugging Face."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from configs.corpus import Source
from configs.schema import InputError
from data.lazy_tensorflow import tensorflow
from data.sources.record import Document, Fault, Piece, described, field, name


def tfds_pieces(source: Source, max_bytes: int) -> list[Piece]:
    """A prepared dataset, or one by name, downloaded where need be, in ranges of examples."""
    builder, dataset, split = _open(source)
    known = builder.info.splits[split]
    examples = known.num_examples
    count = 1
    if split in builder.info.splits.keys():  # noqa: SIM118  (a slice of a split is in it too)
        count = max(1, min(examples, -(-known.num_bytes // max_bytes)))
    bounds = [examples * i // count for i in range(count + 1)]
    path = f"{dataset}[{split}]"
    return [Piece(source, path, start, stop) for start, stop in pairwise(bounds)]


def tfds_read(piece: Piece, max_bytes: int) -> Iterator[Document | Fault]:
    """A document of each example, in stored order."""
    source = piece.source
    builder, _, split = _open(source)
    range_ = split if "[" in split else f"{split}[{piece.start}:{piece.stop}]"
    for number, example in enumerate(_examples(builder, range_), piece.start):
        where = f"{piece.path} example {number}"
        text = field(example, source.text, max_bytes, where)
        if isinstance(text, Fault):
            yield text
            continue
        facts = {key: _text(value) for key, value in example.items()}
        identity = f"{builder.info.full_name}[{split}]:{number}"
        yield Document(identity, text, name(source), **described(facts, source))


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _open(source: Source) -> tuple[Any, str, str]:
    """The builder, the dataset's name or folder, and the split."""
    match = re.fullmatch(r"(.+?)(?:\[(.+)\])?", source.pattern)
    if not match:
        raise InputError("a tfds source needs a dataset name or folder, as in tfds:lm1b[train]")
    dataset, split = match[1], match[2] or "train"
    builder = _builder(dataset)
    if split.partition("[")[0] not in builder.info.splits:
        raise InputError(
            f"dataset {dataset} has no split {split!r}: "
            f"choose one of {', '.join(builder.info.splits)}"
        )
    if source.text not in builder.info.features:
        raise InputError(f"dataset {dataset} has no feature {source.text!r}: name another as text")
    return builder, dataset, split


def _builder(dataset: str) -> Any:
    try:
        tensorflow()
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise InputError(
            "a tfds source needs tensorflow-datasets: install it, or use text or jsonl"
        ) from error
    try:
        if "://" in dataset or Path(dataset).expanduser().is_dir():
            folder = dataset if "://" in dataset else str(Path(dataset).expanduser())
            return tfds.builder_from_directory(folder)
        builder = tfds.builder(dataset)
        builder.download_and_prepare()
        return builder
    except Exception as error:  # whatever a dataset's own code raises
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"dataset {dataset} cannot be opened or prepared: {reason}") from error


def _examples(builder: Any, split: str) -> Iterator[dict]:
    """Examples in stored order. ArrayRecord datasets offer no tf.data view, others no other."""
    import tensorflow_datasets as tfds

    if builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
        return iter(builder.as_data_source(split))
    in_order = tfds.ReadConfig(interleave_cycle_length=1)
    dataset = builder.as_dataset(split=split, read_config=in_order, shuffle_files=False)
    return iter(dataset.as_numpy_iterator())


def huggingface_pieces(source: Source, max_bytes: int) -> list[Piece]:
    """A Hugging Face dataset in one piece, since a streamed one does not say how long it is."""
    _load(source)
    return [Piece(source, source.pattern, 0, 0)]


def huggingface_read(piece: Piece, max_bytes: int) -> Iterator[Document | Fault]:
    """A document of each example of name[:config][split], streamed."""
    source = piece.source
    examples = iter(_load(source))
    number = 0
    while True:
        where = f"{source.pattern} example {number}"
        try:
            example = next(examples, None)
        except Exception as error:  # noqa: BLE001  (whatever a dataset's own code raises)
            reason = str(error).strip().partition("\n")[0]
            yield Fault(where, f"cannot be read, nor what follows: {reason}")
            return
        if example is None:
            return
        text = field(example, source.text, max_bytes, where)
        if isinstance(text, Fault):
            yield text
        else:
            identity = f"{source.pattern}:{number}"
            yield Document(identity, text, name(source), **described(example, source))
        number += 1


def _load(source: Source) -> Any:
    match = re.fullmatch(r"([^:\[]+)(?::([^\[]+))?(?:\[(.+)\])?", source.pattern)
    if not match:
        raise InputError("a huggingface source needs a dataset name, as in NAME:CONFIG[train]")
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise InputError(
            "a huggingface source needs the library datasets: install it, or use tfds or parquet"
        ) from error
    try:
        return load_dataset(match[1], match[2], split=match[3] or "train", streaming=True)
    except Exception as error:  # whatever a dataset's own code raises
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"dataset {source.pattern} cannot be opened: {reason}") from error
