"""Gradients of a step with 8-bit products on meshes of eight devices; started by test_float8.py.

    python -m tests.parallel.float8 '{"data": 1, "fsdp": 8}' ...

Prints for each mesh how far loss and gradients lie from those of a device alone, relative to them.
"""

import json
import sys
from typing import Any

import jax
import numpy as np

from configs.schema import Batch, Config, Data, Mesh, Model, Optimizer
from parallel.mesh import make_mesh, shard_batch
from train.state import create
from train.step import make_gradients

WINDOWS = np.random.default_rng(0).integers(0, 49, (8, 17)).astype(np.int32)


def gradients(mesh: Mesh, devices: int) -> list[np.ndarray]:
    shape: Any = {"vocab": 50, "context": 16, "layers": 2, "width": 32, "heads": 4, "kv_heads": 2}
    network = Model(
        **shape,
        ffn="swiglu",
        ffn_width=48,
        positions="rotary",
        bias=False,
        tied=False,
        scan=True,
        matrix_dtype="float8",
    )
    config = Config(
        model=network,
        data=Data(path="synthetic"),
        batch=Batch(size=8),
        mesh=mesh,
        optimizer=Optimizer(learning_rate=1e-3),
        steps=1,
    )
    made = make_mesh(config, jax.devices()[:devices])
    state: Any = create(config, made)
    step = jax.jit(make_gradients(config, 49, made))
    found, sums = step(state.params, shard_batch(made, WINDOWS), jax.random.key(0))
    return [np.asarray(leaf) for leaf in (sums["loss"], *jax.tree.leaves(found))]


def main() -> None:
    alone = gradients(Mesh(), 1)
    scale = sum(float(np.sum(np.square(leaf))) for leaf in alone)
    for mesh in map(json.loads, sys.argv[1:]):
        pairs = zip(gradients(Mesh(**mesh), 8), alone, strict=True)
        print(json.dumps((sum(float(np.sum(np.square(a - b))) for a, b in pairs) / scale) ** 0.5))


if __name__ == "__main__":
    main()
