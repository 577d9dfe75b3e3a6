"""The loss on held-out text: what it says and how sure it is."""

import json
import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import model
from configs.schema import InputError
from data.store import open_store
from parallel.mesh import make_mesh
from train.evaluation import evaluate, summary
from train.step import make_evaluation


def evaluated(config, params):
    store = open_store(config.data.path)
    sums = make_evaluation(config, store.eod, make_mesh(config))
    return store, evaluate(config, store, params, sums, make_mesh(config))


@pytest.fixture
def untrained(config):
    """Parameters that find every token equally likely."""
    params = model.init(config.model, jax.random.key(0))
    return jax.tree.map(jnp.zeros_like, params)


def test_an_ignorant_model_pays_the_logarithm_of_the_vocabulary(config, untrained):
    whole = replace(config.evaluation, windows=0)
    store, result = evaluated(replace(config, evaluation=whole), untrained)
    tokens, text_bytes = store.tokens("validation"), store.bytes("validation")
    assert result["loss"] == pytest.approx(math.log(257), rel=1e-6)
    assert result["perplexity"] == pytest.approx(257, rel=1e-5)
    assert result["bits_per_byte"] == pytest.approx(math.log2(257) * tokens / text_bytes, rel=1e-6)
    assert result["standard_error"] == pytest.approx(0, abs=1e-6)
    assert result["targets"] == tokens  # each token of the split once, those of padding never


def test_sources_add_up_to_the_whole(config):
    params = model.init(config.model, jax.random.key(0))
    whole = replace(config.evaluation, windows=0)
    _, result = evaluated(replace(config, evaluation=whole), params)
    parts = result["sources"]
    assert set(parts) == {"verse", "prose"}
    for key in ("targets", "windows"):
        assert sum(part[key] for part in parts.values()) == result[key]
    total = sum(part["loss"] * part["targets"] for part in parts.values())
    assert total / result["targets"] == pytest.approx(result["loss"], rel=1e-6)


@pytest.mark.parametrize("batch", [2, 4, 10])
def test_the_result_does_not_depend_on_the_batch(config, batch):
    params = model.init(config.model, jax.random.key(0))
    settings = replace(config.evaluation, windows=0, batch=batch)
    _, result = evaluated(replace(config, evaluation=settings), params)
    reference = replace(config.evaluation, windows=0, batch=6)
    _, expected = evaluated(replace(config, evaluation=reference), params)
    assert result["targets"] == expected["targets"]
    assert result["loss"] == pytest.approx(expected["loss"], rel=1e-6)


def test_at_most_as_many_windows_as_asked_for(config, untrained):
    settings = replace(config.evaluation, windows=10)
    store, result = evaluated(replace(config, evaluation=settings), untrained)
    assert 10 <= result["windows"] <= 10 + len(store.sources) - 1


def test_the_standard_error_is_that_of_repeated_samples():
    rng = np.random.default_rng(0)
    losses, errors = [], []
    for _ in range(2000):
        weight_n = rng.integers(1, 65, 50).astype(np.float32)
        loss_n = weight_n * (2 + 0.3 * rng.standard_normal(50)).astype(np.float32)
        found = summary(loss_n, weight_n, 1, 1)
        losses.append(found["loss"])
        errors.append(found["standard_error"])
    assert np.mean(losses) == pytest.approx(2, abs=0.003)
    assert np.mean(errors) == pytest.approx(np.std(losses), rel=0.05)


def test_one_window_has_no_standard_error():
    found = summary(np.array([64.0]), np.array([32.0]), 32, 16)
    assert found["standard_error"] is None
    assert found["bits_per_byte"] == pytest.approx(2 / math.log(2) * 2)


def test_a_store_without_held_out_text_is_refused(config, untrained, tmp_path):
    manifest = json.loads((open_store(config.data.path).path / "index.json").read_text())
    manifest["shards"] = [s for s in manifest["shards"] if s["split"] == "train"]
    store = open_store(config.data.path)
    (tmp_path / "store").mkdir()
    for path in store.path.iterdir():
        if path.name != "index.json":
            (tmp_path / "store" / path.name).symlink_to(path)
    (tmp_path / "store" / "index.json").write_text(json.dumps(manifest))
    data = replace(config.data, path=str(tmp_path / "store"))
    with pytest.raises(InputError, match="holds no validation split"):
        evaluated(replace(config, data=data), untrained)
