"""The chunked cross-entropy: equal to the plain one, and without the table of logits."""

import re
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.schema import Model
from model.inputs import Targets
from model.loss import cross_entropy as split_cross_entropy
from model.loss import logits
from model.placement import here

module = import_module("model.loss")  # model.loss is also a function

BATCH, TIME, WIDTH = 3, 10, 8


def cross_entropy(config, z_loss, *arrays):
    """On one device."""
    return split_cross_entropy(config, z_loss, here(), *arrays)


def settings(vocab=128, width=WIDTH, **changes) -> Model:
    return Model(vocab=vocab, context=TIME, layers=1, width=width, **changes)


def draw(vocab, time=TIME, dtype=jnp.float32):
    """Hidden states, an output table and targets, a few of which do not count."""
    keys = jax.random.split(jax.random.key(0), 4)
    x_btd = jax.random.normal(keys[0], (BATCH, time, WIDTH), dtype)
    head_vd = jax.random.normal(keys[1], (-(-vocab // 128) * 128, WIDTH))
    tokens_bt = jax.random.randint(keys[2], (BATCH, time), 0, vocab)
    weights_bt = (jax.random.uniform(keys[3], (BATCH, time)) < 0.7).astype(jnp.float32)
    return x_btd, head_vd, Targets(tokens_bt, weights_bt)


def plain(config, z_loss, x_btd, head_vd, targets):
    """The same loss with all logits at once, by Optax, without the padding of the vocabulary."""
    z_btv = jnp.einsum("btd,vd->btv", x_btd, head_vd[: config.vocab])
    if config.logit_softcap:
        z_btv = config.logit_softcap * jnp.tanh(z_btv / config.logit_softcap)
    each_bt = optax.softmax_cross_entropy_with_integer_labels(z_btv, targets.tokens_bt)
    normalizer_bt = jax.nn.logsumexp(z_btv, axis=-1)
    penalty = z_loss * jnp.sum(normalizer_bt**2 * targets.weights_bt)
    correct_bt = (jnp.argmax(z_btv, axis=-1) == targets.tokens_bt) * targets.weights_bt
    sums = {
        "loss": jnp.sum(each_bt * targets.weights_bt, axis=1),
        "weight": jnp.sum(targets.weights_bt, axis=1),
        "correct": jnp.sum(correct_bt, axis=1),
    }
    return jnp.sum(sums["loss"]) + penalty, sums


def gradient(loss, config, z_loss):
    """Value, sums and the gradients of hidden states and table; a factor reaches them too."""

    def scaled(x_btd, head_vd, targets):
        total, sums = loss(config, z_loss, x_btd, head_vd, targets)
        return 0.25 * total, sums

    return jax.jit(jax.value_and_grad(scaled, argnums=(0, 1), has_aux=True))


class TestChunked:
    @pytest.mark.parametrize(
        ("chunks", "vocab", "softcap", "z_loss"),
        [
            (1, 100, 0.0, 0.1),
            (3, 200, 2.0, 0.0),  # the last chunk is short
            (99, 128, 2.0, 0.1),  # more chunks asked for than there are tokens in a window
        ],
    )
    def test_equals_plain(self, chunks, vocab, softcap, z_loss, monkeypatch):
        config = settings(vocab, logit_softcap=softcap)
        table = BATCH * TIME * config.padded_vocab
        monkeypatch.setattr(module, "CHUNK_TOKENS", 1)
        monkeypatch.setattr(module, "CHUNK_LOGITS", -(-table // chunks))
        arrays = draw(vocab)
        assert module._chunks(here(), config.padded_vocab, *arrays[::2])[0].shape[0] == min(
            chunks, 10
        )
        (total, sums), grads = gradient(cross_entropy, config, z_loss)(*arrays)
        (plain_total, plain_sums), plain_grads = gradient(plain, config, z_loss)(*arrays)
        np.testing.assert_allclose(total, plain_total, rtol=1e-6)
        for name, sum_b in plain_sums.items():
            np.testing.assert_allclose(sums[name], sum_b, rtol=1e-6)
        for got, want in zip(grads, plain_grads, strict=True):
            np.testing.assert_allclose(got, want, atol=1e-5)

    def test_without_a_gradient_the_sums_are_the_same(self, monkeypatch):
        """Evaluation does not go through the code that computes gradients."""
        config = settings(100)
        monkeypatch.setattr(module, "CHUNK_TOKENS", 1)
        monkeypatch.setattr(module, "CHUNK_LOGITS", 1000)
        arrays = draw(100)
        want = gradient(cross_entropy, config, 0.0)(*arrays)[0][1]
        got = jax.jit(cross_entropy, static_argnums=(0, 1))(config, 0.0, *arrays)[1]
        for name in ("loss", "weight", "correct"):
            np.testing.assert_allclose(got[name], want[name], rtol=1e-6)

    def test_never_holds_the_table_of_logits(self, monkeypatch):
        vocab, time, chunks = 8192, 64, 16
        config = settings(vocab)
        arrays = draw(vocab, time)
        table = BATCH * time * vocab

        def compiled(count):
            monkeypatch.setattr(module, "CHUNK_TOKENS", 1)
            monkeypatch.setattr(module, "CHUNK_LOGITS", table // count)
            return gradient(cross_entropy, config, 0.1).lower(*arrays).compile()

        def largest(program):
            """Elements of the largest array in the optimized program."""
            shapes = re.findall(r"\w\[(\d+(?:,\d+)*)\]", program.as_text())
            return max(np.prod([int(n) for n in shape.split(",")]) for shape in shapes)

        at_once, chunked = compiled(1), compiled(chunks)
        assert largest(at_once) == table  # so what follows can fail
        assert largest(chunked) == table // chunks
        memory = [program.memory_analysis().temp_size_in_bytes for program in (at_once, chunked)]
        assert memory[1] < memory[0] / 4

    def test_bfloat16_errs_by_its_rounding(self):
        config = settings(compute_dtype="bfloat16")
        x_btd, head_vd, targets = draw(128, dtype=jnp.bfloat16)
        head_vd = head_vd.astype(jnp.bfloat16).astype(jnp.float32)
        (total, _), (dx, dhead) = gradient(cross_entropy, config, 0.0)(x_btd, head_vd, targets)
        x_btd = x_btd.astype(jnp.float32)
        (want, _), (want_dx, want_dhead) = gradient(plain, config, 0.0)(x_btd, head_vd, targets)
        assert (dx.dtype, dhead.dtype) == (jnp.bfloat16, jnp.float32)
        np.testing.assert_allclose(total, want, rtol=1e-5)  # products of bfloat16 are exact
        np.testing.assert_allclose(dx.astype(jnp.float32), want_dx, atol=0.02)
        np.testing.assert_allclose(dhead, want_dhead, atol=0.02)

    def test_the_gradient_of_the_table_keeps_float32_in_bfloat16(self):
        config = settings(compute_dtype="bfloat16")
        _, (_, dhead) = gradient(cross_entropy, config, 0.0)(*draw(128, dtype=jnp.bfloat16))
        rounded = dhead.astype(jnp.bfloat16).astype(jnp.float32)
        assert jnp.mean(rounded == dhead) < 0.2

    def test_matrix_products_are_of_bfloat16_only(self):
        """A product of float32 and bfloat16 would run at the speed of float32."""
        config = settings(compute_dtype="bfloat16")
        x_btd, head_vd, targets = draw(128, dtype=jnp.bfloat16)
        program = gradient(cross_entropy, config, 0.0).lower(x_btd, head_vd, targets).as_text()
        factors = re.findall(r"dot_general.* : \((tensor<\S+>), (tensor<\S+>)\)", program)
        assert len(factors) == 3
        for factor in factors:
            assert all(side.endswith("xbf16>") for side in factor)


class TestByHand:
    @pytest.mark.parametrize(("probability", "nats"), [(0.70, 0.3567), (0.97, 0.0305)])
    def test_of_a_probability(self, probability, nats):
        """Two words, of which the first has this probability: -log(probability)."""
        config = settings(vocab=2, width=1)
        head_vd = (
            jnp.zeros((128, 1)).at[0].set(np.log(probability)).at[1].set(np.log(1 - probability))
        )
        targets = Targets(jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1)))
        total, sums = cross_entropy(config, 0.0, jnp.ones((1, 1, 1)), head_vd, targets)
        assert float(total) == pytest.approx(nats, abs=5e-5)
        assert float(sums["loss"][0]) == float(total)
        assert float(sums["correct"][0]) == 1

    def test_large_logits_do_not_overflow(self):
        config = settings()
        x_btd, head_vd, targets = draw(128)
        total, _ = cross_entropy(config, 0.0, 1000 * x_btd, head_vd, targets)
        want, _ = plain(config, 0.0, 1000 * x_btd, head_vd, targets)
        np.testing.assert_allclose(total, want, rtol=1e-6)

    def test_padding_of_the_vocabulary_has_no_probability(self):
        z_btv = logits(settings(100), *draw(100)[:2])
        assert z_btv.shape[-1] == 128
        assert np.all(np.isneginf(z_btv[..., 100:]))
        assert np.all(np.isfinite(z_btv[..., :100]))

    def test_softcap_bounds_logits(self):
        x_btd, head_vd, _ = draw(128)
        config = settings(logit_softcap=2.0)
        got = logits(config, 100 * x_btd, head_vd)
        assert 1.99 < float(jnp.max(jnp.abs(got))) <= 2.0

    def test_z_loss_is_trained_on_and_not_reported(self):
        config, arrays = settings(), draw(128)
        total, sums = cross_entropy(config, 0.5, *arrays)
        without, _ = cross_entropy(config, 0.0, *arrays)
        normalizer_bt = jax.nn.logsumexp(logits(config, *arrays[:2]), axis=-1)
        penalty = 0.5 * jnp.sum(normalizer_bt**2 * arrays[2].weights_bt)
        np.testing.assert_allclose(total - without, penalty, rtol=1e-4)
        np.testing.assert_allclose(jnp.sum(sums["loss"]), without, rtol=1e-6)
