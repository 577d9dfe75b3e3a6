"""Generation reads token by token what training reads at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import model

LENGTHS = np.array([5, 1, 7])  # of the prompts
TOTAL = 12
TOKENS = np.random.default_rng(0).integers(0, 50, (3, TOTAL))

decode = jax.jit(model.decode, static_argnums=0)


@functools.partial(jax.jit, static_argnums=0)
def all_logits(config, params):
    """What training computes: the logits after every token, [b, t, v]."""
    time = jnp.broadcast_to(jnp.arange(TOTAL), TOKENS.shape)
    return model.apply(config, params, model.Inputs(jnp.array(TOKENS), None, time))


def padded(starts, lengths, fill=0):
    """Each row's tokens from its start on, right-padded to the longest."""
    rows = np.full((len(TOKENS), max(lengths)), fill, np.int32)
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        rows[row, :length] = TOKENS[row, start : start + length]
    return jnp.array(rows), jnp.array(lengths, jnp.int32)


def assert_after(config, logits_bv, want_btv, read):
    """The logits are those after `read` tokens of each row."""
    got, want = logits_bv[:, : config.vocab], want_btv[jnp.arange(3), read - 1][:, : config.vocab]
    np.testing.assert_allclose(got, want, atol=2e-5)
    assert np.all(np.isneginf(logits_bv[:, config.vocab :]))


def _spoilt(params):
    """Parameters whose matrices are of no use."""

    def spoil(path, leaf):
        return jnp.full_like(leaf, jnp.nan) if path[-1].key == "kernel" else leaf

    return jax.tree_util.tree_map_with_path(spoil, params)


def test_one_row_and_many_need_no_turned_matrices(make, random_params):
    config = make()
    params = random_params(config)
    assert model.turn(config, params, 1) is model.turn(config, params, 33) is None
    assert model.turn(make(compute_dtype="bfloat16"), params, 3) is None


class TestDecode:
    def test_token_by_token_equals_all_at_once(self, variant, random_params):
        """Prompts of different length are read together, then every row goes on alone."""
        params = random_params(variant)
        want_btv = all_logits(variant, params)
        cache = model.start_cache(variant, 3, TOTAL)
        logits_bv, cache = decode(variant, params, cache, *padded([0, 0, 0], LENGTHS))
        read = LENGTHS.copy()
        assert_after(variant, logits_bv, want_btv, read)
        for _ in range(TOTAL - max(LENGTHS)):
            logits_bv, cache = decode(variant, params, cache, *padded(read, [1, 1, 1]))
            read += 1
            assert_after(variant, logits_bv, want_btv, read)
        np.testing.assert_array_equal(cache.length_b, read)

    def test_padding_is_never_read(self, variant, random_params):
        """Whatever it holds, the rest of the text comes out the same."""
        params = random_params(variant)
        continued = []
        for fill in (0, 31):
            cache = model.start_cache(variant, 3, TOTAL)
            prompt = padded([0, 0, 0], LENGTHS, fill)
            first, cache = decode(variant, params, cache, *prompt)
            then, _ = decode(variant, params, cache, *padded(LENGTHS, [1, 1, 1]))
            continued.append((first, then))
        jax.tree.map(np.testing.assert_array_equal, *continued)

    def test_more_text_can_follow(self, variant, random_params):
        """A second piece of several tokens, again of different lengths."""
        params = random_params(variant)
        want_btv = all_logits(variant, params)
        cache = model.start_cache(variant, 3, TOTAL)
        _, cache = decode(variant, params, cache, *padded([0, 0, 0], LENGTHS))
        more = np.array([2, 3, 1])
        logits_bv, _ = decode(variant, params, cache, *padded(LENGTHS, more))
        assert_after(variant, logits_bv, want_btv, LENGTHS + more)

    def test_turned_matrices_are_the_same_matrices(self, variant, random_params):
        """What several rows are multiplied with on a CPU, scanned layers and biases included."""
        params = random_params(variant)
        turned = model.turn(variant, params, 3)
        assert (turned is None) == (variant.kind == "lstm" or jax.default_backend() != "cpu")
        cache = model.start_cache(variant, 3, TOTAL)
        _, cache = decode(variant, params, cache, *padded([0, 0, 0], LENGTHS))
        step = *padded(LENGTHS, [1, 1, 1]), turned
        left = _spoilt(params) if turned else params  # then no other matrix may be read
        logits_bv, cache = decode(variant, left, cache, *step)
        want_btv = all_logits(variant, params)
        assert_after(variant, logits_bv, want_btv, LENGTHS + 1)
        np.testing.assert_array_equal(cache.length_b, LENGTHS + 1)

    def test_in_bfloat16_too(self, make, random_params):
        config = make(compute_dtype="bfloat16", kv_heads=2)
        params = random_params(config)
        cache = model.start_cache(config, 3, TOTAL)
        assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(cache.layers))
        logits_bv, cache = decode(config, params, cache, *padded([0, 0, 0], LENGTHS))
        assert logits_bv.dtype == jnp.float32
        want = all_logits(config, params)[jnp.arange(3), LENGTHS - 1]
        np.testing.assert_allclose(logits_bv[:, :50], want[:, :50], atol=0.2)


@pytest.mark.parametrize("kind", ["transformer", "lstm"])
def test_a_cache_can_be_donated(kind, make):
    """No two of its arrays are one."""
    cache = model.start_cache(make(kind=kind), 2, 8)
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(cache)]
    assert len(set(buffers)) == len(buffers)


def test_the_cache_holds_key_value_heads_only(make):
    one, four = (
        sum(leaf.size for leaf in jax.tree.leaves(model.start_cache(make(kv_heads=n), 2, 8).layers))
        for n in (1, 4)
    )
    assert four == 4 * one == 4 * 2 * 2 * 2 * 8 * 4  # layers, keys and values, rows, length, width
