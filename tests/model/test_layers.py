"""The leaves of the network, against NumPy and against what they promise."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import model
from configs.schema import Model
from model.layers import FeedForward, Norm, rotate
from model.linear import linear
from model.parameters import Declared
from model.placement import here


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def call(layer, x, params):
    return layer.apply({"params": params}, x)


def values(layer, x):
    """The layer's own initial parameters, as plain arrays."""
    boxed = layer.init(jax.random.key(0), x)["params"]
    return jax.tree.map(Declared.unbox, boxed, is_leaf=lambda leaf: isinstance(leaf, Declared))


def settings(**changes) -> Model:
    return Model(**{"vocab": 8, "context": 4, "layers": 1, "width": 6, **changes})


class TestNorm:
    def test_layernorm(self):
        x, scale, bias = 3 + 2 * draw(2, 5, 6), draw(6, seed=1), draw(6, seed=2)
        got = call(Norm(settings(), "layernorm"), x, {"scale": scale, "bias": bias})
        centred = x - np.mean(x, axis=-1, keepdims=True)
        want = centred / np.sqrt(np.var(x, axis=-1, keepdims=True) + 1e-5) * scale[None, None]
        np.testing.assert_allclose(got, want + bias[None, None], atol=1e-5)

    def test_rmsnorm(self):
        """No centring and no bias."""
        x, scale = 3 + 2 * draw(2, 5, 6), draw(6, seed=1)
        layer = Norm(settings(), "rmsnorm")
        assert list(values(layer, x)) == ["scale"]
        got = call(layer, x, {"scale": scale})
        want = x / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + 1e-5)
        np.testing.assert_allclose(got, want * scale[None, None], atol=1e-6)

    def test_without_biases_layernorm_has_none(self):
        assert list(values(Norm(settings(bias=False), "layernorm"), draw(1, 2, 6))) == ["scale"]

    @pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
    def test_bfloat16_is_normalised_in_float32(self, kind):
        """In bfloat16 the mean of 100 and a little would swallow the little."""
        x = (100 + draw(1, 4, 256)).astype(jnp.bfloat16)
        layer = Norm(settings(width=256), kind)
        params = values(layer, x)
        got = call(layer, x, params)
        assert got.dtype == jnp.bfloat16
        want = call(layer, x.astype(jnp.float32), params)
        np.testing.assert_allclose(got.astype(jnp.float32), want, rtol=2**-8, atol=1e-6)


class TestFeedForward:
    @pytest.mark.parametrize("kind", ["gelu", "relu2", "swiglu"])
    def test_formula(self, kind):
        config = settings(ffn=kind, ffn_width=10, bias=False)
        x = draw(2, 3, 6)
        w = {name: np.asarray(draw(6, 10, seed=i)) for i, name in enumerate(("up", "gate"))}
        down = np.asarray(draw(10, 6, seed=3))
        params = {name: {"kernel": jnp.asarray(w[name])} for name in w}
        if kind != "swiglu":
            del params["gate"]
        params["down"] = {"kernel": jnp.asarray(down)}
        jax.tree.map(
            lambda one, other: None, values(FeedForward(config, here()), x), params
        )  # same names
        up, gate = np.asarray(x) @ w["up"], np.asarray(x) @ w["gate"]
        hidden = {
            "gelu": 0.5 * up * (1 + np.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up**3))),
            "relu2": np.maximum(up, 0) ** 2,
            "swiglu": gate / (1 + np.exp(-gate)) * up,
        }[kind]
        np.testing.assert_allclose(
            call(FeedForward(config, here()), x, params), hidden @ down, atol=2e-5
        )


class TestLinear:
    def test_its_derivative_is_the_products(self):
        x, w = draw(2, 3, 4), draw(4, 5, seed=1)

        def plain(x, w):
            return jnp.einsum("btk,kn->btn", x, w)

        y, pull = jax.vjp(lambda x, w: linear(x, w, here(), 0), x, w)
        want, plain_pull = jax.vjp(plain, x, w)
        np.testing.assert_allclose(y, want, atol=1e-6)
        for got, expected in zip(pull(y), plain_pull(y), strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-5)

    def test_weights_stay_float32_under_bfloat16(self):
        x, w = draw(2, 3, 4).astype(jnp.bfloat16), draw(4, 5, seed=1)
        y, pull = jax.vjp(lambda x, w: linear(x, w, here(), 0), x, w)
        dx, dw = pull(y)
        assert (y.dtype, dx.dtype, dw.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)


class TestRotary:
    BASE = 10_000.0

    def test_by_hand(self):
        """Two frequencies, 1 and base^(-1/2) = 1/100; pairs are i and i + 2."""
        x = jnp.array([1.0, 1.0, 0.0, 0.0])[None, None, None]
        got = rotate(x, jnp.array([[3]]), self.BASE)[0, 0, 0]
        want = np.array([math.cos(3), math.cos(0.03), math.sin(3), math.sin(0.03)])
        np.testing.assert_allclose(got, want, atol=1e-6)

    def test_scores_depend_on_distance_only(self):
        q, k = draw(1, 1, 2, 16), draw(1, 1, 2, 16, seed=1)

        def score(query_position, key_position):
            turned = [
                rotate(x, jnp.array([[at]]), self.BASE)
                for x, at in ((q, query_position), (k, key_position))
            ]
            return jnp.sum(turned[0] * turned[1], axis=-1)

        np.testing.assert_allclose(score(7, 4), score(903, 900), atol=1e-3)
        np.testing.assert_allclose(score(7, 7), score(0, 0), atol=1e-4)
        assert np.max(np.abs(score(7, 4) - score(4, 7))) > 0.1

    def test_lengths_stay(self):
        x = draw(2, 9, 3, 16)
        turned = rotate(x, jnp.arange(9)[None], self.BASE)
        np.testing.assert_allclose(
            np.linalg.norm(turned, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-5
        )
        np.testing.assert_array_equal(turned[:, 0], x[:, 0])

    def test_angles_are_float32_in_bfloat16(self):
        """Position 4097 is 4096 in bfloat16."""
        x = draw(1, 2, 1, 16).astype(jnp.bfloat16)
        at = jnp.array([[4096, 4097]])
        exact = rotate(x.astype(jnp.float32), at, self.BASE)
        got = rotate(x, at, self.BASE)
        assert got.dtype == jnp.bfloat16
        np.testing.assert_allclose(got.astype(jnp.float32), exact, atol=0.02)


class TestHeads:
    """Variants inside attention, through the whole network."""

    def logits(self, config, params, tokens=(3, 1, 4, 1, 5)):
        inputs = model.Inputs(jnp.array([tokens]), None, jnp.arange(len(tokens))[None])
        return jax.jit(model.apply, static_argnums=0)(config, params, inputs)[..., : config.vocab]

    def test_qk_norm_forgets_the_size_of_queries_and_keys(self, make, random_params):
        config = make(qk_norm=True, bias=False, layers=1, norm_epsilon=1e-9)
        params = random_params(config)
        for name in ("query", "key"):
            larger = {**params["layer_0"]["attention"][name]}
            larger["kernel"] = 7 * larger["kernel"]
            attention_params = {**params["layer_0"]["attention"], name: larger}
            changed = {**params, "layer_0": {**params["layer_0"], "attention": attention_params}}
            np.testing.assert_allclose(
                self.logits(config, changed), self.logits(config, params), atol=1e-4
            )

    def test_grouped_queries_equal_repeated_keys_and_values(self, make, random_params):
        grouped, full = make(kv_heads=2), make()
        params = random_params(grouped)
        spread = jax.tree.map_with_path(
            lambda path, leaf: (
                jnp.repeat(leaf, 2, axis=-2)
                if any(entry.key in ("key", "value") for entry in path)
                else leaf
            ),
            params,
        )
        np.testing.assert_allclose(
            self.logits(grouped, params), self.logits(full, spread), atol=1e-5
        )

    def test_without_positions_order_is_seen_through_the_mask_alone(self, make, random_params):
        """Of one layer's last token, earlier ones may change places."""
        config = make(positions="none", layers=1)
        params = random_params(config)
        one = self.logits(config, params, (3, 1, 4, 7, 5))[0, -1]
        other = self.logits(config, params, (7, 4, 3, 1, 5))[0, -1]
        np.testing.assert_allclose(one, other, atol=1e-5)
        learned = make(layers=1)
        params = random_params(learned)
        one = self.logits(learned, params, (3, 1, 4, 7, 5))[0, -1]
        other = self.logits(learned, params, (7, 4, 3, 1, 5))[0, -1]
        assert np.max(np.abs(one - other)) > 1e-2
