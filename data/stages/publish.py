"""What is left of the documents -> Parquet files beside the token store, for people and TFDS."""

from pathlib import Path
from typing import Any

from data.stages import shards
from data.stages.encode import Split, parts
from data.stages.unique import Selected

FOLDER = "documents"
COLUMNS = (*shards.FIELDS, "split")


def publish_shard(shard: Selected, out: Path, folder: Path, split: Split) -> dict[str, Any]:
    """Write the parts of a shard's documents, each with its split, to FOLDER/00000.parquet.

    Stretches of ids that were cut out of the store as repeats are still in the text.
    """
    columns = shards.load(shards.path(shard.cleaned))
    rows: dict[str, list[str]] = {name: [] for name in COLUMNS}
    for row in shard.rows().tolist():
        document = {field: columns[field][row] for field in shards.FIELDS}
        for name, part in parts(split, document["id"], document["text"]).items():
            for field, value in (document | {"text": part, "split": name}).items():
                rows[field].append(value)
    shards.save(shards.path(folder / FOLDER / out.name), rows)
    return {"parts": len(rows["id"])}
