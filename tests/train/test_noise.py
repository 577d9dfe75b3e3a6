"""The gradient noise scale: of its definition, on every mesh, and where the truth is known."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from configs.schema import Batch, Data, Evaluation, InputError, Optimizer
from parallel.mesh import AXES, make_mesh, shard_batch
from scaling.batch import noise_estimates, noise_scale
from tests.train import noise_parts
from train import noise
from train.logbook import Logbook
from train.loop import DONE, train
from train.metrics import Console, Meter, Sinks
from train.noise import METRICS, NOISE, SIGNAL
from train.state import create
from train.step import make_step

REPOSITORY = Path(__file__).resolve().parents[2]


def assert_right(found: dict, parts: int) -> None:
    assert found["parts"] == parts
    assert found[SIGNAL] < 1e-5
    assert found[NOISE] < 1e-5
    assert found["same"], "measuring changed what is trained"


class TestOneDevice:
    def test_microbatches_with_unequal_targets(self):
        """By the definition, from each window's gradient; and training is the same bit for bit."""
        assert_right(noise_parts.check(data=1, microbatch=4), parts=4)

    def test_equal_parts_are_mccandlish_s(self):
        """Eight parts of 16 targets: appendix A.1 with batches of 16 and of 128."""
        parts = np.random.default_rng(0).standard_normal((8, 50)) + 0.1
        sums = {
            "weight": jnp.float32(8 * 16),
            "part_norm2": jnp.float32((parts**2).sum()),
            "part_weight2": jnp.float32(8 * 16**2),
        }
        norm = np.linalg.norm(parts.sum(axis=0)) / 128
        found = noise.estimates(sums, jnp.float32(norm))
        small = ((parts / 16) ** 2).sum(axis=1).mean()
        signal, variance = noise_estimates(np.array([small]), np.array([norm**2]), 16, 128)
        np.testing.assert_allclose(found[SIGNAL], signal[0], rtol=1e-4)
        np.testing.assert_allclose(found[NOISE], variance[0], rtol=1e-4)

    def test_one_part_says_nothing(self):
        sums = {"weight": jnp.float32(8), "part_norm2": jnp.float32(3)}
        sums |= {"part_weight2": jnp.float32(64)}
        assert all(np.isnan(value) for value in noise.estimates(sums, jnp.float32(1)).values())

    def test_truth_is_recovered_at_fixed_parameters(self):
        """Windows drawn from a pool whose mean gradient and covariance are known exactly."""
        config = replace(
            noise_parts.recipe(microbatch=2, data=1),
            batch=Batch(size=8, microbatch=2, noise_scale=True),
            optimizer=Optimizer(name="sgd", learning_rate=1e-30),
        )
        mesh = make_mesh(config)
        state = create(config, mesh)
        before = np.array(state.params["embedding"]["tokens"])
        pool, rng = noise_parts.windows(), np.random.default_rng(1)
        pool[pool < 0] = 1  # full windows
        gradients, targets = noise_parts.by_window(config, state.params, pool)
        mean = gradients.mean(axis=0) / targets[0]
        variance = ((gradients - gradients.mean(axis=0)) ** 2).sum(axis=1).mean() / targets[0]
        truth = variance / (mean**2).sum()

        step, found = make_step(config, noise_parts.EOD, mesh), []
        for _ in range(300):
            state, metrics = step(state, shard_batch(mesh, pool[rng.integers(0, len(pool), 8)]))
            found.append([float(metrics[name]) for name in METRICS])
        assert np.array_equal(before, state.params["embedding"]["tokens"])
        scale = noise_scale(*np.array(found).T)
        assert scale.standard_error < 0.1 * truth
        assert abs(scale.value - truth) < 3 * scale.standard_error
        # The mean square of whole batches, noise and all, would be this far off.
        assert variance / (8 * targets[0]) > 10 * scale.standard_error / truth * (mean**2).sum()


class TestRefusals:
    @staticmethod
    def mesh(**sizes):
        return SimpleNamespace(shape={axis: sizes.get(axis, 1) for axis in AXES})

    def config(self, size=8, microbatch=8, noise_scale=True):
        batch = Batch(size=size, microbatch=microbatch, noise_scale=noise_scale)
        return replace(noise_parts.recipe(8), batch=batch)

    def test_one_replica_and_one_microbatch(self):
        with pytest.raises(InputError, match=r"set batch\.microbatch below"):
            noise.check(self.config(), self.mesh(fsdp=4, tensor=2))
        noise.check(self.config(microbatch=4), self.mesh(fsdp=4))
        noise.check(self.config(), self.mesh(data=2))
        noise.check(self.config(noise_scale=False), self.mesh())

    def test_a_pipeline_needs_replicas(self):
        with pytest.raises(InputError, match=r"set mesh\.data"):
            noise.check(self.config(microbatch=2), self.mesh(stage=2))
        noise.check(self.config(microbatch=2), self.mesh(stage=2, slices=2, slice=2))

    def test_the_step_checks(self):
        config = replace(self.config(), mesh=noise_parts.recipe(8, data=1).mesh)
        with pytest.raises(InputError, match="one part"):
            make_step(config, 0, make_mesh(config))


def test_rows_hold_means_over_the_updates_since_the_last(short, tmp_path, rows):
    """And nothing where no update since then had an estimate."""
    config = replace(short, batch=Batch(size=4, microbatch=2, noise_scale=True), steps=12)
    run = {"flops_per_token": {"palm": 1}, "peak": {"flops": 1}, "devices": {"count": 1}}
    sinks = Sinks(tmp_path, 0)
    log = Logbook(replace(config, log_every=4), sinks, Console(StringIO()), Meter(), run)
    usual = {"loss": 2.0, "targets": 128, "skipped": 0, "skipped_total": 0}
    for step in range(1, 13):
        value = np.nan if step <= 4 else step
        metrics = usual | {SIGNAL: value, NOISE: 10.0 * value}
        metrics["skipped"] = int(step == 10)  # its row comes at once
        log.add(step, {name: jnp.float32(v) for name, v in metrics.items()})
    log.flush()
    log.close()
    found = {row["step"]: row for row in rows(tmp_path, "train")}
    means = {1: None, 4: None, 8: 6.5, 10: 9.0, 12: 11.5}
    assert {step: row[SIGNAL] for step, row in found.items()} == means
    assert found[8][NOISE] == 65.0


def test_a_run_writes_them(short, tmp_path, rows):
    config = replace(
        short,
        data=Data(path="synthetic"),
        batch=Batch(size=4, microbatch=2, noise_scale=True),
        evaluation=Evaluation(sample_tokens=0),
        steps=4,
    )
    assert train(config, tmp_path) == DONE
    for row in rows(tmp_path, "train"):
        assert row[NOISE] > 0
        assert row[NOISE] > abs(row[SIGNAL])


def on_eight(*meshes: dict) -> list[dict]:
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.noise_parts", *map(json.dumps, meshes)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_replicas_that_are_split_themselves():
    (found,) = on_eight({"data": 2, "fsdp": 2})
    assert_right(found, parts=4)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_every_mesh_measures_its_parts():
    """Parts are replicas times microbatches, and replicas alone in a pipeline."""
    parts = [
        ({"data": 8}, 16),
        ({"data": 2, "microbatch": 16}, 2),
        ({"data": 1, "fsdp": 8}, 2),
        ({"data": 1, "tensor": 2, "microbatch": 4}, 4),
        ({"data": 2, "sequence": 2}, 4),
        ({"data": 1, "slices": 2, "fsdp": 2, "sequence": 2}, 4),
        ({"data": 2, "fsdp": 2, "tensor": 2}, 4),
        ({"data": 4, "stage": 2}, 4),
        ({"data": 2, "tensor": 2, "stage": 2}, 2),
    ]
    for found, (_, count) in zip(on_eight(*(mesh for mesh, _ in parts)), parts, strict=True):
        assert_right(found, count)
