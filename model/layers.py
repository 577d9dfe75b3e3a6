"""The leaves of the network: linear maps, norms, the feed-forward block, rotary positions.

Shapes: b batch, t time, d model width, f feed-forward width, n heads, h head width, v vocabulary.
Parameters are float32; mathematics runs in the dtype of the input, norms in float32.
"""

import math

import flax.linen as nn
import jax
import jax.ad_checkpoint
import jax.numpy as jnp

from configs.schema import Model
from model.linear import linear
from model.parameters import Parameter, declare_parameter

LINEAR_OUTPUT = "linear_output"  # what remat="dots" keeps


def residual_std(config: Model) -> float | None:
    """Deviation of the matrices that write into the residual stream (Radford et al. 2019, 2.3).

    Each of the 2 * layers writes adds variance, hence 1 / sqrt(2 * layers); None is a zero start.
    """
    if config.residual_init == "zero":
        return None
    return config.init_std / math.sqrt(2 * config.layers)


class Linear(nn.Module):
    """y = x W (+ b): contracts the last `len(inputs)` dimensions of x, appends `outputs`.

    `axes` names the logical axis of each dimension of W.
    """

    config: Model
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    axes: tuple[str, ...]
    std: float | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [b, t, *inputs] to [b, t, *outputs]."""
        rank = len(self.inputs)
        kernel = Parameter(
            shape=self.inputs + self.outputs,
            axes=self.axes,
            kind="matrix",
            decay=True,
            std=self.std,
            matrix_axes=(tuple(range(rank)), tuple(range(rank, len(self.axes)))),
        )
        weight = declare_parameter(self, "kernel", kernel)
        batch = x.shape[: x.ndim - rank]
        flat = math.prod(self.inputs)
        y = linear(x.reshape(*batch, flat), weight.reshape(flat, -1))
        y = jax.ad_checkpoint.checkpoint_name(y, LINEAR_OUTPUT).reshape(*batch, *self.outputs)
        if self.config.bias:
            y = y + vector(self, "bias", self.outputs, self.axes[rank:], 0.0, y)
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
    spec = Parameter(shape=shape, axes=axes, kind="vector", decay=False, constant=constant)
    value = declare_parameter(module, name, spec)
    return value.astype(like.dtype).reshape((1,) * (like.ndim - len(shape)) + shape)


class Norm(nn.Module):
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang & Sennrich 2019) over the last dimension."""

    config: Model
    kind: str
    axis: str = "width"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises; shape and dtype stay."""
        width = x.shape[-1:]
        x32 = x.astype(jnp.float32)
        if self.kind == "layernorm":
            x32 = x32 - jnp.mean(x32, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
        y = x32 * jax.lax.rsqrt(variance + self.config.norm_epsilon)
        y = y * vector(self, "scale", width, (self.axis,), 1.0, y)
        if self.kind == "layernorm" and self.config.bias:
            y = y + vector(self, "bias", width, (self.axis,), 0.0, y)
        return y.astype(x.dtype)


class FeedForward(nn.Module):
    """Two matrices around a non-linearity, or three when gated (SwiGLU, Shazeer 2020)."""

    config: Model

    @nn.compact
    def __call__(self, x_btd: jax.Array) -> jax.Array:
        """Each token for itself."""
        c = self.config

        def up(name: str) -> jax.Array:
            layer = Linear(
                c, (c.width,), (c.ffn_width,), ("width", "ffn"), std=c.init_std, name=name
            )
            return layer(x_btd)

        if c.ffn == "swiglu":
            hidden_btf = jax.nn.silu(up("gate")) * up("up")
        elif c.ffn == "relu2":
            hidden_btf = jnp.square(jax.nn.relu(up("up")))
        else:
            hidden_btf = jax.nn.gelu(up("up"))
        down = Linear(
            c, (c.ffn_width,), (c.width,), ("ffn", "width"), std=residual_std(c), name="down"
        )
        return down(hidden_btf)


class Embedding(nn.Module):
    """The token table, the position table when learned, and the output head."""

    config: Model

    def setup(self) -> None:
        """Declare the tables."""
        c = self.config
        shape, axes = (c.padded_vocab, c.width), ("vocab", "width")
        self.tokens = declare_parameter(
            self, "tokens", Parameter(shape, axes, "embedding", decay=True, std=c.init_std)
        )
        if not c.tied:
            self.output = declare_parameter(
                self, "output", Parameter(shape, axes, "head", decay=True, std=c.init_std)
            )
        if c.kind == "transformer" and c.positions == "learned":
            table = Parameter(
                (c.context, c.width), ("context", "width"), "embedding", decay=True, std=c.init_std
            )
            self.positions = declare_parameter(self, "positions", table)

    def embed(self, tokens_bt: jax.Array, positions_bt: jax.Array) -> jax.Array:
        """Vectors for token ids, in the compute dtype; positions matter only when learned."""
        c = self.config
        x_btd = self.tokens[tokens_bt]
        if c.kind == "transformer" and c.positions == "learned":
            x_btd = x_btd + self.positions[positions_bt]
        return x_btd.astype(c.compute_dtype)

    def head(self) -> jax.Array:
        """The output table, float32 [padded_vocab, width]."""
        return self.tokens if self.config.tied else self.output


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
