"""From one array of tokens to what the network reads and what it must predict.

Shapes: b batch, t time. A window holds t + 1 tokens; -1 is padding.

An end-of-document token closes one document as a target and opens the next as an input: the model
is asked for the first token of a document given nothing but that opening, and each stored token is
predicted exactly once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from model.placement import Placement


class Inputs(NamedTuple):
    """What the network reads. Where the sequence is split: this device's part of it."""

    tokens_bt: jax.Array  # int32 ids
    segments_bt: jax.Array | None  # int32 document number, of whole windows; None: all is visible
    positions_bt: jax.Array  # int32, from 0 at the window's start or at the document's opening
    keys_bt: jax.Array | None = None  # a key for each token of the residual stream: for dropout


class Targets(NamedTuple):
    """What the network must predict."""

    tokens_bt: jax.Array  # int32 ids, 0 where there is no target
    weights_bt: jax.Array  # float32, 1 where there is a target


def split(
    window_bt: jax.Array, eod: int, attend_across: bool, placement: Placement
) -> tuple[Inputs, Targets]:
    """Teacher forcing: inputs are tokens 0..t-1, targets tokens 1..t.

    Args:
        window_bt: int32 [b, t + 1].
        eod: the end-of-document id.
        attend_across: whether a document may look into the ones before it in the window.
        placement: whose part of the sequence.
    """
    inputs_bt, targets_bt = window_bt[:, :-1], placement.take(window_bt[:, 1:])
    weights_bt = (targets_bt >= 0).astype(jnp.float32)
    targets = Targets(jnp.maximum(targets_bt, 0), weights_bt)
    tokens_bt = placement.take(jnp.maximum(inputs_bt, 0))
    time_bt = jnp.broadcast_to(jnp.arange(inputs_bt.shape[1]), inputs_bt.shape)
    if attend_across:
        return Inputs(tokens_bt, None, placement.take(time_bt)), targets
    opens_bt = inputs_bt == eod
    segments_bt = jnp.cumsum(opens_bt, axis=1, dtype=jnp.int32)
    starts_bt = jax.lax.cummax(jnp.where(opens_bt, time_bt, 0), axis=1)
    return Inputs(tokens_bt, segments_bt, placement.take(time_bt - starts_bt)), targets


def token_keys(key: jax.Array, rows_b: jax.Array, length: int, placement: Placement) -> jax.Array:
    """A key for each token of this device's residual stream, the same wherever the token is.

    Args:
        key: of the update.
        rows_b: which windows of the batch these are, int32.
        length: tokens of a window.
        placement: whose tokens.
    """
    times_t = placement.stream(placement.times(length)[None])[0]
    each = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    return jax.vmap(each, in_axes=(0, None))(each(key, rows_b), times_t)
