"""Tokenizing a shard of documents beside bare sentencepiece, on one core.

    python -m benchmarks.tokenize_shards [--model=FILE] [--megabytes=20]

Ours is the stage that builds a corpus: Parquet in, ids with their table out. The peer is
sentencepiece's EncodeAsNumpy on each text, which lies in memory. Both take turns; medians of CPU
seconds, so that other programs disturb less. The text is the Python standard library.
"""

import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sentencepiece
from absl import app, flags

from configs.corpus import Source
from data import sources, tokenizer
from data.stages import encode, shards
from data.stages.select import KEPT
from data.stages.unique import Selected

_MODEL = flags.DEFINE_string("model", None, "a sentencepiece model; unset: unigram of 8,192 ids")
_MEGABYTES = flags.DEFINE_integer("megabytes", 8, "of text")
_ROUNDS = flags.DEFINE_integer("rounds", 8, "of each")


def documents(size: int) -> list[sources.Document]:
    found = []
    for piece in sources.pieces(Source(kind="stdlib"), 10**9):
        for read in sources.read(piece, 10**9):
            if isinstance(read, sources.Document) and read.text and size > 0:
                found.append(read)
                size -= len(read.text)
    return found


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main(_: list[str]) -> None:
    found = documents(_MEGABYTES.value * 10**6)
    texts = [document.text for document in found]
    size = sum(len(text.encode()) for text in texts)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        known = (
            tokenizer.load(_MODEL.value)
            if _MODEL.value
            else tokenizer.train("unigram", 8192, (text[:20_000] for text in texts))
        )
        model = folder / known.file
        model.write_bytes(known.serialized)
        columns = {field: [getattr(d, field) for d in found] for field in shards.FIELDS}
        shards.save(folder / "0.parquet", columns)
        shards.save_array(folder / "0.npy", np.full(len(found), KEPT, np.int16))
        shard = Selected(0, folder / "0", folder / "0")
        split = encode.Split("documents", 0.01, 0)
        bare = sentencepiece.SentencePieceProcessor(model_proto=known.serialized)

        def ours() -> None:
            encode.encode_shard(shard, folder / "out", model, ("stdlib",), split)

        def peer() -> None:
            for text in texts:
                bare.EncodeAsNumpy(text)

        ours(), peer()
        rounds = [(cpu_seconds(ours), cpu_seconds(peer)) for _ in range(_ROUNDS.value)]
    one, other = (statistics.median(times) for times in zip(*rounds, strict=True))
    share = statistics.median(b / a for a, b in rounds)
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    print(f"{size / 1e6:.1f} MB: ours {size / one / 1e6:.2f} MB/s, ", end="")
    print(f"sentencepiece {size / other / 1e6:.2f} MB/s, ratio {share:.2f}")


if __name__ == "__main__":
    app.run(main)
