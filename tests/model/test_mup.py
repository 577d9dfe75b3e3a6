"""muP: the same model at the base's size, and multipliers that follow from the declarations."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import model
from configs.schema import InputError, Model
from model.inputs import Inputs

WINDOWS = jnp.array(np.random.default_rng(0).integers(0, 50, (2, 17)), jnp.int32)
TOKENS = WINDOWS[:, :-1]
INPUTS = Inputs(TOKENS, None, jnp.broadcast_to(jnp.arange(16), (2, 16)))

MUP = {"parametrization": "mup", "base_width": 16}
# The width of a head doubles, and so does the number of heads.
WIDE = MUP | {"width": 64, "heads": 8, "base_head_dim": 4, "kv_heads": 4, "tied": False}


def named(tree) -> dict:
    leaves = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def program(config: Model) -> str:
    """What is compiled for the gradient."""
    params = jax.eval_shape(lambda: model.init(config, jax.random.key(0)))

    def loss(params):
        return model.loss(config, params, WINDOWS, eod=0, attend_across=False)[0]

    return jax.jit(jax.grad(loss)).lower(params).as_text()


@pytest.mark.parametrize(
    "changes",
    [{}, {"scan": True, "qk_norm": True, "ffn": "swiglu", "kv_heads": 2, "residual_init": "zero"}],
)
def test_the_base_is_the_standard_model(changes, make):
    """The same declarations and the same program: the same bits."""
    usual = make(**changes)
    base = make(**changes, **MUP, base_head_dim=4, base_layers=2)
    assert model.declare(base) == model.declare(usual)
    assert program(base) == program(usual)


def test_away_from_the_base_it_is_not(make):
    usual = program(make())
    base = make(**MUP, base_head_dim=4, base_layers=2)
    for wider in ({"base_width": 8}, {"base_head_dim": 2}, {"base_layers": 1}):
        assert program(dataclasses.replace(base, **wider)) != usual


def test_initial_deviations_and_growth_at_four_times_the_width(make):
    """By hand: what fans in from the width starts at half the deviation, tables as they were."""
    expected = {
        "embedding/tokens": (0.02, 1, 4),
        "embedding/output": (0.02, 4, 1),
        "embedding/positions": (0.02, 1, 4),
        "final_norm/scale": (None, 1, 4),
        "layer_1/attention/query/kernel": (0.01, 4, 4),
        "layer_1/attention/query/bias": (None, 1, 4),
        "layer_1/attention/key/kernel": (0.01, 4, 4),
        "layer_1/attention/value/kernel": (0.01, 4, 4),
        "layer_1/attention/output/kernel": (0.005, 4, 4),
        "layer_1/attention/output/bias": (None, 1, 4),
        "layer_1/attention/query_norm/scale": (None, 1, 2),  # one scale for all heads
        "layer_1/attention_norm/scale": (None, 1, 4),
        "layer_1/ffn/up/kernel": (0.01, 4, 4),
        "layer_1/ffn/up/bias": (None, 1, 4),
        "layer_1/ffn/down/kernel": (0.005, 4, 4),
    }
    declared = named(model.declare(make(**WIDE, qk_norm=True)))
    for path, (std, wider_in, wider_out) in expected.items():
        assert declared[path].growth == (wider_in, wider_out), path
        assert declared[path].std == (None if std is None else pytest.approx(std)), path


def test_scanned_layers_declare_the_same(make):
    single = model.declare(make(**WIDE))["layer_0"]
    stacked = model.declare(make(**WIDE, scan=True))["layers"]["block_0"]
    jax.tree.map(lambda a, b: np.testing.assert_equal((a.growth, a.std), (b.growth, b.std)),
                 single, stacked)  # fmt: skip


def plain(config: Model) -> Model:
    return dataclasses.replace(
        config, parametrization="standard", base_width=0, base_head_dim=0, base_layers=0
    )


def look(config: Model, params: model.Params) -> dict[str, jax.Array]:
    return jax.jit(model.activations, static_argnums=0)(config, params, INPUTS)


class TestForward:
    def test_logits_are_divided_by_the_ratio_of_widths(self, make, random_params):
        config = make(**MUP | {"width": 64}, logit_softcap=3.0)
        params = random_params(config)
        cap = config.logit_softcap
        mup, usual = (
            np.arctanh(np.asarray(model.apply(c, params, INPUTS)[..., :50], np.float64) / cap)
            for c in (config, plain(config))
        )
        np.testing.assert_allclose(mup, usual / 4, atol=1e-4)

    def test_scores_are_divided_by_the_width_of_a_head(self, make, random_params):
        config = make(**MUP | {"width": 64, "base_head_dim": 4}, positions="rotary")
        params = random_params(config)
        mup, usual = (look(c, params)["scores"][0] for c in (config, plain(config)))
        assert np.abs(usual).max() > 0.5
        np.testing.assert_allclose(mup, usual * math.sqrt(4 / 16), atol=1e-5)

    def test_more_heads_leave_scores_alone(self, make, random_params):
        config = make(**MUP | {"width": 64, "heads": 16})
        params = random_params(config)
        mup, usual = (look(c, params)["scores"] for c in (config, plain(config)))
        np.testing.assert_array_equal(mup, usual)

    def test_blocks_are_divided_by_the_ratio_of_layers(self, make, random_params):
        config = make(**MUP, base_layers=1, layers=3)
        params = random_params(config)
        deep, usual = (look(c, params) for c in (config, plain(config)))
        written = deep["attention"] + deep["ffn"]
        np.testing.assert_allclose(
            deep["stream"][-1], deep["embedding"] + written.sum(0) / 3, atol=1e-5
        )
        np.testing.assert_allclose(usual["attention"][0], deep["attention"][0], atol=1e-6)

    def test_blocks_start_by_the_bases_layers(self, make):
        base, deep = (make(**MUP, layers=layers, base_layers=2) for layers in (2, 8))
        start = named(model.declare(deep))["layer_7/ffn/down/kernel"].std
        assert start == pytest.approx(named(model.declare(base))["layer_1/ffn/down/kernel"].std)

    def test_generation_reads_the_same_model(self, make, random_params):
        config = make(**WIDE, base_layers=1, positions="rotary")
        params = random_params(config)
        whole = model.apply(config, params, INPUTS)
        cache = model.start_cache(config, 2, 16)
        got, cache = model.decode(config, params, cache, TOKENS[:, :15], jnp.full(2, 15))
        np.testing.assert_allclose(got, whole[:, 14], atol=1e-4)
        got, _ = model.decode(config, params, cache, TOKENS[:, 15:], jnp.ones(2, jnp.int32))
        np.testing.assert_allclose(got, whole[:, 15], atol=1e-4)


class TestActivations:
    def test_end_in_the_logits_of_the_model(self, make, random_params):
        config = make(qk_norm=True, kv_heads=2)
        params = random_params(config)
        kept = look(config, params)
        np.testing.assert_allclose(
            kept["logits"], model.apply(config, params, INPUTS)[..., :50], atol=1e-5
        )
        assert kept["stream"].shape == kept["ffn"].shape == (2, 2, 16, 16)
        assert kept["scores"].shape == (2, 2, 2, 2, 16 * 17 // 2)

    def test_scores_are_what_the_softmax_reads(self, make, random_params):
        """With values of all ones but one token's, what is read is that token's weight."""
        config = make(layers=1, bias=False, positions="rotary", heads=1)
        params = random_params(config)
        kept = look(config, params)
        scores = np.full((2, 16, 16), -np.inf)
        later, earlier = np.tril_indices(16)
        scores[:, later, earlier] = kept["scores"][0, :, 0, 0]
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        table = params["embedding"]["tokens"]
        x = np.asarray(table[TOKENS], np.float64)
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        own = params["layer_0"]
        x = x * np.asarray(own["attention_norm"]["scale"])
        value = x @ np.asarray(own["attention"]["value"]["kernel"]).reshape(16, 16)
        want = weights @ value @ np.asarray(own["attention"]["output"]["kernel"]).reshape(16, 16)
        np.testing.assert_allclose(kept["attention"][0], want, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parametrization": "mup"}, "needs model.base_width"),
        ({**MUP, "kind": "lstm"}, "not derived for model.kind=lstm"),
        ({"base_width": 8}, "base_width=8 must be 0, or positive with"),
        ({"base_layers": 2}, "base_layers=2 must be 0, or positive with"),
        ({**MUP, "base_head_dim": -1}, "base_head_dim=-1 must be 0, or positive with"),
        ({**MUP, "base_layers": 1, "norm_order": "post"}, "norm_order=pre only"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, words, make):
    with pytest.raises(InputError, match=words):
        make(**changes)
