"""Checkpoints beside the disk itself and torch.save: bandwidth, and updates during a save.

    python -m benchmarks.checkpoint --sizes=12M --json=checkpoint.json
    python -m benchmarks.checkpoint --sizes=110M --rounds=4 --json=checkpoint_110M.json

The state is that of python -m train with AdamW at the sizes of benchmarks.train_step: parameters
and two moments in float32. Contenders take turns on one disk, in --folder:

- `disk` writes the same bytes to one file in blocks of 16 MB and fsync, and reads them back. Its
  speed is the peak that shares are of.
- `isoflop` saves with train.checkpoint until the checkpoint has its name (hashed, every file and
  folder on disk), and restores it with every byte verified against its SHA-256.
- `torch` is torch.save and fsync, and torch.load, of the same arrays, which verifies nothing. It is
  optional.

All read what the page cache was told to drop. Last, updates are timed without a save, and from the
call of `save` to the update after which the checkpoint is there. On a CPU the device is the host:
hashing and writing take cycles of the updates'. Costs 3 and 6 minutes on two cores.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.train_step import SIZES, configure

BLOCK = 2**24
ALONE = {"0.8M": 20, "12M": 4, "110M": 1}  # updates without a save in a burst


def _bytes(name: str) -> int:
    import model

    return 3 * 4 * model.counts(configure(name, "float32").model).parameters


def forget(folder: Path) -> None:
    """Have the page cache drop files that are on disk already."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(work: Callable[[], object]) -> float:
    """Seconds of a call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def disk(name: str, folder: Path) -> None:
    """Serve as the disk."""
    size, path = _bytes(name), folder / "raw"
    block, buffer = memoryview(np.random.default_rng(0).bytes(BLOCK)), bytearray(BLOCK)

    def write() -> None:
        with path.open("wb", buffering=0) as file:
            for at in range(0, size, BLOCK):
                file.write(block[: size - at])
            os.fsync(file.fileno())

    def read() -> None:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    def burst() -> dict[str, float]:
        path.unlink(missing_ok=True)
        wrote = timed(write)
        forget(folder)
        return {"save": wrote, "restore": timed(read)}

    harness.serve({"bytes": size}, burst)


def isoflop(name: str, folder: Path) -> None:
    """Serve as ours, in a directory of its own each time."""
    import jax

    from configs.schema import Checkpoints
    from parallel.mesh import make_mesh
    from train.checkpoint import Reader, open_checkpoints
    from train.state import abstract, create

    run = configure(name, "float32")
    mesh = make_mesh(run)
    state, wanted = create(run, mesh), abstract(run, mesh)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))

    def burst() -> dict[str, float]:
        here = folder / "checkpoints"
        shutil.rmtree(here, ignore_errors=True)
        with open_checkpoints(here, Checkpoints()) as checkpoints:
            began = time.perf_counter()
            checkpoints.save(1, state, {})
            checkpoints.wait()
            saved = time.perf_counter() - began
        forget(here)
        restored = timed(lambda: jax.block_until_ready(Reader(here).restore(wanted).state))
        return {"save": saved, "restore": restored}

    harness.serve({"bytes": size}, burst)


def pytorch(name: str, folder: Path) -> None:
    """Serve as the peer: as many bytes in about as many tensors."""
    import torch

    count = SIZES[name]["layers"] * 3 * 6  # a block's matrices, and their moments
    state = {str(i): torch.randn(_bytes(name) // 4 // count) for i in range(count)}

    def save() -> None:
        with (folder / "torch").open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())

    def burst() -> dict[str, float]:
        saved = timed(save)
        forget(folder)
        return {"save": saved, "restore": timed(lambda: torch.load(folder / "torch"))}

    harness.serve({"bytes": sum(tensor.nbytes for tensor in state.values())}, burst)


def updates(name: str, folder: Path) -> None:
    """Serve as updates: seconds of one alone, and of one while a save is under way."""
    import jax

    from configs.schema import Checkpoints
    from parallel.mesh import make_mesh, shard_batch
    from train.checkpoint import open_checkpoints
    from train.state import create
    from train.step import make_step

    run = configure(name, "float32")
    mesh = make_mesh(run)
    state, step = create(run, mesh), make_step(run, run.model.vocab - 1, mesh)
    shape = run.batch.size, run.model.context + 1
    batch = shard_batch(mesh, np.random.default_rng(0).integers(0, 65, shape, np.int32))
    done = 0

    def update() -> None:
        nonlocal state, done
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics)
        done += 1

    for _ in range(2):
        update()
    with open_checkpoints(folder / "checkpoints", Checkpoints(keep=1)) as checkpoints:

        def burst() -> dict[str, float]:
            alone = [timed(update) for _ in range(ALONE[name])]
            place, before = checkpoints.directory / str(done), done
            began = time.perf_counter()
            checkpoints.save(done, state, {})
            held = time.perf_counter() - began
            while not place.exists():
                update()
            seconds = time.perf_counter() - began
            found = {"alone": statistics.median(alone), "seconds": seconds / (done - before)}
            checkpoints.wait()
            return {**found, "updates": done - before, "held": held}

        harness.serve({}, burst)


WORKERS = {"disk": disk, "isoflop": isoflop, "torch": pytorch, "updates": updates}


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--sizes", default="12M")
    parser.add_argument("--peer_python", default=sys.executable, help="one that has PyTorch")
    parser.add_argument("--folder", help="on the disk to measure; unset: that of temporary files")
    for hidden in ("--worker", "--size"):
        parser.add_argument(hidden, help="for the processes it starts")
    options = parser.parse_args()
    if options.worker:
        return WORKERS[options.worker](options.size, Path(options.folder))
    results = {}
    for name in options.sizes.split(","):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            results[name] = measure(name, options, Path(folder))
    harness.write(options.json, results)
    return None


def measure(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One size, printed."""

    def commands(*workers: str) -> dict[str, tuple[list[str], dict[str, str]]]:
        found: dict[str, tuple[list[str], dict[str, str]]] = {}
        for worker in workers:
            (folder / worker).mkdir()
            python = options.peer_python if worker == "torch" else sys.executable
            here = [python, "-m", "benchmarks.checkpoint", f"--size={name}", f"--worker={worker}"]
            found[worker] = ([*here, f"--folder={folder / worker}"], {})
        return found

    stored = harness.alternate(commands("disk", "isoflop", "torch"), options.rounds)
    for contender, reason in stored["missing"].items():
        print(f"{name}: no {contender}: {reason}")
    rows = []
    for contender, facts in stored["facts"].items():
        rows.append([name, contender])
        for key in ("save", "restore"):
            speed = [facts["bytes"] / 1e6 / each[contender][key] for each in stored["rounds"]]
            ratio = harness.ratio(stored["rounds"], contender, "disk", key)
            rows[-1] += [str(harness.summary(speed)), str(ratio)]
    head = ["size", "contender", "save MB/s", "of the disk's", "restore MB/s", "of the disk's"]
    print(harness.table(head, rows))
    during = harness.alternate(commands("updates"), options.rounds)
    bursts = [each["updates"] for each in during["rounds"]]
    slower = harness.summary([each["seconds"] / each["alone"] for each in bursts])
    held = harness.summary([each["held"] for each in bursts])
    print(f"{name}: an update during a save takes {slower} times one alone; save() holds {held} s")
    for part in (stored, during):
        print(f"load {part['state']['load']:.1f}, steal {part['state']['steal']:.1%}")
    return {"stored": stored, "during": during, "slower": slower, "held": held}


if __name__ == "__main__":
    main()
