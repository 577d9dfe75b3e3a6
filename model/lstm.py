"""The LSTM language model (Hochreiter & Schmidhuber 1997): the recurrent baseline.

Same contract as the transformer. Shapes: b batch, t time, d width.
"""

from typing import NamedTuple

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


class Layer(nn.Module):
    """One recurrence. Gates of all inputs at once, then one small product a token."""

    config: Model
    placement: Placement

    @nn.compact
    def __call__(
        self, x_btd: jax.Array, opens_bt: jax.Array, counts_bt: jax.Array, memory: Memory
    ) -> tuple[jax.Array, Memory]:
        """Hidden states of all tokens, and the memory after the last one that counts."""
        c = self.config
        std = c.width**-0.5
        axes = ("width", "gates", "ffn")
        read_bt4d = Linear(c, self.placement, (c.width,), (4, c.width), axes, std, name="input")(
            x_btd
        )
        shape = (c.width, 4, c.width)
        recurrent = Parameter(shape, axes, "matrix", True, std, matrix_axes=((0,), (1, 2)))
        w_d4d = self.placement.matrix(declare_parameter(self, "recurrent", recurrent), 0)

        def step(old: Memory, now: tuple[jax.Array, ...]) -> tuple[Memory, jax.Array]:
            gates_b4d, opens_b1, counts_b1 = now
            kept = Memory(*(jnp.where(opens_b1, 0, part) for part in old))
            # Cast in here, since gradients are summed over time in the dtype from outside.
            weight_d4d = w_d4d.astype(gates_b4d.dtype)
            gates_b4d = gates_b4d + jnp.einsum("bd,dge->bge", kept.hidden_bd, weight_d4d)
            enter, forget, write, leave = (gates_b4d[:, i] for i in range(4))
            # A forget gate that starts open (Jozefowicz et al. 2015) lets gradients through early.
            cell_bd = jax.nn.sigmoid(forget + 1) * kept.cell_bd
            cell_bd = cell_bd + jax.nn.sigmoid(enter) * jnp.tanh(write)
            new = (jax.nn.sigmoid(leave) * jnp.tanh(cell_bd), cell_bd)
            new = Memory(*(jnp.where(counts_b1, n, o) for n, o in zip(new, old, strict=True)))
            return new, new.hidden_bd

        by_time = (jnp.swapaxes(a, 0, 1) for a in (read_bt4d, opens_bt, counts_bt))
        reads, opens, counts = by_time
        memory, hidden_tbd = jax.lax.scan(
            step, memory, (reads, opens[..., None], counts[..., None])
        )
        return jnp.swapaxes(hidden_tbd, 0, 1), memory


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
        opens_bt = jnp.zeros(inputs.tokens_bt.shape, bool)
        if inputs.segments_bt is not None:
            opens_bt = inputs.positions_bt == 0  # a new document starts from an empty memory
        if counts_bt is None:
            counts_bt = jnp.ones(inputs.tokens_bt.shape, bool)
        memories = cache or empty_cache(c, inputs.tokens_bt.shape[0])
        new = []
        for i, memory in enumerate(memories):
            dropped_btd = dropout(x_btd, c.dropout, inputs.keys_bt, i)
            read_btd = Norm(c, c.norm, name=f"norm_{i}")(dropped_btd)
            layer = Layer(c, self.placement, name=f"layer_{i}")
            hidden_btd, memory = layer(read_btd, opens_bt, counts_bt, memory)
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
