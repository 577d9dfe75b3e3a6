"""From one array of tokens to what the network reads and what it must predict.

Shapes: b batch, t time. A window holds t + 1 tokens; -1 is padding.

An end-of-document token closes one document as a target and opens the next as an input: the model
is asked for the first token of a document given nothing but that opening, and each stored token is
predicted exactly once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Inputs(NamedTuple):
    """What the network reads."""

    tokens_bt: jax.Array  # int32 ids
    segments_bt: jax.Array | None  # int32 document number, or None: attention ignores documents
    positions_bt: jax.Array  # int32, from 0 at the window's start or at the document's opening


class Targets(NamedTuple):
    """What the network must predict."""

    tokens_bt: jax.Array  # int32 ids, 0 where there is no target
    weights_bt: jax.Array  # float32, 1 where there is a target


def split(window_bt: jax.Array, eod: int, attend_across: bool) -> tuple[Inputs, Targets]:
    """Teacher forcing: inputs are tokens 0..t-1, targets tokens 1..t.

    Args:
        window_bt: int32 [b, t + 1].
        eod: the end-of-document id.
        attend_across: whether a document may look into the ones before it in the window.
    """
    inputs_bt, targets_bt = window_bt[:, :-1], window_bt[:, 1:]
    weights_bt = (targets_bt >= 0).astype(jnp.float32)
    targets = Targets(jnp.maximum(targets_bt, 0), weights_bt)
    time_bt = jnp.broadcast_to(jnp.arange(inputs_bt.shape[1]), inputs_bt.shape)
    if attend_across:
        return Inputs(jnp.maximum(inputs_bt, 0), None, time_bt), targets
    opens_bt = inputs_bt == eod
    segments_bt = jnp.cumsum(opens_bt, axis=1, dtype=jnp.int32)
    starts_bt = jax.lax.cummax(jnp.where(opens_bt, time_bt, 0), axis=1)
    return Inputs(jnp.maximum(inputs_bt, 0), segments_bt, time_bt - starts_bt), targets
