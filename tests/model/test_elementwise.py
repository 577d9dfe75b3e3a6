"""The non-linearities and norms, and their derivatives, against float64 and against JAX's own."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.elementwise import gelu, normalize, swiglu

DRAWN = np.random.default_rng(0).normal(size=(4, 3, 5, 16)) * 3


def slope(function: Any, x: np.ndarray) -> np.ndarray:
    """The derivative of a function of float64 numbers, one by one, by central differences."""
    step = 1e-5
    return (function(x + step) - function(x - step)) / (2 * step)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_gelu_is_the_published_one():
    """Hendrycks & Gimpel 2016, section 2."""

    def definition(x):
        return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    x, dy = DRAWN[0], DRAWN[1]
    y, pull = jax.vjp(gelu, jnp.array(x, jnp.float32))
    np.testing.assert_allclose(y, definition(x), atol=2e-6)
    got = pull(jnp.array(dy, jnp.float32))[0]
    np.testing.assert_allclose(got, dy * slope(definition, x), atol=1e-5)


def test_swiglu_is_the_published_one():
    """Shazeer 2020, eq. 5 without biases."""
    gate, up, dy = DRAWN[:3]
    y, pull = jax.vjp(swiglu, *(jnp.array(a, jnp.float32) for a in (gate, up)))
    np.testing.assert_allclose(y, gate * sigmoid(gate) * up, atol=1e-5)
    d_gate, d_up = pull(jnp.array(dy, jnp.float32))
    by_gate = slope(lambda g: g * sigmoid(g), gate)
    np.testing.assert_allclose(d_gate, dy * up * by_gate, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(d_up, dy * gate * sigmoid(gate), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("centre", [False, True])
def test_norms_are_the_published_ones(centre):
    """Ba et al. 2016, eq. 4, and Zhang & Sennrich 2019, eq. 4; derivatives by JAX in float32."""
    x, dy = DRAWN[0], DRAWN[1]
    scale = np.linspace(0.5, 2, 16)
    inner = x - x.mean(-1, keepdims=True) if centre else x
    definition = inner / np.sqrt((inner**2).mean(-1, keepdims=True) + 1e-5) * scale

    def plain(x, scale):
        inner = x - jnp.mean(x, -1, keepdims=True) if centre else x
        spread = jnp.mean(inner**2, -1, keepdims=True)
        return inner / jnp.sqrt(spread + 1e-5) * scale

    arrays = jnp.array(x, jnp.float32), jnp.array(scale, jnp.float32)[None, None]
    y, pull = jax.vjp(lambda x, s: normalize(x, s, centre, 1e-5), *arrays)
    np.testing.assert_allclose(y, definition, atol=2e-6)
    got = pull(jnp.array(dy, jnp.float32))
    want = jax.vjp(plain, *arrays)[1](jnp.array(dy, jnp.float32))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("function", [gelu, lambda x: swiglu(x, x), None])
def test_dtypes_stay_and_nothing_overflows(function):
    x = jnp.array([[-1e4, -30, 0, 30, 1e4]], jnp.bfloat16)
    if function is None:
        scale = jnp.ones((1, 5))
        y, pull = jax.vjp(lambda x: normalize(x, scale, True, 1e-5), x)
    else:
        y, pull = jax.vjp(function, x)
    dx = pull(jnp.ones_like(y))[0]
    assert y.dtype == dx.dtype == jnp.bfloat16
    assert bool(jnp.isfinite(y).all())
    assert bool(jnp.isfinite(dx).all())


def test_only_inputs_are_kept():
    """What JAX keeps for the backward pass is no more than what went in."""
    x = jnp.array(DRAWN[0], jnp.float32)
    scale = jnp.ones((1, 1, 16))
    for function, arrays in (
        (gelu, (x,)),
        (swiglu, (x, x)),
        (lambda x, s: normalize(x, s, True, 1e-5), (x, scale)),
    ):
        _, pull = jax.vjp(function, *arrays)
        kept = sum(leaf.size for leaf in jax.tree.leaves(pull))
        assert kept <= sum(array.size for array in arrays)
