"""Noise estimates on meshes of eight virtual devices; started by test_noise.py.

    python -m tests.train.noise_parts '{"data": 2, "fsdp": 4, "microbatch": 16}' ...

Prints for each mesh how far |G|^2 and tr(Sigma) lie, relatively, from those of the same parts'
gradients taken window by window on one device, how many parts there were, and whether parameters,
optimizer state and all other metrics are bit for bit those of a step that measures nothing.
"""

import json
import math
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

import model
from configs import schema
from configs.schema import Batch, Config, Data, Model, Optimizer
from parallel.mesh import make_mesh, shard_batch
from train.noise import METRICS, NOISE, REPLICAS, SIGNAL
from train.state import create
from train.step import make_step

EOD, VOCAB, CONTEXT, ROWS = 0, 100, 8, 16


def recipe(microbatch: int, **mesh: int) -> Config:
    """Arrays of every kind: split over each axis, over several, and over none."""
    return Config(
        model=Model(
            vocab=VOCAB,
            context=CONTEXT,
            layers=2,
            width=16,
            heads=4,
            kv_heads=2,
            tied=False,
            ffn="swiglu",
            ffn_width=32,
            scan=True,
        ),
        data=Data(path="synthetic", attend_across=False),
        batch=Batch(size=ROWS, microbatch=microbatch, noise_scale=True),
        optimizer=Optimizer(learning_rate=0.1, weight_decay=0.1),
        mesh=schema.Mesh(**mesh),
        steps=3,
        z_loss=1e-3,
    )


def windows() -> np.ndarray:
    """Random tokens; some windows have few targets."""
    rng = np.random.default_rng(0)
    rows_bt = rng.integers(1, VOCAB, (ROWS, CONTEXT + 1)).astype(np.int32)
    for row, targets in ((1, 2), (6, 5), (11, 1)):
        rows_bt[row, targets + 1 :] = -1
    return rows_bt


def by_window(
    config: Config, params: model.Params, rows_bt: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The gradient of each window's summed loss, float64 [b, parameters], and its targets [b]."""

    def loss(params: model.Params, row_t: jax.Array) -> tuple[jax.Array, jax.Array]:
        total, sums = model.loss(
            config.model, params, row_t[None], eod=EOD, attend_across=False, z_loss=config.z_loss
        )
        return total, sums["weight"][0]

    gradient = jax.jit(jax.vmap(jax.grad(loss, has_aux=True), (None, 0)))
    gradients, weight_b = gradient(params, jnp.asarray(rows_bt))
    flat = [np.asarray(g, np.float64).reshape(len(rows_bt), -1) for g in jax.tree.leaves(gradients)]
    return np.concatenate(flat, axis=1), np.asarray(weight_b, np.float64)


def parts(mesh: jax.sharding.Mesh, microbatch: int) -> np.ndarray:
    """The part of each window: device by device a share of the rows, microbatch by microbatch."""
    fsdp, piped = mesh.shape["fsdp"], mesh.shape["stage"] > 1
    replicas = math.prod(mesh.shape[axis] for axis in REPLICAS)
    row_b = np.arange(ROWS)
    share = ROWS // (replicas * fsdp)
    own = ROWS // replicas if piped else microbatch // (replicas * fsdp)
    return row_b // (share * fsdp) * ROWS + row_b % share // own


def reference(gradients_bp: np.ndarray, weight_b: np.ndarray, part_b: np.ndarray) -> list[float]:
    """|G|^2 and tr(Sigma) by their definitions: products of two different parts, and the rest."""
    names = np.unique(part_b)
    g_kp = np.array([gradients_bp[part_b == k].sum(0) for k in names])
    w_k = np.array([weight_b[part_b == k].sum() for k in names])
    apart = ~np.eye(len(names), dtype=bool)
    signal = (g_kp @ g_kp.T)[apart].sum() / np.outer(w_k, w_k)[apart].sum()
    noise = ((g_kp**2).sum(1) - w_k**2 * signal).sum() / w_k.sum()
    return [signal, noise, len(names)]


def check(microbatch: int = 8, **sizes: int) -> dict[str, object]:
    config = recipe(microbatch, **sizes)
    mesh = make_mesh(config, jax.devices()[: math.prod(sizes.values())])
    batch = shard_batch(mesh, windows())
    params = jax.device_get(create(config, mesh).params)
    signal, noise, count = reference(*by_window(config, params, windows()), parts(mesh, microbatch))
    ends = []
    for measuring in (True, False):
        changed = replace(config, batch=replace(config.batch, noise_scale=measuring))
        state, metrics = make_step(changed, EOD, mesh)(create(changed, mesh), batch)
        ends.append(jax.device_get((state, metrics)))
    found = [float(ends[0][1].pop(name)) for name in METRICS]
    assert not set(METRICS) & set(ends[1][1])
    same = jax.tree.map(lambda a, b: np.asarray(a).tobytes() == np.asarray(b).tobytes(), *ends)
    return {
        SIGNAL: abs(found[0] / signal - 1),
        NOISE: abs(found[1] / noise - 1),
        "parts": count,
        "same": all(jax.tree.leaves(same)),
    }


if __name__ == "__main__":
    for text in sys.argv[1:]:
        print(json.dumps(check(**json.loads(text))), flush=True)
