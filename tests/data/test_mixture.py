"""Sources in exact proportions: what a walk over all samples counts, any sample knows of itself."""

import json
import math
import re
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.overrides import apply
from configs.schema import Batch, Blend, Config, Data, InputError, Model, Optimizer, to_dict
from data import mixture, order
from train import record, setup

WEIGHTS = st.lists(st.floats(0, 1e3), min_size=1, max_size=6).filter(lambda w: sum(w) > 1e-3)


def _config(*blends, **data):
    return Config(
        model=Model(vocab=257, context=16, layers=1, width=8),
        data=Data(path="anywhere", mixture=blends, **data),
        batch=Batch(size=4),
        optimizer=Optimizer(learning_rate=1.0),
        steps=50,
    )


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 32 samples, so that a walk passes many."""
    monkeypatch.setattr(mixture, "BLOCK", 32)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((0.7, 0.3), (45875, 19661)),  # 45875.2 and 19660.8
        ((7, 3), (45875, 19661)),
        ((1, 1, 1), (21846, 21845, 21845)),
        ((1, 0, 3), (16384, 0, 49152)),
        ((0.0, 5.0), (0, 65536)),
        ((1, 1e-9), (65535, 1)),
        ((1, *[1e-9] * 1000), (64536, *[1] * 1000)),
        ((3e300, 1e300), (49152, 16384)),
    ],
)
def test_quotas_by_hand(weights, expected):
    assert mixture.quotas(weights) == expected


@given(WEIGHTS)
def test_quotas_are_the_shares_rounded(weights):
    found = mixture.quotas(weights)
    exact = [Fraction(w) * 65536 / sum(map(Fraction, weights)) for w in weights]
    assert sum(found) == 65536
    assert [quota > 0 for quota in found] == [weight > 0 for weight in weights]
    if all(share == 0 or share >= 1 for share in exact):
        assert all(abs(quota - share) < 1 for quota, share in zip(found, exact, strict=True))
        up = [s - math.floor(s) for q, s in zip(found, exact, strict=True) if q > s]
        down = [s - math.floor(s) for q, s in zip(found, exact, strict=True) if q < s]
        assert not (up and down) or min(up) >= max(down)


def test_temperature_by_hand():
    tokens = {"a": 100, "none": 0, "b": 10_000}

    def shares(blend):
        found = np.array(mixture.weights(blend, tokens))
        return pytest.approx(found / found.sum())

    assert shares(Blend()) == [1 / 101, 0, 100 / 101]
    assert shares(Blend(temperature=2)) == [1 / 11, 0, 10 / 11]
    assert shares(Blend(temperature=0.5)) == [1 / 10_001, 0, 10_000 / 10_001]
    assert shares(Blend(temperature=1e9)) == [1 / 2, 0, 1 / 2]
    assert shares(Blend(weights=(("b", 1), ("a", 3)))) == [3 / 4, 0, 1 / 4]
    assert shares(Blend(weights=(("b", 2), ("none", 0)))) == [0, 0, 1]


def _walk(stages, samples):
    """(source, how many of it came before) sample by sample, as a mixture is thought of."""
    seen: Counter[int] = Counter()
    found = []
    for sample in range(samples):
        (source,), _ = mixture.locate(stages, sample, 1)
        found.append((int(source), seen[int(source)]))
        seen[int(source)] += 1
    return found


FIRSTS = (0, 50, 57, 121, 140)  # a block and a part of one, 7 samples, two blocks, a part, many
WEIGHTS_BY_STAGE = (
    (0.5, 0.3, 0.2),
    (0.0, 0.9, 0.1),
    (1.0, 0.0, 0.0),
    (0.0, 0.0, 1.0),
    (0.97, 0.02, 0.01),
)


@pytest.mark.usefixtures("small_blocks")
def test_numbers_of_a_source_have_no_gap_and_no_double():
    stages = mixture.deal(FIRSTS, WEIGHTS_BY_STAGE, seed=3)
    walked = _walk(stages, 400)
    sources, numbers = mixture.locate(stages, 0, 400)
    assert list(zip(sources.tolist(), numbers.tolist(), strict=True)) == walked
    for first, count in ((0, 1), (31, 2), (49, 9), (100, 300)):  # any part alone is the same
        sources, numbers = mixture.locate(stages, first, count)
        part = list(zip(sources.tolist(), numbers.tolist(), strict=True))
        assert part == walked[first : first + count]
    for samples in range(400):
        so_far = Counter(source for source, _ in walked[:samples])
        assert mixture.counts(stages, samples).tolist() == [so_far[source] for source in range(3)]


@pytest.mark.usefixtures("small_blocks")
def test_each_block_has_the_proportions_exactly():
    stages = mixture.deal(FIRSTS, WEIGHTS_BY_STAGE, seed=3)
    blocks = 0
    for first, end, weights in zip(FIRSTS, (*FIRSTS[1:], 400), WEIGHTS_BY_STAGE, strict=True):
        for start in range(first, end - 31, 32):
            sources, _ = mixture.locate(stages, start, 32)
            assert np.bincount(sources, minlength=3).tolist() == list(mixture.quotas(weights))
            blocks += 1
    assert blocks == 1 + 0 + 2 + 0 + 8
    assert mixture.quotas(WEIGHTS_BY_STAGE[-1]) == (30, 1, 1)  # 0.01 * 32 is less than one


@given(WEIGHTS, WEIGHTS, st.integers(1, 200_000))
def test_real_blocks_across_a_stage(one, other, edge):
    """The same at full size: per source, the numbers are 0, 1, 2, ... over a change mid-block."""
    size = max(len(one), len(other))
    padded = [[*w, *[0.0] * (size - len(w))] for w in (one, other)]
    stages = mixture.deal((0, edge), padded, seed=1)
    sources, numbers = mixture.locate(stages, edge - min(edge, 40), 80)
    before = mixture.counts(stages, edge - min(edge, 40)).tolist()
    for source in range(size):
        of_source = numbers[sources == source].tolist()
        assert of_source == list(range(before[source], before[source] + len(of_source)))


def test_the_order_in_a_block_is_shuffled_anew():
    stages = mixture.deal((0, 3 * 65536), [(0.5, 0.5)] * 2, seed=0)
    blocks = [mixture.locate(stages, k * 65536, 65536)[0] for k in range(6)]
    blocks.append(mixture.locate(mixture.deal((0,), [(0.5, 0.5)], seed=1), 0, 65536)[0])
    correlations = np.corrcoef(blocks) - np.eye(len(blocks))
    assert np.abs(correlations).max() < 4 / 256
    for sources in blocks:
        assert abs(np.corrcoef(sources[1:], sources[:-1])[0, 1]) < 4 / 256
        # 64 consecutive samples vary as 64 drawn at random do: 16 is their variance.
        assert np.var(sources.reshape(-1, 64).sum(axis=1)) == pytest.approx(16, rel=0.2)


def test_the_mixture_is_pinned():
    """Runs resume with later versions: which sample is whose does not change."""
    stages = mixture.deal((0, 100_000), [(0.6, 0.3, 0.1), (0.1, 0.1, 0.8)], seed=5)
    assert stages[1].before == (59912, 30060, 10028)
    sources, numbers = mixture.locate(stages, 99_996, 8)
    assert sources.tolist() == [0, 1, 0, 2, 1, 2, 1, 2]
    assert numbers.tolist() == [59910, 30059, 59911, 10027, 30060, 10028, 30061, 10029]


def test_any_sample_costs_a_block_at_most(monkeypatch):
    stages = mixture.deal((0, 1000), [(0.6, 0.4), (0.1, 0.9)], seed=7)
    work = []
    permute = order.permute

    def counted(indices, n, key):
        work.append(len(indices))
        return permute(indices, n, key)

    monkeypatch.setattr(order, "permute", counted)
    costs = []
    for block in (0, 10**7, 2**38):
        first = 1000 + block * 65536 + 77
        mixture._block.cache_clear()
        mixture.locate(stages, first, 512)
        mixture.counts(stages, first)
        mixture.locate(stages, first + 512, 512)  # in the same block: free
        costs.append(list(work))
        work.clear()
    assert costs == [[65536]] * 3
    mixture.locate(stages, first + 65536 - 77 - 256, 512)  # over the edge: one more
    assert work == [65536]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"start": -1}, "start=-1 must not be negative"),
        ({"temperature": 0.0}, "temperature=0.0 must be positive"),
        ({"temperature": math.inf}, "temperature=inf must be positive and finite"),
        ({"temperature": math.nan}, "temperature=nan must be positive"),
        ({"weights": (("a", -1.0),)}, "the weight -1.0 of source 'a' must be 0 or more, and"),
        ({"weights": (("a", math.inf),)}, "the weight inf of source 'a' must be 0 or more, and"),
        ({"weights": (("a", 0.0), ("b", 0.0))}, "all weights are 0: give one source more"),
        ({"weights": (("a", 1.0), ("a", 2.0))}, "source 'a' has two weights"),
        ({"weights": (("a", 1.0),), "temperature": 2.0}, "give either weights or a temperature"),
    ],
)
def test_an_impossible_blend_is_refused(settings, sentence):
    with pytest.raises(InputError, match=f"^data.mixture: {re.escape(sentence)}"):
        Blend(**settings)


@pytest.mark.parametrize("starts", [(1,), (0, 5, 5), (0, 7, 3), (2, 4)])
def test_stages_that_do_not_rise_from_0_are_refused(starts):
    with pytest.raises(InputError, match=re.escape(f"at the updates {list(starts)}: make the fi")):
        Data(path="anywhere", mixture=tuple(Blend(start=start) for start in starts))


def test_a_source_that_is_not_there_or_empty_is_refused():
    with pytest.raises(InputError, match="no source 'c': choose among 'a', 'b'"):
        mixture.weights(Blend(weights=(("a", 1), ("c", 1))), {"a": 5, "b": 5})
    with pytest.raises(InputError, match="source 'b' has weight 2 but no window to train on"):
        mixture.weights(Blend(weights=(("a", 1), ("b", 2))), {"a": 5, "b": 0})
    with pytest.raises(InputError, match="no tokens to train on"):
        mixture.weights(Blend(temperature=2), {"a": 0})


def test_a_mixture_survives_json_and_overrides(tmp_path):
    config = _config(Blend(weights=(("a", 1.0), ("b", 2.5))), Blend(start=7, temperature=3.0))
    record.write_json(tmp_path / record.CONFIG, json.loads(json.dumps(to_dict(config))))
    assert record.read_config(tmp_path) == config
    assert record.changes(tmp_path, config, "") == []
    other = _config(Blend(weights=(("a", 1.0), ("b", 2.0))), Blend(start=7, temperature=3.0))
    assert len(record.changes(tmp_path, other, "")) == 1
    assert apply(config, ["data.packing=bestfit"]).data.mixture == config.data.mixture
    with pytest.raises(InputError, match=r"--config\.data\.mixture=a:1: .*edit the recipe instead"):
        apply(config, ["data.mixture=a:1"])


def test_the_run_says_how_often_each_source_is_repeated():
    use = [
        {"source": "web", "share": 0.75, "windows": 1234, "tokens": 2.5e6, "epochs": 3.96},
        {"source": "code", "share": 0.25, "windows": 300, "tokens": 6e5, "epochs": 5.43},
    ]
    run = {
        "devices": {"count": 1, "kind": "cpu"},
        "mesh": {},
        "bubble": 0,
        "parameters": {"total": 1, "non_embedding": 1},
        "flops_per_token": {"palm": 6},
        "attention": "xla",
        "peak": {"flops": 1, "name": "cpu"},
        "data": {"path": "anywhere", "mixture": use},
    }
    lines = setup.decisions(_config(Blend()), run).splitlines()
    assert lines[-3:] == [
        "mixture   web    75.00% of the samples; 1,234 windows (2.5M tokens), 3.96 epochs",
        "          code   25.00% of the samples; 300 windows (600k tokens), 5.43 epochs",
        "          warning: code is repeated 5.43 times; beyond 4, repeating is worth ever less "
        "than new text (arXiv:2305.16264)",
    ]
