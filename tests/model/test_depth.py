"""Layers in a loop or unrolled, kept or computed again: the same numbers at another price."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import model

WINDOWS = jnp.array(np.random.default_rng(0).integers(0, 50, (2, 17)), jnp.int32)


def loss(config, params):
    return model.loss(config, params, WINDOWS, eod=0, attend_across=False)[0]


def loss_and_gradient(config, params):
    return jax.jit(jax.value_and_grad(loss, argnums=1), static_argnums=0)(config, params)


def assert_close(one, other):
    """Within 1e-6 of each array's largest entry."""

    def check(a, b):
        np.testing.assert_allclose(a, b, atol=2e-6 * max(1, np.abs(a).max()), rtol=1e-5)

    jax.tree.map(check, one, other)


def stack(config, params):
    """Parameters of unrolled layers, as a scan over the pattern of windows holds them."""
    period = len(config.windows)
    blocks = {
        f"block_{i}": jax.tree.map(
            lambda *layers: jnp.stack(layers),
            *(params[f"layer_{i + j}"] for j in range(0, config.layers, period)),
        )
        for i in range(period)
    }
    rest = {name: part for name, part in params.items() if not name.startswith("layer_")}
    return {**rest, "layers": blocks}


class TestScan:
    def test_equals_unrolled_layers(self, make, random_params):
        changes = {"layers": 4, "windows": (3, 0), "norm_order": "post", "bias": False}
        config = make(**changes)
        params = random_params(config)
        value, gradient = loss_and_gradient(config, params)
        scanned = loss_and_gradient(make(**changes, scan=True), stack(config, params))
        assert_close(scanned, (value, stack(config, gradient)))

    def test_declarations_are_stacked_ones(self, make):
        single = model.declare(make())["layer_0"]
        stacked = model.declare(make(scan=True))["layers"]["block_0"]

        def check(one, many):
            assert many.shape == (2, *one.shape)
            assert many.axes == ("layers", *one.axes)
            assert many.matrix_axes == tuple(tuple(d + 1 for d in s) for s in one.matrix_axes)
            assert (many.kind, many.decay, many.std) == (one.kind, one.decay, one.std)

        jax.tree.map(check, single, stacked)

    def test_the_program_does_not_grow_with_depth(self, make):
        def size(**changes):
            config = make(**changes)
            params = jax.eval_shape(lambda: model.init(config, jax.random.key(0)))
            lowered = jax.jit(jax.grad(loss, argnums=1), static_argnums=0).lower(config, params)
            return len(lowered.as_text().splitlines())

        assert size(scan=True, layers=8) == size(scan=True, layers=2)
        assert size(layers=8) > 2 * size(layers=2)


def products(config):
    """Matrix products in the program of the gradient: those computed again are there again."""
    params = jax.eval_shape(lambda: model.init(config, jax.random.key(0)))
    lowered = jax.jit(jax.grad(loss, argnums=1), static_argnums=0).lower(config, params)
    return len(re.findall(r"dot_general", lowered.as_text()))


class TestRemat:
    def test_changes_no_gradient(self, make, random_params):
        config = make(scan=True)
        params = random_params(config)
        want = loss_and_gradient(config, params)
        for remat in ("full", "dots", "attention"):
            assert_close(loss_and_gradient(make(scan=True, remat=remat), params), want)

    @pytest.mark.parametrize("scan", [False, True])
    def test_each_policy_computes_again_what_it_says(self, scan, make):
        """A layer has six products with weights and two of attention.

        The last product of a layer, down, is never needed again.
        """
        blocks = 1 if scan else 2
        again = {
            remat: products(make(scan=scan, remat=remat, bias=False))
            - products(make(scan=scan, bias=False))
            for remat in ("full", "dots", "attention")
        }
        assert again == {"full": 7 * blocks, "attention": 6 * blocks, "dots": 2 * blocks}
