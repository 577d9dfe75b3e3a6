"""The second reading of a corpus: documents to the ids of the token store, in worker processes.

Which worker encoded what leaves no trace: results are written in the order of the documents.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from configs.schema import Corpus, InputError
from data import store, tokenizer
from data.progress import Progress
from data.survey import Part, Survey, documents, parts

_BATCH = 1_000_000  # characters a worker gets at once
_SMALL = 4_000_000  # bytes: less is encoded before worker processes have started

Encoded = list[tuple[np.ndarray, int]]  # of each part: its ids, and the bytes of its text


def encode(
    corpus: Corpus, split: str, seen: Survey, known: tokenizer.Tokenizer, out: Path, workers: int
) -> list[store.Shard]:
    """Write both splits into `out`, where the file of the tokenizer lies already."""
    dtype = store.dtype_for(known.vocab)
    progress = Progress("encoding", seen.text_bytes)
    batches = _batches(part for text in documents(corpus) for part in parts(corpus, split, text))
    work = partial(_encode, out / known.file, known.fingerprint)
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(store.Writer(out, name, dtype, corpus.shard_tokens))
            for name in store.SPLITS
        }
        for batch, encoded in _map(work, batches, workers if seen.text_bytes > _SMALL else 1):
            for part, (ids, text_bytes) in zip(batch, encoded, strict=True):
                writers[part.split].add(part.source, ids, text_bytes)
            progress.add(sum(text_bytes for _, text_bytes in encoded))
    return [shard for writer in writers.values() for shard in writer.shards]


def _batches(several: Iterable[Part]) -> Iterator[list[Part]]:
    """Parts together, until they have _BATCH characters."""
    batch: list[Part] = []
    size = 0
    for part in several:
        batch.append(part)
        size += len(part.text)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _encode(file: Path, fingerprint: str, batch: list[Part]) -> Encoded:
    """The ids of every part, closed by the end-of-document id."""
    known = _load(file, fingerprint)
    dtype = store.dtype_for(known.vocab)
    return [
        (np.append(known.encode(part.text), known.eod).astype(dtype), len(part.text.encode()))
        for part in batch
    ]


@lru_cache(maxsize=1)
def _load(file: Path, fingerprint: str) -> tokenizer.Tokenizer:
    """Once per process; the fingerprint tells apart what lies in one place at different times."""
    return tokenizer.load(file)


def _map(
    work: Callable[[list[Part]], Encoded], batches: Iterable[list[Part]], workers: int
) -> Iterator[tuple[list[Part], Encoded]]:
    """Every batch with its result, in order; only a few are in memory at any time."""
    if workers == 1:
        yield from ((batch, work(batch)) for batch in batches)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of live threads
    pool = ProcessPoolExecutor(workers, context, initializer=_live_and_die_with_the_parent)
    waiting: deque[tuple[list[Part], Future[Encoded]]] = deque()
    try:
        for batch in batches:
            waiting.append((batch, pool.submit(work, batch)))
            if len(waiting) > 2 * workers:
                done, future = waiting.popleft()
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "a worker process was killed, most likely for want of memory: use fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _live_and_die_with_the_parent() -> None:
    """Leave Ctrl-C to the parent, and end when it has ended, however that came about."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
