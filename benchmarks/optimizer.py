"""One optimizer update alone, AdamW and Muon: ours beside Optax's own and PyTorch's.

    python -m benchmarks.optimizer --rounds=8 --peer_python=PYTHON --json=optimizer.json

On the parameters of the models of benchmarks/train_step.py, with gradients that are there already,
without clipping. Ours is what train.optimizers.build makes; peers are optax.adamw, optax.contrib's
muon with every matrix of ours named to it, and torch.optim.AdamW in its foreach and its fused form.
AdamW reads parameter, gradient and two averages and writes three of them: 28 bytes a parameter.
Muon moves 20 bytes a parameter of its matrices and multiplies: five times 4 m^2 n + 2 m^3 for a
matrix of m rows and n >= m columns. The roofline is this machine's measured peak, in float32. With
110M parameters each contender holds 2 GB; Muon is left out there by default, at 10^12 operations
an update. About four minutes on two quiet cores.
"""

import argparse
import math
import sys
from collections.abc import Callable
from typing import Any

from benchmarks import harness
from benchmarks.attention import timed
from benchmarks.train_step import SIZES

RATE, BETAS, EPSILON, DECAY = 1e-4, (0.9, 0.95), 1e-8, 0.1
CONTENDERS = {
    "adamw": ("PyTorch foreach", "PyTorch fused", "Optax", "isoflop"),
    "muon": ("Optax", "isoflop"),
}


def config_of(name: str, optimizer: str) -> Any:
    """The run of benchmarks/train_step.py at this size, without clipping."""
    from configs.schema import Batch, Config, Data, Model, Optimizer

    shape: Any = {key: SIZES[name][key] for key in ("vocab", "context", "layers", "width", "heads")}
    settings: Any = {"name": optimizer, "learning_rate": RATE, "weight_decay": DECAY}
    return Config(
        model=Model(**shape, bias=False),
        data=Data(path="synthetic"),
        batch=Batch(size=SIZES[name]["batch"]),
        optimizer=Optimizer(**settings, clip_norm=0.0),
        steps=1_000_000,
    )


def work(name: str, optimizer: str) -> tuple[float, float]:
    """Operations and bytes of an update; what AdamW computes an element is not worth counting."""
    import jax

    import model
    from train.muon import STEPS

    leaves = jax.tree.leaves(model.declare(config_of(name, optimizer).model))
    operations, moved = 0.0, 0.0
    for leaf in leaves:
        size = math.prod(leaf.shape)
        if optimizer == "adamw" or leaf.kind != "matrix":
            moved += 28 * size
            continue
        m, n = sorted(math.prod(leaf.shape[dim] for dim in side) for side in leaf.matrix_axes)
        operations += size // (m * n) * STEPS * (4 * m * m * n + 2 * m**3)
        moved += 20 * size
    return operations, moved


def rule(contender: str, name: str, optimizer: str) -> Any:
    """An Optax transformation: ours, or Optax's own with the same settings."""
    import jax
    import optax
    from optax import contrib

    import model
    from train import optimizers

    config = config_of(name, optimizer)
    declared = model.declare(config.model)
    if contender == "isoflop":
        return optimizers.build(config, declared)
    decays = jax.tree.map(lambda leaf: leaf.decay, declared)
    if optimizer == "adamw":
        return optax.adamw(RATE, *BETAS, eps=EPSILON, weight_decay=DECAY, mask=decays)
    matrices = jax.tree.map(
        lambda leaf: (
            contrib.MuonDimensionNumbers(*leaf.matrix_axes) if leaf.kind == "matrix" else None
        ),
        declared,
    )
    return contrib.muon(
        RATE,
        beta=BETAS[0],
        weight_decay=DECAY,
        weight_decay_mask=decays,
        adam_b1=BETAS[0],
        adam_b2=BETAS[1],
        muon_weight_dimension_numbers=matrices,
    )


def in_jax(contender: str, optimizer: str, names: list[str]) -> None:
    """Serve as ours or as Optax."""
    import jax
    import optax

    import model

    runs: dict[str, Callable[[], Any]] = {}
    for name in names:
        made = rule(contender, name, optimizer)
        params, gradients = (
            model.init(config_of(name, optimizer).model, jax.random.key(seed)) for seed in (0, 1)
        )

        def step(params: Any, moments: Any, gradients: Any, made: Any = made) -> tuple[Any, Any]:
            updates, moments = made.update(gradients, moments, params)
            return optax.apply_updates(params, updates), moments

        compiled = jax.jit(step, donate_argnums=(0, 1))
        state = [params, made.init(params)]
        del params

        def run(state: Any = state, compiled: Any = compiled, gradients: Any = gradients) -> None:
            state[:] = compiled(*state, gradients)
            jax.block_until_ready(state)

        runs[name] = run
    harness.serve({}, timed(runs))


def pytorch(contender: str, names: list[str]) -> None:
    """Serve as AdamW of PyTorch, over arrays of the same shapes."""
    import jax
    import torch

    import model

    runs: dict[str, Callable[[], Any]] = {}
    for name in names:
        leaves = jax.tree.leaves(model.declare(config_of(name, "adamw").model))
        groups = []
        for decay in (True, False):
            shapes = [leaf.shape for leaf in leaves if leaf.decay == decay]
            parameters = [torch.randn(shape, requires_grad=True) for shape in shapes]
            for parameter in parameters:
                parameter.grad = torch.randn(parameter.shape)
            if parameters:
                groups.append({"params": parameters, "weight_decay": DECAY * decay})
        form: Any = {contender.split()[1]: True}
        runs[name] = torch.optim.AdamW(groups, lr=RATE, betas=BETAS, eps=EPSILON, **form).step
    harness.serve({}, timed(runs))


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--sizes", default=",".join(SIZES), help="for AdamW")
    parser.add_argument("--muon_sizes", default="0.8M,12M", help="for Muon")
    parser.add_argument("--peer_python", default=sys.executable, help="one with PyTorch and JAX")
    for hidden in ("--worker", "--optimizer"):
        parser.add_argument(hidden, help="for the processes it starts")
    options = parser.parse_args()
    if options.worker:
        names = (options.sizes if options.optimizer == "adamw" else options.muon_sizes).split(",")
        if options.worker.startswith("PyTorch"):
            return pytorch(options.worker, names)
        return in_jax(options.worker, options.optimizer, names)
    return compare(options)


def compare(options: argparse.Namespace) -> None:
    """Run all of them, one optimizer after the other, and print."""
    from benchmarks import roofline

    peak = roofline.measure("float32")
    rows, results = [], {"peak": peak._asdict()}
    for optimizer, contenders in CONTENDERS.items():
        sizes = options.sizes if optimizer == "adamw" else options.muon_sizes
        if not sizes:
            continue
        commands: dict[str, Any] = {}
        for name in contenders:
            python = options.peer_python if name.startswith("PyTorch") else sys.executable
            flags = [f"--worker={name}", f"--optimizer={optimizer}"]
            flags += [f"--sizes={options.sizes}", f"--muon_sizes={options.muon_sizes}"]
            commands[name] = ([python, "-m", "benchmarks.optimizer", *flags], {})
        found = harness.alternate(commands, options.rounds)
        results[optimizer] = found
        for name, reason in found["missing"].items():
            print(f"{optimizer}: no {name}: {reason}")
        first = next(iter(found["facts"]))
        for size in sizes.split(","):
            operations, moved = work(size, optimizer)
            least = roofline.bound(operations, moved, peak)
            for contender in found["facts"]:
                seconds = harness.summary([each[contender][size] for each in found["rounds"]])
                ratio = harness.ratio(found["rounds"], contender, first, size)
                share = f"{least.seconds / seconds.median:.0%} of {least.by}"
                cells = [optimizer, size, contender, f"{1000 * seconds.median:.4g}", str(ratio)]
                rows.append([*cells, f"{moved / 2**20:,.0f}", share])
        print(f"load {found['state']['load']:.1f}, steal {found['state']['steal']:.1%}")
    head = ["optimizer", "size", "contender", "ms", "speed against the first", "MiB moved"]
    print(harness.table([*head, "of the roofline"], rows))
    harness.write(options.json, results)


if __name__ == "__main__":
    main()
