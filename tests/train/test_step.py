"""One update: exact under accumulation, safe from what is not finite, the same every time."""

import functools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import model
from configs.flags import load
from configs.schema import Batch, Config, Data, Model, Optimizer, Schedule
from parallel.mesh import make_mesh
from train.optimizers import build
from train.state import State, abstract, create
from train.step import accumulate, make_evaluation, make_step

EOD = 0
# For comparisons: Adam's first update makes a step of any gradient, rounding errors included.
SGD = Optimizer(name="sgd", learning_rate=1e-2)


def settings(changes: dict[str, Any] | None = None, batch=4, microbatch=0, **rest) -> Config:
    """Few parameters: most of the time of these tests is the compiler's."""
    network: dict[str, Any] = {
        "vocab": 40,
        "context": 8,
        "layers": 1,
        "width": 16,
        "heads": 2,
        "bias": False,
        "norm": "rmsnorm",
    }
    usual: dict[str, Any] = {
        "data": Data(path="synthetic", attend_across=False),
        "optimizer": Optimizer(learning_rate=1e-2),
        "schedule": Schedule(kind="constant"),
        "steps": 100,
    }
    return Config(
        model=Model(**{**network, **(changes or {})}),
        batch=Batch(size=batch, microbatch=microbatch),
        **{**usual, **rest},
    )


def start(config: Config) -> State:
    """A state with random parameters, scales included."""
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda p: jnp.asarray(p.constant + 0.3 * rng.standard_normal(p.shape), jnp.float32),
        model.declare(config.model),
    )
    optimizer = build(config, model.declare(config.model))
    counts = (jnp.zeros((), jnp.int32) for _ in range(3))
    return State(next(counts), params, optimizer.init(params), next(counts), next(counts))


@functools.cache
def step_for(config: Config) -> Any:
    """The train step, compiled once for all tests of the same run."""
    return make_step(config, EOD, make_mesh(config))


@functools.cache
def gradients_for(config: Config) -> Any:
    """Sums of gradients and of losses as the step takes them, of parameters and windows."""

    def loss(params, window_mt, key, rows_m):
        del key
        return model.loss(
            config.model, params, window_mt, eod=EOD, attend_across=False, z_loss=0.01
        )

    def gradients(params, tokens):
        rows = jnp.arange(len(tokens))
        return accumulate(loss, params, tokens, rows, config.batch.microbatch, jax.random.key(0))

    return jax.jit(gradients)


def windows(rows=4, length=8, seed=0, low=0) -> np.ndarray:
    """Full windows of random tokens."""
    tokens = np.random.default_rng(seed).integers(low, 40, (rows, length + 1))
    return tokens.astype(np.int32)


def uneven() -> np.ndarray:
    """Windows with 8, 1, 5 and 2 targets."""
    tokens = windows(low=1)
    for row, targets in enumerate((8, 1, 5, 2)):
        tokens[row, targets + 1 :] = -1
    return tokens


def on_host(tree):
    """A copy that outlives the donation of its arrays."""
    return jax.tree.map(np.array, tree)


def assert_close(one, other):
    """Within 1e-6 of each array's largest entry."""

    def check(a, b):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * max(1, np.abs(b).max()))

    jax.tree.map(check, one, other)


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


class TestAccumulation:
    def test_equals_one_big_batch(self):
        params = start(settings()).params
        want = gradients_for(settings())(params, uneven())
        assert want[1]["weight"] == 8 + 1 + 5 + 2
        assert_close(gradients_for(settings(microbatch=1))(params, uneven()), want)

    def test_is_no_mean_of_means(self):
        """Which would let a window with one target count as much as one with eight."""
        params = start(settings()).params
        gradients, sums = gradients_for(settings())(params, uneven())
        means = []
        for row in range(4):
            alone = np.where(np.arange(4)[:, None] == row, uneven(), -1)
            part, part_sums = gradients_for(settings())(params, alone)
            means.append(jax.tree.map(lambda g, weight=part_sums["weight"]: g / weight, part))
        mean_of_means = jax.tree.map(lambda *parts: sum(parts) / 4, *means)
        mean = jax.tree.map(lambda g: g / sums["weight"], gradients)
        apart = optax.tree.norm(jax.tree.map(jnp.subtract, mean, mean_of_means))
        assert apart > 0.1 * optax.tree.norm(mean)

    def test_a_step_is_the_same_however_it_is_cut_and_ordered(self):
        results = []
        for microbatch, order in ((4, [0, 1, 2, 3]), (2, [0, 1, 2, 3]), (2, [3, 0, 2, 1])):
            config = settings(microbatch=microbatch, optimizer=SGD)
            state, metrics = step_for(config)(start(config), uneven()[order])
            results.append((state.params, metrics))
        for other in results[1:]:
            assert_close(other, results[0])

    def test_gpt3_s_batch_is_arithmetic(self):
        """Brown et al. 2020, Table 2.1: 3.2 million tokens, here in whole microbatches."""
        config = load("configs/gpt3_175b.py")
        assert isinstance(config, Config)
        batch, context = config.batch, config.model.context
        assert batch.size * context == 3_145_728
        assert batch.size_at(config.steps) == batch.size
        for size in batch.sizes():
            assert size % batch.microbatch == 0
        assert batch.windows_before(config.steps) * context == pytest.approx(300e9, rel=0.01)

    @pytest.mark.slow
    def test_a_batch_of_millions_needs_the_memory_of_a_microbatch(self):
        """Every one of its 3.2 million targets is counted."""
        network = {"context": 64, "width": 4, "heads": 1, "ffn_width": 4}

        config = settings(network, batch=50_000, microbatch=500)
        tokens = jax.ShapeDtypeStruct((50_000, 65), jnp.int32)
        step = step_for(config).lower(abstract(config), tokens).compile()
        scores = 50_000 * 64 * 64 * 4  # bytes of attention's scores, if all were there at once
        assert step.memory_analysis().temp_size_in_bytes < scores / 10
        _, metrics = step(start(config), windows(50_000, 64, low=1))
        assert metrics["targets"] == 3_200_000
        assert metrics["skipped_total"] == 0
        assert np.isfinite(metrics["loss"])


class TestNonFinite:
    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_changes_no_bit_and_is_counted(self, bad):
        """The vector of token 39 is bad, so that a batch is just when it holds that token."""
        config = settings({"tied": False})
        state, step = start(config), step_for(config)
        state.params["embedding"]["tokens"] = (
            state.params["embedding"]["tokens"].at[39].set(jnp.float32(bad))
        )
        good = np.minimum(windows(), 38)
        poisoned = good.copy()
        poisoned[2, 3] = 39

        state, metrics = step(state, good)
        assert (metrics["skipped"], metrics["skipped_total"], state.step) == (0, 0, 1)
        for k in (1, 2):
            before = on_host((state.params, state.optimizer))
            state, metrics = step(state, poisoned)
            assert_equal((state.params, state.optimizer), before)
            assert (metrics["skipped"], metrics["skipped_total"], state.step) == (k, k, 1 + k)
        before = on_host(state.params)
        state, metrics = step(state, good)
        assert (metrics["skipped"], metrics["skipped_total"], state.step) == (0, 2, 4)
        assert np.any(state.params["embedding"]["output"] != before["embedding"]["output"])
        # Skipped updates are no updates: the averages and the schedule stand at two.
        assert all(
            count == 2 for _, count in optax.tree.get_all_with_path(state.optimizer, "count")
        )

    def test_of_the_gradient_alone(self):
        """The reported loss is finite, the gradient of so heavy a penalty is not."""
        config = settings(z_loss=1e38)
        state = start(config)
        before = on_host((state.params, state.optimizer))
        state, metrics = step_for(config)(state, windows())
        assert np.isfinite(metrics["loss"])
        assert not np.isfinite(metrics["gradient_norm"])
        assert metrics["skipped"] == 1
        assert_equal((state.params, state.optimizer), before)

    def test_a_batch_without_targets_is_none(self):
        config = settings()
        state = start(config)
        before = on_host(state.params)
        tokens = np.full((4, 9), -1, np.int32)
        tokens[:, 0] = EOD
        state, metrics = step_for(config)(state, tokens)
        assert (metrics["loss"], metrics["targets"], metrics["skipped"]) == (0, 0, 0)
        assert_equal(state.params, before)


class TestReports:
    def test_what_they_mean(self):
        """The loss is without z-loss, the norm with it and before clipping."""
        optimizer = Optimizer(learning_rate=1e-2, clip_norm=1e-3)
        config = settings(z_loss=0.1, optimizer=optimizer)
        state = start(config)
        params = on_host(state.params)

        def mean(params):
            total, sums = model.loss(
                config.model, params, jnp.array(uneven()), eod=EOD, attend_across=False, z_loss=0.1
            )
            return total / 16, sums

        (total, sums), gradients = jax.jit(jax.value_and_grad(mean, has_aux=True))(params)
        _, metrics = step_for(config)(state, uneven())
        assert metrics["targets"] == 16
        np.testing.assert_allclose(metrics["loss"], np.sum(sums["loss"]) / 16, rtol=1e-6)
        assert metrics["loss"] < total - 0.1
        np.testing.assert_allclose(metrics["accuracy"], np.sum(sums["correct"]) / 16)
        np.testing.assert_allclose(metrics["gradient_norm"], optax.tree.norm(gradients), rtol=1e-5)
        assert metrics["gradient_norm"] > 1e-2
        assert all(value.dtype == jnp.float32 for value in metrics.values())

    def test_rate_is_the_schedule_s(self):
        config = settings(schedule=Schedule(kind="linear", warmup=3, final=0.0), steps=5)
        state, step, rates = start(config), step_for(config), []
        for _ in range(5):
            state, metrics = step(state, windows())
            rates.append(metrics["learning_rate"])
        np.testing.assert_allclose(rates, np.array([1 / 3, 2 / 3, 1, 1 / 2, 0]) * 1e-2, atol=1e-9)
        counts = [count for _, count in optax.tree.get_all_with_path(state.optimizer, "count")]
        assert counts == [5] * len(counts)
        assert len(counts) >= 2  # Adam's and the schedule's
        assert state.step == 5

    def test_evaluation_gives_each_window_s_sums_without_dropout(self):
        config, dropping = settings(), settings({"dropout": 0.5})
        params = start(config).params
        sums = make_evaluation(dropping, EOD, make_mesh(dropping))(params, jnp.array(uneven()))
        np.testing.assert_array_equal(sums["weight"], [8, 1, 5, 2])
        want = gradients_for(config)(params, uneven())[1]
        np.testing.assert_allclose(np.sum(sums["loss"]), want["loss"], rtol=1e-5)
        assert np.sum(sums["correct"]) == want["correct"]


class TestOneSeed:
    @staticmethod
    def dropping(seed):
        return settings({"dropout": 0.3}, microbatch=2, seed=seed)

    def test_gives_the_run(self):
        """From the seed on, and bit for bit."""
        config = self.dropping(1)

        def run():
            state, step, losses = create(config, make_mesh(config)), step_for(config), []
            for k in range(3):
                state, metrics = step(state, windows(seed=k))
                losses.append(float(metrics["loss"]))
            return on_host(state), losses

        assert_equal(run(), run())

    def test_what_is_dropped_differs_by_seed_step_and_microbatch(self):
        config = self.dropping(1)
        same = np.repeat(windows(1), 4, axis=0)

        def loss(config, tokens, step=0):
            state = start(config)._replace(step=jnp.int32(step))
            return float(step_for(config)(state, tokens)[1]["loss"])

        assert loss(config, same) == loss(config, same)
        assert loss(config, same) != loss(config, same, step=1)
        assert loss(config, same) != loss(self.dropping(2), same)
        # Rows 0 and 2 are the first microbatch. Were the second dropped alike, without it the
        # mean would be the same.
        first = np.where(np.array([True, False, True, False])[:, None], same, -1)
        assert loss(config, same) != pytest.approx(loss(config, first), rel=1e-4)


class TestProgram:
    def test_the_state_is_donated(self):
        config = settings()
        state = start(config)
        step_for(config)(state, windows())
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state.params, state.optimizer)))

    def test_a_created_state_can_be_donated(self):
        """No two of its arrays are one."""
        config = settings({"width": 4, "kind": "lstm"})
        state = create(config, make_mesh(config))
        buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
        assert len(set(buffers)) == len(buffers)
        other = create(replace(config, seed=1), make_mesh(config))
        tables = [one.params["embedding"]["tokens"] for one in (state, other)]
        assert np.mean(tables[0] == tables[1]) < 0.01

    def test_takes_any_number_of_microbatches(self):
        """As a ramp of the batch size asks of it."""
        config = settings(microbatch=2, optimizer=SGD)
        for rows in (4, 2):
            _, metrics = step_for(config)(start(config), windows(rows, low=1))
            assert metrics["targets"] == rows * 8

    def test_learns(self):
        config = settings()
        state, step, losses = start(config), step_for(config), []
        for _ in range(30):
            state, metrics = step(state, windows())
            losses.append(float(metrics["loss"]))
        assert losses[-1] < losses[0] / 2

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "changes", [{"positions": "rotary"}, {"scan": True, "remat": "dots"}, {"kind": "lstm"}]
    )
    def test_compiled_equals_uncompiled(self, changes):
        """The compiler is a dependency like any other: XLA has been wrong about slices before."""
        config = settings(changes, microbatch=2, z_loss=0.01, optimizer=SGD)
        tokens = jnp.array(uneven())
        compiled = make_step(config, EOD, make_mesh(config))(start(config), tokens)
        with jax.disable_jit():
            plain = make_step(config, EOD, make_mesh(config))(start(config), tokens)
        assert_close(compiled, plain)
