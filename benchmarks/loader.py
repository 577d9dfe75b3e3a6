"""Tokens per second of the loader, beside its peers, beside what steps take, and in a run's record.

    python -m benchmarks.loader --grain_python=VENV/bin/python --json=loader.json

Three tables, from one store of random ids in documents of log-normal length (mean about 830) that
lies in the page cache, so what a disk adds is not measured:

1. Ways to get batches of 32 windows of 2,048: ours (concat, bestfit, mixed by weight; fetched ahead
   by tf.data or by threads) beside nanoGPT's (random slices of a memory map as int64, stacked by
   PyTorch, inputs and targets, nothing ahead) and grain's (shuffled windows of a memory map,
   batched, read by threads). Peers are optional. Speeds are over that of the first peer found.
2. Supply and demand at the shape of each step: our batches beside the train steps of
   benchmarks.train_step on this CPU, measured in the same rounds, and beside a GPU's tokens/s,
   which is --gpu_tokens or, where not given, what --gpu_flops and an MFU of --gpu_mfu (strict
   counting) make of GPT-2's 124M parameters at a context of 1,024.
3. Idle time: the share of a run of python -m train (12M parameters, its updates after the first
   row) in which the loop waited for batches, by its own metrics.jsonl.

Costs about four minutes on two cores.
"""

import argparse
import importlib
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.train_step import SIZES

TOKENS = 50_000_000  # of the store
SHARDS = 10
WEIGHTS = (("0", 8.0), ("1", 4.0), ("2", 2.0), ("3", 1.0))  # of the sources
BURST = 6_000_000  # tokens at a time
SHAPE = "32x2048"  # windows in a batch, and their context
WAYS = ("concat", "bestfit", "mixed")
PEERS = ("nanogpt", "grain")
GPU, GPU_SHAPE = "GPU", "32x1024"


def make_store(path: Path) -> None:
    """A store of random bytes as tokens, in four sources."""
    import numpy as np

    from data import store, tokenizer

    known = tokenizer.utf8()
    random = np.random.default_rng(0)
    lengths = np.maximum(2, random.lognormal(6, 1.2, TOKENS // 829)).astype(np.int64)
    (path / known.file).write_bytes(known.serialized)
    shards = []
    for number, several in enumerate(np.array_split(lengths, SHARDS)):
        ends = np.cumsum(several)
        ids = random.integers(0, 256, ends[-1], dtype=store.dtype_for(known.vocab))
        ids[ends - 1] = known.eod
        file, (source, _) = f"train/{number:05d}", WEIGHTS[number * len(WEIGHTS) // SHARDS]
        shards.append(store.write_shard(path, file, "train", source, ids, ends, len(ids)))
    store.write_manifest(path, known, shards, {})


def ours(path: Path, way: str, rows: int, context: int) -> Iterator[Any]:
    """Batches without end, by "concat", "bestfit" or "mixed", and by "tf.data" or "threads"."""
    from configs.schema import Blend, Data
    from data import loader, store

    mode, ahead = way.split(",")
    built = store.open_store(path)
    if mode == "mixed":
        data = Data(path=str(path), mixture=(Blend(weights=WEIGHTS),))
        draw = loader.Mixture(built, data, (0,), context, seed=0).batch
    else:
        draw = loader.Windows(built, loader.TRAIN, context, mode).batch
    threads = ahead == "threads"
    return loader.prefetch(lambda step: draw(step * rows, rows), 0, 10**9, threads)


def nanogpt(path: Path, rows: int, context: int) -> Iterator[Any]:
    """Slices of a memory map that is opened anew for each batch, at random places."""
    import numpy as np
    import torch

    while True:
        ids = np.memmap(path / "train/00000.tok", np.uint16, mode="r")
        starts = torch.randint(len(ids) - context, (rows,)).tolist()
        yield tuple(
            torch.stack([torch.from_numpy(ids[i : i + context].astype(np.int64)) for i in firsts])
            for firsts in (starts, [start + 1 for start in starts])
        )


def grain(path: Path, rows: int, context: int) -> Iterator[Any]:
    """Windows of the same files through grain's shuffle, batch and threads that read ahead."""
    import numpy as np

    library = importlib.import_module("grain")  # by name: type checkers may not find it

    class Source:
        def __init__(self) -> None:
            files = sorted((path / "train").glob("*.tok"))
            self.parts = [np.memmap(file, np.uint16, mode="r") for file in files]
            self.count = min(len(part) for part in self.parts) // context - 1

        def __len__(self) -> int:
            return len(self.parts) * self.count

        def __getitem__(self, index: int) -> np.ndarray:
            part, window = divmod(index, self.count)
            at = window * context
            return self.parts[part][at : at + context + 1].astype(np.int32)

    windows = library.MapDataset.source(Source()).shuffle(seed=0).repeat().batch(rows)
    options = library.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    return iter(windows.to_iter_dataset(options))


def serve(path: Path, way: str, shape: str) -> None:
    """Serve as one way to get batches: seconds a token over a burst."""
    rows, context = map(int, shape.split("x"))
    make: Any = {"nanogpt": nanogpt, "grain": grain}.get(way) or partial(ours, way=way)
    batches = make(path, rows=rows, context=context)
    count = max(8, BURST // (rows * context))
    next(batches)

    def burst() -> dict[str, float]:
        began = time.perf_counter()
        for _ in itertools.islice(batches, count):
            pass
        return {"seconds": (time.perf_counter() - began) / (count * rows * context)}

    harness.serve({"shape": shape}, burst)


def run(path: Path, workdir: Path, updates: int) -> None:
    """Train the 12M model of benchmarks.train_step on the store, with a checkpoint at the end."""
    from configs.schema import Batch, Config, Data, Model, Optimizer
    from data.store import open_store
    from train.loop import train

    size = SIZES["12M"]
    shape = {key: size[key] for key in ("context", "layers", "width", "heads")}
    config = Config(
        model=Model(vocab=open_store(path).vocab, **shape, bias=False),  # type: ignore[arg-type]
        data=Data(path=str(path)),
        batch=Batch(size=size["batch"]),
        optimizer=Optimizer(learning_rate=1e-4),
        steps=updates,
        log_every=1,
    )
    train(config, workdir)


def idle(path: Path, updates: int) -> dict[str, float]:
    """Shares of a run's time, and seconds, that its record says it waited."""
    from train.metrics import read_rows
    from train.record import METRICS

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.loader", "--worker=run", f"--store={path}"]
        command += [f"--workdir={folder}", f"--updates={updates}"]
        subprocess.run(command, cwd=harness.ROOT, check=True, stdout=subprocess.DEVNULL)
        first, *rows = [row for row in read_rows(Path(folder) / METRICS) if row["kind"] == "train"]
    seconds = rows[-1]["seconds"] - first["seconds"]
    waited = sum(row["data_seconds"] for row in rows)
    return {"updates": len(rows), "seconds": seconds, "waited": waited, "share": waited / seconds}


def gpu_tokens(options: argparse.Namespace) -> float:
    """Tokens/s that a GPU takes: as given, or computed for GPT-2's 124M."""
    import model
    from configs.schema import Model

    if options.gpu_tokens:
        return float(options.gpu_tokens)
    gpt2 = Model(vocab=50304, context=1024, layers=12, width=768, heads=12)
    return options.gpu_mfu * options.gpu_flops / model.counts(gpt2).flops_per_token("strict")


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--peer_python", default=sys.executable, help="one that has PyTorch")
    parser.add_argument("--grain_python", default=sys.executable, help="one that has grain")
    parser.add_argument("--steps", default="0.8M,12M", help="sizes of benchmarks.train_step")
    parser.add_argument("--gpu_tokens", type=float, help="tokens/s a GPU was measured to take")
    parser.add_argument("--gpu_flops", type=float, default=989e12, help="H200, dense bfloat16")
    parser.add_argument("--gpu_mfu", type=float, default=0.5)
    parser.add_argument("--updates", type=int, default=40, help="of the run whose record is read")
    for hidden in ("--worker", "--shape", "--store", "--workdir"):
        parser.add_argument(hidden, help="for the processes it starts")
    options = parser.parse_args()
    if options.worker == "run":
        return run(Path(options.store), Path(options.workdir), options.updates)
    if options.worker:
        return serve(Path(options.store), options.worker, options.shape)
    with tempfile.TemporaryDirectory() as folder:
        make_store(Path(folder))
        results = measure(options, Path(folder))
    harness.write(options.json, results)
    return None


def measure(options: argparse.Namespace, path: Path) -> dict[str, Any]:
    """All three, printed."""
    here = ["-m", "benchmarks.loader", f"--store={path}"]

    def command(way: str, shape: str, python: str = sys.executable) -> tuple[list[str], dict]:
        return [python, *here, f"--worker={way}", f"--shape={shape}"], {}

    pythons = dict(zip(PEERS, (options.peer_python, options.grain_python), strict=True))
    ways = {peer: command(peer, SHAPE, python) for peer, python in pythons.items()}
    for mode, ahead in itertools.product(WAYS, ("tf.data", "threads")):
        ways[f"{mode}, {ahead}"] = command(f"{mode},{ahead}", SHAPE)
    compared = harness.alternate(ways, options.rounds)
    for name, reason in compared["missing"].items():
        print(f"no {name}: {reason}")
    rows, first = [], next(iter(compared["facts"]))
    for name in compared["facts"]:
        speed = harness.summary([1e-6 / each[name]["seconds"] for each in compared["rounds"]])
        rows.append([name, str(speed), str(harness.ratio(compared["rounds"], name, first))])
    print(harness.table([f"batches of {SHAPE}", "M tokens/s", f"speed against {first}"], rows))

    sizes = {name: SIZES[name] for name in options.steps.split(",")}
    shapes = {name: f"{size['batch']}x{size['context']}" for name, size in sizes.items()}
    step = [sys.executable, "-m", "benchmarks.train_step", "--worker=isoflop", "--dtype=float32"]
    both: dict[str, Any] = {f"step {name}": ([*step, f"--size={name}"], {}) for name in sizes}
    for name, shape in {**shapes, GPU: GPU_SHAPE}.items():
        # As python -m train fetches ahead: by threads on a CPU.
        both[f"loader {name}"] = command(f"concat,{'tf.data' if name == GPU else 'threads'}", shape)
    found = harness.alternate(both, options.rounds)
    demand = {name: size["batch"] * size["context"] for name, size in sizes.items()}
    factors, rows = {}, []
    for name in [*sizes, GPU]:
        needs = [
            demand[name] / each[f"step {name}"]["seconds"] if name in sizes else gpu_tokens(options)
            for each in found["rounds"]
        ]
        gives = [1 / each[f"loader {name}"]["seconds"] for each in found["rounds"]]
        factors[name] = harness.summary([a / b for a, b in zip(gives, needs, strict=True)])
        middle = [f"{harness.summary(values).median:,.0f}" for values in (needs, gives)]
        rows.append([name, shapes.get(name, GPU_SHAPE), *middle, str(factors[name])])
    print(harness.table(["step", "batch", "takes tokens/s", "loader gives", "times"], rows))
    waited = idle(path, options.updates)
    print(f"a run of the 12M model waited for batches {waited['share']:.2%} of its time")
    for part in (compared, found):
        print(f"load {part['state']['load']:.1f}, steal {part['state']['steal']:.1%}")
    return {"ways": compared, "demand": found, "factors": factors, "idle": waited}


if __name__ == "__main__":
    main()
