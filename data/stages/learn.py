"""A sample of the training text, and its characters, for the tokenizer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from data import order, store, tokenizer
from data.disk import write
from data.stages import shards
from data.stages.encode import Split, parts
from data.stages.unique import Selected

_CHUNK = 4_096  # characters the sample takes or leaves together


def learn_shard(shard: Selected, out: Path, split: Split, share: float) -> dict[str, Any]:
    """Draw chunks of the training text of a shard, each with the probability `share`.

    OUT.sample.json is [[key, text], ...]; a chunk is drawn when its key / 2**64 lies below `share`.
    Returns the characters of all text.
    """
    columns = shards.load(shards.path(shard.cleaned), ("id", "text"))
    drawn: list[tuple[int, str]] = []
    characters: set[str] = set()
    for row in shard.rows().tolist():
        identity, text = columns["id"][row], columns["text"][row]
        characters.update(text)
        training = parts(split, identity, text).get(store.SPLITS[0], "") if share else ""
        for number, chunk in enumerate(tokenizer.chunks(training, _CHUNK)):
            key = order.key(split.seed, identity, number)
            if key < share * 2**64:
                drawn.append((key, chunk))
    write(_sample(out), orjson.dumps(drawn))
    return {"characters": "".join(sorted(characters))}


def sample(outs: Sequence[Path], size: int) -> list[str]:
    """The chunks of lowest key that fit into `size` bytes, in the order of the corpus."""
    drawn = []
    for at, out in enumerate(outs):
        found = orjson.loads(_sample(out).read_bytes())
        drawn += [(key, at, number, text) for number, (key, text) in enumerate(found)]
    chosen = []
    for entry in sorted(drawn):
        size -= len(entry[3].encode())
        if size < 0:
            break
        chosen.append(entry)
    return [text for _, _, _, text in sorted(chosen, key=lambda entry: entry[1:3])]


def _sample(out: Path) -> Path:
    return out.with_name(f"{out.name}.sample.json")
