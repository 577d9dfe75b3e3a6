"""Every parameter is declared once, as data, where it is used.

A module asks for a parameter with `declare_parameter`, which stores a `Parameter` (shape, logical
axes, initializer, whether it decays, what it costs) beside the value. Init, shardings, decay masks,
optimizer groups and counts all derive from the tree of these declarations.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from configs.schema import Model

Kind = Literal["embedding", "head", "matrix", "vector"]


@dataclass(frozen=True)
class Parameter:
    """One declared array.

    Attributes:
        shape: its shape, vocabulary padding included.
        axes: a logical name for each dimension; parallel/ maps names to mesh axes.
        kind: embedding (looked up), head (output vocabulary), matrix (multiplied once a token) or
            vector (scales and biases).
        decay: whether weight decay applies.
        std: standard deviation of its normal initializer, or None for a constant.
        constant: the initial value when std is None.
        matrix_axes: for a matrix, the input dimensions and the output dimensions.
        growth: how many times the base model's its inputs and its outputs are, in muP (see
            `growth`); the optimizer's rates follow from it.
    """

    shape: tuple[int, ...]
    axes: tuple[str, ...]
    kind: Kind
    decay: bool
    std: float | None = None
    constant: float = 0.0
    matrix_axes: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    growth: tuple[float, float] = (1.0, 1.0)

    def initial(self, key: jax.Array) -> jax.Array:
        """Draw the initial float32 value."""
        if self.std is None:
            return jnp.full(self.shape, self.constant, jnp.float32)
        return self.std * jax.random.normal(key, self.shape, jnp.float32)


@struct.dataclass
class Declared(nn.meta.AxisMetadata):
    """A parameter's value with its declaration, inside Flax's variable tree."""

    value: Any
    parameter: Parameter = struct.field(pytree_node=False)

    def unbox(self) -> Any:
        """The value alone."""
        return self.value

    def replace_boxed(self, val: Any) -> "Declared":
        """The same declaration with another value."""
        return Declared(val, self.parameter)

    def add_axis(self, index: int, params: dict[Any, Any]) -> "Declared":
        """The same parameter stacked over the layers of a scan."""
        old = self.parameter
        stacked = dataclasses.replace(
            old,
            shape=(*old.shape[:index], params["length"], *old.shape[index:]),
            axes=(*old.axes[:index], "layers", *old.axes[index:]),
            matrix_axes=_renumber(old, lambda dim: dim + (dim >= index)),
        )
        return Declared(self.value, stacked)

    def remove_axis(self, index: int, params: dict[Any, Any]) -> "Declared":
        """One layer's slice of a stacked parameter."""
        old = self.parameter
        single = dataclasses.replace(
            old,
            shape=(*old.shape[:index], *old.shape[index + 1 :]),
            axes=(*old.axes[:index], *old.axes[index + 1 :]),
            matrix_axes=_renumber(old, lambda dim: dim - (dim > index)),
        )
        return Declared(self.value, single)


def growth(config: Model, axes: tuple[str, ...]) -> float:
    """How many times as many entries these logical axes have as in the base model of muP.

    Feed-forward width and the number of all heads together are taken to grow with the width.
    """
    heads = config.width_ratio / config.head_ratio
    wider = dict.fromkeys(("width", "channels", "ffn"), config.width_ratio)
    ratios = {**wider, "heads": heads, "kv_heads": heads, "head_dim": config.head_ratio}
    return math.prod(ratios.get(axis, 1.0) for axis in axes)


def _renumber(
    parameter: Parameter, move: Callable[[int], int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    inputs, outputs = parameter.matrix_axes
    return tuple(map(move, inputs)), tuple(map(move, outputs))


def declare_parameter(module: nn.Module, name: str, parameter: Parameter) -> jax.Array:
    """The float32 value of `parameter` in this module, declared under `name`.

    Where it is split over devices it is this device's share, whose shape Flax would not accept.
    """
    if module.has_variable("params", name):
        return module.get_variable("params", name)
    boxed: Any = module.param(name, lambda key: Declared(parameter.initial(key), parameter))
    return boxed  # which Flax has unboxed already
