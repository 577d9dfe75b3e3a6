"""The train step on Hopper: what fits, compiled without a GPU; tokens a second and MFU on one.

    python -m benchmarks.gpu_step --compile_only --topology=h200:1 --sizes=124M,1.3B \\
        --tries=none/32,dots/32,none/16/float8 --json=fits.json
    python -m benchmarks.gpu_step --sizes=124M,1.3B --dtypes=bfloat16,float8 --peer=jla

With --compile_only it compiles the step of `python -m train` for devices that need not be there
(docs/compile.md; JAX's CUDA wheels, no GPU) and prints a row a try: memory, operations against what
the model needs, and what reached which kernel. A try is REMAT/WINDOWS[/float8][/scan]: WINDOWS of a
device at once. A row takes from half a minute (scan) to several on two cores.

Without it, on a GPU, every dtype of every size is a contender in a process of its own, on random
tokens, in turn (MFU by both countings over the dense bfloat16 peak, also for float8, as is usual).
One whose program lacks the attention that was asked for, or 8-bit numbers, ends with an error.
--peer=jla adds jax-linear-attention's trainer where it is installed (Python 3.12, its own JAX:
--peer_python) on its transformer-1p3b, the 1.3B here (shape: its presets.py), 65,536 tokens an
update; each of its bursts is a run of its trainer, timed by that trainer.
"""

import argparse
import dataclasses
import importlib
import math
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import harness
from configs import gpt2_small, llama_8b
from configs.schema import Batch, Config, Data, Mesh, Model, Optimizer

GPT2, LLAMA = gpt2_small.get_config().model, llama_8b.get_config().model
SHAPES: dict[str, Model] = {
    "124M": GPT2,
    "350M": dataclasses.replace(GPT2, layers=24, width=1024, heads=16),
    "1.3B": dataclasses.replace(
        LLAMA, context=2048, layers=24, width=2048, head_dim=64, ffn_width=5632, norm_epsilon=1e-6,
        rotary_base=10_000.0,
    ),
    "8B": LLAMA,
}  # fmt: skip
WINDOWS = {"124M": 480, "350M": 240, "1.3B": 32, "8B": 2}  # of an update
# Remat and windows at once that --compile_only found to fit one H200, all with layers in a loop.
# Unrolled, as the first three stand here since it should be faster, they were not compiled.
CHOSEN = {"124M": "none/96", "350M": "none/40", "1.3B": "none/8", "8B": "full/2/scan"}
BURST, WARM = 3, 3  # updates
MEMORY = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.93"}  # JAX's own choice is 0.75
OPTIONS = {"xla_gpu_enable_triton_gemm": "False"}  # else products are Triton's, which nobody tunes


def setting(size: str, attempt: str, attention: str, mesh: Mesh, devices: int) -> Config:
    """The run that an attempt names."""
    remat, windows, *rest = attempt.split("/")
    changes: Any = {
        "remat": remat,
        "scan": "scan" in rest,
        "matrix_dtype": "float8" if "float8" in rest else "compute",
        "attention": attention,
    }
    at_once = int(windows) * devices
    whole = max(1, WINDOWS[size] // int(windows)) * at_once
    return Config(
        model=dataclasses.replace(SHAPES[size], **changes),
        data=Data(path="synthetic"),
        batch=Batch(size=whole, microbatch=at_once),
        mesh=mesh,
        optimizer=Optimizer(learning_rate=1e-4, weight_decay=0.1),
        steps=1_000_000,
    )


def findings(text: str) -> dict[str, Any]:
    """What a compiled program's text shows.

    Counts are of instructions: one in a loop counts once. `largest` is the largest single array.
    """
    sizes = {"f32": 4, "bf16": 2, "f8e4m3fn": 1, "f8e5m2": 1}
    arrays = set(re.findall(rf"\b({'|'.join(sizes)})\[([\d,]+)\]", text))
    by_bytes = {
        math.prod(map(int, dims.split(","))) * sizes[k]: f"{k}[{dims}]" for k, dims in arrays
    }
    return {
        "float8_products": text.count('custom_call_target="__cublas$lt$matmul$f8"'),
        "products": len(re.findall(r'custom_call_target="__cublas\$(?:gemm|lt\$matmul)"', text)),
        "attention": len(re.findall(r'custom_call_target="__cudnn\$fmha', text)),
        "mosaic": text.count('custom_call_target="mosaic_gpu'),
        "all_reduces": len(re.findall(r" all-reduce(?:-start)?\(", text)),
        "donated": len(re.findall(r"\{\d*\}: \(\d+, \{\}", text.partition("\n")[0])),
        "largest": by_bytes[max(by_bytes)],
    }


def compile_only(options: argparse.Namespace) -> None:
    """Print the table of what fits."""
    from parallel.compile import topology

    where = topology.parse(options.topology)
    os.environ.update(topology.environment(where, os.environ.get("XLA_FLAGS", "")))
    from parallel.compile.__main__ import compile_step

    devices = where.slices * where.shape[0]
    mesh = Mesh(data=-1) if devices == 1 or options.mesh == "data" else Mesh(data=1, fsdp=-1)
    rows, found = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes.split(","):
            for attempt in (options.tries or CHOSEN[size]).split(","):
                config = setting(size, attempt, "cudnn", mesh, devices)
                hlo = str(Path(folder) / "step.hlo")
                report = compile_step(config, where, options=OPTIONS, hlo=hlo)
                seen = findings(Path(hlo).read_text()) if "seconds" in report else {}
                found[f"{size} {attempt}"] = {"report": report, "program": seen}
                memory = report["bytes_per_device"]
                state = memory["parameters"] + memory["optimizer"]
                rows.append(
                    [
                        *(size, attempt, f"{state / 2**30:.1f}"),
                        f"{(memory['total'] - state) / 2**30:.1f}",
                        f"{memory['total'] / memory['limit']:.0%}",
                        "yes" if report["fits"] else "no",
                        f"{report['flops_per_device']['ratio']:.2f}" if seen else "",
                        *(str(seen.get(key, "")) for key in list(seen)),
                        f"{report['compile_seconds']:.0f}",
                    ]
                )
                print(rows[-1], flush=True)
    head = ["size", "try", "state GiB", "rest GiB", "of memory", "fits", "operations"]
    head += ["8-bit", "16-bit", "cuDNN", "Mosaic", "all-reduces", "donated", "largest", "s"]
    print(harness.table(head, [[*row, *[""] * (len(head) - len(row))] for row in rows]))
    harness.write(options.json, {"topology": options.topology, "tries": found})


def isoflop(size: str, attempt: str, attention: str) -> None:
    """Serve as the contender that is ours: the step of python -m train, on random windows."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import model
    from parallel.mesh import make_mesh, row_sharding, shard_batch
    from train.peak import device_peak
    from train.state import abstract, create
    from train.step import make_step

    config = setting(size, attempt, attention, Mesh(), jax.device_count())
    mesh = make_mesh(config)
    shape = (config.batch.size, config.model.context + 1)
    batch = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=row_sharding(mesh))
    made: Any = make_step(config, config.model.vocab - 1, mesh)
    step = made.lower(abstract(config, mesh), batch).compile()
    seen = findings(step.as_text())
    if attention == "cudnn" and not seen["attention"]:
        raise SystemExit("the program has no attention of cuDNN, which was asked for")
    if config.model.matrix_dtype == "float8" and "f8e4m3fn[" not in step.as_text():
        raise SystemExit("the program has no 8-bit numbers, which were asked for")
    random = np.random.default_rng(0)
    windows = random.integers(0, config.model.vocab - 1, shape).astype(np.int32)
    tokens, state = shard_batch(mesh, windows), create(config, mesh)

    def burst(updates: int = BURST) -> dict[str, float]:
        nonlocal state
        began = time.perf_counter()
        for _ in range(updates):
            state, metrics = step(state, tokens)
        loss = float(metrics["loss"])  # waits for all of them
        return {"seconds": (time.perf_counter() - began) / updates, "loss": loss}

    burst(WARM)
    counts = model.counts(config.model)
    facts = {
        "tokens": config.batch.size * config.model.context,
        "flops_per_token": {rule: counts.flops_per_token(rule) for rule in ("palm", "strict")},
        "peak": device_peak("bfloat16").flops * jax.device_count(),
        "program": seen,
    }
    harness.serve(facts, burst)


def jla(dtype: str) -> None:
    """Serve as jax-linear-attention's transformer-1p3b."""
    settings, models, trainer = (
        importlib.import_module(f"jla.{name}") for name in ("config", "models", "training.trainer")
    )
    kind = "delayed" if dtype == "float8" else "off"
    network = models.get_preset("transformer-1p3b")
    network = dataclasses.replace(network, fp8=kind, remat="none", scan_layers=False)
    each = {"micro_batch_per_replica": 8, "grad_accum": 4, "update_guard": "select"}
    quiet = {"resume": "never", "save_final": False, "final_eval": False, "log_every": 5}

    def burst() -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            run = settings.TrainConfig(max_steps=20, output_dir=folder, **each, **quiet)
            config = settings.ExperimentConfig(model=network, train=run)
            history = trainer.Trainer(config).run().history
        return {"seconds": history[-2]["step_time"], "loss": history[-2]["loss"]}

    harness.serve({"tokens": 65_536}, burst)


def measure(options: argparse.Namespace) -> None:
    """Every contender in turn."""
    results: dict[str, Any] = {}
    rows = []
    here = ["-m", "benchmarks.gpu_step"]
    for size in options.sizes.split(","):
        commands: dict[str, Any] = {}
        for dtype in options.dtypes.split(","):
            attempt = (options.tries or CHOSEN[size]) + "/float8" * (dtype == "float8")
            ours = [*here, f"--worker={size}", f"--tries={attempt}"]
            ours += [f"--attention={options.attention}"]
            commands[f"isoflop {dtype}"] = ([sys.executable, *ours], MEMORY)
            if options.peer == "jla" and size == "1.3B":
                theirs = [options.peer_python, *here, "--worker=jla", f"--dtypes={dtype}"]
                commands[f"jax-linear-attention {dtype}"] = (theirs, MEMORY)
        found = results[size] = harness.alternate(commands, options.rounds)
        for name, reason in found["missing"].items():
            print(f"{size}: no {name}: {reason}")
        known = next((facts for facts in found["facts"].values() if "peak" in facts), None)
        for name, facts in found["facts"].items():
            seconds = harness.summary([each[name]["seconds"] for each in found["rounds"]])
            rate, shares = facts["tokens"] / seconds.median, ["", ""]
            if known:  # of one of ours: the same model
                each = known["flops_per_token"].values()
                shares = [f"{flops * rate / known['peak']:.1%}" for flops in each]
            rows.append([size, name, f"{1000 * seconds.median:.4g}", f"{rate:,.0f}", *shares])
    head = ["size", "contender", "ms", "tokens/s", "MFU (PaLM)", "MFU (strict)"]
    print(harness.table(head, rows))
    harness.write(options.json, results)


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--sizes", default="124M,350M,1.3B")
    parser.add_argument("--tries", default="", help="settings, see above; else those found to fit")
    parser.add_argument("--compile_only", action="store_true")
    parser.add_argument("--topology", default="h200:1", help="for --compile_only")
    parser.add_argument("--mesh", default="fsdp", choices=("fsdp", "data"), help="of several")
    parser.add_argument("--dtypes", default="bfloat16,float8")
    parser.add_argument("--attention", default="cudnn")
    parser.add_argument("--peer", default="", choices=("", "jla"))
    parser.add_argument("--peer_python", default=sys.executable)
    parser.add_argument("--worker", help="for the processes it starts")
    options = parser.parse_args()
    if options.worker == "jla":
        return jla(options.dtypes)
    if options.worker:
        return isoflop(options.worker, options.tries, options.attention)
    return compile_only(options) if options.compile_only else measure(options)


if __name__ == "__main__":
    main()
