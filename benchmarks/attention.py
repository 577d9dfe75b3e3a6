"""Attention alone: every backend that runs here beside PyTorch's scaled_dot_product_attention.

    python -m benchmarks.attention --rounds=8 --peer_python=PYTHON --json=attention.json

Forward, and forward with backward, at the shapes of the three models of benchmarks/train_step.py,
at 1,024 to 8,192 tokens, and with a window. PyTorch has no sliding window but through a dense mask,
which it gets. A backend that keeps all scores is left out where they would take over 1 GiB.
Operations are those of the pairs that a query may see, 4 h each forward and 8 h backward (h the
width of a head; what is computed again does not count), over this machine's measured matrix
product. The last table is the temporary memory that the compiler plans for forward and backward.
On two quiet cores it takes about six minutes; --shapes takes less.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks import harness

MIB = 2**20
MOST_SCORES = 2**30  # bytes, in float32
KEEPS_ALL = ("xla", "xla_kept")


class Shape(NamedTuple):
    """Windows, tokens of each, heads, their width, and how many tokens a query sees (0: all)."""

    batch: int
    tokens: int
    heads: int
    head: int
    window: int = 0

    @property
    def pairs(self) -> int:
        """Queries and keys that meet, over heads and windows."""
        t, seen = self.tokens, self.window or self.tokens
        return self.batch * self.heads * (seen * (seen + 1) // 2 + (t - seen) * seen)

    def operations(self, backward: bool) -> int:
        """Multiplications and additions: two products forward, four more backward."""
        return self.pairs * self.head * (12 if backward else 4)

    def bytes_moved(self, backward: bool, itemsize: int) -> int:
        """q, k, v and what was read, once; backward also their gradients."""
        arrays = 8 if backward else 4
        return arrays * itemsize * self.batch * self.tokens * self.heads * self.head


SHAPES = {
    "0.8M": Shape(12, 64, 4, 32),
    "12M": Shape(8, 256, 6, 64),
    "110M": Shape(4, 512, 12, 64),
    "1k": Shape(1, 1024, 6, 64),
    "2k": Shape(1, 2048, 6, 64),
    "4k": Shape(1, 4096, 6, 64),
    "8k": Shape(1, 8192, 6, 64),
    "8k, window 256": Shape(1, 8192, 6, 64, 256),
}
DIRECTIONS = ("forward", "both")


def fits(backend: str, shape: Shape) -> bool:
    """Whether a backend's scores are few enough."""
    scores = 4 * shape.batch * shape.heads * shape.tokens**2
    return backend not in KEEPS_ALL or scores <= MOST_SCORES


def timed(runs: dict[str, Callable[[], Any]]) -> Callable[[], dict[str, float]]:
    """A burst that gives seconds by name: the median of as many calls as take about 50 ms."""
    counts = {}
    for name, run in runs.items():
        run()
        began = time.perf_counter()
        run()
        counts[name] = max(1, min(30, int(0.05 / (time.perf_counter() - began))))

    def burst() -> dict[str, float]:
        found = {}
        for name, run in runs.items():
            times = []
            for _ in range(counts[name]):
                began = time.perf_counter()
                run()
                times.append(time.perf_counter() - began)
            found[name] = statistics.median(times)
        return found

    return burst


def isoflop(backend: str, dtype: str, shapes: list[str]) -> None:
    """Serve as one of our backends."""
    import jax

    from model.attention import attention
    from model.placement import here

    runs: dict[str, Callable[[], Any]] = {}
    memory: dict[str, int] = {}
    for name in shapes:
        shape = SHAPES[name]
        if not fits(backend, shape):
            continue
        keys = jax.random.split(jax.random.key(0), 4)
        size = (shape.batch, shape.tokens, shape.heads, shape.head)
        arrays = [jax.random.normal(key, size, dtype) for key in keys]

        def forward(q: jax.Array, k: jax.Array, v: jax.Array, window: int) -> jax.Array:
            return attention(q, k, v, None, window, backend, here())

        def both(q: jax.Array, k: jax.Array, v: jax.Array, d: jax.Array, window: int) -> Any:
            read, pull = jax.vjp(lambda q, k, v: forward(q, k, v, window), q, k, v)
            return read, pull(d)

        for direction, of, given in (("forward", forward, arrays[:3]), ("both", both, arrays)):
            jitted = jax.jit(of, static_argnames="window")
            compiled = jitted.lower(*given, window=shape.window).compile()
            runs[f"{name} {direction}"] = lambda run=compiled, given=given: jax.block_until_ready(  # type: ignore[misc]
                run(*given)
            )
        analysis: Any = compiled.memory_analysis()
        memory[name] = analysis.temp_size_in_bytes
    harness.serve({"memory": memory}, timed(runs))


def pytorch(dtype: str, shapes: list[str]) -> None:
    """Serve as the peer."""
    import torch
    from torch.nn import functional

    runs: dict[str, Callable[[], Any]] = {}
    for name in shapes:
        shape = SHAPES[name]
        size = (shape.batch, shape.tokens, shape.heads, shape.head)
        drawn = [torch.randn(size, dtype=getattr(torch, dtype)) for _ in range(4)]
        # Heads come second, as views, as a model makes them.
        q, k, v, d = (array.transpose(1, 2).requires_grad_() for array in drawn)
        options: dict[str, Any] = {"is_causal": True}
        if shape.window:
            time_t = torch.arange(shape.tokens)
            far = time_t[:, None] - time_t[None]
            options = {"attn_mask": (far >= 0) & (far < shape.window)}

        def forward(q: Any = q, k: Any = k, v: Any = v, options: Any = options) -> Any:
            with torch.no_grad():
                return functional.scaled_dot_product_attention(q, k, v, **options)

        def both(q: Any = q, k: Any = k, v: Any = v, d: Any = d, options: Any = options) -> Any:
            read = functional.scaled_dot_product_attention(q, k, v, **options)
            return torch.autograd.grad(read, (q, k, v), d.detach())

        runs |= {f"{name} forward": forward, f"{name} both": both}
    harness.serve({}, timed(runs))


def available(dtype: str) -> tuple[list[str], dict[str, str]]:
    """Our backends that run here, and why the others do not."""
    from configs.schema import InputError, Model
    from model.attention import BACKENDS, choose
    from model.placement import here

    running, missing = [], {}
    for backend in BACKENDS:
        asked: Any = {"attention": backend, "compute_dtype": dtype}
        try:
            choose(Model(vocab=128, context=1024, layers=1, width=384, heads=6, **asked), here())
            running.append(backend)
        except InputError as reason:
            missing[backend] = str(reason)
    return running, missing


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--shapes", default=",".join(n for n in SHAPES if "," not in n))
    parser.add_argument("--no_window", action="store_true", help="leave the window out")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--peer_python", default=sys.executable, help="one that has PyTorch")
    parser.add_argument("--worker", help="for the processes it starts")
    options = parser.parse_args()
    shapes = options.shapes.split(",") + ([] if options.no_window else ["8k, window 256"])
    if options.worker == "PyTorch":
        return pytorch(options.dtype, shapes)
    if options.worker:
        return isoflop(options.worker, options.dtype, shapes)
    return compare(options, shapes)


def compare(options: argparse.Namespace, shapes: list[str]) -> None:
    """Run all of them, and print."""
    import jax.numpy as jnp

    from benchmarks import roofline

    peak = roofline.measure(options.dtype)
    running, missing = available(options.dtype)
    flags = [f"--shapes={options.shapes}", f"--dtype={options.dtype}"]
    flags += ["--no_window"] if options.no_window else []
    commands: dict[str, Any] = {}
    for name in ("PyTorch", *running):
        python = options.peer_python if name == "PyTorch" else sys.executable
        command = [python, "-m", "benchmarks.attention", f"--worker={name}", *flags]
        commands[name] = (command, {})
    found = harness.alternate(commands, options.rounds)
    for name, reason in (missing | found["missing"]).items():
        print(f"no {name}: {reason}")
    rows = []
    for name in shapes:
        for direction in DIRECTIONS:
            key, both = f"{name} {direction}", direction == "both"
            least = roofline.bound(
                SHAPES[name].operations(both),
                SHAPES[name].bytes_moved(both, jnp.dtype(options.dtype).itemsize),
                peak,
            )
            first = next(iter(found["facts"]))
            for contender in found["facts"]:
                if key not in found["rounds"][0][contender]:
                    continue
                seconds = harness.summary([each[contender][key] for each in found["rounds"]])
                ratio = harness.ratio(found["rounds"], contender, first, key)
                share = f"{least.seconds / seconds.median:.0%} of {least.by}"
                cells = [name, direction, contender, f"{1000 * seconds.median:.3g}", str(ratio)]
                rows.append([*cells, share])
    head = ["shape", "direction", "contender", "ms", "speed against the first", "of the roofline"]
    print(harness.table(head, rows))
    memory = {name: facts["memory"] for name, facts in found["facts"].items() if "memory" in facts}
    rows = [
        [name, *(f"{of[name] / MIB:,.1f}" if name in of else "" for of in memory.values())]
        for name in shapes
    ]
    print(harness.table(["temporary memory, MiB", *memory], rows))
    print(f"load {found['state']['load']:.1f}, steal {found['state']['steal']:.1%}")
    harness.write(options.json, {"peak": peak._asdict(), **found})


if __name__ == "__main__":
    main()
