"""Seconds of one update, isoflop beside PyTorch, alternated: forward, backward, clipping and AdamW.

    python -m benchmarks.train_step --sizes=0.8M,12M --rounds=8 --nanogpt=CLONE --json=step.json

The models are GPT-2's at three sizes that fit a CPU, of equal parameters on both sides, on random
tokens, with vocabularies of 66, 4,096 and 32,768. Peers are benchmarks/peer_gpt.py (PyTorch, eager,
float32, and bfloat16 by autocast) and, with --nanogpt, the model of that repository.
Ours also runs on two devices, as with --config.mesh.data=2. Every contender is a process of its own
with glibc set to keep its memory, in one arena where train/cpu.py would. MFU is over this machine's
measured matrix product in the same dtype, by both countings: strict has the matrices and the causal
half of attention, PaLM all parameters and all of attention.
"""

import argparse
import statistics
import sys
import time
from typing import Any

from benchmarks import harness
from configs.schema import Batch, Config, Data, Model, Optimizer
from train import cpu

SIZES: dict[str, dict[str, int]] = {
    "0.8M": {"vocab": 66, "context": 64, "layers": 4, "width": 128, "heads": 4, "batch": 12},
    "12M": {"vocab": 4096, "context": 256, "layers": 6, "width": 384, "heads": 6, "batch": 8},
    "110M": {"vocab": 32768, "context": 512, "layers": 12, "width": 768, "heads": 12, "batch": 4},
}
BURST = {"0.8M": 30, "12M": 3, "110M": 1}  # updates at a time
WARM = 2


def configure(name: str, dtype: str) -> Config:
    """The run at one size."""
    size = SIZES[name]
    shape = {key: size[key] for key in ("vocab", "context", "layers", "width", "heads")}
    return Config(
        model=Model(**shape, bias=False, compute_dtype=dtype),  # type: ignore[arg-type]
        data=Data(path="synthetic"),
        batch=Batch(size=size["batch"]),
        optimizer=Optimizer(learning_rate=1e-4, weight_decay=0.1),
        steps=1_000_000,
    )


def isoflop(name: str, dtype: str) -> None:
    """Serve as the contender that is ours: the step of python -m train, on one set of windows."""
    import jax
    import numpy as np

    import model
    from parallel.mesh import make_mesh, shard_batch
    from train.peak import device_peak
    from train.state import create
    from train.step import make_step

    size, config = SIZES[name], configure(name, dtype)
    mesh = make_mesh(config)
    state, step = create(config, mesh), make_step(config, size["vocab"] - 1, mesh)
    random = np.random.default_rng(0)
    window_bt = random.integers(0, size["vocab"] - 1, (size["batch"], size["context"] + 1))
    batch = shard_batch(mesh, window_bt.astype(np.int32))

    def update() -> None:
        nonlocal state
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics)

    began = time.perf_counter()
    update()
    compiled = time.perf_counter() - began
    counts = model.counts(config.model)
    facts = {
        "parameters": counts.parameters,
        "flops": {
            counting: counts.flops_per_token(counting) * size["batch"] * size["context"]
            for counting in ("strict", "palm")
        },
        "peak": device_peak(dtype).flops * jax.device_count(),
        "compile": compiled,
    }
    serve(name, facts, update)


def pytorch(name: str, dtype: str, clone: str) -> None:
    """Serve as the peer."""
    import torch

    from benchmarks import peer_gpt

    size = SIZES[name]
    torch.manual_seed(0)
    network = peer_gpt.build(size, clone)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1
    )
    windows = torch.randint(0, size["vocab"] - 1, (size["batch"], size["context"] + 1))
    inputs, targets = windows[:, :-1].contiguous(), windows[:, 1:].contiguous()
    half = torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16")

    def update() -> None:
        with half:
            _, loss = network(inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    parameters = sum(parameter.numel() for parameter in network.parameters())
    serve(name, {"parameters": parameters}, update)


def serve(name: str, facts: dict[str, Any], update: Any) -> None:
    """Bursts of updates, by their median."""
    for _ in range(WARM):
        update()

    def burst() -> dict[str, float]:
        times = []
        for _ in range(BURST[name]):
            began = time.perf_counter()
            update()
            times.append(time.perf_counter() - began)
        return {"seconds": statistics.median(times), "least": min(times)}

    harness.serve(facts, burst)


def contenders(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Commands by name; the first peer is what ratios are taken against."""
    here = ["-m", "benchmarks.train_step", f"--size={name}"]
    peer = [options.peer_python, *here, "--worker=pytorch"]
    commands: dict[str, Any] = {}
    many = dict.fromkeys(cpu.ONE_ARENA, "")  # what is fastest for PyTorch
    for dtype in options.peers.split(","):
        commands[f"PyTorch {dtype}"] = ([*peer, f"--dtype={dtype}"], many)
    if options.nanogpt:
        clone = f"--nanogpt={options.nanogpt}"
        commands["nanoGPT float32"] = ([*peer, "--dtype=float32", clone], many)
    for dtype in options.dtypes.split(","):
        ours = [sys.executable, *here, "--worker=isoflop", f"--dtype={dtype}"]
        own = many | cpu.memory(configure(name, dtype))  # as python -m train sets it
        commands[f"isoflop {dtype}"] = (ours, own)
        if dtype == "float32":
            commands[f"isoflop {dtype}, 2 devices"] = (ours, own | {"JAX_NUM_CPU_DEVICES": "2"})
    return commands


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--sizes", default="0.8M,12M")
    parser.add_argument("--dtypes", default="float32,bfloat16", help="of ours")
    parser.add_argument("--peers", default="float32,bfloat16", help="dtypes of PyTorch")
    parser.add_argument("--peer_python", default=sys.executable, help="one that has PyTorch")
    parser.add_argument("--nanogpt", default="", help="a clone of karpathy/nanoGPT")
    for hidden in ("--worker", "--size", "--dtype"):
        parser.add_argument(hidden, help="for the processes it starts")
    options = parser.parse_args()
    if options.worker == "isoflop":
        return isoflop(options.size, options.dtype)
    if options.worker == "pytorch":
        return pytorch(options.size, options.dtype, options.nanogpt)
    results: dict[str, Any] = {}
    rows = []
    for name in options.sizes.split(","):
        found = harness.alternate(contenders(name, options), options.rounds)
        results[name] = found
        for contender, reason in found["missing"].items():
            print(f"{name}: no {contender}: {reason}")
        first = next(iter(found["facts"]))
        for contender, facts in found["facts"].items():
            seconds = harness.summary([each[contender]["seconds"] for each in found["rounds"]])
            ratio = harness.ratio(found["rounds"], contender, first)
            share = ""
            if "peak" in facts:
                flops = (each / seconds.median for each in facts["flops"].values())
                share = " / ".join(f"{each / facts['peak']:.0%}" for each in flops)
            rows.append(
                [
                    *(name, contender, f"{facts['parameters']:,}"),
                    *(f"{1000 * seconds.median:.4g}", str(ratio), share),
                ]
            )
        print(f"{name}: load {found['state']['load']:.1f}, steal {found['state']['steal']:.1%}")
    head = ["size", "contender", "parameters", "ms", "speed against the first", "MFU strict / PaLM"]
    print(harness.table(head, rows))
    harness.write(options.json, results)
    return None


if __name__ == "__main__":
    main()
