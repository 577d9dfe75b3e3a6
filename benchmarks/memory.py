"""Memory of an update against length, batch, layers, what is recomputed, and how attention is made.

    python -m benchmarks.memory --json=memory.json
    python -m benchmarks.memory --train=32768 --sweeps=

Two kinds of figure. The sweeps compile the train step and read the temporary memory that the
compiler plans for (memory_analysis: activations, gradients and scratch, without parameters and
optimizer state), with the exponent p of `memory ~ x^p` between the last two values: 1 is linear, 2
is quadratic. They run nothing. With --train a process of its own makes updates of the 12M model of
benchmarks/train_step.py on one window of that many tokens, and says its peak resident memory, as
the system counts it, and the seconds of each update. The sweeps take two to three minutes on two
quiet cores; training on 32,768 tokens some minutes an update, since it takes over 10^13 operations.
"""

import argparse
import math
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import harness
from benchmarks.train_step import SIZES
from configs.schema import Batch, Config, Data, Model, Optimizer

SHAPE = {key: SIZES["12M"][key] for key in ("vocab", "width", "heads")}
MIB = 2**20
# What varies, its values, and what stays. Loops over layers (scan) keep compiling short.
Sweep = tuple[str, Sequence[Any], dict[str, Any]]
LENGTHS = (512, 1024, 2048, 4096, 8192)
ATTENTION: dict[str, Sweep] = {
    f"attention={backend}": (
        "context",
        # The table of scores of the others would not end before the memory does.
        LENGTHS if backend == "xla_chunked" else LENGTHS[:3],
        {"attention": backend, "layers": 2, "scan": True},
    )
    for backend in ("xla", "xla_kept", "xla_chunked")
}
REMAT: dict[str, Sweep] = {
    f"remat={remat}": ("layers", (2, 8), {"remat": remat, "context": 1024, "scan": True})
    for remat in ("none", "dots", "attention", "full")
}
SWEEPS: dict[str, Sweep] = {
    **ATTENTION,
    "batch": ("batch", (1, 4, 8), {"layers": 2, "context": 512, "scan": True}),
    **REMAT,
}


def config_of(**changes: Any) -> Config:
    """A run of the 12M model's width on synthetic tokens; `batch` and the model's fields change."""
    batch = changes.pop("batch", 1)
    return Config(
        model=Model(**{**SHAPE, "bias": False, "compute_dtype": "float32", **changes}),
        data=Data(path="synthetic"),
        batch=Batch(size=batch),
        optimizer=Optimizer(learning_rate=1e-4, weight_decay=0.1),
        steps=1_000_000,
    )


def lower(config: Config) -> Any:
    """The train step, ready to compile."""
    import jax
    import jax.numpy as jnp

    from parallel.mesh import make_mesh
    from train.state import abstract
    from train.step import make_step

    mesh = make_mesh(config)
    windows = jax.ShapeDtypeStruct((config.batch.size, config.model.context + 1), jnp.int32)
    step: Any = make_step(config, config.model.vocab - 1, mesh)
    return step.lower(abstract(config, mesh), windows)


def temporary(config: Config) -> int:
    """Bytes that the compiled step uses beside its arguments and results."""
    return lower(config).compile().memory_analysis().temp_size_in_bytes


def exponent(values: Sequence[float], results: Sequence[float]) -> float:
    """p in result ~ value^p, between the last two."""
    return math.log(results[-1] / results[-2]) / math.log(values[-1] / values[-2])


def peak_resident() -> int:
    """The most memory this process has had, in bytes (getrusage counts KiB, on macOS bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def train(options: argparse.Namespace) -> None:
    """Serve updates of the 12M model on a long window, and the memory needed until then."""
    import jax
    import numpy as np

    import model
    from model.attention import choose
    from parallel.mesh import make_mesh, shard_batch
    from parallel.rules import placement
    from train.state import create
    from train.step import make_step

    changes = {"attention": options.attention, "remat": options.remat, "scan": True}
    config = config_of(context=options.train, layers=SIZES["12M"]["layers"], **changes)
    mesh = make_mesh(config)
    state = create(config, mesh)
    window_bt = np.random.default_rng(0).integers(0, config.model.vocab - 1, (1, options.train + 1))
    batch = shard_batch(mesh, window_bt.astype(np.int32))
    began = time.perf_counter()
    step: Any = make_step(config, config.model.vocab - 1, mesh)
    compiled = step.lower(state, batch).compile()
    counts = model.counts(config.model)
    facts = {
        "jax": jax.__version__,
        "parameters": counts.parameters,
        "attention": choose(config.model, placement(config, mesh, 1)),
        "operations": counts.flops_per_token("strict") * options.train,
        "compile": time.perf_counter() - began,
        "temporary": compiled.memory_analysis().temp_size_in_bytes,
        "before": peak_resident(),
    }

    def update() -> dict[str, float]:
        nonlocal state
        began = time.perf_counter()
        state, metrics = compiled(state, batch)
        loss = float(metrics["loss"])
        return {"seconds": time.perf_counter() - began, "resident": peak_resident(), "loss": loss}

    harness.serve(facts, update)


def sweep(name: str) -> tuple[list[str], dict[str, Any]]:
    """A row of the table, and the same as figures."""
    varied, values, fixed = SWEEPS[name]
    found = []
    for value in values:
        found.append(temporary(config_of(**{**fixed, varied: value})))
        print(f"{name}, {varied} {value}: {found[-1] / MIB:,.0f}", file=sys.stderr, flush=True)
    power = exponent(values, found)
    cells = ", ".join(f"{v}: {m / MIB:,.0f}" for v, m in zip(values, found, strict=True))
    result = {"of": varied, "values": list(values), "temporary": found, "exponent": power}
    return [name, varied, cells, f"{power:.2f}"], result


def main() -> None:
    parser = harness.parser(__doc__, rounds=1)
    parser.add_argument("--sweeps", default=",".join(SWEEPS), help="names, or nothing for none")
    parser.add_argument("--train", type=int, default=0, help="tokens of a window to train on")
    parser.add_argument("--attention", default="auto", help="with --train")
    parser.add_argument("--remat", default="attention", help="with --train")
    parser.add_argument("--pythons", default=sys.executable, help="with --train: one after another")
    parser.add_argument("--worker", action="store_true", help="for the processes it starts")
    options = parser.parse_args()
    if options.worker:
        return train(options)
    results: dict[str, Any] = {}
    if options.sweeps:
        made = {name: sweep(name) for name in options.sweeps.split(",")}
        head = ["step", "against", "temporary memory, MiB", "exponent"]
        print(harness.table(head, [row for row, _ in made.values()]))
        results["sweeps"] = {name: result for name, (_, result) in made.items()}
    if options.train:
        results["train"] = long_windows(options)
    harness.write(options.json, results)
    return None


def long_windows(options: argparse.Namespace) -> dict[str, Any]:
    """Train in a process of its own for each Python, one after another: memory is not shared."""
    rows, results = [], {}
    for python in options.pythons.split(","):
        flags = [f"--{name}={getattr(options, name)}" for name in ("train", "attention", "remat")]
        command = [python, "-m", "benchmarks.memory", "--worker", *flags]
        with harness.Contender(command) as contender:
            facts, updates = contender.facts, [contender.burst() for _ in range(options.rounds)]
        results[facts["jax"]] = {"facts": facts, "updates": updates}
        seconds = harness.summary([each["seconds"] for each in updates])
        rows.append(
            [
                *(facts["jax"], f"{facts['parameters']:,}", f"{options.train:,}"),
                *(facts["attention"], options.remat, f"{facts['compile']:.0f}"),
                *(f"{seconds.median:.1f}", f"{facts['operations'] / seconds.median / 1e9:.1f}"),
                f"{facts['temporary'] / 2**30:.2f}",
                f"{updates[-1]['resident'] / 2**30:.2f}",
            ]
        )
    head = ["JAX", "parameters", "context", "attention", "remat", "compile s", "update s"]
    head += ["GFLOP/s", "temporary GiB", "peak resident GiB"]
    print(harness.table(head, rows))
    return results


if __name__ == "__main__":
    main()
