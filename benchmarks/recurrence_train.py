"""The networks of benchmarks/recurrence.py, and their training on text."""

import argparse
import sysconfig
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cost import compile_point
from configs.schema import Batch, Config, Data, Model, Optimizer, Schedule

VOCAB = 257  # bytes, and an end of document that does not occur
CONTENDERS = ("full", "chunked", "window", "LSTM parameters", "LSTM operations")
OURS = CONTENDERS[3]


def sized(options: argparse.Namespace, name: str, context: int) -> Model:
    """A contender's network for windows of `context` tokens."""
    import jax

    import model

    usual: dict[str, Any] = {"vocab": VOCAB, "context": context, "bias": False}
    heads = max(1, options.width // 64)
    kept = "xla_kept" if jax.default_backend() == "cpu" else "xla"
    usual_attention: Any = {"attention": kept if name == "full" else "xla_chunked"}
    window: Any = {"windows": (options.window,)} if name == "window" else {}
    transformer = Model(
        **usual, **usual_attention, **window,
        layers=options.layers, width=options.width, heads=heads, positions="rotary",
    )  # fmt: skip
    if not name.startswith("LSTM"):
        return transformer

    def lstm(eighths: int) -> Model:
        layers = -(-3 * options.layers // 2)  # 8 d^2 a layer against 12 d^2
        return Model(**usual, kind="lstm", layers=layers, width=8 * eighths)

    def size(config: Model) -> int:
        counts = model.counts(config)
        return counts.parameters if name == OURS else counts.flops_per_token("strict")

    low, high = 1, 1024
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(lstm(middle)) <= size(transformer) else (low, middle)
    return min((lstm(low), lstm(high)), key=lambda one: abs(size(one) - size(transformer)))


def configure(network: Model, windows: int, rate: float = 1e-4, steps: int = 1_000_000) -> Config:
    return Config(
        model=network,
        data=Data(path="synthetic"),
        batch=Batch(size=windows),
        optimizer=Optimizer(learning_rate=rate, weight_decay=0.1),
        schedule=Schedule(kind="linear", warmup=max(1, steps // 20), final=0.0),
        steps=steps,
    )


def read_text(path: Path | None) -> np.ndarray:
    """Bytes of a file, or of the standard library's source, in the order of its names."""
    places = [path] if path else sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    return np.frombuffer(b"".join(place.read_bytes() for place in places), np.uint8)


def train(options: argparse.Namespace, name: str, length: int, rate: float) -> dict[str, Any]:
    """One training run: held-out loss (nats a byte) with what had been spent by then."""
    import jax

    from parallel.mesh import shard_batch
    from train.step import make_evaluation

    text = read_text(options.text)
    split = len(text) * 9 // 10
    windows = options.loss_batch // length
    steps = options.loss_tokens // (windows * length)
    config = configure(sized(options, name, length), windows, rate, steps)
    state, _, step, mesh = compile_point(config)

    def cut(starts: np.ndarray) -> jax.Array:
        return shard_batch(mesh, text[starts[:, None] + np.arange(length + 1)].astype(np.int32))

    random = np.random.default_rng(0)
    evaluate = make_evaluation(config, VOCAB - 1, mesh)
    held = [
        cut(split + length * np.arange(at, at + windows))
        for at in range(0, min(8 * windows, (len(text) - split - 1) // length - windows), windows)
    ]
    spent, curve = 0.0, []
    for number in range(steps):
        batch = cut(random.integers(0, split - length - 1, windows))
        began = time.perf_counter()
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics)
        spent += time.perf_counter() - began
        if (number + 1) % max(1, steps // 8) == 0 or number + 1 == steps:
            sums = [jax.device_get(evaluate(state.params, batch)) for batch in held]
            loss = sum(s["loss"].sum() for s in sums) / sum(s["weight"].sum() for s in sums)
            tokens = (number + 1) * windows * length
            curve.append({"tokens": tokens, "seconds": spent, "loss": float(loss)})
    return {"name": name, "length": length, "rate": rate, "curve": curve}


def losses(options: argparse.Namespace) -> list[dict[str, Any]]:
    """For each contender and length the rate, of those tried, with the least last loss."""
    best = []
    for length in (int(n) for n in options.loss_lengths.split(",")):
        for name in ("full", *CONTENDERS[3:]):
            rates = (float(rate) for rate in options.rates.split(","))
            runs = [train(options, name, length, rate) for rate in rates]
            best.append(min(runs, key=lambda run: run["curve"][-1]["loss"]))
            last = best[-1]["curve"][-1]
            print(f"{name}, {length}: {last['loss']:.4f} in {last['seconds']:.1f} s", flush=True)
    return best
