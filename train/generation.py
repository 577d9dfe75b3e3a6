"""Text from a model: the KV cache, the loop over tokens, and where a text ends.

A text begins as a document does in training: the model first reads the end-of-document token, then
the prompt. It ends with the document that the model writes, after `max_tokens`, or where the
context is full: what lies beyond was never trained. Prompts of any lengths are continued together,
each as it would be alone.

Shapes: b rows (prompts times samples), t time in the prompts, n tokens written, v vocabulary.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

import model
from configs.schema import Model, require
from data.tokenizer import Tokenizer
from train.sampling import Sampling, draw

_MANY = 16  # tokens to write, from which on it pays to put the matrices into another layout first


class Text(NamedTuple):
    """One continuation."""

    prompt: str
    sample: int  # which of the prompt's samples
    text: str  # what the model added
    tokens: int  # how many tokens that is, the end of the document not counted
    ended: str  # "document", "max_tokens" or "context"


def generate(
    config: Model,
    params: model.Params,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    max_tokens: int,
    sampling: Sampling,
    samples: int = 1,
    seed: int = 0,
) -> list[Text]:
    """Continue each prompt `samples` times; a pure function of its arguments.

    Raises:
        InputError: a prompt does not fit into the context, or the sampling is impossible.
    """
    rows, openings, opened = _open(config, tokenizer, prompts, sampling, samples, seed)
    written = _write(config, params, *opened, tokenizer.eod, max_tokens, sampling)
    table = jax.tree.leaves(params)[0]
    if isinstance(table.sharding, NamedSharding):  # then the tokens may be in parts on the hosts
        everywhere = NamedSharding(table.sharding.mesh, PartitionSpec())
        written = jax.device_put(written, everywhere)
    written_bn = np.asarray(written)
    texts = []
    for (i, sample), written_n in zip(rows, written_bn, strict=True):
        ids = written_n[written_n >= 0]
        closed = bool(ids.size and ids[-1] == tokenizer.eod)
        ended = "document" if closed else "max_tokens" if ids.size == max_tokens else "context"
        # Decoded with its prompt, since a token may be a part of a character.
        whole = tokenizer.decode([*openings[i], *ids])
        added = whole[len(tokenizer.decode(openings[i])) :]
        texts.append(Text(prompts[i], sample, added, int(ids.size) - closed, ended))
    return texts


def compile_ahead(
    config: Model,
    params: model.Params,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    max_tokens: int,
    sampling: Sampling,
) -> None:
    """Compile what `generate` runs with these arguments; of the parameters only shapes are read."""
    _, _, opened = _open(config, tokenizer, prompts, sampling, samples=1, seed=0)
    _write.lower(config, params, *opened, tokenizer.eod, max_tokens, sampling).compile()


def _open(
    config: Model,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    sampling: Sampling,
    samples: int,
    seed: int,
) -> tuple[list[tuple[int, int]], list[np.ndarray], tuple[np.ndarray, np.ndarray, jax.Array]]:
    """The prompt and sample of each row, the prompts' ids, and what `_write` begins with."""
    sampling.check()
    openings = [np.array([tokenizer.eod, *tokenizer.encode(prompt)]) for prompt in prompts]
    for prompt, opening in zip(prompts, openings, strict=True):
        require(
            len(opening) <= config.context,
            f"the prompt {prompt[:20]!r}... has {len(opening) - 1} tokens, and the model's context "
            f"holds {config.context - 1}: shorten it",
        )
    rows = [(i, sample) for i in range(len(prompts)) for sample in range(samples)]
    lengths_b = np.array([len(openings[i]) for i, _ in rows], np.int32)
    opening_bt = np.zeros((len(rows), _padded(lengths_b.max(), config.context)), np.int32)
    for row, (i, _) in enumerate(rows):
        opening_bt[row, : lengths_b[row]] = openings[i]
    numbers_b = np.array([sample for _, sample in rows], np.uint32)
    key_b = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), numbers_b)
    return rows, openings, (opening_bt, lengths_b, key_b)


def _padded(length: int, context: int) -> int:
    """A power of two, so that few lengths of prompts have to be compiled for."""
    return min(max(16, 1 << (int(length) - 1).bit_length()), context)


@functools.partial(jax.jit, static_argnums=(0, 6, 7))
def _write(
    config: Model,
    params: model.Params,
    opening_bt: jax.Array,
    lengths_b: jax.Array,
    key_b: jax.Array,
    eod: int,
    count: int,
    sampling: Sampling,
) -> jax.Array:
    """Tokens [b, count] that follow row i's first lengths_b[i] tokens; -1 once a row has ended."""
    rows, longest = opening_bt.shape
    cache = model.start_cache(config, rows, min(longest + count, config.context))
    logits_bv, cache = model.decode(config, params, cache, opening_bt, lengths_b)
    turned = model.turn(config, params, rows) if count >= _MANY else None

    def going_on(carry: tuple) -> jax.Array:
        i, ended_b, *_ = carry
        return (i < count) & ~jnp.all(ended_b)

    def write(carry: tuple) -> tuple:
        i, ended_b, written_bn, logits_bv, cache = carry
        token_b = draw(logits_bv, jax.vmap(jax.random.fold_in, (0, None))(key_b, i), sampling)
        written_bn = written_bn.at[:, i].set(jnp.where(ended_b, -1, token_b))
        ended_b = ended_b | (token_b == eod) | (cache.length_b >= config.context)
        # A row that has ended is read on with the others, and what it says is ignored.
        logits_bv, cache = model.decode(
            config, params, cache, token_b[:, None], jnp.ones(rows, jnp.int32), turned
        )
        return i + 1, ended_b, written_bn, logits_bv, cache

    nothing_bn = jnp.full((rows, count), -1, jnp.int32)
    start = (jnp.int32(0), jnp.zeros(rows, bool), nothing_bn, logits_bv, cache)
    return jax.lax.while_loop(going_on, write, start)[2]
