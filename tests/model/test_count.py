"""Counts: published figures, arithmetic by hand, and what the program really multiplies."""

import csv
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import model
from configs.flags import load
from configs.schema import Config, Model
from model.attention import visible


def recipe(name) -> Model:
    config = load(f"configs/{name}.py")
    assert isinstance(config, Config)
    return config.model


class TestPublished:
    def test_gpt2_small(self):
        """nanoGPT's count at a context of 1024 without biases, and its forward pass."""
        counts = model.counts(recipe("gpt2_small"))
        assert counts.parameters == 124_337_664
        assert counts.forward_flops * 1024 == 291_648_307_200

    @pytest.mark.slow
    def test_table_a9(self, shared_data):
        """The fifty models of Hoffmann et al. 2022, by their own vocabulary of 32,000.

        Their attention has a projection of relative positions (Dai et al. 2019), width x heads x
        head_dim a layer, which ours has not: it is added here.
        """
        table = shared_data / "scaling" / "hoffmann2022-tables" / "table_A9_models.csv"
        with table.open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 50
        for row in rows:
            layers, width, heads = (int(row[name]) for name in ("n_layers", "d_model", "n_heads"))
            config = Model(
                vocab=32_000,
                context=2048,
                layers=layers,
                width=width,
                heads=heads,
                head_dim=int(row["kv_size"]),
                ffn_width=int(row["ffw_size"]),
                positions="none",
                bias=False,
                norm="rmsnorm",
                scan=True,
            )
            relative = layers * width * heads * config.head_dim
            counted = model.counts(config).parameters + relative
            assert counted == pytest.approx(float(row["params_reported"]), rel=0.01)

    def test_llama(self):
        """The model cards of Llama 3.2 1B (1.23B) and Llama 3.1 8B (8.03B)."""
        assert model.counts(recipe("llama_1b")).parameters == pytest.approx(1.235e9, rel=1e-3)
        assert model.counts(recipe("llama_8b")).parameters == pytest.approx(8.03e9, rel=1e-3)

    @pytest.mark.parametrize("name", ["gpt2_small", "gpt3_6b7", "gpt3_175b"])
    def test_12_l_d2_holds_where_its_assumptions_do(self, name):
        config = recipe(name)
        assert config.heads * config.head_dim == config.width
        assert config.ffn_width == 4 * config.width
        rule = 12 * config.layers * config.width**2
        assert model.counts(config).non_embedding == pytest.approx(rule, rel=0.02)

    def test_12_l_d2_fails_for_gated_models(self):
        config = recipe("llama_1b")
        rule = 12 * config.layers * config.width**2
        assert model.counts(config).non_embedding > 1.2 * rule


VARIANTS: dict[str, dict] = {
    "gpt2": {},
    "no_bias": {"bias": False, "norm": "rmsnorm", "tied": False},
    "llama": {"ffn": "swiglu", "kv_heads": 1, "positions": "rotary", "scan": True},
    "relu2": {"ffn": "relu2", "qk_norm": True, "head_dim": 24, "ffn_width": 40},
    "lstm": {"kind": "lstm"},
}


def small(variant="gpt2", **changes) -> Model:
    usual: dict = {"vocab": 128, "context": 16, "layers": 2, "width": 32, "heads": 2}
    return Model(**{**usual, **VARIANTS[variant], **changes})


class TestByHand:
    def test_every_part(self):
        config = small(vocab=100, ffn="swiglu", ffn_width=48, kv_heads=1, tied=False, bias=False)
        counts = model.counts(config)
        assert counts.embedding == counts.head == 100 * 32  # and not the 128 rows of the table
        assert counts.positions == 16 * 32
        layer = 32 * 2 * 16 + 2 * 32 * 1 * 16 + 2 * 16 * 32 + 3 * 32 * 48
        assert counts.matrices == 2 * layer
        assert counts.vectors == (2 * 2 + 1) * 32  # scales of the norms
        assert counts.parameters == 2 * 100 * 32 + 16 * 32 + 2 * layer + 5 * 32
        assert counts.non_embedding == 2 * layer + 5 * 32

    def test_biases(self):
        extra = model.counts(small(ffn_width=48)).parameters
        extra -= model.counts(small(ffn_width=48, bias=False)).parameters
        layer = 3 * 32 + 32 + 48 + 32 + 2 * 32  # projections, output, up, down, norms
        assert extra == 2 * layer + 32

    def test_lstm(self):
        counts = model.counts(small("lstm", bias=False))
        assert counts.matrices == 2 * (2 * 4 * 32 * 32)
        assert counts.positions == 0
        assert counts.flops_attention == counts.flops_attention_causal == 0
        assert counts.forward_flops == 2 * counts.matrices + 2 * 128 * 32

    def test_conventions(self):
        config = small(bias=False)
        matrices, table, attention = 2 * 12 * 32 * 32, 128 * 32, 4 * 2 * 32 * 16
        rest = 16 * 32 + 5 * 32
        counts = model.counts(config)
        assert counts.flops_per_token("6n") == 6 * (matrices + table + rest)
        assert counts.flops_per_token("palm") == 6 * (matrices + table + rest) + 3 * attention
        assert counts.flops_per_token("strict") == 6 * (matrices + table) + 3 * attention // 2
        assert counts.flops_per_token() == counts.flops_per_token("palm")

    @pytest.mark.parametrize("window", [0, 1, 4, 15, 16, 100])
    def test_causal_attention_counts_what_is_visible(self, window):
        """Up to half a token a query: the half triangle does not count half of its diagonal."""
        config = small(windows=(window,))
        pairs = np.sum(visible(jnp.arange(16), jnp.arange(16), window)) / 16
        reach = min(window or 16, 16)
        a_pair = 4 * config.heads * config.head_dim * config.layers
        counts = model.counts(config)
        assert counts.flops_attention == a_pair * reach
        diagonal = a_pair * reach / (2 * 16)
        assert counts.flops_attention_causal == pytest.approx(a_pair * pairs - diagonal, abs=1)

    def test_any_machine_counts_what_another_runs(self):
        here = jax.default_backend()
        elsewhere = "splash" if here != "tpu" else "cudnn"
        assert model.counts(small(attention=elsewhere)) == model.counts(small())

    def test_layers_follow_the_pattern_of_windows(self):
        mixed = model.counts(small(layers=3, windows=(4, 0)))
        near, far = (model.counts(small(layers=1, windows=(w,))) for w in (4, 0))
        for name in ("flops_attention", "flops_attention_causal"):
            assert getattr(mixed, name) == 2 * getattr(near, name) + getattr(far, name)


def multiplied(jaxpr) -> int:
    """Operations of all matrix products in a jaxpr, those of loops as often as they run."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
            total += 2 * math.prod(out) * math.prod(left[dim] for dim in contracted)
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for value in jax.tree.leaves(equation.params, is_leaf=lambda p: hasattr(p, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                total += times * multiplied(inner)
    return total


@pytest.mark.parametrize("variant", VARIANTS)
class TestProgram:
    def test_parameters_are_those_of_init(self, variant):
        config = small(variant, vocab=100)
        sizes = jax.eval_shape(lambda: model.init(config, jax.random.key(0)))
        padding = 28 * config.width * (1 if config.tied else 2)
        held = sum(leaf.size for leaf in jax.tree.leaves(sizes)) - padding
        assert model.counts(config).parameters == held

    def test_forward_flops_are_those_of_the_program(self, variant):
        config = small(variant)
        counts = model.counts(config)
        params = jax.eval_shape(lambda: model.init(config, jax.random.key(0)))
        tokens = jnp.zeros((3, config.context), jnp.int32)
        inputs = model.Inputs(tokens, None, tokens)
        program = jax.make_jaxpr(lambda p: model.apply(config, p, inputs))(params)
        performed = multiplied(program.jaxpr)
        assert performed == counts.forward_flops * tokens.size

        full = dataclasses.replace(counts, flops_attention_causal=counts.flops_attention)
        assert full.flops_per_token("strict") * tokens.size == 3 * performed

    def test_training_is_three_forward_passes(self, variant):
        """One for the gradients of what is multiplied by, one for those of what is multiplied."""
        config = small(variant)
        params = jax.eval_shape(lambda: model.init(config, jax.random.key(0)))
        windows = jnp.zeros((3, config.context + 1), jnp.int32)

        def loss(params):
            return model.loss(config, params, windows, eod=0, attend_across=True)[0]

        performed = multiplied(jax.make_jaxpr(jax.grad(loss))(params).jaxpr)
        assert performed == 3 * model.counts(config).forward_flops * 3 * config.context
