"""What this machine can do at best, measured: operations per second, and bytes per second.

    python -m benchmarks.roofline --dtypes=float32,bfloat16 --json=roofline.json

Operations are those of square matrix products of random values, the fastest of several sizes;
bytes are those of a copy (one array read, one written) and of a triad (a + s b written over a: two
read, one written) of float32 arrays far larger than the caches, by all cores through JAX. Both are
what a program of ours could reach here, not what a data sheet promises. What a kernel needs at
least follows from them (Williams et al. 2009, Roofline): the other benchmarks import `measure` and
`bound` for it. Takes about ten seconds on two cores, and 1 GB of memory.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks import harness
from train.peak import device_peak

PRODUCTS = {"cpu": (512, 1024, 2048), "gpu": (4096, 8192), "tpu": (4096, 8192)}  # sizes tried
ELEMENTS = 2**26  # of an array that is copied: 256 MiB, beyond any cache
ROUNDS = 12


class Peak(NamedTuple):
    """The most that was reached, per second."""

    flops: float
    bandwidth: float


class Bound(NamedTuple):
    """The least time a computation can take, and which limit sets it."""

    seconds: float
    by: str


def bound(operations: float, bytes_moved: float, peak: Peak) -> Bound:
    """The roofline of a computation (Williams et al. 2009): its slower half, the other hidden.

    Args:
        operations: multiplications and additions it cannot do without.
        bytes_moved: what it has to read from and write to memory once.
        peak: of the machine, in the dtype of the operations.
    """
    computing, moving = operations / peak.flops, bytes_moved / peak.bandwidth
    return Bound(computing, "operations") if computing >= moving else Bound(moving, "bytes")


def measure(dtype: str) -> Peak:
    """Both peaks of one device."""
    return Peak(max(products(dtype).values()), max(bandwidths().values()))


def products(dtype: str, rounds: int = ROUNDS) -> dict[int, float]:
    """Operations per second of x x for each size of x."""
    speeds = {}
    for size in PRODUCTS[jax.default_backend()]:
        x = jax.random.normal(jax.random.key(0), (size, size), dtype)
        product = jax.jit(jnp.matmul).lower(x, x).compile()
        speeds[size] = 2 * size**3 / _quick(lambda x=x, run=product: run(x, x), rounds)  # type: ignore[misc]
    return speeds


def bandwidths(rounds: int = ROUNDS, elements: int = ELEMENTS) -> dict[str, float]:
    """Bytes per second of a copy and of a triad.

    Results go where an argument was, so that no time goes into memory that is new to the process.
    """
    into = jax.random.normal(jax.random.key(0), (elements,), jnp.float32)
    other = jnp.ones((elements,), jnp.float32)
    speeds = {}
    # Not a plain copy, which XLA may hand to one thread.
    copy = jax.jit(lambda _, b: 2 * b, donate_argnums=0, keep_unused=True)
    triad = jax.jit(lambda a, b: a + 0.5 * b, donate_argnums=0)
    for name, run, arrays in (("copy", copy, 2), ("triad", triad, 3)):

        def once(run: Any = run) -> jax.Array:
            nonlocal into
            into = run(into, other)
            return into

        speeds[name] = arrays * into.nbytes / _quick(once, rounds)
    return speeds


def _quick(run: Callable[[], Any], rounds: int) -> float:
    """Seconds of the fastest quarter of some runs: what else the machine does slows others down."""
    times = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - began)
    return sorted(times[1:])[rounds // 4]


def main() -> None:
    parser = harness.parser(__doc__, ROUNDS)
    parser.add_argument("--dtypes", default="float32,bfloat16")
    options = parser.parse_args()
    before = harness.Steal.now()
    rows: list[list[str]] = []
    results: dict[str, Any] = {}
    for dtype in options.dtypes.split(","):
        speeds = products(dtype, options.rounds)
        listed = device_peak(dtype)
        results[dtype] = {"products": speeds, "train.peak": listed._asdict()}
        rows += [
            [f"product of {size}x{size}, {dtype}", f"{speed / 1e9:.4g} GFLOP/s"]
            for size, speed in speeds.items()
        ]
        rows.append([f"train.peak: {listed.name}", f"{listed.flops / 1e9:.4g} GFLOP/s"])
    moved = bandwidths(options.rounds)
    results["bandwidth"] = moved
    rows += [[f"{name}, float32", f"{speed / 1e9:.4g} GB/s"] for name, speed in moved.items()]
    print(harness.table(["measured", "reached"], rows))
    print(f"steal {harness.Steal.now().share_since(before):.1%}")
    harness.write(options.json, results)


if __name__ == "__main__":
    main()
