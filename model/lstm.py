"""The LSTM language model (Hochreiter & Schmidhuber 1997): the recurrent baseline.

Same contract as the transformer. Shapes: b batch, t time, d width, g the 4 d gates.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from configs.schema import Model
from model.inputs import Inputs
from model.layers import Embedding, Linear, Norm, dropout
from model.parameters import Parameter, declare_parameter
from model.placement import Placement


class Memory(NamedTuple):
    """What one layer carries from token to token."""

    hidden_bd: jax.Array
    cell_bd: jax.Array


class Masks(NamedTuple):
    """Where memory does not simply go on, bool [t, b, 1]; None: nowhere."""

    opens: jax.Array | None  # a document begins, from an empty memory
    counts: jax.Array | None  # False: padding, which memory passes unchanged


class Layer(nn.Module):
    """One recurrence. Gates of all inputs at once, then one small product a token."""

    config: Model
    placement: Placement

    @nn.compact
    def __call__(self, x_btd: jax.Array, masks: Masks, memory: Memory) -> tuple[jax.Array, Memory]:
        """Hidden states of all tokens, and the memory after the last one that counts."""
        c = self.config
        std = c.width**-0.5
        axes = ("width", "gates", "ffn")
        # By time already here: the gates are four times as much to transpose.
        x_tbd = jnp.swapaxes(x_btd, 0, 1)
        read_tb4d = Linear(c, self.placement, (c.width,), (4, c.width), axes, std, name="input")(
            x_tbd
        )
        shape = (c.width, 4, c.width)
        recurrent = Parameter(shape, axes, "matrix", True, std, matrix_axes=((0,), (1, 2)))
        w_d4d = self.placement.matrix(declare_parameter(self, "recurrent", recurrent), 0)
        hidden_tbd, memory = recur(
            read_tb4d.reshape(*read_tb4d.shape[:2], -1), w_d4d.reshape(c.width, -1), masks, memory
        )
        return jnp.swapaxes(hidden_tbd, 0, 1), memory


@jax.custom_vjp
def recur(
    read_tbg: jax.Array, w_dg: jax.Array, masks: Masks, memory: Memory
) -> tuple[jax.Array, Memory]:
    """The recurrence (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000).

    Args:
        read_tbg: what the gates read of the inputs; enter, forget, write, leave, each of width d.
        w_dg: how they read the hidden state, float32; its gradient is too.
        masks: where memory does not simply go on.
        memory: before the first token.

    Returns:
        Hidden states [t, b, d] in the dtype of `read_tbg`, and the memory after the last token.
    """
    return _scan(read_tbg, w_dg, masks, memory)[:2]


def _scan(
    read_tbg: jax.Array, w_dg: jax.Array, masks: Masks, memory: Memory
) -> tuple[jax.Array, Memory, tuple[jax.Array, jax.Array]]:
    """What recur returns, and the cells and the gates' values of all tokens."""
    w_dg = w_dg.astype(read_tbg.dtype)

    def step(old: Memory, now: tuple[jax.Array, Masks]) -> tuple[Memory, tuple[jax.Array, ...]]:
        read_bg, here = now
        kept = Memory(*(_emptied(part, here.opens) for part in old))
        enter, forget, write, leave = jnp.split(read_bg + kept.hidden_bd @ w_dg, 4, axis=1)
        # A forget gate that starts open (Jozefowicz et al. 2015) lets gradients through early.
        opened = (jax.nn.sigmoid(enter), jax.nn.sigmoid(forget + 1), jnp.tanh(write))
        gates_bg = jnp.concatenate([*opened, jax.nn.sigmoid(leave)], axis=1)
        enter, forget, write, leave = jnp.split(gates_bg, 4, axis=1)
        cell_bd = forget * kept.cell_bd + enter * write
        new = Memory(leave * jnp.tanh(cell_bd), cell_bd)
        if here.counts is not None:
            new = Memory(*(jnp.where(here.counts, n, o) for n, o in zip(new, old, strict=True)))
        return new, (*new, gates_bg)

    memory, (hidden_tbd, cell_tbd, gates_tbg) = jax.lax.scan(step, memory, (read_tbg, masks))
    return hidden_tbd, memory, (cell_tbd, gates_tbg)


def _emptied(x: jax.Array, opens: jax.Array | None) -> jax.Array:
    return x if opens is None else jnp.where(opens, 0, x)


def _forward(
    read_tbg: jax.Array, w_dg: jax.Array, masks: Masks, memory: Memory
) -> tuple[tuple[jax.Array, Memory], tuple[Any, ...]]:
    hidden_tbd, last, (cell_tbd, gates_tbg) = _scan(read_tbg, w_dg, masks, memory)
    return (hidden_tbd, last), (w_dg, masks, memory, hidden_tbd, cell_tbd, gates_tbg)


def _backward(
    saved: tuple[Any, ...], gradients: tuple[jax.Array, Memory]
) -> tuple[jax.Array, jax.Array, None, Memory]:
    """Back through time; the gradient of the weights afterwards, as one product over all tokens.

    Differentiated by JAX, the scan adds that gradient up token by token: reads and writes of the
    size of the weights for products of a batch.
    """
    w_dg, masks, memory, hidden_tbd, cell_tbd, gates_tbg = saved
    dhidden_tbd, dlast = gradients
    # A copy outside of the loop: a product with the weights as they lie would transpose them in it.
    w_gd = jax.lax.optimization_barrier(w_dg.astype(gates_tbg.dtype).T)

    def before(first_bd: jax.Array, all_tbd: jax.Array) -> jax.Array:
        return _emptied(jnp.concatenate([first_bd[None], all_tbd[:-1]]), masks.opens)

    def step(dnew: Memory, now: tuple[Any, ...]) -> tuple[Memory, jax.Array]:
        dhidden_bd, gates_bg, cell_bd, before_bd, here = now
        dnew = dnew._replace(hidden_bd=dnew.hidden_bd + dhidden_bd)
        dh_bd, dc_bd = dnew
        if here.counts is not None:
            dh_bd, dc_bd = (jnp.where(here.counts, part, 0) for part in dnew)
        enter, forget, write, leave = jnp.split(gates_bg, 4, axis=1)
        tanh_bd = jnp.tanh(cell_bd)
        dc_bd = dc_bd + dh_bd * leave * (1 - tanh_bd**2)
        dgates_bg = jnp.concatenate(
            [
                dc_bd * write * enter * (1 - enter),
                dc_bd * before_bd * forget * (1 - forget),
                dc_bd * enter * (1 - write**2),
                dh_bd * tanh_bd * leave * (1 - leave),
            ],
            axis=1,
        )
        dold = Memory(dgates_bg @ w_gd, dc_bd * forget)
        dold = Memory(*(_emptied(part, here.opens) for part in dold))
        if here.counts is not None:
            passed = zip(dold, dnew, strict=True)
            dold = Memory(*(jnp.where(here.counts, through, past) for through, past in passed))
        return dold, dgates_bg

    by_time = (dhidden_tbd, gates_tbg, cell_tbd, before(memory.cell_bd, cell_tbd), masks)
    dmemory, dgates_tbg = jax.lax.scan(step, dlast, by_time, reverse=True)
    read_tbd, dgates_tbg = jax.lax.optimization_barrier(
        (before(memory.hidden_bd, hidden_tbd), dgates_tbg)
    )
    dw_dg = jnp.einsum("tbd,tbg->dg", read_tbd, dgates_tbg, preferred_element_type=w_dg.dtype)
    return dgates_tbg, dw_dg, None, dmemory


recur.defvjp(_forward, _backward)


class LSTM(nn.Module):
    """Embedding, stacked recurrences with residual connections, final norm."""

    config: Model
    placement: Placement

    @nn.compact
    def __call__(
        self, inputs: Inputs, cache: tuple[Memory, ...] | None, counts_bt: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, tuple[Memory, ...] | None]:
        """Returns the final hidden states, the output table and the new memories.

        `counts_bt` is False where a token pads a shorter prompt: memory passes it unchanged.
        """
        c = self.config
        embedding = Embedding(c, self.placement, name="embedding")
        x_btd = embedding.embed(inputs)
        opens_bt = None if inputs.segments_bt is None else inputs.positions_bt == 0
        masks = Masks(*(m if m is None else m.T[..., None] for m in (opens_bt, counts_bt)))
        memories = cache or empty_cache(c, inputs.tokens_bt.shape[0])
        new = []
        for i, memory in enumerate(memories):
            dropped_btd = dropout(x_btd, c.dropout, inputs.keys_bt, i)
            read_btd = Norm(c, c.norm, name=f"norm_{i}")(dropped_btd)
            layer = Layer(c, self.placement, name=f"layer_{i}")
            hidden_btd, memory = layer(read_btd, masks, memory)
            x_btd = x_btd + hidden_btd
            new.append(memory)
        dropped_btd = dropout(x_btd, c.dropout, inputs.keys_bt, c.layers)
        x_btd = Norm(c, c.norm, name="final_norm")(dropped_btd)
        return x_btd, embedding.head(), None if cache is None else tuple(new)


def empty_cache(config: Model, batch: int) -> tuple[Memory, ...]:
    """Empty memories of all layers."""
    shape = (batch, config.width)
    return tuple(
        Memory(jnp.zeros(shape, config.compute_dtype), jnp.zeros(shape, config.compute_dtype))
        for _ in range(config.layers)
    )
