"""Seconds and bytes of one update against parameters, length, batch, vocabulary and devices.

    python -m benchmarks.cost --json=cost.json --figure=cost

One transformer is changed one way at a time: its width, its layers, the length of its windows (at
equal tokens), the windows of a batch, the vocabulary. Each point is the update of `python -m train`
on random tokens, compiled, in one process; points alternate, medians over rounds. Bytes are what
the compiler reserves. A power is fitted to each series by least squares on logarithms, and stands
beside the one that counting operations gives for the same points (model.counts, PaLM's
convention, all pairs of attention, which is what is multiplied in full) with its own.

Against devices there is no time here: devices of a CPU share its cores. What a device holds,
multiplies and sends is read off the program compiled for each number of them, in a process with as
many virtual devices, the windows split (fsdp). About 5 minutes on 2 cores; --series takes fewer.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import harness
from configs.schema import Batch, Config, Data, Mesh, Model, Optimizer

# By series: what changes, its values, and what a simple theory says of the seconds.
SERIES: dict[str, tuple[tuple[int, ...], str]] = {
    "width": ((64, 128, 256, 512), "2 where matrices rule; 1 where what is done by channel does"),
    "layers": ((2, 4, 8, 16), "1, less the head's constant share"),
    "context": ((128, 256, 512, 1024, 2048), "0 to 1 at equal tokens (1 to 2 a window)"),
    "batch": ((1, 2, 4, 8, 16, 32), "1, less what does not depend on it (the optimizer)"),
    "vocab": ((512, 2048, 8192, 32768), "1 times the head's share"),
}
BASE = {"layers": 4, "width": 128, "heads": 4, "vocab": 512, "context": 256}
TOKENS = 2048  # of a batch, where it is not the batch that changes


class Power(NamedTuple):
    """y = c x^slope, and the standard error of the slope (nan for two points)."""

    slope: float
    error: float

    def __str__(self) -> str:
        return f"{self.slope:.2f} +- {self.error:.2f}"


def power(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> Power:
    """Least squares on logarithms, all points alike."""
    logs, values = np.log(np.array(x, float)), np.log(np.array(y, float))
    away = logs - logs.mean()
    slope = float(away @ values / (away @ away))
    rest = values - values.mean() - slope * away
    free = len(logs) - 2
    return Power(slope, float(np.sqrt(rest @ rest / free / (away @ away))) if free else np.nan)


def point(series: str, value: int) -> Config:
    """The run at one point of a series."""
    sizes = BASE | ({} if series in ("batch", "devices") else {series: value})
    windows = {"batch": value, "devices": 8}.get(series, max(1, TOKENS // sizes["context"]))
    # Full attention by one backend, or the choice of another would look like a slope.
    network = Model(**sizes, bias=False, attention="xla")  # type: ignore[arg-type]
    return Config(
        model=network,
        data=Data(path="synthetic"),
        batch=Batch(size=windows),
        mesh=Mesh(fsdp=value) if series == "devices" else Mesh(),
        optimizer=Optimizer(learning_rate=1e-4, weight_decay=0.1),
        steps=1_000_000,
    )


def compile_point(config: Config) -> tuple[Any, Any, Any, Any]:
    """State, batch, compiled step and mesh of a run, on this machine's devices."""
    from parallel.mesh import make_mesh, shard_batch
    from train.state import create
    from train.step import make_step

    mesh = make_mesh(config)
    network = config.model
    random = np.random.default_rng(0)
    window_bt = random.integers(0, network.vocab - 1, (config.batch.size, network.context + 1))
    state, batch = create(config, mesh), shard_batch(mesh, window_bt.astype(np.int32))
    step: Any = make_step(config, network.vocab - 1, mesh)
    return state, batch, step.lower(state, batch).compile(), mesh


def measure(names: Sequence[str], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Seconds of each round, bytes and counts of every point; all points in every round."""
    import jax

    import model

    points: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    running: list[list[Any]] = []
    for name in names:
        for value in SERIES[name][0]:
            config = point(name, value)
            state, batch, step, _ = compile_point(config)
            counts, needed = model.counts(config.model), step.memory_analysis()
            tokens = config.batch.size * config.model.context
            row: dict[str, Any] = {
                "value": value,
                "parameters": counts.parameters,
                "operations": counts.flops_per_token("palm") * tokens,
                "head": counts.flops_head / counts.forward_flops,
                "bytes": needed.argument_size_in_bytes + needed.temp_size_in_bytes,
                "seconds": [],
            }
            points[name].append(row)
            running.append([row, state, batch, step])
    for turn in range(rounds + 1):
        for each in running:
            row, state, batch, step = each
            began = time.perf_counter()
            each[1], metrics = step(state, batch)
            jax.block_until_ready(metrics)
            if turn:  # the first round warms up
                row["seconds"].append(time.perf_counter() - began)
    return points


def per_device(count: int) -> dict[str, Any]:
    """What one of `count` devices holds, multiplies and sends in an update."""
    from parallel.compile.costs import costs

    config = point("devices", count)
    _, _, step, mesh = compile_point(config)
    needed, found = step.memory_analysis(), costs(step.as_text(), mesh)
    return {
        "devices": count,
        "arguments": needed.argument_size_in_bytes,
        "temporaries": needed.temp_size_in_bytes,
        "operations": found.flops,
        "sent": sum(c.count * c.sent_bytes for c in found.collectives),
    }


def devices(counts: Sequence[int]) -> list[dict[str, Any]]:
    """per_device in a process for each number, since that is fixed once JAX has started."""
    rows = []
    for count in counts:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
        command = [sys.executable, "-m", "benchmarks.cost", f"--worker={count}"]
        environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        done = subprocess.run(
            command,
            cwd=harness.ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    return rows


def slopes(points: dict[str, list[dict[str, Any]]]) -> list[list[str]]:
    """Rows of the table of fitted powers."""
    rows = []
    for name, found in points.items():
        x = [row["value"] for row in found]
        seconds = [harness.summary(row["seconds"]).median for row in found]
        fits = (power(x, y) for y in (seconds, [r["operations"] for r in found]))
        memory = power(x, [row["bytes"] for row in found])
        span = f"{x[0]:,} to {x[-1]:,}"
        rows.append([name, span, *map(str, fits), str(memory), SERIES[name][1]])
    sized = points.get("width", []) + points.get("layers", [])
    if sized:
        x = [row["parameters"] for row in sized]
        y = [harness.summary(row["seconds"]).median for row in sized]
        fits = (power(x, values) for values in (y, [r["operations"] for r in sized]))
        memory = power(x, [row["bytes"] for row in sized])
        span = f"{min(x):,} to {max(x):,}"
        rows.append(["parameters", span, *map(str, fits), str(memory), "1 for matrices"])
    return rows


def draw(points: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """A panel a series: measured seconds, and operations at the speed of the last point."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * len(points), 3), dpi=150)
    for place, (name, found) in enumerate(points.items()):
        ax = figure.add_subplot(1, len(points), place + 1)
        x = [row["value"] for row in found]
        seen = [harness.summary(row["seconds"]) for row in found]
        away = [[s.median - s.low for s in seen], [s.high - s.median for s in seen]]
        ax.errorbar(x, [s.median for s in seen], away, fmt="o-", color="#4c7fd0", label="measured")
        speed = seen[-1].median / found[-1]["operations"]
        theory = [speed * row["operations"] for row in found]
        ax.plot(x, theory, "--", color="#d9703c", label="by operations")
        ax.set(xscale="log", yscale="log", xlabel=name)
        ax.grid(alpha=0.3, linewidth=0.6)
        if not place:
            ax.set_ylabel("seconds an update")
            ax.legend(fontsize=7)
    figure.tight_layout()
    for ending in (".png", ".svg"):
        figure.savefig(path.with_suffix(ending))


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--series", default=",".join(SERIES), help="of " + ", ".join(SERIES))
    parser.add_argument("--devices", default="1,2,4,8", help="numbers of them; empty: none")
    parser.add_argument("--figure", type=Path, help="write FIGURE.png and FIGURE.svg")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(per_device(options.worker)))
        return
    before = harness.Steal.now()
    points = measure([name for name in options.series.split(",") if name], options.rounds)
    rows = []
    for name, found in points.items():
        for row in found:
            seconds = harness.summary([1000 * s for s in row["seconds"]])
            speed = 1000 * row["operations"] / seconds.median / 1e9
            cells = [f"{row['parameters']:,}", str(seconds), f"{speed:.3g}", f"{row['head']:.0%}"]
            rows.append([name, f"{row['value']:,}", *cells, f"{row['bytes'] / 2**20:.4g}"])
    head = ["series", "value", "parameters", "ms", "10^9 operations/s", "head's share", "MiB"]
    print(harness.table(head, rows), "\n")
    head = ["against", "from", "slope of time", "of operations", "of memory", "theory, of time"]
    print(harness.table(head, slopes(points)), "\n")
    split = devices([int(count) for count in options.devices.split(",") if count])
    keys = ("arguments", "temporaries", "operations", "sent")
    split_rows = [
        [str(row["devices"]), *(f"{row[key] / 1e6:.4g}" for key in keys)] for row in split
    ]
    if split_rows:
        head = ["devices (fsdp)", *(f"{key}, 10^6 a device" for key in keys)]
        print(harness.table(head, split_rows))
    print(f"steal {harness.Steal.now().share_since(before):.1%}, load {os.getloadavg()[0]:.1f}")
    if options.figure:
        draw(points, options.figure)
    harness.write(options.json, {"points": points, "devices": split, "base": BASE})


if __name__ == "__main__":
    main()
