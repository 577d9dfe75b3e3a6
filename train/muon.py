"""Muon: the momentum of a matrix, made orthogonal (Jordan et al. 2024), each matrix on one device.

Optax has the rule, but runs it on every replica alike and, where matrices are split, exchanges
parts of them in each of its many products. Here the matrices are dealt out over the devices: those
that hold parts of the same matrices exchange parts for whole ones, replicas take different ones,
and what was made of them goes the same way back.

Shapes: k matrices, m rows, n columns.
"""

import math
from collections import defaultdict
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from model import Parameter
from parallel.mesh import AXES
from parallel.rules import spec

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024: steepest at 0
STEPS = 5


class MuonState(NamedTuple):
    """What Muon remembers of past gradients."""

    updates: jax.Array  # int32, how many were made
    momentum: Any  # like the parameters


def scale_by_muon(
    beta: float, epsilon: float, declarations: Any, mesh: Mesh | None
) -> optax.GradientTransformation:
    """The update rule, without rate and decay.

    Args:
        beta: of the average of past gradients, which the present one looks ahead of (Nesterov).
        epsilon: keeps a gradient of zero from being divided by zero.
        declarations: like the parameters, all of them matrices; dimensions on neither side of
            `matrix_axes` count matrices.
        mesh: what the parameters are split over; None: all is on one device.
    """

    def init(params: Any) -> MuonState:
        return MuonState(jnp.zeros((), jnp.int32), optax.tree.zeros_like(params))

    def update(gradients: Any, state: MuonState, params: Any = None) -> tuple[Any, MuonState]:
        del params
        updates = state.updates + 1
        momentum = optax.tree.update_moment(gradients, state.momentum, beta, 1)
        ahead = jax.tree.map(
            lambda m, g: beta * m + (1 - beta) * g,
            optax.tree.bias_correction(momentum, beta, updates + 1),
            optax.tree.bias_correction(gradients, beta, updates),
        )
        leaves, structure = jax.tree.flatten(ahead)
        declared = jax.tree.leaves(declarations)
        made = _orthogonal(leaves, declared, epsilon, mesh)
        return jax.tree.unflatten(structure, made), MuonState(updates, momentum)

    return optax.GradientTransformation(init, update)


def _orthogonal(
    leaves: list[jax.Array], declared: list[Parameter], epsilon: float, mesh: Mesh | None
) -> list[jax.Array]:
    """Each array with its matrices made orthogonal."""
    together = mesh is None or mesh.size == 1
    sizes = {} if mesh is None or together else dict(mesh.shape)

    def share(own: list[jax.Array]) -> list[jax.Array]:
        groups = defaultdict(list)  # by how their matrices are cut: they travel together
        stacks = [_stack(leaf, parameter) for leaf, parameter in zip(own, declared, strict=True)]
        for number, (stack, parameter) in enumerate(zip(stacks, declared, strict=True)):
            groups[stack.shape[1:], _cut(parameter, sizes)].append(number)
        made: dict[int, jax.Array] = {}
        for (_, cut), numbers in groups.items():
            parts = _deal(jnp.concatenate([stacks[i] for i in numbers]), cut, sizes, epsilon)
            ends = [sum(len(stacks[i]) for i in numbers[:n]) for n in range(1, len(numbers))]
            made |= dict(zip(numbers, jnp.split(parts, ends), strict=True))
        return [_unstack(made[i], leaf, declared[i]) for i, leaf in enumerate(own)]

    if together:
        return share(leaves)
    places = [spec(parameter) for parameter in declared]
    return jax.shard_map(share, mesh=mesh, in_specs=(places,), out_specs=places, check_vma=False)(
        leaves
    )


def _sides(parameter: Parameter) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A matrix's dimensions on either side, the model's width first: so all are cut alike."""
    inputs, outputs = parameter.matrix_axes
    reads_stream = "width" in (parameter.axes[dim] for dim in inputs)
    return (inputs, outputs) if reads_stream else (outputs, inputs)


def _order(leaf: jax.Array, parameter: Parameter) -> tuple[int, ...]:
    rows, columns = _sides(parameter)
    return (*(d for d in range(leaf.ndim) if d not in rows + columns), *rows, *columns)


def _stack(leaf: jax.Array, parameter: Parameter) -> jax.Array:
    """The matrices of an array: [k, m, n]."""
    m, n = (math.prod(leaf.shape[dim] for dim in side) for side in _sides(parameter))
    return jnp.transpose(leaf, _order(leaf, parameter)).reshape(-1, m, n)


def _unstack(matrices_kmn: jax.Array, leaf: jax.Array, parameter: Parameter) -> jax.Array:
    """The inverse of `_stack`, in the shape of `leaf`."""
    order = _order(leaf, parameter)
    matrices = matrices_kmn.reshape([leaf.shape[dim] for dim in order])
    return jnp.transpose(matrices, [order.index(dim) for dim in range(leaf.ndim)])


def _cut(parameter: Parameter, sizes: dict[str, int]) -> tuple[str | None, ...]:
    """The mesh axes over which rows, columns and the stack of a parameter's matrices are split."""
    if not sizes:
        return None, None, None
    over = [axis if axis and sizes[axis] > 1 else None for axis in spec(parameter)]
    rows, columns = _sides(parameter)
    others = [dim for dim in range(len(over)) if dim not in rows + columns]
    sides = (rows, columns, others)
    return tuple(next((over[dim] for dim in side if over[dim]), None) for side in sides)


def _deal(
    parts_kmn: jax.Array, cut: tuple[str | None, ...], sizes: dict[str, int], epsilon: float
) -> jax.Array:
    """Newton-Schulz on matrices of which this device, like others, has parts."""
    replicas = tuple(axis for axis in AXES if axis not in cut and sizes.get(axis, 1) > 1)
    copies = math.prod(sizes[axis] for axis in replicas)
    holders = math.prod(sizes[axis] for axis in cut[:2] if axis)
    count = len(parts_kmn)
    x_kmn = jnp.pad(parts_kmn, ((0, -count % (copies * holders)), (0, 0), (0, 0)))
    for dim, axis in enumerate(cut[:2], 1):
        if axis:
            x_kmn = jax.lax.all_to_all(x_kmn, axis, 0, dim, tiled=True)
    if replicas:
        each = len(x_kmn) // copies
        x_kmn = jax.lax.dynamic_slice_in_dim(x_kmn, jax.lax.axis_index(replicas) * each, each)
    x_kmn = jax.lax.map(lambda x_mn: newton_schulz(x_mn, epsilon), x_kmn)
    if replicas:
        x_kmn = jax.lax.all_gather(x_kmn, replicas, tiled=True)
    for dim, axis in reversed([*enumerate(cut[:2], 1)]):
        if axis:
            x_kmn = jax.lax.all_to_all(x_kmn, axis, dim, 0, tiled=True)
    return x_kmn[:count]


def newton_schulz(x_mn: jax.Array, epsilon: float) -> jax.Array:
    """The nearest orthogonal matrix, roughly: singular values end between .7 and 1.2.

    a x + b (x x') x + c (x x')^2 x, five times, from Frobenius norm 1; the Gram matrix is that of
    the shorter side.
    """
    a, b, c = COEFFICIENTS
    lying = x_mn.shape[0] <= x_mn.shape[1]
    x_mn = (x_mn if lying else x_mn.T) / (jnp.linalg.norm(x_mn) + epsilon)
    for _ in range(STEPS):
        gram_mm = x_mn @ x_mn.T
        x_mn = a * x_mn + (b * gram_mm + c * gram_mm @ gram_mm) @ x_mn
    return x_mn if lying else x_mn.T
