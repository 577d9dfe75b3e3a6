"""Everything a run carries from one update to the next."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import model
from configs.schema import Config
from train.optimizers import build


class State(NamedTuple):
    """What a checkpoint holds."""

    step: jax.Array  # int32, updates finished, skipped ones included
    params: model.Params
    optimizer: Any  # Optax state
    skipped: jax.Array  # int32, updates skipped in a row for being non-finite
    skipped_total: jax.Array  # int32, updates skipped since the start


def create(config: Config) -> State:
    """The state before the first update: a pure function of the config and its seed."""
    params = model.init(config.model, jax.random.key(config.seed))
    optimizer = build(config, model.declare(config.model))
    step, skipped, skipped_total = (jnp.zeros((), jnp.int32) for _ in range(3))
    return State(step, params, optimizer.init(params), skipped, skipped_total)


def abstract(config: Config) -> State:
    """The same tree with shapes and dtypes only."""
    return jax.eval_shape(lambda: create(config))
