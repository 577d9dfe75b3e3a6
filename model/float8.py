"""Matrix products in 8-bit floating point, for the matrices of the blocks.

Shapes: b batch, t time, k inputs, n outputs.

Hopper multiplies 8-bit numbers twice as fast as 16-bit ones. Activations and weights are rounded to
E4M3 and gradients, which spread wider, to E5M2 (Micikevicius et al. 2022, arXiv:2209.05433), with
one scale a tensor, from its own largest entry ("current scaling"). What stays as it is: parameters
and the sum of their gradients, float32; head and embeddings, norms, attention and the residual
stream, in the compute dtype. torchtitan scales in the same way (its docs/float8.md).

A scale is a power of two. Multiplying by it is exact, so numbers that the format holds come through
unchanged, and the compiler may move it into the product.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from configs.schema import InputError, Model
from model.placement import FSDP, Placement

Rounded = tuple[jax.Array, jax.Array]  # values of 8 bits and their scale

FORWARD, BACKWARD = jnp.float8_e4m3fn, jnp.float8_e5m2
LEAST = -60  # exponent of a scale: the product of two is a normal number
FIRST_CAPABILITY = 8.9  # of an NVIDIA GPU with 8-bit units: Ada, then Hopper


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["weight", "values", "scale"], meta_fields=[]
)
@dataclass(frozen=True)
class Prepared:
    """A matrix and what it is rounded to: weight is about values * scale.

    Attributes:
        weight: float32, what the gradient is for; Flax checks its shape, so it is the first leaf.
        values: E4M3, of the same shape.
        scale: float32, a scalar, or one a layer where layers are stacked.
    """

    weight: jax.Array
    values: jax.Array
    scale: jax.Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the matrix."""
        return self.weight.shape

    def reshape(self, *shape: int) -> "Prepared":
        """The same in another shape."""
        return Prepared(self.weight.reshape(shape), self.values.reshape(shape), self.scale)


def obstacle(platform: str, capability: str) -> str:
    """Why 8-bit products would not be fast there, or nothing.

    Args:
        platform: cpu, gpu or tpu. A CPU has no 8-bit units; it is let through for tests.
        capability: the compute capability of the GPU that is here, such as "9.0"; empty: unknown,
            as where one compiles for a GPU that is not here.
    """
    if platform == "tpu":
        return "it is not made for TPUs"
    if platform == "gpu" and capability and float(capability) < FIRST_CAPABILITY:
        return f"this GPU, of compute capability {capability}, has no 8-bit units (from 8.9 on)"
    return ""


def check(config: Model, placement: Placement) -> None:
    """Refuse what cannot run.

    Raises:
        InputError: 8-bit products are asked for where they would not be fast.
    """
    if config.matrix_dtype != "float8":
        return
    here = jax.devices()[0] if jax.default_backend() == "gpu" else None
    why = obstacle(placement.platform, getattr(here, "compute_capability", ""))
    if why:
        raise InputError(
            f"model.matrix_dtype=float8 cannot run: {why}; set model.matrix_dtype=compute"
        )


def scales(largest: jax.Array, dtype: Any) -> jax.Array:
    """The least power of two by which the largest entry may be divided to be finite in `dtype`.

    1 for a tensor of zeros. Not finite where the largest entry is not, so that what is made of it
    is not either and the update is skipped.
    """
    top, top_exponent = math.frexp(float(jnp.finfo(dtype).max))
    fraction, exponent = jnp.frexp(largest.astype(jnp.float32))
    exponent = exponent - top_exponent + (fraction > top)
    scale = jnp.ldexp(jnp.ones_like(fraction), jnp.maximum(exponent, LEAST))
    return jnp.where(jnp.isfinite(largest), jnp.where(largest > 0, scale, 1), largest)


def quantize(x: jax.Array, scale: jax.Array, dtype: Any) -> jax.Array:
    """x / scale, rounded to `dtype`; the scale has as many dimensions as x, or none."""
    return (x.astype(jnp.float32) / scale).astype(dtype)


def _round(x: jax.Array, dtype: Any) -> Rounded:
    scale = scales(jnp.max(jnp.abs(x)), dtype)
    return quantize(x, scale, dtype), scale


def prepare(params: Any, declarations: Any, placement: Placement) -> list[Rounded | None]:
    """Round every matrix of the blocks, once for all the microbatches of an update.

    Args:
        params: this device's share.
        declarations: of the whole.
        placement: how it is split. The slices that fsdp makes of a matrix share a scale.

    Returns:
        For each leaf of `params`: the values and scale of a matrix, None for all else.
    """
    leaves, weights = jax.tree.leaves(declarations), jax.tree.leaves(params)
    places = [i for i, declared in enumerate(leaves) if declared.kind == "matrix"]

    def largest(i: int) -> jax.Array:
        stacked = leaves[i].axes[0] == "layers"
        return jnp.max(jnp.abs(weights[i]), axis=tuple(range(stacked, weights[i].ndim)))

    found = [largest(i) for i in places]
    if placement.fsdp > 1:  # one exchange for all of them
        shapes = [jnp.shape(most) for most in found]
        flat = jax.lax.pmax(jnp.concatenate([most.reshape(-1) for most in found]), FSDP)
        cuts = [sum(math.prod(s) for s in shapes[: i + 1]) for i in range(len(shapes) - 1)]
        parts = zip(jnp.split(flat, cuts), shapes, strict=True)
        found = [part.reshape(shape) for part, shape in parts]
    rounded: list[Rounded | None] = [None] * len(leaves)
    for i, most in zip(places, found, strict=True):
        scale = scales(most, FORWARD)
        each = scale.reshape(scale.shape + (1,) * (weights[i].ndim - scale.ndim))
        rounded[i] = quantize(weights[i], each, FORWARD), scale
    return rounded


def join(params: Any, rounded: list[Rounded | None]) -> Any:
    """Parameters with what `prepare` made of them; gradients flow to the parameters alone."""
    leaves, tree = jax.tree.flatten(params)
    pairs = zip(leaves, rounded, strict=True)
    return jax.tree.unflatten(tree, [Prepared(w, *made) if made else w for w, made in pairs])


def linear(
    x_btk: jax.Array, w_kn: jax.Array | Prepared, placement: Placement, split: int
) -> jax.Array:
    """x W in the dtype of x, of 8-bit factors; W is float32 and its gradient is too.

    A matrix that is not prepared is rounded here. What other devices hold of it along dimension
    `split` is fetched in 8 bits, and fetched again for the backward pass.
    """
    if not isinstance(w_kn, Prepared):
        most = jax.lax.stop_gradient(jnp.max(jnp.abs(w_kn)))
        scale = scales(most if placement.fsdp == 1 else jax.lax.pmax(most, FSDP), FORWARD)
        w_kn = Prepared(w_kn, quantize(jax.lax.stop_gradient(w_kn), scale, FORWARD), scale)
    return _linear(x_btk, w_kn.weight, w_kn.values, w_kn.scale, placement, split)


def _whole(values_kn: jax.Array, placement: Placement, split: int) -> jax.Array:
    """All slices of a rounded matrix: sent as bytes, which every network library can."""
    if placement.fsdp == 1:
        return values_kn
    bytes_kn = jax.lax.bitcast_convert_type(values_kn, jnp.uint8)
    return jax.lax.bitcast_convert_type(placement.matrix(bytes_kn, split), values_kn.dtype)


def _product(
    form: str,
    a: Rounded,
    b: Rounded,
    dtype: jax.typing.DTypeLike,
) -> jax.Array:
    """A product of (values, scale) pairs in `dtype`: the form that becomes an 8-bit product.

    XLA recognises 8-bit operands with a 16-bit result; the scale, which is exact in it, then goes
    into the product's own factor. Sums inside a product are float32 whatever the result is.
    """
    y = jnp.einsum(form, a[0], b[0], preferred_element_type=dtype)
    return y * (a[1] * b[1]).astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _linear(
    x_btk: jax.Array,
    w_kn: jax.Array,
    values_kn: jax.Array,
    scale: jax.Array,
    placement: Placement,
    split: int,
) -> jax.Array:
    return _forward(x_btk, w_kn, values_kn, scale, placement, split)[0]


def _forward(
    x_btk: jax.Array,
    w_kn: jax.Array,
    values_kn: jax.Array,
    scale: jax.Array,
    placement: Placement,
    split: int,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    del w_kn
    rounded = _round(x_btk, FORWARD)
    whole_kn = _whole(values_kn, placement, split)
    y_btn = _product("btk,kn->btn", rounded, (whole_kn, scale), x_btk.dtype)
    return y_btn, (*rounded, values_kn, scale)  # x in 8 bits: half of what it would be


def _backward(
    placement: Placement, split: int, saved: tuple[jax.Array, ...], dy_btn: jax.Array
) -> tuple[jax.Array, jax.Array, None, None]:
    x_btk, x_scale, values_kn, scale = saved
    if placement.fsdp > 1:  # so that the whole is fetched again, and only then
        dy_btn, values_kn = jax.lax.optimization_barrier((dy_btn, values_kn))
    rounded = _round(dy_btn, BACKWARD)
    whole_kn = _whole(values_kn, placement, split)
    dx_btk = _product("btn,kn->btk", rounded, (whole_kn, scale), dy_btn.dtype)
    dw_kn = _product("btk,btn->kn", (x_btk, x_scale), rounded, dy_btn.dtype)
    return dx_btk, placement.matrix_gradient(dw_kn.astype(jnp.float32), split), None, None


_linear.defvjp(_forward, _backward)
