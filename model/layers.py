"""The leaves of the network: linear maps, norms, the feed-forward block, rotary positions.

Shapes: b batch, t time, d model width, f feed-forward width, n heads, h head width, v vocabulary.
Parameters are float32; mathematics runs in the dtype of the input, norms in float32.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.ad_checkpoint
import jax.numpy as jnp

from configs.schema import Model
from model import float8, turned
from model.elementwise import gelu, normalize, swiglu
from model.inputs import Inputs
from model.linear import linear
from model.parameters import Kind, Parameter, declare_parameter, growth
from model.placement import FSDP, TENSOR, Placement, split_dim

LINEAR_OUTPUT = "linear_output"  # what remat="dots" keeps


def residual_std(config: Model) -> float | None:
    """Deviation of the matrices that write into the residual stream (Radford et al. 2019, 2.3).

    Each of the 2 * layers writes adds variance, hence 1 / sqrt(2 * layers); None is a zero start.
    In depth-muP the blocks themselves are scaled by depth, and the base model's layers count.
    """
    if config.residual_init == "zero":
        return None
    return config.init_std / math.sqrt(2 * config.layers / config.depth_ratio)


class Linear(nn.Module):
    """y = x W (+ b): contracts the last `len(inputs)` dimensions of x, appends `outputs`.

    `axes` names the logical axis of each dimension of W. Where its inputs are split over tensor,
    each device has a part of the sum, and y is the sum for the tokens of its residual stream.
    """

    config: Model
    placement: Placement
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    axes: tuple[str, ...]
    std: float | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [b, t, *inputs] to [b, t, *outputs]."""
        rank = len(self.inputs)
        grown = growth(self.config, self.axes[:rank]), growth(self.config, self.axes[rank:])
        kernel = Parameter(
            shape=self.inputs + self.outputs,
            axes=self.axes,
            kind="matrix",
            decay=True,
            std=None if self.std is None else self.std * grown[0] ** -0.5,
            matrix_axes=(tuple(range(rank)), tuple(range(rank, len(self.axes)))),
            growth=grown,
        )
        weight = declare_parameter(self, "kernel", kernel)
        batch, into = x.shape[: x.ndim - rank], self.axes[rank:]
        outputs = self.outputs if "width" in into else weight.shape[rank:]
        rows = math.prod(weight.shape[:rank])
        split = int("width" in into)  # the dimension of the flat matrix that fsdp splits
        x_btk = x.reshape(*batch, -1)
        if self.has_variable(turned.COLLECTION, "kernel"):
            y = turned.few(x_btk, self.get_variable(turned.COLLECTION, "kernel"))
        else:
            multiply = float8.linear if self.config.matrix_dtype == "float8" else linear
            y = multiply(x_btk, weight.reshape(rows, -1), self.placement, split)
        if split_dim(self.axes[:rank], TENSOR) is not None:
            y = self.placement.leave(y)
        y = jax.ad_checkpoint.checkpoint_name(y, LINEAR_OUTPUT).reshape(*y.shape[:2], *outputs)
        if self.config.bias:
            names = tuple("channels" if axis == "width" else axis for axis in into)
            y = y + vector(self, "bias", self.outputs, names, 0.0, y)
        return y


def vector(
    module: nn.Module,
    name: str,
    shape: tuple[int, ...],
    axes: tuple[str, ...],
    constant: float,
    like: jax.Array,
) -> jax.Array:
    """A bias or scale in the dtype and rank of `like`: starts constant, never decays."""
    grown = 1.0, growth(module.config, axes)
    spec = Parameter(shape, axes, "vector", decay=False, constant=constant, growth=grown)
    value = declare_parameter(module, name, spec).astype(like.dtype)
    return value.reshape((1,) * (like.ndim - value.ndim) + value.shape)


class Norm(nn.Module):
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang & Sennrich 2019) over the last dimension."""

    config: Model
    kind: str
    axis: str = "channels"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises; shape and dtype stay."""
        width, c = x.shape[-1:], self.config
        x32 = x.astype(jnp.float32)  # scale and bias have its dtype
        scale = vector(self, "scale", width, (self.axis,), 1.0, x32)
        if not (self.kind == "layernorm" and c.bias):
            return normalize(x, scale, self.kind == "layernorm", c.norm_epsilon)
        bias = vector(self, "bias", width, (self.axis,), 0.0, x32)
        return (normalize(x32, scale, True, c.norm_epsilon) + bias).astype(x.dtype)


class FeedForward(nn.Module):
    """Two matrices around a non-linearity, or three when gated (SwiGLU, Shazeer 2020)."""

    config: Model
    placement: Placement

    @nn.compact
    def __call__(self, x_btd: jax.Array) -> jax.Array:
        """Each token for itself."""
        c, placement = self.config, self.placement
        x_btd = placement.enter(x_btd)

        def up(name: str) -> jax.Array:
            axes = ("width", "ffn")
            layer = Linear(c, placement, (c.width,), (c.ffn_width,), axes, c.init_std, name=name)
            return layer(x_btd)

        if c.ffn == "swiglu":
            hidden_btf = swiglu(up("gate"), up("up"))
        elif c.ffn == "relu2":
            hidden_btf = jnp.square(jax.nn.relu(up("up")))
        else:
            hidden_btf = gelu(up("up"))
        axes, std = ("ffn", "width"), residual_std(c)
        down = Linear(c, placement, (c.ffn_width,), (c.width,), axes, std, name="down")
        return down(hidden_btf)


class Embedding(nn.Module):
    """The token table, the position table when learned, and the output head."""

    config: Model
    placement: Placement

    def setup(self) -> None:
        """Declare the tables."""
        c = self.config

        def table(name: str, rows: int, axis: str, kind: Kind) -> jax.Array:
            shape, axes = (rows, c.width), (axis, "width")
            wider = growth(c, ("width",))
            grown = (wider, 1.0) if kind == "head" else (1.0, wider)
            spec = Parameter(shape, axes, kind, decay=True, std=c.init_std, growth=grown)
            return declare_parameter(self, name, spec)

        self.tokens = table("tokens", c.padded_vocab, "vocab", "embedding")
        if not c.tied:
            self.output = table("output", c.padded_vocab, "vocab", "head")
        if c.kind == "transformer" and c.positions == "learned":
            self.positions = table("positions", c.context, "context", "embedding")

    def embed(self, inputs: Inputs) -> jax.Array:
        """Vectors for token ids, in the compute dtype; positions matter only when learned."""
        c, placement = self.config, self.placement
        x_btd = look_up(self.tokens, inputs.tokens_bt, placement, c.compute_dtype)
        if c.kind == "transformer" and c.positions == "learned":
            table_td = placement.matrix(self.positions, 1)
            x_btd = x_btd + placement.stream(table_td[inputs.positions_bt]).astype(x_btd.dtype)
        return x_btd

    def head(self) -> jax.Array:
        """The output table, float32 [padded_vocab, width]."""
        return self.tokens if self.config.tied else self.output


def look_up(
    table_vd: jax.Array, tokens_bt: jax.Array, placement: Placement, dtype: str
) -> jax.Array:
    """The rows of a table for token ids, for the tokens of the residual stream, in `dtype`.

    The table may be split by rows over tensor and by columns over fsdp. It stays where it is: each
    device looks its columns up for the windows of all of fsdp, and then columns are exchanged for
    windows, which is less by far than the table.
    """
    if placement.fsdp > 1:
        tokens_bt = jax.lax.all_gather(tokens_bt, FSDP, tiled=True)
    if placement.tensor > 1:
        rows = len(table_vd)
        tokens_bt = tokens_bt - placement.index(TENSOR) * rows
        here_bt = (tokens_bt >= 0) & (tokens_bt < rows)
        x_btd = jnp.where(here_bt[..., None], table_vd[jnp.clip(tokens_bt, 0, rows - 1)], 0)
    else:
        x_btd = table_vd[tokens_bt]
    x_btd = x_btd.astype(dtype)
    if placement.fsdp > 1:
        x_btd = jax.lax.all_to_all(x_btd, FSDP, split_axis=0, concat_axis=2, tiled=True)
    return placement.leave(x_btd)


def dropout(x_btd: jax.Array, rate: float, keys_bt: jax.Array | None, number: Any) -> jax.Array:
    """Zero a share of the channels and scale up the rest (Srivastava et al. 2014).

    Args:
        x_btd: any array of tokens.
        rate: the share.
        keys_bt: a key for each token, so that masks do not depend on where tokens are computed;
            None: no dropout.
        number: which of the network's dropouts this is; integer, traced or not.
    """
    if keys_bt is None:
        return x_btd

    def keep(key: jax.Array) -> jax.Array:
        return jax.random.bernoulli(jax.random.fold_in(key, number), 1 - rate, x_btd.shape[-1:])

    return jnp.where(jax.vmap(jax.vmap(keep))(keys_bt), x_btd / (1 - rate), 0).astype(x_btd.dtype)


def rotate(x_btnh: jax.Array, positions_bt: jax.Array, base: float) -> jax.Array:
    """Rotary positions (Su et al. 2021): rotate pairs (i, i + h/2) by position * base^(-2i/h).

    positions_bt is [b or 1, t]. The angle is computed in float32, whatever the compute dtype.
    """
    half = x_btnh.shape[-1] // 2
    frequencies = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions_bt.astype(jnp.float32)[..., None, None] * frequencies[None, None, None]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    left, right = jnp.split(x_btnh.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)
    return rotated.astype(x_btnh.dtype)
