"""Non-linearities and norms with their own derivatives, which keep nothing but their inputs.

JAX would keep every intermediate array that a derivative names: four the size of the feed-forward
block for one GELU. Here the backward pass computes them again in the one pass that needs them, and
a barrier keeps it out of the products before and after, which read their inputs more than once.

Shapes: f any number of channels, d the channels that a norm is over.
"""

import functools
import math

import jax
import jax.numpy as jnp

# tanh(y) = 2 sigmoid(2 y) - 1 turns the GELU of Hendrycks & Gimpel (2016, section 2) with its tanh
# into x * sigmoid(2 y), where y = sqrt(2 / pi) (x + CUBE x^3): one exponential, not two.
CUBE = 0.044715
SCALE = 2 * math.sqrt(2 / math.pi)


@jax.custom_vjp
def gelu(x_f: jax.Array) -> jax.Array:
    """x times the normal distribution function at x, in its tanh approximation."""
    return x_f * jax.nn.sigmoid(SCALE * (x_f + CUBE * x_f**3))


def _gelu_forward(x_f: jax.Array) -> tuple[jax.Array, jax.Array]:
    return gelu(x_f), x_f


def _gelu_backward(x_f: jax.Array, dy_f: jax.Array) -> tuple[jax.Array]:
    x_f, dy_f = jax.lax.optimization_barrier((x_f, dy_f))
    gate_f = jax.nn.sigmoid(SCALE * (x_f + CUBE * x_f**3))
    slope_f = SCALE * (1 + 3 * CUBE * x_f**2)
    return (dy_f * gate_f * (1 + x_f * (1 - gate_f) * slope_f),)


gelu.defvjp(_gelu_forward, _gelu_backward)


@jax.custom_vjp
def swiglu(gate_f: jax.Array, up_f: jax.Array) -> jax.Array:
    """silu(gate) * up (Shazeer 2020)."""
    return jax.nn.silu(gate_f) * up_f


def _swiglu_forward(
    gate_f: jax.Array, up_f: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return swiglu(gate_f, up_f), (gate_f, up_f)


def _swiglu_backward(
    saved: tuple[jax.Array, jax.Array], dy_f: jax.Array
) -> tuple[jax.Array, jax.Array]:
    gate_f, up_f, dy_f = jax.lax.optimization_barrier((*saved, dy_f))
    open_f = jax.nn.sigmoid(gate_f)
    d_gate_f = dy_f * up_f * open_f * (1 + gate_f * (1 - open_f))
    return d_gate_f, dy_f * gate_f * open_f


swiglu.defvjp(_swiglu_forward, _swiglu_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def normalize(x_d: jax.Array, scale_d: jax.Array, centre: bool, epsilon: float) -> jax.Array:
    """x over its standard deviation (`centre`) or root mean square, in float32, times `scale`."""
    return _normalize(x_d, scale_d, centre, epsilon)[0]


def _normalize(
    x_d: jax.Array, scale_d: jax.Array, centre: bool, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The result, the normalised values and one over the deviation."""
    x32_d = x_d.astype(jnp.float32)
    if centre:
        x32_d = x32_d - jnp.mean(x32_d, axis=-1, keepdims=True)
    inverse_1 = jax.lax.rsqrt(jnp.mean(jnp.square(x32_d), axis=-1, keepdims=True) + epsilon)
    unit_d = x32_d * inverse_1
    return (unit_d * scale_d).astype(x_d.dtype), unit_d, inverse_1


def _normalize_forward(
    x_d: jax.Array, scale_d: jax.Array, centre: bool, epsilon: float
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return normalize(x_d, scale_d, centre, epsilon), (x_d, scale_d)


def _normalize_backward(
    centre: bool, epsilon: float, saved: tuple[jax.Array, jax.Array], dy_d: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x_d, scale_d = saved
    x_d, dy_d = jax.lax.optimization_barrier((x_d, dy_d))
    _, unit_d, inverse_1 = _normalize(x_d, scale_d, centre, epsilon)
    dy32_d = dy_d.astype(jnp.float32)
    d_unit_d = dy32_d * scale_d
    dx_d = d_unit_d - unit_d * jnp.mean(d_unit_d * unit_d, axis=-1, keepdims=True)
    if centre:
        dx_d = dx_d - jnp.mean(d_unit_d, axis=-1, keepdims=True)
    across = tuple(range(x_d.ndim - 1))
    d_scale_d = jnp.sum(dy32_d * unit_d, axis=across, keepdims=True)
    return (dx_d * inverse_1).astype(x_d.dtype), d_scale_d.reshape(scale_d.shape)


normalize.defvjp(_normalize_forward, _normalize_backward)
