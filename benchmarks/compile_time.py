"""Compile time of the train step against depth, with layers in a loop and unrolled.

    python -m benchmarks.compile_time --rounds=3 --json=compile_time.json

Tracing and compiling apart, of the step of python -m train at the 12M model's width on 256 tokens,
with model.scan=true (one compiled layer in a loop: should not grow with depth) and false (should
grow in proportion). The slope is of a line by least squares, in seconds a layer, and beside it the
seconds of no layers at all. Compilations alternate over the depths, and nothing is run; JAX's
caches are cleared before each. There is no peer: PyTorch's eager step does not compile. About three
minutes on two quiet cores.
"""

import time
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.memory import config_of, lower

FORMS = {"scan": True, "unrolled": False}


def compile_once(layers: int, scan: bool) -> dict[str, float]:
    """Seconds to trace and to compile, from nothing."""
    import jax

    jax.clear_caches()
    config = config_of(layers=layers, scan=scan, context=256, batch=8)
    began = time.perf_counter()
    lowered = lower(config)
    traced = time.perf_counter()
    lowered.compile()
    return {"trace": traced - began, "compile": time.perf_counter() - traced}


def line(layers: list[int], seconds: list[float]) -> tuple[float, float]:
    """Slope and intercept by least squares."""
    slope, intercept = np.polyfit(layers, seconds, 1)
    return float(slope), float(intercept)


def main() -> None:
    parser = harness.parser(__doc__, rounds=3)
    parser.add_argument("--layers", default="2,4,8,16")
    options = parser.parse_args()
    # A cache on disk would answer instead of the compiler.
    import jax

    jax.config.update("jax_enable_compilation_cache", False)
    layers = [int(count) for count in options.layers.split(",")]
    before = harness.Steal.now()
    compile_once(layers[0], True)  # what a process does once
    found: dict[str, list[dict[str, dict[str, float]]]] = {form: [] for form in FORMS}
    for _ in range(options.rounds):
        for form, scan in FORMS.items():
            found[form].append({str(count): compile_once(count, scan) for count in layers})
    rows, fits = [], {}
    for form, rounds in found.items():
        for part in ("trace", "compile"):
            medians = [
                harness.summary([each[str(count)][part] for each in rounds]).median
                for count in layers
            ]
            slope, intercept = line(layers, medians)
            fits[f"{form} {part}"] = {"slope": slope, "intercept": intercept}
            cells = [f"{seconds:.2f}" for seconds in medians]
            rows.append([form, part, *cells, f"{slope:.3f}", f"{intercept:.2f}"])
    head = ["layers are", "seconds to", *(f"{count} layers" for count in layers)]
    print(harness.table([*head, "a layer", "none"], rows))
    steal = harness.Steal.now().share_since(before)
    print(f"steal {steal:.1%}")
    results: dict[str, Any] = {"layers": layers, "rounds": found, "fits": fits, "steal": steal}
    harness.write(options.json, results)


if __name__ == "__main__":
    main()
