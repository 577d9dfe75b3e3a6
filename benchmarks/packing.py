"""Documents per second and share filled of packing into windows of 2,048, beside other packers.

    python -m benchmarks.packing --grain_python=VENV/bin/python --json=packing.json

Lengths are log-normal: "web" with a mean of about 830 tokens, "short" of 150, "long" of 3,100. All
contenders get the same documents, as many as each gets through in about a second.

- `plan` is ours: best-fit decreasing (data/packing.py), planned for all documents at once.
- `plan, windows` also lays the tokens of every window into a batch (data/loader.py).
- `one by one` is the same rule one document at a time, as trainers implement it that keep the
  room of each bin: the bins are as many as ours.
- `next fit` opens a new window where a document does not fit; nothing is ahead.
- grain's first and best fit, with 64 open bins, on tokens as they come. Optional.

What is longer than a window is cut at multiples of it first, for all. Speeds are over that of
`one by one`; only `plan, windows` and grain hand out tokens, the others say where they go. Costs
about three minutes on two cores.
"""

import argparse
import importlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness

CONTEXT = 2048
LENGTHS = {"web": (6.0, 1.2), "short": (4.5, 1.0), "long": (7.0, 1.45)}  # of the logarithm
BINS = 64  # grain's
FIRST = "one by one"
DOCUMENTS = {"plan": 1_000_000, "plan, windows": 100_000, FIRST: 200_000, "next fit": 500_000}
GRAIN = {"grain first fit": "FirstFit", "grain best fit": "BestFit"}
GRAIN_DOCUMENTS = 4_000


def documents(name: str, count: int) -> np.ndarray:
    """Lengths of so many documents, their end-of-document ids included."""
    random = np.random.default_rng(0)
    return np.maximum(2, random.lognormal(*LENGTHS[name], count)).astype(np.int64)


def cut(lengths: np.ndarray) -> list[int]:
    """Pieces of at most a window, in the order of the documents."""
    pieces: list[int] = []
    for length in lengths.tolist():
        pieces += [CONTEXT] * (length // CONTEXT)
        pieces += [length % CONTEXT] * (length % CONTEXT > 0)
    return pieces


def plan(name: str, count: int) -> tuple[Callable[[], int], int]:
    """Ours: what to do in a burst, which returns the windows made, and the tokens there are."""
    from data import packing

    ends = np.cumsum(documents(name, count))
    return lambda: packing.bestfit(ends, CONTEXT, seed=0).count, int(ends[-1])


def lay_out(name: str, count: int) -> tuple[Callable[[], int], int]:
    """Ours, down to batches of 32 windows of tokens."""
    from data import loader, store, tokenizer

    known = tokenizer.utf8()
    ends = np.cumsum(documents(name, count))
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name)
    (path / known.file).write_bytes(known.serialized)
    ids = np.full(ends[-1], 65, store.dtype_for(known.vocab))
    ids[ends - 1] = known.eod
    shard = store.write_shard(path, "train/0", "train", "made up", ids, ends, len(ids) - len(ends))
    store.write_manifest(path, known, [shard], {})
    built = store.open_store(path)

    def work() -> int:
        windows = loader.Windows(built, loader.TRAIN, CONTEXT, "bestfit")
        for first in range(0, windows.count, 32):
            windows.batch(first, min(32, windows.count - first))
        return windows.count

    work.kept = folder  # type: ignore[attr-defined]
    return work, int(ends[-1])


def one_by_one(name: str, count: int) -> tuple[Callable[[], int], int]:
    """Best-fit decreasing: bins by room, and a number whose bits say which rooms there are."""
    lengths = documents(name, count)

    def work() -> int:
        rooms: dict[int, list[list[int]]] = {}
        bits, windows = 0, 0
        for index, length in sorted(enumerate(cut(lengths)), key=lambda item: -item[1]):
            fitting = bits >> length
            if fitting:
                room = length + (fitting & -fitting).bit_length() - 1
                window = rooms[room].pop()
                bits ^= 0 if rooms[room] else 1 << room
            else:
                room, window, windows = CONTEXT, [], windows + 1
            window.append(index)
            rooms.setdefault(room - length, []).append(window)
            bits |= 1 << (room - length) if room > length else 0
        return windows

    return work, int(lengths.sum())


def next_fit(name: str, count: int) -> tuple[Callable[[], int], int]:
    """A window is closed by the first piece that does not fit."""
    lengths = documents(name, count)

    def work() -> int:
        windows: list[list[int]] = [[]]
        room = CONTEXT
        for index, length in enumerate(cut(lengths)):
            if length > room:
                windows.append([])
                room = CONTEXT
            windows[-1].append(index)
            room -= length
        return len(windows)

    return work, int(lengths.sum())


def grain(kind: str, name: str, count: int) -> tuple[Callable[[], int], int]:
    """Grain's packing of tokens that lie in memory."""
    library = importlib.import_module("grain")  # by name: type checkers may not find it
    lengths = documents(name, count)
    pieces = [{"tokens": np.zeros(length, np.int32)} for length in cut(lengths)]

    def work() -> int:
        source = library.MapDataset.source(pieces).to_iter_dataset(
            library.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        )
        packer = getattr(library.experimental, f"{kind}PackIterDataset")
        packed = packer(source, length_struct={"tokens": CONTEXT}, num_packing_bins=BINS)
        return sum(1 for _ in packed)

    return work, int(lengths.sum())


def serve(worker: str, name: str) -> None:
    """Serve as one packer."""
    if worker in GRAIN:
        count = GRAIN_DOCUMENTS
        work, tokens = grain(GRAIN[worker], name, count)
    else:
        makers = dict(zip(DOCUMENTS, (plan, lay_out, one_by_one, next_fit), strict=True))
        count = DOCUMENTS[worker]
        work, tokens = makers[worker](name, count)
    fill = tokens / (work() * CONTEXT)

    def burst() -> dict[str, float]:
        began = time.perf_counter()
        work()
        return {"seconds": (time.perf_counter() - began) / count}

    longer = float((documents(name, count) > CONTEXT).mean())
    harness.serve({"fill": fill, "documents": count, "longer": longer}, burst)


def contenders(name: str, options: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """Commands by name."""
    here = ["-m", "benchmarks.packing", f"--lengths={name}"]
    for worker in [FIRST, *(other for other in DOCUMENTS if other != FIRST), *GRAIN]:
        python = options.grain_python if worker in GRAIN else sys.executable
        yield worker, ([python, *here, f"--worker={worker}"], {})


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--lengths", default=",".join(LENGTHS), help="which distributions")
    parser.add_argument("--grain_python", default=sys.executable, help="one that has grain")
    parser.add_argument("--worker", help="for the processes it starts")
    options = parser.parse_args()
    if options.worker:
        return serve(options.worker, options.lengths)
    results, rows = {}, []
    for name in options.lengths.split(","):
        found = harness.alternate(dict(contenders(name, options)), options.rounds)
        results[name] = found
        for contender, reason in found["missing"].items():
            print(f"{name}: no {contender}: {reason}")
        for contender, facts in found["facts"].items():
            speed = [1e-3 / each[contender]["seconds"] for each in found["rounds"]]
            ratio = harness.ratio(found["rounds"], contender, FIRST)
            rows.append([name, contender, str(harness.summary(speed)), str(ratio)])
            rows[-1].append(f"{facts['fill']:.4%}")
        longer = found["facts"][FIRST]["longer"]
        print(f"{name}: {longer:.1%} of documents are longer than a window; ", end="")
        print(f"load {found['state']['load']:.1f}, steal {found['state']['steal']:.1%}")
    head = ["lengths", "packer", "thousand documents/s", f"speed against {FIRST}", "filled"]
    print(harness.table(head, rows))
    harness.write(options.json, results)
    return None


if __name__ == "__main__":
    main()
