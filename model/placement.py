"""How the network is split over devices, and what the devices exchange for it.

Where more than one device works on a model, the functions of this folder run inside `jax.shard_map`
on one device's share of everything, and every exchange between devices is one of the methods here:

    fsdp      each device holds a slice of every matrix and of its own windows; a matrix is put
              together where it is used, and its gradient summed into slices again
    tensor    each device holds some heads, feed-forward channels and rows of the vocabulary; in
              between, where the residual stream flows, it holds some of the tokens
    sequence  each device holds an early and a late piece of every window; keys and values are put
              together where they are read (model/attention)
    stage     each device holds some layers (model/pipeline.py)

Each exchange is linear and its derivative is its exact transpose, so that what is differentiated is
the sum of what all devices return. A loss that several devices compute alike is divided by their
number, and the gradient of a parameter is summed over the axes that do not split it.

Shapes: b windows of this device, t tokens of a window.
"""

from dataclasses import dataclass
from typing import Final, Literal

import jax
import jax.numpy as jnp
import numpy as np

FSDP: Final = "fsdp"
SEQUENCE: Final = "sequence"
TENSOR: Final = "tensor"
STAGE: Final = "stage"

# What each logical axis of a parameter is split over. The code below relies on it.
RULES: dict[str, str | None] = {
    "layers": STAGE,
    "vocab": TENSOR,
    "heads": TENSOR,
    "kv_heads": TENSOR,
    "ffn": TENSOR,
    "width": FSDP,
    "channels": None,  # the width of scales and biases, which are too small to be worth splitting
    "head_dim": None,
    "context": None,
    "gates": None,
}


@dataclass(frozen=True)
class Placement:
    """Sizes of the mesh axes that the network knows of; 1 is no split.

    Attributes:
        platform: what it is compiled for: cpu, gpu, tpu.
        fsdp, sequence, tensor, stage: see above.
        rounds: how often a microbatch passes through all stages.
        microbatch: windows a device takes through the pipeline at once.
    """

    platform: str
    fsdp: int = 1
    sequence: int = 1
    tensor: int = 1
    stage: int = 1
    rounds: int = 1
    microbatch: int = 0

    def matrix(self, w: jax.Array, dim: int) -> jax.Array:
        """All slices of a matrix along `dim`."""
        if self.fsdp == 1:
            return w
        return jax.lax.all_gather(w, FSDP, axis=dim, tiled=True)

    def matrix_gradient(self, dw: jax.Array, dim: int) -> jax.Array:
        """This device's slice along `dim` of the sum of all devices' gradients of a matrix."""
        if self.fsdp == 1:
            return dw
        return jax.lax.psum_scatter(dw, FSDP, scatter_dimension=dim, tiled=True)

    def enter(self, x_btd: jax.Array) -> jax.Array:
        """From some of the tokens to all of them: into what is split over tensor."""
        if self.tensor == 1:
            return x_btd
        return jax.lax.all_gather(x_btd, TENSOR, axis=1, tiled=True)

    def leave(self, partial_btd: jax.Array) -> jax.Array:
        """From partial sums for all tokens to sums for some of them: back to the stream."""
        if self.tensor == 1:
            return partial_btd
        return jax.lax.psum_scatter(partial_btd, TENSOR, scatter_dimension=1, tiled=True)

    def tensor_sum(self, x: jax.Array) -> jax.Array:
        """The sum over tensor, on all of its devices."""
        return x if self.tensor == 1 else jax.lax.psum(x, TENSOR)

    def tensor_max(self, x: jax.Array) -> jax.Array:
        """The maximum over tensor; carries no gradient."""
        return x if self.tensor == 1 else jax.lax.pmax(jax.lax.stop_gradient(x), TENSOR)

    def index(self, axis: Literal["fsdp", "sequence", "tensor", "stage"]) -> jax.Array | int:
        """Which of an axis's devices this is."""
        return 0 if getattr(self, axis) == 1 else jax.lax.axis_index(axis)

    def times(self, length: int) -> jax.Array:
        """Which of a window's `length` tokens this device's part of the sequence holds, int32."""
        times_t = jnp.arange(length, dtype=jnp.int32)
        if self.sequence > 1:
            piece = length // (2 * self.sequence)
            early = self.index(SEQUENCE) * piece
            late = (2 * self.sequence - 1) * piece - early
            times_t = times_t[:piece]
            times_t = jnp.concatenate([early + times_t, late + times_t])
        return times_t

    def take(self, whole_bt: jax.Array) -> jax.Array:
        """This device's part of the sequence, of something that it has for whole windows."""
        if self.sequence == 1:
            return whole_bt
        return jnp.take(whole_bt, self.times(whole_bt.shape[1]), axis=1, mode="clip")

    def stream(self, x_bt: jax.Array) -> jax.Array:
        """The tokens of the residual stream, out of those between enter and leave."""
        if self.tensor == 1:
            return x_bt
        share = x_bt.shape[1] // self.tensor
        return jax.lax.dynamic_slice_in_dim(x_bt, self.index(TENSOR) * share, share, axis=1)

    def whole_sequence(self, x_bt: jax.Array) -> jax.Array:
        """All pieces of what is split over sequence, in the order of time (dimension 1)."""
        if self.sequence == 1:
            return x_bt
        x_sbt = jax.lax.all_gather(x_bt, SEQUENCE)
        early_sbt, late_sbt = jnp.split(x_sbt, 2, axis=2)
        pieces = jnp.concatenate([early_sbt, late_sbt[::-1]])
        return jnp.moveaxis(pieces, 0, 1).reshape(x_bt.shape[0], -1, *x_bt.shape[2:])

    def sequence_sum(self, x: jax.Array) -> jax.Array:
        """The sum over sequence, on all of its devices."""
        return x if self.sequence == 1 else jax.lax.psum(x, SEQUENCE)


def here() -> Placement:
    """Everything on one device of this machine, or left to the compiler."""
    return Placement(jax.default_backend())


def split_dim(axes: tuple[str, ...], over: str) -> int | None:
    """The dimension of a parameter with these logical axes that is split over a mesh axis."""
    dims = [dim for dim, axis in enumerate(axes) if RULES[axis] == over]
    return dims[0] if dims else None


def pieces_in_time(placement: Placement, length: int) -> np.ndarray:
    """The times of all tokens in the order in which the sequence axis holds them, int32 [t]."""
    cut = np.arange(length, dtype=np.int32).reshape(2 * placement.sequence, -1)
    order = [p for s in range(placement.sequence) for p in (s, 2 * placement.sequence - 1 - s)]
    return cut[order].reshape(-1)
