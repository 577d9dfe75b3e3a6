"""Small token stores, and hypothesis without a clock."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from data import store, tokenizer

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """tmp_path stands in for gs://bucket, below all that etils does with paths."""
    from etils import epath

    local: Any = type(epath.backend.os_backend)

    def there(path):
        return str(path).replace("gs://bucket", str(tmp_path))

    def through(name):
        def call(self, *paths, **options):
            return getattr(local, name)(self, *map(there, paths), **options)

        return call

    names = ["open", "exists", "isdir", "stat", "makedirs", "mkdir", "remove", "rmtree"]
    names += ["replace", "rename", "listdir"]
    methods = {name: through(name) for name in names if hasattr(local, name)}

    def glob(self, path):
        found = local.glob(self, there(path))
        return [each.replace(str(tmp_path), "gs://bucket") for each in found]

    folder = type("Folder", (local,), methods | {"glob": glob})
    monkeypatch.setattr(epath.gpath._GPath, "_backend", property(lambda self: folder()))


@pytest.fixture
def make_store(tmp_path):
    """A function from document lengths by (split, source) to a store of random bytes."""

    def make(lengths, shard_tokens=50, path: Path = tmp_path / "store") -> store.Store:
        known = tokenizer.utf8()
        random = np.random.default_rng(0)
        shards: list[store.Shard] = []
        for split in store.SPLITS:
            (path / split).mkdir(parents=True)
            several = [(s, n) for (where, s), ns in lengths.items() if where == split for n in ns]
            for number, (source, sizes) in enumerate(_together(several, shard_tokens)):
                ids = random.integers(0, 256, sum(sizes)).astype(store.dtype_for(known.vocab))
                ends = np.cumsum(sizes)
                ids[ends - 1] = known.eod
                text_bytes = len(ids) - len(ends)
                file = f"{split}/{number:05d}"
                shards.append(store.write_shard(path, file, split, source, ids, ends, text_bytes))
        (path / known.file).write_bytes(known.serialized)
        store.write_manifest(path, known, shards, {})
        return store.open_store(path)

    return make


def _together(several, shard_tokens):
    """(source, lengths) of the documents of each shard."""
    shards: list[tuple[str, list[int]]] = []
    for source, length in several:
        if not shards or shards[-1][0] != source or sum(shards[-1][1]) + length > shard_tokens:
            shards.append((source, []))
        shards[-1][1].append(length)
    return shards
