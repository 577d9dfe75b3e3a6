"""The matrix product every layer is made of, with its own derivative.

Shapes: b batch, t time, k inputs, n outputs.
"""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def linear(x_btk: jax.Array, w_kn: jax.Array) -> jax.Array:
    """x W in the dtype of x; W is float32 and its gradient is too."""
    return jnp.einsum("btk,kn->btn", x_btk, w_kn.astype(x_btk.dtype))


def _forward(x_btk: jax.Array, w_kn: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return linear(x_btk, w_kn), (x_btk, w_kn)


def _backward(saved: tuple[jax.Array, ...], dy_btn: jax.Array) -> tuple[jax.Array, jax.Array]:
    # Without the barrier XLA:CPU computes whatever produced x and dy (a GELU, a norm) again, one
    # element at a time, inside the transposing copy it makes for dW: its largest single loss.
    x_btk, dy_btn = jax.lax.optimization_barrier((saved[0], dy_btn))
    w_kn = saved[1]
    dx_btk = jnp.einsum("btn,kn->btk", dy_btn, w_kn.astype(dy_btn.dtype))
    dw_kn = jnp.einsum("btk,btn->kn", x_btk, dy_btn, preferred_element_type=w_kn.dtype)
    return dx_btk, dw_kn


linear.defvjp(_forward, _backward)
