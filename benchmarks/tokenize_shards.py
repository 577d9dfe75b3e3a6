"""Megabytes of text per second of tokenizing shards, beside bare sentencepiece, on all cores.

    python -m benchmarks.tokenize_shards --json=tokenize.json [--model=FILE] [--megabytes=12]

Ours is the stage that builds a corpus (data/stages/encode.py): Parquet in, ids with their table
out. The peer is sentencepiece's EncodeAsNumpy on each text, which lies in memory, and keeps
nothing: what remains is the price of reading, splitting and writing. Both run as one process, and
as one for each core, a shard for each. The text is the Python standard library, and the tokenizer
a unigram model of 8,192 ids trained on it, unless --model is given. Costs about two minutes.
"""

import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

from benchmarks import harness
from configs.corpus import Source
from data import sources, tokenizer
from data.stages import encode, shards
from data.stages.select import KEPT
from data.stages.unique import Selected

PEER = "sentencepiece"
SPLIT = encode.Split("documents", 0.01, 0)
_bare: list[Any] = []  # the peer, in a process that encodes with it


def documents(size: int) -> list[sources.Document]:
    """Files of the standard library, of so many characters together."""
    found = []
    for piece in sources.pieces(Source(kind="stdlib"), 10**9):
        for read in sources.read(piece, 10**9):
            if isinstance(read, sources.Document) and read.text and size > 0:
                found.append(read)
                size -= len(read.text)
    return found


def prepare(folder: Path, megabytes: int, model: str | None, count: int) -> int:
    """Write a tokenizer and so many shards of about equal size; returns the bytes of text."""
    found = documents(megabytes * 10**6)
    texts = [document.text for document in found]
    known = (
        tokenizer.load(Path(model))
        if model
        else tokenizer.train("unigram", 8192, (text[:20_000] for text in texts))
    )
    (folder / known.file).write_bytes(known.serialized)
    places = np.cumsum([len(text) for text in texts])
    numbers = np.minimum(count - 1, places * count // (places[-1] + 1))
    for number in range(count):
        part = [found[index] for index in np.flatnonzero(numbers == number)]
        columns = {field: [getattr(d, field) for d in part] for field in shards.FIELDS}
        shards.save(folder / f"{number}.parquet", columns)
        shards.save_array(folder / f"{number}.npy", np.full(len(part), KEPT, np.int16))
    return sum(len(text.encode()) for text in texts)


def encode_ours(folder: Path, number: int) -> float:
    """Encode a shard; the seconds it took."""
    place = folder / str(number)
    began = time.perf_counter()
    shard, out = Selected(number, place, place), folder / f"{number}.out"
    encode.encode_shard(shard, out, model_file(folder), ("stdlib",), SPLIT)
    return time.perf_counter() - began


def encode_bare(folder: Path, number: int) -> float:
    """The same texts by sentencepiece alone; reading them is not counted."""
    if not _bare:
        import sentencepiece

        proto = model_file(folder).read_bytes()
        _bare.append(sentencepiece.SentencePieceProcessor(model_proto=proto))
    texts = shards.load(folder / f"{number}.parquet", ("text",))["text"]
    began = time.perf_counter()
    for text in texts:
        _bare[0].EncodeAsNumpy(text)
    return time.perf_counter() - began


def model_file(folder: Path) -> Path:
    """The tokenizer's file."""
    return next(folder.glob("tokenizer.*"))


def end_with_parent() -> None:
    """Let a process of a pool end when the one that made it is killed, as a contender is."""

    def wait() -> None:
        parent = parent_process()
        assert parent
        parent.join()
        os._exit(0)

    Thread(target=wait, daemon=True).start()


def serve(worker: str, folder: Path, processes: int) -> None:
    """Serve as one contender: seconds until the last of its processes is done."""
    work = encode_bare if worker == PEER else encode_ours
    with ProcessPoolExecutor(processes, get_context("spawn"), end_with_parent) as pool:

        def burst() -> dict[str, float]:
            tasks = [pool.submit(work, folder, number) for number in range(processes)]
            return {"seconds": max(task.result() for task in tasks)}

        burst()
        harness.serve({"processes": processes}, burst)


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--model", help="a sentencepiece model; unset: unigram of 8,192 ids")
    parser.add_argument("--megabytes", type=int, default=12, help="of text a core")
    for hidden in ("--worker", "--folder", "--processes"):
        parser.add_argument(hidden, help="for the processes it starts")
    options = parser.parse_args()
    if options.worker:
        return serve(options.worker, Path(options.folder), int(options.processes))
    results, rows = {}, []
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as name:
        for processes in sorted({1, cores}):
            folder = Path(name) / str(processes)
            folder.mkdir()
            size = prepare(folder, options.megabytes * processes, options.model, processes)
            found = harness.alternate(commands(folder, processes), options.rounds)
            results[str(processes)] = {"bytes": size, **found}
            for contender in found["facts"]:
                speed = [size / 1e6 / each[contender]["seconds"] for each in found["rounds"]]
                ratio = harness.ratio(found["rounds"], contender, PEER)
                rows.append([str(processes), contender, str(harness.summary(speed)), str(ratio)])
            state = found["state"]
            print(f"{processes}: load {state['load']:.1f}, steal {state['steal']:.1%}")
    print(harness.table(["processes", "encoder", "MB/s", f"speed against {PEER}"], rows))
    harness.write(options.json, results)
    return None


def commands(folder: Path, processes: int) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Both contenders."""
    here = [sys.executable, "-m", "benchmarks.tokenize_shards", f"--folder={folder}"]
    here.append(f"--processes={processes}")
    quiet = {"PYTHONWARNINGS": "ignore:resource_tracker"}  # which is killed with its contender
    return {name: ([*here, f"--worker={name}"], quiet) for name in (PEER, "isoflop")}


if __name__ == "__main__":
    main()
