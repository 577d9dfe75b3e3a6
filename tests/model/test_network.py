"""What may depend on what: causality, windows, documents, dropout; and the formula itself."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import model
from model.attention import chunked, kept
from model.inputs import Targets, split, token_keys
from model.loss import cross_entropy
from model.network import features
from model.placement import here

EOD = 49


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    """Attention in chunks of 4, where it is chunked; the caches of these tests are their own."""
    for backend in (chunked, kept):
        monkeypatch.setattr(backend, "CHUNK", 4)


def reads(config, params, attend_across=True, eod_at=5, length=12):
    """Whether token t's hidden state has any gradient from token s, bool [t, s].

    Each position holds a token of its own, so that the rows of the table are the positions.
    """
    window = np.arange(length + 1)[None]
    window[0, eod_at] = EOD
    inputs, _ = split(jnp.array(window, jnp.int32), EOD, attend_across, here())
    direction_d = np.random.default_rng(0).standard_normal(config.width)

    def hidden_t(table):
        changed = {**params, "embedding": {**params["embedding"], "tokens": table}}
        return features(config, changed, inputs, here())[0][0] @ direction_d

    by_row = jax.jit(jax.jacrev(hidden_t))(params["embedding"]["tokens"])
    return np.any(np.asarray(by_row)[:, window[0, :-1]] != 0, axis=2)


class TestCausality:
    def test_no_token_depends_on_a_later_one(self, variant, random_params):
        got = reads(variant, random_params(variant))
        np.testing.assert_array_equal(got, np.tri(12, dtype=bool))

    def test_no_document_depends_on_another(self, variant, random_params):
        got = reads(variant, random_params(variant), attend_across=False, eod_at=5)
        same = (np.arange(12) >= 5)[:, None] == (np.arange(12) >= 5)
        np.testing.assert_array_equal(got, np.tri(12, dtype=bool) & same)

    @pytest.mark.parametrize(
        ("backend", "norm_order"), [("xla", "pre"), ("xla_kept", "pre"), ("xla_chunked", "post")]
    )
    def test_a_window_reaches_that_many_tokens_a_layer(
        self, backend, norm_order, make, random_params
    ):
        config = make(windows=(3, 4), attention=backend, norm_order=norm_order)
        got = reads(config, random_params(config))
        distance = np.arange(12)[:, None] - np.arange(12)
        np.testing.assert_array_equal(got, (distance >= 0) & (distance < 3 + 4 - 1))


@functools.partial(jax.jit, static_argnums=0)
def logits_loss_and_gradients(config, params, inputs, targets):
    """Through the loss that is trained on."""

    def loss(params):
        x_btd, head_vd = features(config, params, inputs, here())
        return cross_entropy(config, 0.0, here(), x_btd, head_vd, targets)[0]

    return model.apply(config, params, inputs), jax.value_and_grad(loss)(params)


@pytest.mark.parametrize("backend", ["xla", "xla_kept", "xla_chunked", "lstm"])
class TestPacking:
    """A window with documents A and B, against A replaced, and against B alone."""

    A, B = 7, 6  # tokens, the opening one included

    def setting(self, backend, make, random_params):
        kind = {"kind": "lstm"} if backend == "lstm" else {"attention": backend, "kv_heads": 2}
        config = make(**kind)
        rng = np.random.default_rng(1)
        a, other, b = (rng.integers(0, EOD, n) for n in (self.A - 1, self.A - 1, self.B))
        windows = [[EOD, *a, EOD, *b], [EOD, *other, EOD, *b], [EOD, *b]]
        return config, random_params(config), [np.array([w], np.int32) for w in windows]

    def of_b(self, config, params, window):
        """Logits over document B, its loss and the gradients of that."""
        inputs, targets = split(jnp.array(window), EOD, False, here())
        from_b = np.arange(window.shape[1] - 1)[None] >= window.shape[1] - 1 - self.B
        targets = Targets(targets.tokens_bt, targets.weights_bt * from_b)
        logits_btv, trained = logits_loss_and_gradients(config, params, inputs, targets)
        return logits_btv[:, -self.B :], trained

    def test_another_neighbour_changes_no_bit(self, backend, make, random_params):
        config, params, (with_a, with_other, _) = self.setting(backend, make, random_params)
        one, two = (self.of_b(config, params, window) for window in (with_a, with_other))
        jax.tree.map(np.testing.assert_array_equal, one, two)

    def test_packed_equals_alone(self, backend, make, random_params):
        """To rounding: sums over a longer row may be taken in another order."""
        config, params, (with_a, _, alone) = self.setting(backend, make, random_params)
        one, two = (self.of_b(config, params, window) for window in (with_a, alone))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6, rtol=1e-5), one, two)

    def test_documents_may_attend_across(self, backend, make, random_params):
        config, params, (with_a, with_other, _) = self.setting(backend, make, random_params)
        apply = jax.jit(model.apply, static_argnums=0)
        logits = [
            apply(config, params, split(jnp.array(window), EOD, True, here())[0])[0, -1]
            for window in (with_a, with_other)
        ]
        assert np.max(np.abs(logits[0] - logits[1])[: config.vocab]) > 1e-3


class TestInputs:
    WINDOW = jnp.array([[3, 4, EOD, 5, 6, EOD, EOD, 7, -1, -1]], jnp.int32)

    def test_every_token_is_predicted_once(self):
        inputs, targets = split(self.WINDOW, EOD, False, here())
        np.testing.assert_array_equal(inputs.tokens_bt, [[3, 4, EOD, 5, 6, EOD, EOD, 7, 0]])
        np.testing.assert_array_equal(targets.tokens_bt, [[4, EOD, 5, 6, EOD, EOD, 7, 0, 0]])
        np.testing.assert_array_equal(targets.weights_bt, [[1, 1, 1, 1, 1, 1, 1, 0, 0]])

    def test_documents_are_numbered_and_positions_start_anew(self):
        inputs, _ = split(self.WINDOW, EOD, False, here())
        np.testing.assert_array_equal(inputs.segments_bt, [[0, 0, 1, 1, 1, 2, 3, 3, 3]])
        np.testing.assert_array_equal(inputs.positions_bt, [[0, 1, 0, 1, 2, 0, 0, 1, 2]])

    def test_padding_opens_no_document_when_eod_is_zero(self):
        inputs, _ = split(jnp.array([[1, 2, -1, -1]], jnp.int32), 0, False, here())
        np.testing.assert_array_equal(inputs.segments_bt, [[0, 0, 0]])

    def test_across_documents_there_is_one_segment(self):
        inputs, _ = split(self.WINDOW, EOD, True, here())
        assert inputs.segments_bt is None
        np.testing.assert_array_equal(inputs.positions_bt, [np.arange(9)])


def gelu(x):
    """The tanh approximation (Hendrycks & Gimpel 2016)."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def layernorm(x, norm, epsilon=1e-5):
    centred = x - x.mean(-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    return centred / deviation * norm["scale"] + norm["bias"]


def self_attention(x, layer):
    """Multi-head attention of one window [t, d], written with matrices and no broadcasting."""
    q, k, v = (
        np.einsum("td,dnh->nth", x, layer[name]["kernel"]) + layer[name]["bias"][:, None]
        for name in ("query", "key", "value")
    )
    heads = []
    for q_th, k_th, v_th in zip(q, k, v, strict=True):
        scores = q_th @ k_th.T / math.sqrt(q_th.shape[1])
        scores[np.triu_indices(len(x), 1)] = -np.inf
        weights = np.exp(scores - scores.max(1, keepdims=True))
        heads.append(weights / weights.sum(1, keepdims=True) @ v_th)
    joined = np.concatenate(heads, axis=1)
    output = layer["output"]
    return joined @ output["kernel"].reshape(joined.shape[1], -1) + output["bias"]


def feed_forward(x, layer):
    hidden = gelu(x @ layer["up"]["kernel"] + layer["up"]["bias"])
    return hidden @ layer["down"]["kernel"] + layer["down"]["bias"]


@pytest.mark.parametrize("norm_order", ["pre", "post"])
def test_the_network_is_its_formula(norm_order, make, random_params):
    """In float64 with NumPy. Post: O = LN(X + Attn(X)), H = LN(O + FFN(O)) (Vaswani et al. 2017).

    Pre: the same functions of normalised inputs, added to the stream (Radford et al. 2019).
    """
    config = make(norm_order=norm_order)
    params = random_params(config)
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    tokens = np.array([3, 1, 4, 1, 5, 9])
    x = exact["embedding"]["tokens"][tokens] + exact["embedding"]["positions"][: len(tokens)]
    for i in range(config.layers):
        layer = exact[f"layer_{i}"]
        if norm_order == "post":
            x = layernorm(x + self_attention(x, layer["attention"]), layer["attention_norm"])
            x = layernorm(x + feed_forward(x, layer["ffn"]), layer["ffn_norm"])
        else:
            x = x + self_attention(layernorm(x, layer["attention_norm"]), layer["attention"])
            x = x + feed_forward(layernorm(x, layer["ffn_norm"]), layer["ffn"])
    if norm_order == "pre":
        x = layernorm(x, exact["final_norm"])
    want = x @ exact["embedding"]["tokens"][: config.vocab].T

    inputs = model.Inputs(jnp.array(tokens)[None], None, jnp.arange(len(tokens))[None])
    got = jax.jit(model.apply, static_argnums=0)(config, params, inputs)[0, :, : config.vocab]
    np.testing.assert_allclose(got, want, atol=1e-5)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_the_lstm_is_its_formula(make, random_params):
    """Hochreiter & Schmidhuber 1997 with a forget gate, gate by gate in float64 with NumPy."""
    config = make(kind="lstm")
    params = random_params(config)
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    tokens = np.array([3, 1, 4, 1, 5, 9])
    x = exact["embedding"]["tokens"][tokens]
    for i in range(config.layers):
        layer, reads = exact[f"layer_{i}"], layernorm(x, exact[f"norm_{i}"])
        hidden = cell = np.zeros(config.width)
        written = []
        for read in reads:
            enter, forget, write, leave = (
                read @ layer["input"]["kernel"][:, gate]
                + layer["input"]["bias"][gate]
                + hidden @ layer["recurrent"][:, gate]
                for gate in range(4)
            )
            cell = sigmoid(forget + 1) * cell + sigmoid(enter) * np.tanh(write)
            hidden = sigmoid(leave) * np.tanh(cell)
            written.append(hidden)
        x = x + np.array(written)
    want = layernorm(x, exact["final_norm"]) @ exact["embedding"]["tokens"][: config.vocab].T

    inputs = model.Inputs(jnp.array(tokens)[None], None, jnp.arange(len(tokens))[None])
    got = jax.jit(model.apply, static_argnums=0)(config, params, inputs)[0, :, : config.vocab]
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize(("kind", "length"), [("transformer", 64), ("lstm", 512)])
def test_bfloat16_gradients_err_by_its_rounding(kind, length, make, random_params):
    """Also where they are sums over many tokens."""
    windows = jnp.array(np.random.default_rng(0).integers(0, EOD, (4, length + 1)), jnp.int32)

    def gradients(compute_dtype):
        config = make(kind=kind, compute_dtype=compute_dtype, context=length, layers=1)
        params = random_params(config)

        def loss(params):
            return model.loss(config, params, windows, eod=EOD, attend_across=True)[0]

        return jax.jit(jax.grad(loss))(params)

    def check(path, exact, rounded):
        assert rounded.dtype == jnp.float32
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if not name.endswith("key/bias"):  # moves all scores of a query alike: no gradient
            error = jnp.linalg.norm(exact - rounded) / jnp.linalg.norm(exact)
            assert error < 0.02, f"{name}: {error:.3f}"

    jax.tree.map_with_path(check, gradients("float32"), gradients("bfloat16"))


class TestDropout:
    WINDOWS = jnp.array(np.random.default_rng(0).integers(0, EOD, (2, 17)), jnp.int32)

    def loss(self, config, params, key):
        program = jax.jit(model.loss, static_argnums=0, static_argnames=("eod", "attend_across"))
        return program(config, params, self.WINDOWS, eod=EOD, attend_across=True, key=key)[0]

    def test_is_off_without_a_key(self, make, random_params):
        params = random_params(make())
        dropped = self.loss(make(dropout=0.5), params, None)
        assert dropped == self.loss(make(), params, None)
        assert dropped == self.loss(make(), params, jax.random.key(0))

    @pytest.mark.parametrize("kind", ["transformer", "lstm"])
    def test_follows_the_key(self, kind, make, random_params):
        config = make(dropout=0.5, kind=kind)
        params = random_params(config)
        one, same, other = (self.loss(config, params, jax.random.key(i)) for i in (1, 1, 2))
        assert one == same
        assert one != other

    @pytest.mark.parametrize("changes", [{}, {"scan": True, "remat": "full"}])
    def test_is_unbiased_and_drawn_anew_in_each_place(self, changes, make, random_params):
        """Every place writes a digit, so that the sum of all shows what each dropped.

        Attention and feed-forward write nothing but a bias, of 1, 10, 100, 1000; with an epsilon
        this large a norm is a mere factor, so the last one passes the sum on.
        """
        rate, epsilon = 0.25, 1e12
        config = make(norm="rmsnorm", norm_epsilon=epsilon, width=64, dropout=rate, **changes)
        params = jax.tree.map(jnp.zeros_like, random_params(config))
        params["final_norm"]["scale"] += 1
        outputs = [("attention", "output"), ("ffn", "down")]
        for layer in range(config.layers):
            for digit, (part, name) in enumerate(outputs):
                size = (1 - rate) * 10.0 ** (2 * layer + digit)
                if config.scan:
                    bias = params["layers"]["block_0"][part][name]["bias"]
                    params["layers"]["block_0"][part][name]["bias"] = bias.at[layer].set(size)
                else:
                    params[f"layer_{layer}"][part][name]["bias"] += size
        tokens = jnp.zeros((4, 16), jnp.int32)
        keys_bt = token_keys(jax.random.key(0), jnp.arange(4), 16, here())
        inputs = model.Inputs(tokens, None, tokens, keys_bt)
        x_btd, _ = jax.jit(features, static_argnums=(0, 3))(config, params, inputs, here())
        total = np.round(np.asarray(x_btd) * math.sqrt(epsilon)).astype(int).ravel()
        kept = [total // 10**digit % 10 for digit in range(4)]
        for mask in kept:
            assert set(mask) == {0, 1}  # kept values are scaled by 1 / (1 - rate)
            error = math.sqrt(rate * (1 - rate) / mask.size)
            assert np.mean(mask) == pytest.approx(1 - rate, abs=5 * error)
        assert np.abs(np.corrcoef(kept) - np.eye(4)).max() < 5 / math.sqrt(len(total))

    def test_embeddings_are_dropped_too(self, make, random_params):
        epsilon = 1e12
        config = make(norm="rmsnorm", norm_epsilon=epsilon, dropout=0.25)
        params = jax.tree.map(jnp.zeros_like, random_params(config))
        params["embedding"] = random_params(config)["embedding"]
        params["final_norm"]["scale"] += 1
        inputs = split(self.WINDOWS, EOD, True, here())[0]
        keys_bt = token_keys(jax.random.key(0), jnp.arange(2), 16, here())
        program = jax.jit(features, static_argnums=(0, 3))
        kept, whole = (
            program(config, params, read, here())[0] * math.sqrt(epsilon)
            for read in (inputs._replace(keys_bt=keys_bt), inputs)
        )
        alive = kept != 0
        assert 0.6 < jnp.mean(alive) < 0.9
        np.testing.assert_allclose(kept, np.where(alive, whole / 0.75, 0), rtol=1e-4, atol=1e-4)
