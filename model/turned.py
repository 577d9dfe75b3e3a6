"""Decoding a few texts at once on a CPU: products with matrices that are kept transposed.

Shapes: b rows, t time, k inputs, n outputs, m = b * t, v vocabulary.

XLA:CPU is slow where a few rows are multiplied with a matrix, x W. W' x', with the transposed
matrix [n, k] on the left, takes half the time from 2 rows on; beyond 32 the gain is over.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from configs.schema import Model
from model.parameters import Parameter

COLLECTION = "turned"  # where a Linear finds its matrix, if decoding turned it
ROWS = range(2, 33)


def serves(config: Model, rows: int) -> bool:
    """Whether decoding so many rows gains from turned matrices here."""
    plain = config.compute_dtype == "float32" and config.matrix_dtype == "compute"
    few_rows = config.kind == "transformer" and rows in ROWS
    return plain and few_rows and jax.default_backend() == "cpu"


def turn(params: Any, declarations: Any) -> Any:
    """The matrices of the layers, each [n, k], or stacked [l, n, k]; as much memory once more."""
    turned = {}
    for name, declared in declarations.items():
        if not isinstance(declared, Parameter):
            if below := turn(params[name], declared):
                turned[name] = below
        elif declared.kind == "matrix":
            inputs, outputs = declared.matrix_axes
            stack = tuple(d for d in range(len(declared.shape)) if d not in inputs + outputs)
            w = jnp.transpose(params[name], (*stack, *outputs, *inputs))
            n, k = (math.prod(declared.shape[d] for d in dims) for dims in (outputs, inputs))
            turned[name] = w.reshape(*w.shape[: len(stack)], n, k)
    return turned


def few(x_btk: jax.Array, w_nk: jax.Array) -> jax.Array:
    """x W for a few rows, float32 [b, t, n]."""
    b, t, k = x_btk.shape
    y_nm = jnp.einsum("nk,mk->nm", w_nk, x_btk.reshape(b * t, k))
    # Without the barrier the compiler may exchange the factors to save the small transpose.
    return jax.lax.optimization_barrier(y_nm).T.reshape(b, t, -1)
