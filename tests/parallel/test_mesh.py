"""Rows are split over devices, in order; eight of them train as one does."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from configs.schema import Batch
from parallel.mesh import host_share, make_mesh, replicated, shard_batch

EIGHT_DEVICES = """
import jax, numpy as np
from configs.schema import Batch, Config, Data, InputError, Model, Optimizer
from parallel.mesh import make_mesh, replicated, shard_batch
from train.state import create
from train.step import make_step

try:
    make_mesh(Batch(size=12))
except InputError as error:
    assert str(error) == (
        "batch.microbatch=12 cannot be shared evenly by 8 devices: choose a multiple of 8"
    ), error
else:
    raise AssertionError("12 windows on 8 devices")

batch = Batch(size=16, microbatch=8)
mesh = make_mesh(batch)
rows_bt = np.arange(16 * 9, dtype=np.int32).reshape(16, 9) % 11
rows_bt[3, 4:] = -1  # unequal numbers of targets
array = shard_batch(mesh, rows_bt)
assert [shard.data.shape for shard in array.addressable_shards] == [(2, 9)] * 8
for shard in array.addressable_shards:
    np.testing.assert_array_equal(shard.data, rows_bt[shard.index])

config = Config(
    model=Model(vocab=11, context=8, layers=1, width=8, heads=2),
    data=Data(path="synthetic"),
    batch=batch,
    optimizer=Optimizer(learning_rate=1e-2),
    steps=3,
)
step = make_step(config, 0)
results = []
for place, batch_bt in ((replicated(mesh), array), (None, jax.numpy.asarray(rows_bt))):
    state = jax.jit(create, static_argnums=0, out_shardings=place)(config)
    for _ in range(3):
        # XLA:CPU's devices share a pool of threads: two updates under way can starve each other.
        state, metrics = jax.block_until_ready(step(state, batch_bt))
    results.append((state.params, metrics))
assert float(results[0][1]["targets"]) == 16 * 8 - 5
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), *results)
print("as one")
"""


def test_one_device_holds_everything():
    mesh = make_mesh(Batch(size=3))
    rows_bt = np.arange(12, dtype=np.int32).reshape(3, 4)
    array = shard_batch(mesh, rows_bt)
    assert array.dtype == np.int32
    np.testing.assert_array_equal(array, rows_bt)
    assert jax.device_put(rows_bt, replicated(mesh)).sharding.is_fully_replicated
    assert host_share() == (0, 1)


@pytest.mark.timeout(300)
def test_eight_devices_train_as_one():
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-c", EIGHT_DEVICES],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "as one\n", done.stderr
