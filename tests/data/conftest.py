"""Small token stores, and hypothesis without a clock."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from data import store, tokenizer

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


@pytest.fixture
def make_store(tmp_path):
    """A function from document lengths by (split, source) to a store of random bytes."""

    def make(lengths, shard_tokens=50, path: Path = tmp_path / "store") -> store.Store:
        known = tokenizer.utf8()
        random = np.random.default_rng(0)
        shards: list[store.Shard] = []
        for split in store.SPLITS:
            (path / split).mkdir(parents=True)
            with store.Writer(path, split, store.dtype_for(known.vocab), shard_tokens) as writer:
                for (where, source), several in lengths.items():
                    for length in several if where == split else []:
                        ids = random.integers(0, 256, length)
                        ids[-1] = known.eod
                        writer.add(source, ids, length - 1)
            shards += writer.shards
        (path / known.file).write_bytes(known.serialized)
        store.write_manifest(path, known, shards, {})
        return store.open_store(path)

    return make
