"""Seconds and bytes of one update against parameters, length, batch, vocabulary and devices.

    python -m benchmarks.cost --json=cost.json

One transformer is changed one way at a time: its width, its layers, the length of its windows (at
equal tokens), the windows of a batch, the vocabulary. Each point is the update of `python -m train`
on random tokens, compiled, in one process; points alternate, medians over rounds. Bytes are what
the compiler reserves. A power is fitted to each series by least squares on logarithms, and stands
beside the one that counting operations gives for the same points (model.counts, PaLM's
convention, all pairs of attention, which is what is multiplied in full) with its own.

Against devices there is no time here: devices of a CPU share its cores. What a device holds,
multiplies and sends is read off the program compiled for each number of them, in a process with as
many virtual devices, parameters and windows split (fsdp). Most of the time is compiling; --series
takes fewer.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks import harness
from configs.schema import Batch, Config, Data, Mesh, Model, Optimizer

# By series: what changes, its values, and what a simple theory says of seconds and of memory.
SERIES: dict[str, tuple[tuple[int, ...], str, str]] = {
    "width": (
        (64, 128, 256, 512),
        "1 where what is done by channel rules, 2 where matrices do",
        "1 for activations, 2 for parameters, 0 for scores",
    ),
    "layers": ((2, 4, 8, 16), "1, less the head's constant share", "1, less the head's"),
    "context": ((128, 256, 512, 1024, 2048), "0 to 1 at equal tokens", "0 to 1: scores are kept"),
    "batch": ((1, 2, 4, 8, 16, 32), "1, less the optimizer", "1, less parameters and moments"),
    "vocab": ((512, 2048, 8192, 32768), "1 times the head's share", "1 times the head's share"),
}
BASE = {"layers": 4, "width": 128, "heads": 4, "vocab": 512, "context": 256}
TOKENS = 2048  # of a batch, where it is not the batch that changes
BURST = 0.1  # seconds of updates, at least, of a point in a round
# By devices, of what one of them does.
SPLIT = {
    "arguments": "-1: parameters and moments are split",
    "temporaries": "-1, less gathered parameters",
    "operations": "-1: windows are split",
    "sent": "0 for large n: (n - 1) / n of the parameters, gathered and reduced",
}


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


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


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


def compile_point(config: Config) -> tuple[Any, Any, Any]:
    """State, batch and compiled step of a run, on this machine's devices."""
    from parallel.mesh import make_mesh, shard_batch
    from train.state import create
    from train.step import make_step

    mesh = make_mesh(config)
    network = config.model
    random = np.random.default_rng(0)
    window_bt = random.integers(0, network.vocab - 1, (config.batch.size, network.context + 1))
    state, batch = create(config, mesh), shard_batch(mesh, window_bt.astype(np.int32))
    step: Any = make_step(config, network.vocab - 1, mesh)
    return state, batch, step.lower(state, batch).compile()


def measure(names: Sequence[str], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Seconds of each round, bytes and counts of every point; all points in every round."""
    import jax

    import model

    points: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    running: dict[Config, list[Any]] = {}  # the base is a point of every series
    began = time.perf_counter()
    for name in names:
        for value in SERIES[name][0]:
            config = point(name, value)
            if config not in running:
                running[config] = [[], *compile_point(config)]
                say(f"{name} {value} compiled at {time.perf_counter() - began:.0f} s")
            seconds, _, _, step = running[config]
            counts, needed = model.counts(config.model), step.memory_analysis()
            tokens = config.batch.size * config.model.context
            row: dict[str, Any] = {
                "value": value,
                "parameters": counts.parameters,
                "operations": counts.flops_per_token("palm") * tokens,
                "head": counts.flops_head / counts.forward_flops,
                "bytes": needed.argument_size_in_bytes + needed.temp_size_in_bytes,
                "seconds": seconds,
            }
            points[name].append(row)

    def update(each: list[Any]) -> float:
        began = time.perf_counter()
        each[1], metrics = each[3](each[1], each[2])
        jax.block_until_ready(metrics)
        return time.perf_counter() - began

    for turn in range(rounds + 1):
        for each in running.values():
            taken = [update(each)]
            while sum(taken) < BURST:
                taken.append(update(each))
            if turn:  # the first round warms up
                each[0].append(sum(taken) / len(taken))
        say(f"round {turn} done at {time.perf_counter() - began:.0f} s")
    return points


def per_device(count: int) -> dict[str, Any]:
    """What one of `count` devices holds, multiplies and sends in an update."""
    from benchmarks.memory import lower
    from parallel.compile.costs import costs
    from parallel.mesh import make_mesh

    config = point("devices", count)
    step = lower(config).compile()
    needed, found = step.memory_analysis(), costs(step.as_text(), make_mesh(config))
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
        said = subprocess.check_output(command, cwd=harness.ROOT, env=environment, text=True)
        rows.append(json.loads(said.splitlines()[-1]))
        say(f"{count} devices: {rows[-1]}")
    return rows


def slopes(points: dict[str, list[dict[str, Any]]]) -> list[list[str]]:
    """Rows of the table of fitted powers."""
    wanted = [(name, "value", found, *SERIES[name][1:]) for name, found in points.items()]
    sized = points.get("width", []) + points.get("layers", [])
    if sized:
        theory = ("1 for matrices", "1 where parameters rule")
        wanted.append(("parameters", "parameters", sized, *theory))
    rows = []
    for name, key, found, time_theory, memory_theory in wanted:
        x = [row[key] for row in found]
        seconds = [harness.summary(row["seconds"]).median for row in found]
        operations, memory = ([row[what] for row in found] for what in ("operations", "bytes"))
        fits = [str(power(x, y)) for y in (seconds, operations)]
        cells = [*fits, time_theory, str(power(x, memory)), memory_theory]
        rows.append([name, f"{min(x):,} to {max(x):,}", *cells])
    return rows


def split_slopes(split: list[dict[str, Any]]) -> list[list[str]]:
    """The same against devices, where something is sent at all."""
    rows = []
    for key, theory in SPLIT.items():
        seen = [(row["devices"], row[key]) for row in split if row[key]]
        if len(seen) > 2:
            x, y = zip(*seen, strict=True)
            rows.append([f"{key} a device", f"{x[0]} to {x[-1]}", str(power(x, y)), theory])
    return rows


def main() -> None:
    parser = harness.parser(__doc__, rounds=5)
    parser.add_argument("--series", default=",".join(SERIES), help="of " + ", ".join(SERIES))
    parser.add_argument("--devices", default="1,2,4,8", help="numbers of them; empty: none")
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
    head = ["against", "from", "slope of time", "of operations", "theory", "of memory", "theory"]
    print(harness.table(head, slopes(points)), "\n")
    split = devices([int(count) for count in options.devices.split(",") if count])
    rows = [[str(row["devices"]), *(f"{row[key] / 1e6:.4g}" for key in SPLIT)] for row in split]
    if rows:
        head = ["devices (fsdp)", *(f"{key}, 10^6 a device" for key in SPLIT)]
        print(harness.table(head, rows), "\n")
        print(harness.table(["against devices", "from", "slope", "theory"], split_slopes(split)))
    print(f"steal {harness.Steal.now().share_since(before):.1%}, load {os.getloadavg()[0]:.1f}")
    harness.write(options.json, {"points": points, "devices": split, "base": BASE})


if __name__ == "__main__":
    main()
