"""Optimizers: the textbook's arithmetic by hand, and what each rule promises."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.schema import Batch, Config, Data, InputError, Model, Optimizer, Schedule
from model import Parameter
from train import optimizers

NAMES = ["adam", "adamw", "sgd", "rmsprop", "adafactor", "lion", "muon"]


def config(name="adamw", learning_rate=0.01, schedule="constant", **settings) -> Config:
    settings = {"clip_norm": 0.0, **settings}
    return Config(
        model=Model(vocab=8, context=4, layers=1, width=4),
        data=Data(path="synthetic"),
        batch=Batch(size=1),
        optimizer=Optimizer(name=name, learning_rate=learning_rate, **settings),
        schedule=Schedule(kind=schedule),
        steps=100,
    )


def vector(*shape, decay=False) -> Parameter:
    return Parameter(shape, tuple("abc"[: len(shape)]), "vector", decay)


def matrix(shape, inputs, outputs, kind="matrix") -> Parameter:
    return Parameter(shape, tuple("abcd"[: len(shape)]), kind, True, matrix_axes=(inputs, outputs))


NETWORK: dict[str, Any] = {
    "embedding": matrix((12, 6), (0,), (1,), kind="embedding"),
    "block": {
        "query": matrix((6, 2, 4), (0,), (1, 2)),
        "out": matrix((2, 4, 6), (0, 1), (2,)),
        "up": matrix((6, 10), (0,), (1,)),
        "scale": vector(6),
    },
    "head": matrix((6, 12), (0,), (1,), kind="head"),
}


def draw(declarations, seed=0):
    """Normal random arrays in the shapes of the declarations."""
    leaves, tree = jax.tree.flatten(declarations)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    drawn = [jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, drawn)


def run(config, declarations, params, gradients):
    """The parameters and the state after an update with each of the gradients."""
    optimizer = optimizers.build(config, declarations)
    update = jax.jit(optimizer.update)
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def one_weight(config, *gradients):
    """The same for a single weight that starts at 0.5."""
    return run(config, vector(1), jnp.array([0.5]), [jnp.array([g]) for g in gradients])


def find(state, name):
    """The first entry of an optimizer's state that is called `name`."""
    return optax.tree.get_all_with_path(state, name)[0][1]


class TestTextbook:
    def test_adam_two_updates(self):
        """w = .5, alpha = .001, gradients .1 and .2.

        A published worked example slips at v2 (it is .999 * 1e-5 + .001 * .04 = 4.999e-5) and
        prints w2 = .4979; the right value is .498035.
        """
        settings = config("adam", learning_rate=0.001, beta1=0.9, beta2=0.999)
        w1, state = one_weight(settings, 0.1)
        np.testing.assert_allclose(find(state, "mu"), 0.01, rtol=1e-6)
        np.testing.assert_allclose(find(state, "nu"), 1e-5, rtol=1e-6)
        np.testing.assert_allclose(w1, 0.499, rtol=1e-6)
        w2, state = one_weight(settings, 0.1, 0.2)
        np.testing.assert_allclose(find(state, "mu"), 0.029, rtol=1e-6)
        np.testing.assert_allclose(find(state, "nu"), 4.999e-5, rtol=1e-6)
        np.testing.assert_allclose(w2, 0.498035, atol=5e-7)

    def test_sgd_with_momentum(self):
        """w = .5, g = .2, alpha = .01, beta = .9: v = .1 * .2 = .02, w = .5 - .01 * .02."""
        w, _ = one_weight(config("sgd", beta1=0.9), 0.2)
        np.testing.assert_allclose(w, 0.4998, rtol=1e-6)

    def test_adam_on_the_case_of_sgd(self):
        """The first step of Adam is alpha, whatever the gradient: .5 - .01.

        A published table prints .468 by dividing by the uncorrected sqrt(v).
        """
        w, _ = one_weight(config("adam", beta1=0.9, beta2=0.999), 0.2)
        np.testing.assert_allclose(w, 0.49, rtol=1e-6)

    def test_sgd_without_momentum_is_gradient_descent(self):
        w, _ = one_weight(config("sgd", beta1=0.0), 0.2, 0.4)
        np.testing.assert_allclose(w, 0.5 - 0.01 * 0.2 - 0.01 * 0.4, rtol=1e-6)

    def test_rmsprop_two_updates(self):
        """v1 = .1 * .04 = .004, v2 = .9 * .004 + .1 * .16 = .0196 = .14^2."""
        w, _ = one_weight(config("rmsprop", beta2=0.9), 0.2, 0.4)
        np.testing.assert_allclose(w, 0.5 - 0.01 * 0.2 / 0.004**0.5 - 0.01 * 0.4 / 0.14, rtol=1e-5)

    def test_lion_two_updates(self):
        """m1 = .01 * .2 = .002; the second sign is that of .9 * .002 - .1 * .01 > 0."""
        w, state = one_weight(config("lion", beta1=0.9, beta2=0.99), 0.2, -0.01)
        np.testing.assert_allclose(w, 0.5 - 0.01 - 0.01, rtol=1e-6)
        np.testing.assert_allclose(find(state, "mu"), 0.99 * 0.002 - 0.01 * 0.01, rtol=1e-5)

    def test_adafactor_first_update(self):
        """v = g^2, so the update is rate * RMS(w) = .01 * .5."""
        w, _ = one_weight(config("adafactor"), 0.2)
        np.testing.assert_allclose(w, 0.5 - 0.01 * 0.5, rtol=1e-6)

    def test_adamw_decays_beside_the_gradient(self):
        """Decoupled: .5 - .01 * (1 + .1 * .5), where L2 inside the gradient would give .49."""
        settings = config("adamw", weight_decay=0.1)
        w, _ = run(settings, vector(1, decay=True), jnp.array([0.5]), [jnp.array([0.2])])
        np.testing.assert_allclose(w, 0.5 - 0.01 * 1.05, rtol=1e-6)


def test_clipping_scales_all_gradients_together():
    """The norm of (3, 4) is 5: clipped to 1 they become (.6, .8); (.3, .4) stay."""
    declarations = {"a": vector(1), "b": vector(1)}
    start = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    settings = config("sgd", learning_rate=1.0, beta1=0.0, clip_norm=1.0)
    for gradient, expected in (((3.0, 4.0), (0.6, 0.8)), ((0.3, 0.4), (0.3, 0.4))):
        a, b = gradient
        params, _ = run(settings, declarations, start, [{"a": jnp.full(1, a), "b": jnp.full(1, b)}])
        np.testing.assert_allclose([params["a"][0], params["b"][0]], -np.array(expected), rtol=1e-6)


def test_averages_are_of_clipped_gradients():
    _, state = one_weight(config("adam", beta1=0.9, clip_norm=1.0), 5.0)
    np.testing.assert_allclose(find(state, "mu"), 0.1 * 1.0, rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "adam"])
def test_only_declared_parameters_decay(name):
    """Under a zero gradient a decaying parameter shrinks by rate * decay, the others stay."""
    declarations = {**NETWORK, "frozen": {"bias": vector(3), "gain": vector(3, decay=True)}}
    before = draw(declarations)
    zeros = jax.tree.map(jnp.zeros_like, before)
    after, _ = run(config(name, weight_decay=0.5), declarations, before, [zeros])
    for (path, declared), old, new in zip(
        jax.tree_util.tree_leaves_with_path(declarations),
        jax.tree.leaves(before),
        jax.tree.leaves(after),
        strict=True,
    ):
        share = 1 - 0.01 * 0.5 if declared.decay else 1.0
        np.testing.assert_allclose(new, share * old, rtol=1e-6, err_msg=str(path))


def test_settings_an_optimizer_lacks_are_refused():
    with pytest.raises(InputError, match=r"weight_decay=0\.1.*choose adamw"):
        optimizers.build(config("adam", weight_decay=0.1), NETWORK)
    with pytest.raises(InputError, match=r"rest_learning_rate=0\.1.*choose muon"):
        optimizers.build(config("adamw", rest_learning_rate=0.1), NETWORK)


class TestMuon:
    def test_update_is_orthogonal_over_inputs_and_outputs(self):
        """Newton-Schulz leaves singular values of .5 to 1.3, times the shape's factor."""
        before, gradient = draw(NETWORK), draw(NETWORK, seed=1)
        after, _ = run(config("muon", learning_rate=1.0), NETWORK, before, [gradient])
        for name, rows, columns in (("query", 6, 8), ("out", 8, 6), ("up", 6, 10)):
            update = (before["block"][name] - after["block"][name]).reshape(rows, columns)
            factor = optimizers.MUON_RMS * max(rows, columns) ** 0.5
            values = np.linalg.svd(update / factor, compute_uv=False)
            assert np.all((values > 0.5) & (values < 1.3)), (name, values)

    def test_update_has_the_size_of_adams(self):
        """The root mean square is MUON_RMS, within what Newton-Schulz leaves."""
        wide = matrix((64, 256), (0,), (1,))
        after, _ = run(config("muon", learning_rate=1.0), wide, draw(wide), [draw(wide, 1)])
        size = float(jnp.sqrt(jnp.mean((after - draw(wide)) ** 2)))
        assert size == pytest.approx(optimizers.MUON_RMS, rel=0.3)

    def test_scanned_layers_equal_unrolled_ones(self):
        layers = 3
        stacked = {
            "query": matrix((layers, 6, 2, 4), (1,), (2, 3)),
            "out": matrix((layers, 2, 4, 6), (1, 2), (3,)),
            "scale": vector(layers, 6),
        }
        single = {name: NETWORK["block"][name] for name in stacked}
        unrolled = {str(i): single for i in range(layers)}

        def split(tree):
            return {str(i): jax.tree.map(lambda x, i=i: x[i], tree) for i in range(layers)}

        settings = config("muon", weight_decay=0.1)
        before, gradients = draw(stacked), [draw(stacked, seed) for seed in (1, 2, 3)]
        scanned, _ = run(settings, stacked, before, gradients)
        plain, _ = run(settings, unrolled, split(before), [split(g) for g in gradients])
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), split(scanned), plain
        )

    @pytest.mark.parametrize("rest_learning_rate", [0.0, 0.003])
    def test_what_is_no_matrix_follows_adam(self, rest_learning_rate):
        before, gradients = draw(NETWORK), [draw(NETWORK, seed) for seed in (1, 2, 3)]
        settings = config("muon", weight_decay=0.1, rest_learning_rate=rest_learning_rate)
        muon, _ = run(settings, NETWORK, before, gradients)
        adam = config("adamw", rest_learning_rate or 0.01, weight_decay=0.1)
        adam, _ = run(adam, NETWORK, before, gradients)
        for pick in (lambda p: p["embedding"], lambda p: p["head"], lambda p: p["block"]["scale"]):
            np.testing.assert_allclose(pick(muon), pick(adam), rtol=1e-5, atol=1e-7)
        assert not np.allclose(muon["block"]["up"], adam["block"]["up"], atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_every_count_is_the_number_of_updates(name):
    gradients = [draw(NETWORK, seed) for seed in range(5)]
    _, state = run(config(name), NETWORK, draw(NETWORK), gradients)
    counts = [int(count) for _, count in optax.tree.get_all_with_path(state, "count")]
    assert counts
    assert set(counts) == {5}


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_reduces_a_quadratic(name):
    target = draw(NETWORK, seed=1)

    def loss(params):
        return optax.tree.norm(optax.tree.sub(params, target), squared=True)

    # Muon's matrices move by MUON_RMS times the rate, the others by about the rate.
    rates = {"muon": {"learning_rate": 0.25, "rest_learning_rate": 0.05}}
    settings = config(name, schedule="linear", **rates.get(name, {"learning_rate": 0.05}))
    optimizer = optimizers.build(settings, NETWORK)

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    params = draw(NETWORK)
    start, state = loss(params), optimizer.init(params)
    for _ in range(settings.steps):
        params, state = step(params, state)
    assert loss(params) < 0.1 * start


@pytest.mark.parametrize("name", NAMES)
def test_the_rate_is_the_schedules(name):
    """Warm-up over 100 steps: the first update is a hundredth of the one at the peak."""
    settings = config(name)
    slow = Config(**{**vars(settings), "schedule": Schedule(kind="constant", warmup=100)})
    before, gradient = draw(NETWORK), draw(NETWORK, 1)
    full, _ = run(settings, NETWORK, before, [gradient])
    warm, _ = run(slow, NETWORK, before, [gradient])
    jax.tree.map(
        lambda start, a, b: np.testing.assert_allclose((a - start) / 100, b - start, atol=1e-6),
        before,
        full,
        warm,
    )


@pytest.mark.parametrize("name", NAMES)
def test_averages_lie_under_the_path_of_their_parameter(name):
    """What sharding needs: a state leaf is a parameter's (by the end of its path) or tiny."""
    declarations = {**NETWORK, "large": matrix((128, 256), (0,), (1,))}
    params = draw(declarations)
    state = optimizers.build(config(name), declarations).init(params)
    paths = {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    averages = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        owners = [p for p in paths if jax.tree_util.keystr(path).endswith(p)]
        assert len(owners) == 1 or leaf.size <= 3, path
        averages += bool(owners) and leaf.shape == paths[owners[0]].shape
    if name not in ("adafactor", "sgd"):
        assert averages >= len(paths)
