"""A batch is a pure function of (seed, step); every stored token is a target once an epoch."""

import hashlib
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest

from configs.schema import Batch, Blend, Config, Data, InputError, Model, Optimizer
from data import loader, mixture, order

CONTEXT = 16
LENGTHS = {
    ("train", "a"): [5, 16, 17, 1, 100, 31, 32, 33, 2, 2, 2, 48, 15, 7],
    ("train", "b"): [64, 3, 9],
    ("validation", "a"): [20, 13],
    ("validation", "b"): [1, 40, 5, 7],
}
# Two sources, whose proportions change twice; the first and second change lie within a block.
BLENDS = (
    Blend(weights=(("a", 1.0), ("b", 3.0))),
    Blend(start=10, temperature=2.0),
    Blend(start=30, weights=(("b", 1.0),)),
)


def _config(packing="concat", blends=(), **batch):
    return Config(
        model=Model(vocab=257, context=CONTEXT, layers=1, width=8),
        data=Data(path="anywhere", packing=packing, mixture=blends),
        batch=Batch(**{"size": 4, **batch}),
        optimizer=Optimizer(learning_rate=1.0),
        steps=50,
    )


@pytest.fixture
def small_chunks(monkeypatch):
    """A mixture looks up 32 samples at once: edges come often, and tiny sources cost little."""
    monkeypatch.setattr(loader, "CHUNK", 32)


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


@pytest.mark.parametrize(
    ("packing", "digest"),
    [
        ("concat", "1eac19c24ddf94e701cf5a698fdae1899cdba8a1c1d4c16642975d4e9b232fdf"),
        ("bestfit", "0cce367b388c15eca63322465d0f0b545b764ab1e4bf51a4c3568f88f658787f"),
    ],
)
def test_batches_without_a_mixture_are_pinned(make_store, packing, digest):
    """Runs resume with later versions: all sources as one stream, permuted in each epoch."""
    store = make_store(LENGTHS)
    tokens_bt = np.concatenate(list(loader.train_batches(store, _config(packing))))
    assert hashlib.sha256(tokens_bt.tobytes()).hexdigest() == digest
    windows = loader.Windows(store, "train", CONTEXT, packing)
    n = windows.count
    places = [order.permute(np.arange(n), n, order.key(0, "train", epoch)) for epoch in range(9)]
    np.testing.assert_array_equal(tokens_bt, windows.gather(np.concatenate(places)[:200]))


def _named(store, packing, config, tokens_bt):
    """Each row's source, and the place of its window in it."""
    names = {}
    for source in store.sources:
        view = loader.Windows(store, "train", CONTEXT, packing, config.seed, source)
        for place, tokens_t in enumerate(view.gather(np.arange(view.count))):
            names[tokens_t.tobytes()] = (source, place)
    return [names[tokens_t.tobytes()] for tokens_t in tokens_bt]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("packing", ["concat", "bestfit"])
def test_each_source_of_a_mixture_has_its_own_epochs(make_store, packing):
    """Each window of a source once an epoch, also where proportions change within a block."""
    store = make_store(LENGTHS)
    config = _config(packing, BLENDS, ramp=((3, 2), (20, 6)), microbatch=2)
    batches = list(loader.train_batches(store, config))
    assert [len(batch) for batch in batches] == [2] * 3 + [6] * 17 + [4] * 30
    rows = _named(store, packing, config, np.concatenate(batches))
    stage = [config.batch.windows_before(step) for step in (0, 10, 30, 50)]
    assert stage == [0, 48, 148, 228]
    counts = [Counter(s for s, _ in rows[a:b]) for a, b in pairwise(stage)]
    assert counts[0]["b"] > 2 * counts[0]["a"] > 0
    assert counts[1]["a"] > counts[1]["b"] > 0  # 312 tokens and 76: shares of 0.67 and 0.33
    assert counts[2] == {"b": 80}
    for source in ("a", "b"):
        n = loader.Windows(store, "train", CONTEXT, packing, source=source).count
        places = [place for name, place in rows if name == source]
        assert len(places) > 2 * n
        epochs = [places[at : at + n] for at in range(0, len(places), n)]
        assert all(len(set(epoch)) == len(epoch) for epoch in epochs)
        for epoch, found in enumerate(epochs):  # each source is shuffled apart
            key = order.key(config.seed, "train", source, epoch)
            assert found == order.permute(np.arange(len(found)), n, key).tolist()


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("packing", ["concat", "bestfit"])
def test_a_mixture_says_how_often_each_source_comes(make_store, packing):
    store = make_store(LENGTHS | {("train", "unused"): [99]})
    config = _config(packing, BLENDS[:1] + BLENDS[2:])
    batches = list(loader.train_batches(store, config))
    for steps in (1, 7, 40, 50):
        rows = _named(store, packing, config, np.concatenate(batches[:steps]))
        use = loader.open_mixture(store, config).use(4 * steps)
        assert [row["source"] for row in use] == ["a", "b"]
        for row in use:
            count = sum(source == row["source"] for source, _ in rows)
            view = loader.Windows(store, "train", CONTEXT, packing, source=row["source"])
            assert row == {
                "source": row["source"],
                "share": count / len(rows),
                "samples": count,
                "windows": view.count,
                "tokens": store.tokens("train", row["source"]),
                "epochs": count / view.count,
            }


@pytest.mark.usefixtures("small_chunks")
def test_a_mixture_resumes_at_any_step(make_store):
    store = make_store(LENGTHS)
    config = _config(blends=BLENDS, ramp=((3, 2), (20, 6)), microbatch=2)
    straight = list(loader.train_batches(store, config))
    for start in (1, 3, 9, 10, 11, 30, 49):
        loader._mixture.cache_clear()
        mixture._block.cache_clear()
        resumed = list(loader.train_batches(store, config, start))
        assert len(resumed) == 50 - start
        np.testing.assert_array_equal(np.concatenate(resumed), np.concatenate(straight[start:]))


def test_a_batch_of_a_mixture_costs_the_same_at_any_step(make_store, monkeypatch):
    config = replace(_config(blends=(Blend(temperature=2.0),)), steps=10**9 + 1)
    mixed, work = loader.open_mixture(make_store(LENGTHS), config), []
    permute = order.permute

    def counted(indices, n, key):
        work.append(len(indices))
        return permute(indices, n, key)

    monkeypatch.setattr(order, "permute", counted)
    for step in (0, 10**9):
        mixture._block.cache_clear()
        for at in (step, step + 1):  # the second finds what it needs
            tokens_bt = mixed.batch(config.batch.windows_before(at), 4)
            assert tokens_bt.shape == (4, CONTEXT + 1)
            assert sum(work) == mixture.BLOCK + loader.CHUNK
        work.clear()


def test_a_mixture_that_the_store_cannot_give_is_refused(make_store):
    store = make_store(LENGTHS | {("validation", "held"): [9]})
    for name, sentence in (("c", "no source 'c': choose among 'a', 'b'"), ("held", "no window")):
        config = _config(blends=(Blend(weights=((name, 1.0),)),))
        with pytest.raises(InputError, match=sentence):
            loader.train_batches(store, config)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("blends", [(), BLENDS])
@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_share_the_rows_of_each_batch(make_store, hosts, blends):
    store, config = make_store(LENGTHS), _config(blends=blends)
    whole = list(islice(loader.train_batches(store, config), 5, 15))
    shares = [
        list(islice(loader.train_batches(store, config, 5, host=(index, hosts)), 10))
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
    threads = loader.prefetch(lambda step: draw(step * 3, 3), 5, 25, threads=True)
    np.testing.assert_array_equal(list(threads), batches)


def test_a_batch_is_one_call_and_few_are_fetched_ahead():
    calls = []

    def fetch(step):
        calls.append(step)
        return np.full((1, 2), step, np.int32)

    batches = loader.prefetch(fetch, 0, 1000)
    assert [int(batch[0, 0]) for batch in islice(batches, 10)] == list(range(10))
    assert sorted(set(calls)) == sorted(calls)
    assert len(calls) <= 10 + loader.AHEAD + loader.PARALLEL_FETCHES + 1
