"""Runs of a few updates on meshes of up to eight virtual devices; started by test_numerics.py.

    python -m tests.parallel.eight each|travel NETWORK '{"fsdp": 8, "data": 1}' ...

Prints for each mesh, or for one run that travels over all of them, how far its losses, gradient
norms, parameters, optimizer state and validation sums lie from those of one device, relative to the
largest value in each array.
"""

import json
import math
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np

from configs import schema
from configs.schema import Batch, Config, Data, Model, Optimizer
from parallel.mesh import make_mesh, shard_batch
from train.checkpoint import open_checkpoints
from train.state import abstract, create
from train.step import make_evaluation, make_step

NETWORKS = {
    # Packed documents, everything that llama has, and dropout.
    "packed": {
        "kv_heads": 2,
        "positions": "rotary",
        "norm": "rmsnorm",
        "ffn": "swiglu",
        "ffn_width": 32,
        "tied": False,
        "qk_norm": True,
        "remat": "full",
        "dropout": 0.1,
    },
    # Across documents, with biases, learned positions, windows and a tied head.
    "gpt": {"windows": (0, 8), "logit_softcap": 15.0, "remat": "dots"},
    "lstm": {"kind": "lstm", "scan": False},
}
VOCAB, CONTEXT, ROWS = 250, 32, 16


def recipe(network: str, **mesh: int) -> Config:
    shape: dict[str, Any] = {"layers": 4, "width": 16, "heads": 4, "scan": True}
    return Config(
        model=Model(vocab=VOCAB, context=CONTEXT, **(shape | NETWORKS[network])),
        data=Data(path="synthetic", attend_across=network == "gpt"),
        batch=Batch(size=ROWS, microbatch=ROWS // 2),
        # With a small epsilon Adam makes a step of any gradient, rounding errors included.
        optimizer=Optimizer(
            name="muon" if network == "gpt" else "sgd",
            learning_rate=0.1,
            weight_decay=0.1,
            epsilon=1e-3,
        ),
        mesh=schema.Mesh(**mesh),
        steps=3,
        z_loss=1e-3,
    )


def windows() -> np.ndarray:
    """Random tokens with ends of documents, and one window with a padded end."""
    rng = np.random.default_rng(0)
    rows_bt = rng.integers(1, VOCAB, (ROWS, CONTEXT + 1)).astype(np.int32)
    rows_bt[rng.random(rows_bt.shape) < 0.08] = 0
    rows_bt[3, 20:] = -1
    return rows_bt


def run(config: Config, devices: int) -> dict[str, Any]:
    mesh = make_mesh(config, jax.devices()[:devices])
    update, sums = make_step(config, 0, mesh), make_evaluation(config, 0, mesh)
    rows_bt = windows()
    state = create(config, mesh)
    few = shard_batch(mesh, rows_bt[: ROWS // 2])
    found = {"evaluation": jax.device_get(sums(state.params, few)), "metrics": []}
    for _ in range(2):  # one at a time: virtual devices share threads and can starve one another
        state, metrics = jax.block_until_ready(update(state, shard_batch(mesh, rows_bt)))
        found["metrics"].append(jax.device_get(metrics))
    return found | {"params": jax.device_get(state.params), "moments": jax.device_get(state[2])}


def distance(want: Any, got: Any) -> float:
    """The largest difference of two trees, relative to the largest value of its array."""

    def of_leaf(a: np.ndarray, b: np.ndarray) -> float:
        # What is zero but for rounding, as a key's bias's gradient is, has no digits to compare.
        return float(np.max(np.abs(a - b)) / max(np.max(np.abs(a)), 1e-5))

    return max(jax.tree.leaves(jax.tree.map(of_leaf, want, got)))


def travel(network: str, meshes: list[dict[str, int]]) -> dict[str, Any]:
    """One run that makes one update on each mesh, and is saved and restored in between."""
    metrics: list[Any] = []
    steps: dict[Config, Any] = {}
    with TemporaryDirectory() as folder:
        for mesh_settings in meshes:
            config = recipe(network, **mesh_settings)
            mesh = make_mesh(config, jax.devices()[: device_count(mesh_settings)])
            with open_checkpoints(Path(folder), config.checkpoints) as checkpoints:
                if metrics:
                    state = checkpoints.restore(abstract(config, mesh)).state
                else:
                    state = create(config, mesh)
                if config not in steps:
                    steps[config] = make_step(config, 0, mesh)
                state, new = steps[config](state, shard_batch(mesh, windows()))
                metrics.append(jax.device_get(new))
                checkpoints.save(len(metrics), state, {})
    return {"metrics": metrics, "params": jax.device_get(state.params)}


def device_count(mesh: dict[str, int]) -> int:
    return math.prod(size for axis, size in mesh.items() if axis != "rounds")


def main(task: str, network: str, *arguments: str) -> None:
    meshes = [json.loads(text) for text in arguments]
    if task == "travel":
        want = travel(network, [{"data": 1}] * len(meshes))
        results = [travel(network, meshes)]
    else:
        want = run(recipe(network, data=1), 1)
        results = [run(recipe(network, **mesh), device_count(mesh)) for mesh in meshes]
    for got in results:
        print(json.dumps({name: distance(want[name], got[name]) for name in want}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
