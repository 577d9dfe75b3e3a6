"""The gradient noise scale, measured from the parts of a batch while it is trained on.

A batch is summed in parts: the microbatches of each replica (slice x data; what fsdp, sequence and
tensor split belongs to one part). Part k has w_k targets and the sum g_k of their gradients, with

    E g_k = w_k G,    E |g_k|^2 = w_k^2 |G|^2 + w_k tr(Sigma),

where G is the gradient of the mean loss a target and tr(Sigma) its variance for a batch of one
target. Parts are independent, so that with W = sum w_k, A = sum |g_k|^2, W2 = sum w_k^2 and
Q = |sum g_k|^2

    |G|^2 = (Q - A) / (W^2 - W2),    tr(Sigma) = (A - W2 |G|^2) / W

are unbiased: with equal parts, McCandlish et al. 2018 (arXiv:1812.06162), appendix A.1.
The first holds whatever the weights are. The second takes a part's variance for proportional to
its targets, which is exact where windows are full, and an approximation where parts of padded or
packed windows hold unequally many. Targets of one window need not be independent: what is measured
is the variance of whole windows, in the unit of a target.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from configs.schema import Config, require
from model.loss import Sums
from model.placement import FSDP, STAGE
from parallel.mesh import AXES, DATA, SLICE
from parallel.rules import spec

REPLICAS = (SLICE, DATA)
WITHIN = tuple(axis for axis in AXES if axis not in REPLICAS)  # what one part is spread over
SUMS = ("part_norm2", "part_weight2")  # A and W2
SIGNAL, NOISE = METRICS = ("gradient_signal", "gradient_noise")  # |G|^2 and tr(Sigma)


def check(config: Config, mesh: Mesh) -> None:
    """Raise InputError where the noise scale is asked for and the full batch is one part."""
    piped = mesh.shape[STAGE] > 1
    microbatches = 1 if piped else config.batch.size // config.batch.microbatch
    replicas = math.prod(mesh.shape[axis] for axis in REPLICAS)
    require(
        not config.batch.noise_scale or replicas * microbatches > 1,
        "batch.noise_scale compares parts of a batch, and here it is one part: "
        + (
            "a pipeline takes all microbatches at once, so set mesh.data or mesh.slices above 1"
            if piped
            else "set batch.microbatch below batch.size"
        ),
    )


def part_sums(mesh: Mesh, declarations: Any) -> Callable[[Any, jax.Array], Sums]:
    """A function of one part's gradients and weight, as a device has them, to its SUMS.

    Gradients are those before the sum over devices: of an array that is split over fsdp they have
    been summed over fsdp already, of others each device has a part of the sum. Its exchanges over
    the axes within a replica are those of the gradients that the axis does not split.
    """

    def norm2(gradient: jax.Array, declared: Any) -> jax.Array:
        apart = tuple(axis for axis in WITHIN if axis not in spec(declared))
        whole = jax.lax.psum(gradient, apart)
        # All devices of these axes have the same now, and will be summed over.
        return jnp.sum(jnp.square(whole)) / math.prod(mesh.shape[axis] for axis in apart)

    def of_part(gradients: Any, weight: jax.Array) -> Sums:
        if mesh.size == 1:
            total = jnp.square(optax.tree.norm(gradients))
        else:
            own = optax.tree.sum(jax.tree.map(norm2, gradients, declarations))
            total, weight = jax.lax.psum(own, WITHIN), jax.lax.psum(weight, FSDP)
        return dict(zip(SUMS, (total, jnp.square(weight)), strict=True))

    return of_part


def estimates(sums: Sums, norm: jax.Array) -> dict[str, jax.Array]:
    """The METRICS of one update: |G|^2 and tr(Sigma); NaN where all targets are in one part.

    Args:
        sums: of the whole batch, SUMS among them.
        norm: of the gradient of the mean loss a target, before clipping.
    """
    weight, (parts, weight2) = sums["weight"], (sums[name] for name in SUMS)
    whole = jnp.square(norm * weight)
    pairs = jnp.square(weight) - weight2
    signal = jnp.where(pairs > 0, (whole - parts) / pairs, jnp.nan)
    return {SIGNAL: signal, NOISE: (parts - weight2 * signal) / weight}
