"""Batches of windows: which windows make a batch is a pure function of (seed, step).

Windows are numbered over the whole run: number w is window `permutation(w mod count)` of epoch
`w // count`, with another permutation in each epoch. Batch k takes the next `batch.size_at(k)`
numbers, and every host its own rows of it; so a run resumes at any step at once, and the same
batches come for any number of hosts. Where sources are mixed, data/mixture.py says which source a
sample comes from, and each source numbers its own windows. Around that function, tf.data fetches
ahead.

Legend: b rows of a batch, t positions in a window (context + 1), -1 where there is no token.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np

from configs.schema import Batch, Blend, Config, Data, require
from data import mixture, order, packing
from data.lazy_tensorflow import tensorflow
from data.store import Store

PARALLEL_FETCHES = 2
AHEAD = 2  # batches kept ready
TRAIN = "train"  # the split
CHUNK = 2**11  # samples that are looked up at once
CHUNKS_KEPT = 8  # of at most 300 kB: fetches under way may lie on edges, and batches be that large
SYNTHETIC_EOD = 0  # the id that closes documents where the store is synthetic


class Windows:
    """The windows of one split in their order of training, and as they lie in the store."""

    def __init__(
        self,
        store: Store,
        split: str,
        context: int,
        packing_mode: str = "concat",
        seed: int = 0,
        source: str | None = None,
    ) -> None:
        stream = store.stream(split, source)
        if packing_mode == "bestfit":
            self._plan = packing.bestfit(stream.ends, context, seed)
        else:
            self._plan = packing.concat(stream.tokens, context)
        self._stream = stream
        self._context = context
        self._key = (seed, split) if source is None else (seed, split, source)
        self._chunk = min(CHUNK, max(1, self.count))  # more would permute an epoch twice
        self._kept = lru_cache(CHUNKS_KEPT)(self._look_up)

    @property
    def count(self) -> int:
        """Windows in one epoch."""
        return self._plan.count

    def batch(self, first: int, rows: int) -> np.ndarray:
        """Windows number first .. first + rows - 1 of the run as tokens_bt, int32."""
        low, high = first // self._chunk, -(-(first + rows) // self._chunk)
        places_b = np.concatenate([self._kept(chunk) for chunk in range(low, high)])
        return self.gather(places_b[first - low * self._chunk :][:rows])

    def _look_up(self, chunk: int) -> np.ndarray:
        """The places of windows number chunk * self._chunk, ...: together hardly more than one.

        A permutation is some hundred calls of NumPy, whatever it is given.
        """
        places_b = self.places(np.arange(chunk * self._chunk, (chunk + 1) * self._chunk))
        places_b.setflags(write=False)
        return places_b

    def places(self, numbers_b: np.ndarray) -> np.ndarray:
        """The places in the plan, windows_b, of windows that are numbered over the whole run."""
        epochs_b = numbers_b // self.count
        windows_b = np.empty(len(numbers_b), np.int64)
        for epoch in np.unique(epochs_b).tolist():
            now = epochs_b == epoch
            windows_b[now] = order.permute(
                numbers_b[now] % self.count, self.count, order.key(*self._key, epoch)
            )
        return windows_b

    def gather(self, windows_b: np.ndarray) -> np.ndarray:
        """The windows at these places of the plan as tokens_bt, int32."""
        tokens_bt = np.full((len(windows_b), self._context + 1), -1, np.int32)
        for tokens_t, window in zip(tokens_bt, windows_b.tolist(), strict=True):
            self.fill(window, tokens_t)
        return tokens_bt

    def fill(self, window: int, tokens_t: np.ndarray) -> None:
        """Write the window at one place of the plan; what it leaves of tokens_t stays."""
        filled = 0
        for start, length in self._plan.pieces(window):
            if not filled:  # the token before the first piece: the first input
                start, length = start - 1, length + 1
            self._stream.read(start, tokens_t[filled : filled + length])
            filled += length


class Mixture:
    """The windows of several sources in the proportions of each stage of a run.

    `firsts` are the first samples of the stages; open_mixture works them out. Raises InputError
    where the stages name sources that are not there or have nothing to train on.
    """

    def __init__(
        self, store: Store, data: Data, firsts: tuple[int, ...], context: int, seed: int
    ) -> None:
        self._context = context
        self._tokens = {source: store.tokens(TRAIN, source) for source in store.sources}
        weights = [mixture.weights(blend, self._tokens) for blend in data.mixture]
        self._stages = mixture.deal(firsts, weights, seed)
        self._windows = {
            number: Windows(store, TRAIN, context, data.packing, seed, source)
            for number, source in enumerate(store.sources)
            if any(stage.quotas[number] for stage in self._stages)
        }
        self._kept = lru_cache(CHUNKS_KEPT)(self._look_up)

    def batch(self, first: int, rows: int) -> np.ndarray:
        """Samples first .. first + rows - 1 of the run as tokens_bt, int32."""
        tokens_bt = np.full((rows, self._context + 1), -1, np.int32)
        for tokens_t, sample in zip(tokens_bt, range(first, first + rows), strict=True):
            source, window = self._kept(sample // CHUNK)[sample % CHUNK]
            self._windows[source].fill(window, tokens_t)
        return tokens_bt

    def _look_up(self, chunk: int) -> list[tuple[int, int]]:
        """Source and window of samples chunk * CHUNK, ...; see Windows."""
        sources_b, numbers_b = mixture.locate(self._stages, chunk * CHUNK, CHUNK)
        windows_b = np.empty(CHUNK, np.int64)
        for source in np.unique(sources_b).tolist():
            here_b = sources_b == source
            windows_b[here_b] = self._windows[source].places(numbers_b[here_b])
        return list(zip(sources_b.tolist(), windows_b.tolist(), strict=True))

    def use(self, samples: int) -> list[dict[str, Any]]:
        """What the first so many samples take from each source, one dict a source (run.json)."""
        counts_s = mixture.counts(self._stages, samples).tolist()
        return [
            {
                "source": source,
                "share": counts_s[number] / samples,
                "samples": counts_s[number],
                "windows": self._windows[number].count,
                "tokens": tokens,
                "epochs": counts_s[number] / self._windows[number].count,
            }
            for number, (source, tokens) in enumerate(self._tokens.items())
            if number in self._windows
        ]


def open_mixture(store: Store, config: Config) -> Mixture:
    """The mixture of a run, which config.data.mixture describes.

    The last one is kept: a run asks twice, to report and to draw, and best fit takes its time.
    """
    firsts = tuple(_first_sample(blend, config.batch) for blend in config.data.mixture)
    return _mixture(store, config.data, firsts, config.model.context, config.seed)


def _first_sample(blend: Blend, batch: Batch) -> int:
    return batch.windows_before(blend.start)


_mixture = lru_cache(1)(Mixture)


def synthetic(vocab: int, context: int, seed: int) -> Callable[[int, int], np.ndarray]:
    """What `Windows.batch` is, with endless random windows: ids uniform in [0, vocab)."""
    state = np.uint64(order.key(seed, "synthetic"))

    def batch(first: int, rows: int) -> np.ndarray:
        length = context + 1
        count = np.arange(first * length, (first + rows) * length, dtype=np.uint64)
        random = order.splitmix64(state + count * np.uint64(order.GOLDEN))
        return (random % np.uint64(vocab)).astype(np.int32).reshape(rows, length)

    return batch


def train_batches(
    store: Store | None,
    config: Config,
    start_step: int = 0,
    host: tuple[int, int] = (0, 1),
    threads: bool = False,
) -> Iterator[np.ndarray]:
    """The batches of updates start_step .. config.steps - 1, as tokens_bt [B / hosts, context + 1].

    `host` is (index, count): host h gets rows [h * B / count, (h + 1) * B / count) of every batch.
    `store` is None where config.data.path is "synthetic". `threads` fetches ahead without tf.data
    (see prefetch). Raises InputError where the store does not fit the model or the mixture, or the
    batch not the hosts.
    """
    index, hosts = host
    for size in config.batch.sizes():
        require(
            size % hosts == 0,
            f"a batch of {size} windows cannot be shared by {hosts} hosts: make batch.size and "
            "the sizes in batch.ramp multiples of the number of hosts",
        )
    model, data = config.model, config.data
    if store is None:
        draw = synthetic(model.vocab, model.context, config.seed)
    else:
        check_vocab(store, model.vocab)
        if data.mixture:
            draw = open_mixture(store, config).batch
        else:
            draw = Windows(store, TRAIN, model.context, data.packing, config.seed).batch

    def fetch(step: int) -> np.ndarray:
        rows = config.batch.size_at(step) // hosts
        return draw(config.batch.windows_before(step) + index * rows, rows)

    return prefetch(fetch, start_step, config.steps, threads)


def check_vocab(store: Store, vocab: int) -> None:
    """Raise InputError where a model of `vocab` ids cannot represent the store's."""
    require(
        store.vocab <= vocab,
        f"the store at {store.path} has a vocabulary of {store.vocab} ids, more than "
        f"model.vocab={vocab}: set model.vocab={store.vocab} or build the store with a smaller "
        "tokenizer",
    )


def evaluation_batches(
    store: Store,
    split: str,
    source: str | None,
    context: int,
    batch: int,
    windows: int = 0,
    host: tuple[int, int] = (0, 1),
) -> Iterator[np.ndarray]:
    """The windows of a split in order as tokens_bt [batch / hosts, context + 1].

    Every id of the split (of one source, or of all where it is None) is a target exactly once; the
    last batch is filled up with windows of nothing but -1. `windows` other than 0 takes at most so
    many, evenly spread. `host` is (index, count), as for training.
    """
    index, hosts = host
    require(
        batch % hosts == 0,
        f"an evaluation batch of {batch} windows cannot be shared by {hosts} hosts: make "
        "evaluation.batch a multiple of the number of hosts",
    )
    view = Windows(store, split, context, source=source)
    taken = min(windows or view.count, view.count)
    chosen = np.arange(taken) * view.count // max(taken, 1)
    rows = batch // hosts

    def share(first: int) -> np.ndarray:
        here = chosen[first : first + batch][index * rows : (index + 1) * rows]
        empty = np.full((rows - len(here), context + 1), -1, np.int32)
        return np.concatenate([view.gather(here), empty])

    return map(share, range(0, taken, batch))


def prefetch(
    fetch: Callable[[int], np.ndarray], start: int, stop: int, threads: bool = False
) -> Iterator[np.ndarray]:
    """fetch(start), ..., fetch(stop - 1) in order, computed ahead of their use.

    One call of Python per batch under tf.data; by threads where those are asked for, or TensorFlow
    is not installed. Either keeps up (benchmarks/loader.py), and threads start at once.
    """
    if threads:
        return _prefetch_by_threads(fetch, start, stop)
    try:
        tf = tensorflow()
    except ImportError:
        return _prefetch_by_threads(fetch, start, stop)

    def call(step: Any) -> Any:
        tokens_bt = tf.numpy_function(lambda at: fetch(int(at)), [step], tf.int32, stateful=False)
        return tf.ensure_shape(tokens_bt, [None, None])

    batches = tf.data.Dataset.range(start, stop).map(
        call, num_parallel_calls=PARALLEL_FETCHES, deterministic=True
    )
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = PARALLEL_FETCHES
    return batches.prefetch(AHEAD).with_options(options).as_numpy_iterator()


def _prefetch_by_threads(
    fetch: Callable[[int], np.ndarray], start: int, stop: int
) -> Iterator[np.ndarray]:
    with ThreadPoolExecutor(PARALLEL_FETCHES) as pool:
        waiting: deque[Future[np.ndarray]] = deque()
        for step in range(start, stop):
            waiting.append(pool.submit(fetch, step))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
