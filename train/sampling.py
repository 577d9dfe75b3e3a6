"""From logits to the next token.

Shapes: b rows, v vocabulary, n rank (0: the most probable token).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from configs.schema import require


class Sampling(NamedTuple):
    """How tokens are drawn. The restrictions apply in this order, as in most libraries."""

    temperature: float = 1.0  # 0: always the most probable token (greedy)
    top_k: int = 0  # draw from the k most probable tokens; 0: from all
    top_p: float = 1.0  # then from the fewest whose probability reaches p; 1: from all

    def check(self) -> None:
        """Raise InputError when a value is impossible."""
        require(self.temperature >= 0, f"--temperature={self.temperature} must not be negative")
        require(self.top_k >= 0, f"--top_k={self.top_k} must not be negative (0: all tokens)")
        require(0 < self.top_p <= 1, f"--top_p={self.top_p} must lie in (0, 1]")


def draw(logits_bv: jax.Array, key_b: jax.Array, sampling: Sampling) -> jax.Array:
    """One token for each row, int32 [b]; each row has its own key."""
    if sampling.temperature == 0:
        return most_probable(logits_bv)
    logits_bv = logits_bv / sampling.temperature
    if sampling.top_k:
        logits_bv = keep_top_k(logits_bv, sampling.top_k)
    if sampling.top_p < 1:
        logits_bv = keep_top_p(logits_bv, sampling.top_p)
    return jax.vmap(jax.random.categorical)(key_b, logits_bv).astype(jnp.int32)


def most_probable(logits_bv: jax.Array) -> jax.Array:
    """The first of the largest, int32 [b]; without one, where there is a nan, the last id.

    An argmax would do; on a CPU XLA takes longer for it than for these two passes.
    """
    largest_b1 = jnp.max(logits_bv, axis=-1, keepdims=True)
    last = logits_bv.shape[-1] - 1
    ids_bv = jnp.where(logits_bv == largest_b1, jnp.arange(last + 1, dtype=jnp.int32)[None], last)
    return jnp.min(ids_bv, axis=-1)


def keep_top_k(logits_bv: jax.Array, k: int) -> jax.Array:
    """-inf for all but the k largest; of equal ones those with smaller ids stay (Fan et al. 2018).

    Exactly k tokens stay, also where several share the k-th place.
    """
    _, ranks_bv = _ranking(logits_bv)
    return jnp.where(ranks_bv < k, logits_bv, -jnp.inf)


def keep_top_p(logits_bv: jax.Array, p: float) -> jax.Array:
    """-inf outside the nucleus, the fewest tokens that together reach p: Holtzman et al. 2020.

    A token stays while the probability of those before it is below p, so that one always does.
    """
    order_bn, ranks_bv = _ranking(logits_bv)
    probabilities_bn = jnp.take_along_axis(jax.nn.softmax(logits_bv), order_bn, axis=-1)
    before_bn = jnp.cumsum(probabilities_bn, axis=-1) - probabilities_bn
    before_bv = jnp.take_along_axis(before_bn, ranks_bv, axis=-1)
    return jnp.where(before_bv < p, logits_bv, -jnp.inf)


def _ranking(logits_bv: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The token at each rank [b, n], and each token's rank [b, v]."""
    order_bn = jnp.argsort(logits_bv, axis=-1, descending=True, stable=True)
    return order_bn, jnp.argsort(order_bn, axis=-1)
