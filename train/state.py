"""Everything a run carries from one update to the next."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

import model
from configs.schema import Config
from parallel.rules import state_shardings
from train.optimizers import build


class State(NamedTuple):
    """What a checkpoint holds."""

    step: jax.Array  # int32, updates finished, skipped ones included
    params: model.Params
    optimizer: Any  # Optax state
    skipped: jax.Array  # int32, updates skipped in a row for being non-finite
    skipped_total: jax.Array  # int32, updates skipped since the start


def create(config: Config, mesh: Mesh) -> State:
    """The state before the first update: a function of the config and its seed, on any mesh."""
    return jax.jit(_create, static_argnums=0, out_shardings=shardings(config, mesh))(config)


def _create(config: Config) -> State:
    params = model.init(config.model, jax.random.key(config.seed))
    optimizer = build(config, model.declare(config.model))
    step, skipped, skipped_total = (jnp.zeros((), jnp.int32) for _ in range(3))
    return State(step, params, optimizer.init(params), skipped, skipped_total)


@functools.cache  # tracing a model takes a second
def abstract(config: Config, mesh: Mesh | None = None) -> State:
    """The same tree with shapes, dtypes and, given a mesh, places only."""
    shapes: State = jax.eval_shape(lambda: _create(config))
    if mesh is None:
        return shapes
    places = state_shardings(mesh, model.declare(config.model), shapes)
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        places,
    )


def shardings(config: Config, mesh: Mesh) -> State:
    """Where each array of the state lies."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract(config, mesh))
