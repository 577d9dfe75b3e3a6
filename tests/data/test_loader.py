"""A batch is a pure function of (seed, step); every stored token is a target once an epoch."""

import json
import subprocess
import sys
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest

from configs.schema import Batch, Config, Data, InputError, Model, Optimizer
from data import loader

CONTEXT = 16
LENGTHS = {
    ("train", "a"): [5, 16, 17, 1, 100, 31, 32, 33, 2, 2, 2, 48, 15, 7],
    ("train", "b"): [64, 3, 9],
    ("validation", "a"): [20, 13],
    ("validation", "b"): [1, 40, 5, 7],
}


def _config(packing="concat", **batch):
    return Config(
        model=Model(vocab=257, context=CONTEXT, layers=1, width=8),
        data=Data(path="anywhere", packing=packing),
        batch=Batch(**{"size": 4, **batch}),
        optimizer=Optimizer(learning_rate=1.0),
        steps=50,
    )


def _stream(store, split, source=None):
    """The whole split as the store holds it."""
    stream = store.stream(split, source)
    ids = np.empty(stream.tokens, np.int32)
    stream.read(0, ids)
    return ids


def _targets(tokens_bt):
    targets = tokens_bt[:, 1:]
    return np.sort(targets[targets >= 0])


@pytest.mark.parametrize("packing", ["concat", "bestfit"])
def test_an_epoch_has_every_stored_token_as_a_target_once(make_store, packing):
    store = make_store(LENGTHS)
    assert len(store.select("train")) > 4  # windows cross the edges of shards
    windows = loader.Windows(store, "train", CONTEXT, packing, seed=1)
    tokens_bt = windows.batch(0, windows.count)
    np.testing.assert_array_equal(_targets(tokens_bt), np.sort(_stream(store, "train")))


def test_concatenated_windows_continue_one_another(make_store):
    store = make_store(LENGTHS)
    windows = loader.Windows(store, "train", CONTEXT)
    stream = np.append(store.eod, _stream(store, "train"))
    for i in range(windows.count):
        expected = stream[i * CONTEXT : (i + 1) * CONTEXT + 1]
        (tokens_t,) = windows.gather(np.array([i]))
        np.testing.assert_array_equal(tokens_t[: len(expected)], expected)
        assert (tokens_t[len(expected) :] == -1).all()


def test_best_fit_windows_begin_with_what_precedes_them(make_store):
    store = make_store(LENGTHS)
    windows = loader.Windows(store, "train", CONTEXT, "bestfit", seed=1)
    stream = np.append(store.eod, _stream(store, "train"))
    pairs = {(int(a), int(b)) for a, b in pairwise(stream)}
    for tokens_t in windows.gather(np.arange(windows.count)):
        tokens_t = tokens_t[tokens_t >= 0]
        assert (int(tokens_t[0]), int(tokens_t[1])) in pairs
        # After the first piece, each piece closes a document, so what follows an end is a start,
        # or the rest of a document that was cut; elsewhere neighbours are neighbours in the store.
        for a, b in pairwise(tokens_t[1:].tolist()):
            assert a == store.eod or (a, b) in pairs


def test_epochs_differ_and_repeat_with_the_seed(make_store):
    store = make_store(LENGTHS)
    windows = [loader.Windows(store, "train", CONTEXT, seed=seed) for seed in (0, 0, 1)]
    n = windows[0].count
    first, second, third = (windows[0].batch(epoch * n, n) for epoch in range(3))
    np.testing.assert_array_equal(_targets(first), _targets(second))
    assert not np.array_equal(first, second)
    assert not np.array_equal(second, third)
    np.testing.assert_array_equal(
        windows[1].batch(0, 3 * n), np.concatenate([first, second, third])
    )
    # Epoch 1 of one seed is not epoch 0 of the next.
    assert not np.array_equal(windows[2].batch(0, n), second)
    assert not np.array_equal(windows[2].batch(0, n), first)


@pytest.mark.parametrize("packing", ["concat", "bestfit"])
def test_resuming_at_any_step_gives_the_same_batches(make_store, packing):
    store = make_store(LENGTHS)
    config = _config(packing, ramp=((3, 2), (7, 6)), microbatch=2)
    straight = list(loader.train_batches(store, config))
    assert [len(batch) for batch in straight] == [2] * 3 + [6] * 4 + [4] * 43
    windows = loader.Windows(store, "train", CONTEXT, packing, config.seed)
    np.testing.assert_array_equal(np.concatenate(straight), windows.batch(0, 202))
    for start in (1, 3, 7, 20, 49):
        resumed = list(loader.train_batches(store, config, start))
        assert len(resumed) == 50 - start
        np.testing.assert_array_equal(np.concatenate(resumed), np.concatenate(straight[start:]))


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_share_the_rows_of_each_batch(make_store, hosts):
    store = make_store(LENGTHS)
    whole = list(islice(loader.train_batches(store, _config()), 5))
    shares = [
        list(islice(loader.train_batches(store, _config(), host=(index, hosts)), 5))
        for index in range(hosts)
    ]
    for step, batch in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([share[step] for share in shares]), batch)


def test_a_batch_that_hosts_cannot_share_is_refused(make_store):
    with pytest.raises(InputError, match="4 windows cannot be shared by 3 hosts"):
        loader.train_batches(make_store(LENGTHS), _config(), host=(0, 3))


def test_a_vocabulary_larger_than_the_models_is_refused(make_store):
    config = replace(_config(), model=replace(_config().model, vocab=256))
    with pytest.raises(InputError, match=r"vocabulary of 257 ids, more than model\.vocab=256"):
        loader.train_batches(make_store(LENGTHS), config)


@pytest.mark.parametrize("source", [None, "a", "b"])
@pytest.mark.parametrize("hosts", [1, 2])
def test_evaluation_sees_every_target_once(make_store, source, hosts):
    store = make_store(LENGTHS)
    shares = [
        list(loader.evaluation_batches(store, "validation", source, CONTEXT, 4, host=(h, hosts)))
        for h in range(hosts)
    ]
    assert {batch.shape for share in shares for batch in share} == {(4 // hosts, CONTEXT + 1)}
    tokens_bt = np.concatenate([part for step in zip(*shares, strict=True) for part in step])
    stored = _stream(store, "validation", source)
    assert len(stored) == store.tokens("validation", source)
    np.testing.assert_array_equal(tokens_bt[:, 1:][tokens_bt[:, 1:] >= 0], stored)


def test_evaluation_can_take_evenly_spread_windows(make_store):
    store = make_store(LENGTHS)
    windows = loader.Windows(store, "train", CONTEXT)
    assert windows.count == 25
    batches = list(loader.evaluation_batches(store, "train", None, CONTEXT, 4, windows=5))
    expected = windows.gather(np.array([0, 5, 10, 15, 20]))
    np.testing.assert_array_equal(np.concatenate(batches)[:5], expected)
    assert (np.concatenate(batches)[5:] == -1).all()
    every = loader.evaluation_batches(store, "train", None, CONTEXT, 25, windows=99)
    np.testing.assert_array_equal(next(every), windows.gather(np.arange(25)))


def test_synthetic_tokens_need_no_store():
    config = _config()
    batches = list(loader.train_batches(None, config))
    tokens_bt = np.concatenate(batches)
    assert tokens_bt.shape == (200, CONTEXT + 1)
    assert tokens_bt.dtype == np.int32
    assert (tokens_bt.min(), tokens_bt.max()) == (0, 256)
    assert len(np.unique(tokens_bt, axis=0)) == 200
    np.testing.assert_array_equal(next(loader.train_batches(None, config, 7)), batches[7])
    (half,) = islice(loader.train_batches(None, config, 7, host=(1, 2)), 1)
    np.testing.assert_array_equal(half, batches[7][2:])
    other = next(loader.train_batches(None, replace(config, seed=1)))
    assert not np.array_equal(other, batches[0])


WITHOUT_TENSORFLOW = """
import json, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0].startswith("tensorflow"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Block())
from data import loader
batches = list(loader.prefetch(lambda step: loader.synthetic(100, 8, 0)(step * 3, 3), 5, 25))
print(json.dumps([batch.tolist() for batch in batches]))
"""


def test_without_tensorflow_the_batches_are_the_same():
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW], capture_output=True, text=True, check=True
    )
    draw = loader.synthetic(100, 8, 0)
    batches = list(loader.prefetch(lambda step: draw(step * 3, 3), 5, 25))
    assert "tensorflow" in sys.modules
    np.testing.assert_array_equal(np.array(json.loads(result.stdout)), np.array(batches))


def test_a_batch_is_one_call_and_few_are_fetched_ahead():
    calls = []

    def fetch(step):
        calls.append(step)
        return np.full((1, 2), step, np.int32)

    batches = loader.prefetch(fetch, 0, 1000)
    assert [int(batch[0, 0]) for batch in islice(batches, 10)] == list(range(10))
    assert sorted(set(calls)) == sorted(calls)
    assert len(calls) <= 10 + loader.AHEAD + loader.PARALLEL_FETCHES + 1
