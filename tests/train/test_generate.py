"""Sampling has exactly the support it claims, and text is what the model says token by token."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import model
from configs.schema import InputError, Model
from data import tokenizer as tokenizers
from train.generation import generate
from train.sampling import Sampling, draw, keep_top_k, keep_top_p, most_probable

GREEDY = Sampling(temperature=0)
TEXT = tokenizers.characters("".join(map(chr, range(32, 127))))  # any ids are some text
TRANSFORMER = Model(
    vocab=96,
    context=48,
    layers=2,
    width=32,
    heads=4,
    kv_heads=2,
    positions="rotary",
    windows=(8, 0),
    tied=False,
    init_std=0.5,  # far from the usual, so that texts are varied
)
OTHERS = {
    "learned": replace(TRANSFORMER, positions="learned", scan=True),
    "lstm": Model(kind="lstm", vocab=96, context=48, layers=2, width=32, tied=False, init_std=0.5),
}


def random_network(config):
    return config, model.init(config, jax.random.key(0))


@pytest.fixture(scope="module")
def network():
    return random_network(TRANSFORMER)


def write(network, prompts, *, sampling=GREEDY, **options):
    options.setdefault("max_tokens", 12)
    config, params = network
    return generate(config, params, TEXT, prompts, sampling=sampling, **options)


def kept(logits_bv):
    return [np.flatnonzero(np.isfinite(row)).tolist() for row in np.asarray(logits_bv)]


def test_the_most_probable_is_the_first_of_the_largest():
    inf, nan = jnp.inf, jnp.nan
    logits_bv = jnp.array([[1.0, 3.0, 3.0], [-inf, -inf, -2.0], [5.0, 5.0, 5.0], [0.0, nan, 1.0]])
    token_b = most_probable(logits_bv)
    assert token_b.dtype == jnp.int32
    assert token_b.tolist() == [1, 2, 0, 2]  # and always some id
    random_bv = jax.random.normal(jax.random.key(0), (8, 1000))
    np.testing.assert_array_equal(most_probable(random_bv), jnp.argmax(random_bv, axis=-1))


def test_top_k_keeps_exactly_k_also_of_equals():
    logits_bv = jnp.array([[1.0, 3.0, 2.0, 0.0], [5.0, 5.0, 5.0, 5.0], [0.0, 7.0, 7.0, 7.0]])
    assert kept(keep_top_k(logits_bv, 2)) == [[1, 2], [0, 1], [1, 2]]


def test_top_p_keeps_the_fewest_that_reach_p():
    logits_bv = jnp.log(jnp.array([[0.5, 0.25, 0.125, 0.125], [0.125, 0.25, 0.125, 0.5]]))
    assert kept(keep_top_p(logits_bv, 0.4)) == [[0], [3]]
    assert kept(keep_top_p(logits_bv, 0.51)) == [[0, 1], [1, 3]]
    assert kept(keep_top_p(logits_bv, 0.76)) == [[0, 1, 2], [0, 1, 3]]
    assert kept(keep_top_p(logits_bv, 0.99)) == [[0, 1, 2, 3]] * 2
    halves = jnp.array([[0.0, -jnp.inf, 0.0]])
    assert kept(keep_top_p(halves, 0.5)) == [[0]]  # reached, not surpassed


def test_top_p_never_keeps_nothing_and_never_what_is_impossible():
    logits_bv = jnp.array([[-jnp.inf, 0.0, -jnp.inf, -1.0]])
    assert kept(keep_top_p(logits_bv, 1e-9)) == [[1]]
    assert kept(keep_top_p(logits_bv, 0.999999)) == [[1, 3]]


def test_restrictions_compose_as_documented():
    """After top-2 of .4, .3, .2, .1 the first holds 4/7 of what is left: top-p keeps it only."""
    logits_bv = jnp.log(jnp.array([[0.4, 0.3, 0.2, 0.1]] * 512))
    key_b = jax.random.split(jax.random.key(0), 512)
    assert set(np.asarray(draw(logits_bv, key_b, Sampling(top_p=0.5)))) == {0, 1}
    assert set(np.asarray(draw(logits_bv, key_b, Sampling(top_k=2, top_p=0.5)))) == {0}


def test_draws_follow_the_tempered_distribution():
    logits_v, n = jnp.log(jnp.array([0.6, 0.3, 0.1])), 20_000
    key_b = jax.random.split(jax.random.key(0), n)
    token_b = draw(jnp.broadcast_to(logits_v, (n, 3)), key_b, Sampling(temperature=2.0))
    expected = np.sqrt([0.6, 0.3, 0.1]) / np.sum(np.sqrt([0.6, 0.3, 0.1]))
    assert np.bincount(token_b) / n == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize(
    "bad", [Sampling(temperature=-1), Sampling(top_k=-1), Sampling(top_p=0), Sampling(top_p=1.1)]
)
def test_impossible_sampling_is_refused(network, bad):
    with pytest.raises(InputError):
        write(network, ["a"], sampling=bad)


@pytest.mark.parametrize("config", [TRANSFORMER, *OTHERS.values()], ids=["rotary", *OTHERS])
def test_greedy_text_is_the_argmax_of_the_whole_network(config):
    """Without the cache: each token is the most probable of a full pass over all before it."""
    _, params = network = random_network(config)
    (text,) = write(network, ["seed"])
    ids = [TEXT.eod, *TEXT.encode("seed"), *TEXT.encode(text.text)]
    tokens = jnp.array([ids])
    inputs = model.Inputs(tokens, None, jnp.arange(len(ids))[None])
    best_t = np.asarray(jnp.argmax(model.apply(config, params, inputs)[0], axis=-1))
    assert ids[5:] == best_t[4:-1].tolist()
    assert len(set(text.text)) > 2


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=1.0, top_k=40, top_p=0.95)])
def test_prompts_of_any_lengths_together_are_each_as_alone(network, sampling):
    prompts = ["", "the quick brown fox jumps", "a"]
    many = {"sampling": sampling, "samples": 2, "seed": 3, "max_tokens": 20}  # turns the matrices
    together = write(network, prompts, **many)
    alone = [text for p in prompts for text in write(network, [p], **many)]
    assert together == alone
    assert [(t.prompt, t.sample) for t in together] == [(p, s) for p in prompts for s in (0, 1)]


def test_seeds_and_samples_differ_and_repeat(network):
    first, second = write(network, ["x"], sampling=Sampling(), samples=2)
    assert first.text != second.text
    assert write(network, ["x"], sampling=Sampling(), samples=2) == [first, second]
    assert write(network, ["x"], sampling=Sampling(), samples=2, seed=1)[0].text != first.text


def test_a_text_ends_with_its_document(network):
    """Sampled widely, some texts close: they then end, and the others go on."""
    texts = write(network, ["a"], sampling=Sampling(temperature=5.0), samples=400, max_tokens=20)
    closed = [text for text in texts if text.ended == "document"]
    assert 0 < len(closed) < len(texts)
    assert all(text.tokens < 20 for text in closed)
    assert all(text.tokens == 20 for text in texts if text.ended == "max_tokens")


def test_a_text_ends_where_the_context_is_full(network):
    """The last token is predicted from a full context, but not read."""
    prompts = ["ab", "a" * 40]
    for prompt, text in zip(prompts, write(network, prompts, max_tokens=100), strict=True):
        if text.ended != "document":
            assert (text.ended, text.tokens) == ("context", 48 - len(prompt))
    assert write(network, ["a" * 40], max_tokens=8)[0].ended in ("max_tokens", "document")


def test_a_prompt_longer_than_the_context_is_refused(network):
    assert write(network, ["a" * 47], max_tokens=12)[0].tokens <= 1
    with pytest.raises(InputError, match="has 48 tokens, and the model's context holds 47"):
        write(network, ["a" * 48])
