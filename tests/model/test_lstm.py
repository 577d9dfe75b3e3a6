"""The recurrence's own derivative against JAX's, of the recurrence written plainly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.lstm import Masks, Memory, recur

T, B, D = 5, 3, 4


def plain(read_tbg, w_dg, masks, memory):
    """Token by token in Python, to be differentiated by JAX."""
    hidden, cell = memory
    written = []
    for read, opens, counts in zip(read_tbg, masks.opens, masks.counts, strict=True):
        kept_hidden, kept_cell = jnp.where(opens, 0, hidden), jnp.where(opens, 0, cell)
        enter, forget, write, leave = jnp.split(read + kept_hidden @ w_dg, 4, axis=1)
        new_cell = jax.nn.sigmoid(forget + 1) * kept_cell + jax.nn.sigmoid(enter) * jnp.tanh(write)
        new_hidden = jax.nn.sigmoid(leave) * jnp.tanh(new_cell)
        hidden = jnp.where(counts, new_hidden, hidden)
        cell = jnp.where(counts, new_cell, cell)
        written.append(hidden)
    return jnp.stack(written), Memory(hidden, cell)


@pytest.mark.parametrize("masked", [False, True])
def test_values_and_gradients_are_those_of_the_plain_recurrence(masked):
    """With documents that open and padding at any place, and none; from a memory that is not 0."""
    rng = np.random.default_rng(0)
    read_tbg, w_dg, hidden_bd, cell_bd = (
        jnp.array(rng.standard_normal(shape), jnp.float32)
        for shape in ((T, B, 4 * D), (D, 4 * D), (B, D), (B, D))
    )
    opens, counts = (jnp.array(rng.random((T, B, 1)) < share) for share in (0.3, 0.7))
    if not masked:
        opens, counts = jnp.zeros_like(opens), jnp.ones_like(counts)
    weights = [jnp.array(rng.standard_normal(s), jnp.float32) for s in ((T, B, D), (B, D), (B, D))]

    def both(function, masks):
        def total(read_tbg, w_dg, memory):
            hidden_tbd, last = function(read_tbg, w_dg, masks, memory)
            parts = zip((hidden_tbd, *last), weights, strict=True)
            return sum(jnp.sum(part * weight) for part, weight in parts), (hidden_tbd, last)

        gradient = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))
        return gradient(read_tbg, w_dg, Memory(hidden_bd, cell_bd))

    got = both(recur, Masks(opens, counts) if masked else Masks(None, None))
    want = both(plain, Masks(opens, counts))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5), got, want)
