"""The matrix products the network is made of, with their own derivatives.

Shapes: b batch, t time, k inputs, n outputs.
"""

import functools

import jax
import jax.numpy as jnp

from model.placement import Placement


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def linear(x_btk: jax.Array, w_kn: jax.Array, placement: Placement, split: int) -> jax.Array:
    """x W in the dtype of x; W is float32 and its gradient is too.

    W may be a slice along dimension `split`. What the other devices hold is fetched here, in the
    dtype of x, and fetched again for the backward pass.
    """
    return jnp.einsum("btk,kn->btn", x_btk, placement.matrix(w_kn.astype(x_btk.dtype), split))


def _forward(
    x_btk: jax.Array, w_kn: jax.Array, placement: Placement, split: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return linear(x_btk, w_kn, placement, split), (x_btk, w_kn)


def _backward(
    placement: Placement, split: int, saved: tuple[jax.Array, ...], dy_btn: jax.Array
) -> tuple[jax.Array, jax.Array]:
    # Without the barrier XLA:CPU computes whatever produced x and dy (a GELU, a norm) again, one
    # element at a time, inside the transposing copy it makes for dW: its largest single loss.
    x_btk, w_kn = saved
    if placement.fsdp > 1:  # with a slice of W, so that the whole is fetched again, and only then
        x_btk, dy_btn, w_kn = jax.lax.optimization_barrier((x_btk, dy_btn, w_kn))
    else:
        x_btk, dy_btn = jax.lax.optimization_barrier((x_btk, dy_btn))
    whole_kn = placement.matrix(w_kn.astype(dy_btn.dtype), split)
    dx_btk = jnp.einsum("btn,kn->btk", dy_btn, whole_kn)
    dw_kn = jnp.einsum("btk,btn->kn", x_btk, dy_btn, preferred_element_type=w_kn.dtype)
    return dx_btk, placement.matrix_gradient(dw_kn, split)


linear.defvjp(_forward, _backward)


@jax.custom_vjp
def linear_float32(x_btk: jax.Array, w_nk: jax.Array) -> jax.Array:
    """x W' in float32, for logits; products are of the dtype of x, W and its gradient float32."""
    return jnp.einsum(
        "btk,nk->btn", x_btk, w_nk.astype(x_btk.dtype), preferred_element_type=jnp.float32
    )


def _forward_float32(
    x_btk: jax.Array, w_nk: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return linear_float32(x_btk, w_nk), (x_btk, w_nk)


def _backward_float32(
    saved: tuple[jax.Array, ...], dy_btn: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x_btk, w_nk = saved
    return linear_float32_gradients(x_btk, w_nk, dy_btn, w_nk.dtype)


def linear_float32_gradients(
    x_btk: jax.Array, w_nk: jax.Array, dy_btn: jax.Array, dtype: jax.typing.DTypeLike
) -> tuple[jax.Array, jax.Array]:
    """The gradients of linear_float32 for x and W, that for W in `dtype`."""
    # Left to JAX, both products would run in float32, and dW be rounded to the dtype of x.
    x_btk, dy_btn = jax.lax.optimization_barrier((x_btk, dy_btn.astype(x_btk.dtype)))
    dx_btk = jnp.einsum("btn,nk->btk", dy_btn, w_nk.astype(dy_btn.dtype))
    dw_nk = jnp.einsum("btn,btk->nk", dy_btn, x_btk, preferred_element_type=dtype)
    return dx_btk, dw_nk


linear_float32.defvjp(_forward_float32, _backward_float32)
