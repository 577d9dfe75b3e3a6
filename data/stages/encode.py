"""Documents -> ids. A document, or the part of it that goes into one split, is a part."""

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data import order, store, tokenizer
from data.stages import shards
from data.stages.unique import Selected

# Columns of the parts of an encoded shard, uint64. A group is 2 * source + split; a key orders.
GROUP, KEY, TOKENS, TEXT_BYTES = range(4)


class Split(NamedTuple):
    """How text is held out: whole "documents" or the "tail" of each; which share; drawn how."""

    how: str
    validation: float
    seed: int


def parts(split: Split, identity: str, text: str) -> dict[str, str]:
    """What of a document goes into which split; empty parts are left out."""
    train, validation = store.SPLITS
    if split.how == "documents":
        drawn = order.key(split.seed, "split", identity) / 2**64
        cut = 0 if drawn < split.validation else len(text)
    else:
        cut = int(len(text) * (1 - split.validation))
    return {name: part for name, part in ((train, text[:cut]), (validation, text[cut:])) if part}


def group(source: int, split: str) -> int:
    """The number of a source's share of a split."""
    return len(store.SPLITS) * source + store.SPLITS.index(split)


def encode_shard(
    shard: Selected, out: Path, known: Path, sources: tuple[str, ...], split: Split
) -> dict[str, Any]:
    """Encode what is left of a shard.

    Args:
        shard: what to encode.
        out: OUT.npy gets the ids of all parts, each closed by the end-of-document id; OUT.parts.npy
            what `GROUP` and so on name.
        known: the tokenizer's file, under a name that no other one has.
        sources: names of all sources, in order.
        split: how text is held out.

    Returns:
        groups: {group: [parts, tokens, text_bytes]}.
    """
    with_ids = _load(known)
    columns = shards.load(shards.path(shard.cleaned), ("id", "source", "text"))
    found: list[tuple[int, int, int, int]] = []
    dtype = store.dtype_for(with_ids.vocab)
    closing = np.array([with_ids.eod], dtype)
    ids = [closing[:0]]
    for row in shard.rows().tolist():
        identity, text = columns["id"][row], columns["text"][row]
        source = sources.index(columns["source"][row])
        key = order.key(split.seed, "shuffle", identity)
        for name, part in parts(split, identity, text).items():
            encoded = with_ids.encode(part)
            ids += [encoded.astype(dtype), closing]
            size = len(part) if part.isascii() else len(part.encode())
            found.append((group(source, name), key, len(encoded) + 1, size))
    return save(np.concatenate(ids), found, out)


def save(ids: np.ndarray, found: list[tuple[int, int, int, int]], out: Path) -> dict[str, Any]:
    """Write an encoded shard, and count what is in it."""
    table = np.array(found, np.uint64).reshape(-1, 4)
    shards.save_array(ids_of(out), ids)
    shards.save_array(parts_of(out), table)
    groups = {}
    for number in np.unique(table[:, GROUP]).tolist():
        mine = table[table[:, GROUP] == number]
        groups[str(number)] = [
            len(mine),
            int(mine[:, TOKENS].sum()),
            int(mine[:, TEXT_BYTES].sum()),
        ]
    return {"groups": groups}


def ids_of(out: Path) -> Path:
    """The file of an encoded shard's ids."""
    return out.with_name(f"{out.name}.npy")


def parts_of(out: Path) -> Path:
    """The file of an encoded shard's parts."""
    return out.with_name(f"{out.name}.parts.npy")


@lru_cache(maxsize=1)
def _load(file: Path) -> tokenizer.Tokenizer:
    """Once per process, for the file's name says what is in it."""
    return tokenizer.load(file)
