"""Speed of the data side on this machine: loader, packing and shuffled order, beside peers.

    python -m benchmarks.loader --json=loader.json

Made up are a store of random ids in documents of log-normal length (mean about 830 tokens), in four
sources, and windows of 2048 tokens in batches of 32, of all sources as one stream or mixed by
weight. Peers, measured in turn with ours in the same process: nanoGPT's get_batch (random slices of
a memmap, converted to int64 and stacked, here in NumPy) and TensorFlow's index_shuffle. The median
of --rounds is printed. The ids lie in the page cache: what a disk adds is not measured.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Literal

import numpy as np

from configs.schema import Blend, Data
from data import loader, order, packing, store, tokenizer
from data.lazy_tensorflow import tensorflow

CONTEXT, ROWS = 2048, 32
TOKENS = 50_000_000
BATCHES = 300
SHARDS = 10
DOCUMENTS = 1_000_000
INDICES = 2**20
WEIGHTS = (("0", 8.0), ("1", 4.0), ("2", 2.0), ("3", 1.0))  # of the sources


def lengths(tokens: int) -> np.ndarray:
    """Lengths of documents with about so many tokens in all."""
    random = np.random.default_rng(0)
    return np.maximum(2, random.lognormal(6, 1.2, tokens // 829)).astype(np.int64)


def make_store(path: Path) -> store.Store:
    known = tokenizer.utf8()
    random = np.random.default_rng(0)
    (path / known.file).write_bytes(known.serialized)
    dtype = store.dtype_for(known.vocab)
    shards = []
    for number, several in enumerate(np.array_split(lengths(TOKENS), SHARDS)):
        ends = np.cumsum(several)
        ids = random.integers(0, 256, ends[-1], dtype=dtype)
        ids[ends - 1] = known.eod
        file = f"train/{number:05d}"
        text_bytes = len(ids) - len(ends)
        source, _ = WEIGHTS[number * len(WEIGHTS) // SHARDS]
        shards.append(store.write_shard(path, file, "train", source, ids, ends, text_bytes))
    store.write_manifest(path, known, shards, {})
    return store.open_store(path)


def per_second(amount: int, work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return amount / (time.perf_counter() - start)


def loaders(built: store.Store) -> dict[str, Callable[[], float]]:
    """Tokens per second of each way to get batches, start-up not counted."""
    tokens = BATCHES * ROWS * CONTEXT
    drained = count()

    def drain(fetch: Callable[[int], np.ndarray], prefetch: Callable) -> float:
        first = next(drained) * (BATCHES + 2)  # on from there: what is kept is of no use anew
        batches = prefetch(fetch, first, first + BATCHES + 2)
        next(batches)
        return per_second(tokens, lambda: sum(1 for _ in islice(batches, BATCHES)))

    def fetch(draw: Callable[[int, int], np.ndarray], step: int) -> np.ndarray:
        return draw(step * ROWS, ROWS)

    ways: dict[str, Callable[[], float]] = {}
    modes: tuple[Literal["concat", "bestfit"], ...] = ("concat", "bestfit")
    for mode in modes:
        data = Data(path=str(built.path), packing=mode, mixture=(Blend(weights=WEIGHTS),))
        one = loader.Windows(built, "train", CONTEXT, mode).batch
        mixed = loader.Mixture(built, data, (0,), CONTEXT, seed=0).batch
        for name, draw in ((mode, one), (f"{mode} mixed", mixed)):
            by_step = partial(fetch, draw)
            ways[f"{name}, tf.data"] = partial(drain, by_step, loader.prefetch)
            ways[f"{name}, threads"] = partial(drain, by_step, loader._prefetch_by_threads)
    ids = np.memmap(built.path / "train/00000.tok", built.dtype, mode="r")
    random = np.random.default_rng(0)

    def get_batch() -> tuple[np.ndarray, np.ndarray]:
        starts = random.integers(len(ids) - CONTEXT, size=ROWS)
        inputs = np.stack([ids[i : i + CONTEXT].astype(np.int64) for i in starts])
        return inputs, np.stack([ids[i + 1 : i + 1 + CONTEXT].astype(np.int64) for i in starts])

    def get_batches() -> None:
        for _ in range(BATCHES):
            get_batch()

    ways["peer: nanoGPT's get_batch"] = lambda: per_second(tokens, get_batches)
    return ways


def packers() -> dict[str, Callable[[], float]]:
    ends = np.cumsum(lengths(829 * DOCUMENTS))
    return {
        "best-fit plan": lambda: per_second(
            len(ends), lambda: packing.bestfit(ends, CONTEXT, seed=0)
        )
    }


def orders() -> dict[str, Callable[[], float]]:
    tf = tensorflow()
    indices = np.arange(INDICES)
    key = order.key(0, "train", 0)

    @tf.function
    def index_shuffle(tensor):  # type: ignore[no-untyped-def]
        return tf.random.experimental.index_shuffle(tensor, seed=[1, 2], max_index=INDICES - 1)

    tensor = tf.constant(indices)
    index_shuffle(tensor)
    return {
        "permutation": lambda: per_second(INDICES, lambda: order.permute(indices, INDICES, key)),
        "peer: tf index_shuffle": lambda: per_second(
            INDICES, lambda: index_shuffle(tensor).numpy()
        ),
    }


def measure(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of each over rounds in which they take turns, after one that does not count."""
    found = [{name: way() for name, way in ways.items()} for _ in range(rounds + 1)][1:]
    return {name: statistics.median(row[name] for row in found) for name in ways}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        built = make_store(Path(folder))
        ways = {
            "tokens/s": loaders(built),
            "documents/s": packers(),
            "indices/s": orders(),
        }
        results = {unit: measure(group, arguments.rounds) for unit, group in ways.items()}
    sizes = lengths(829 * DOCUMENTS)
    plan = packing.bestfit(np.cumsum(sizes), CONTEXT, seed=0)
    fill = float(sizes.sum() / (plan.count * CONTEXT))
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    print(f"{machine}, Python {platform.python_version()}, NumPy {np.__version__}")
    for unit, group in results.items():
        for name, value in group.items():
            print(f"{name:28} {value / 1e6:10.2f} M {unit}")
    print(f"{'best-fit windows':28} {fill:10.4%} full")
    if arguments.json:
        record = {"machine": machine, "date": time.strftime("%Y-%m-%d"), "fill": fill, **results}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
