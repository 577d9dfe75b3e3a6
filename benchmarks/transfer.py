"""Does the learning rate found at one width serve another? Standard parametrization beside muP.

    python -m data.build --config=configs/corpora/quickstart.py --config.tokenizer=bytes --out=STORE
    python benchmarks/transfer.py --store=STORE [--optimizer=muon] [--json=FILE]

Trains small transformers on bytes of Python source code, of several widths and with learning rates
in steps of a factor; all see the same batches, once. The loss of a run is that of its last eighth
of updates, whose rate falls to 0. Where it is lowest over log rate is found by a parabola through
the best rate and its neighbours. At muP's base width both parametrizations are the same model. Two
readings at each larger width: the ratio of its best rate to that of the smallest, and the loss at
the smallest width's best rate over the lowest loss there.
"""

import argparse
import dataclasses
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

import model  # noqa: E402
from configs.schema import Batch, Config, Data, Model, Optimizer, Schedule  # noqa: E402
from data.loader import TRAIN, Windows  # noqa: E402
from data.store import open_store  # noqa: E402
from train.coordinates import family, standard  # noqa: E402
from train.optimizers import build  # noqa: E402

RATES = {"adamw": 0.004, "muon": 0.016}  # the middle of the grid


def recipe(options: argparse.Namespace, vocab: int) -> Config:
    """The run at the smallest width, at a rate of 1: others multiply its updates."""
    return Config(
        model=Model(
            vocab=vocab,
            context=options.context,
            layers=options.layers,
            width=options.widths[0],
            heads=options.widths[0] // 16,
            ffn="relu2",
            norm="rmsnorm",
            positions="rotary",
            qk_norm=True,
            bias=False,
            residual_init="zero",
            parametrization="mup",
            base_width=options.base,
        ),
        data=Data(path=str(options.store)),
        batch=Batch(size=options.batch),
        optimizer=Optimizer(name=options.optimizer, learning_rate=1.0, beta2=0.99),
        schedule=Schedule(kind="linear", warmup=options.steps // 10, final=0.0),
        steps=options.steps,
    )


def losses(config: Config, batches: jax.Array, eod: int, rates: Sequence[float]) -> list[float]:
    """The final loss of a run at each rate. One program serves all rates."""
    declarations = model.declare(config.model)
    optimizer = build(config, declarations)

    def loss(params: Any, window_bt: jax.Array) -> jax.Array:
        total, _ = model.loss(config.model, params, window_bt, eod=eod, attend_across=True)
        return total / window_bt[:, 1:].size

    @jax.jit
    def train(key: jax.Array, batches_kbt: jax.Array, rate: jax.Array) -> jax.Array:
        params = model.init(config.model, key)

        def update(state: tuple[Any, Any], window_bt: jax.Array) -> tuple[Any, jax.Array]:
            params, moments = state
            value, gradients = jax.value_and_grad(loss)(params, window_bt)
            updates, moments = optimizer.update(gradients, moments, params)
            updates = jax.tree.map(lambda update: rate * update, updates)
            return (optax.apply_updates(params, updates), moments), value

        return jax.lax.scan(update, (params, optimizer.init(params)), batches_kbt)[1]

    last = max(1, config.steps // 8)
    key = jax.random.key(config.seed)
    return [float(jnp.mean(train(key, batches, jnp.float32(rate))[-last:])) for rate in rates]


def optimum(rates: Sequence[float], values: Sequence[float]) -> tuple[float, float, bool]:
    """Where the loss is lowest over log rate, see above.

    Returns:
        The rate, the loss there, and whether it lies inside the grid.
    """
    best = int(np.nanargmin(values))
    if not 0 < best < len(rates) - 1:
        return rates[best], values[best], False
    center = np.log(rates[best])
    x, y = np.log(rates[best - 1 : best + 2]) - center, values[best - 1 : best + 2]
    a, b, c = np.polyfit(x, y, 2)
    return float(np.exp(center - b / (2 * a))), float(c - b**2 / (4 * a)), True


def at(rate: float, rates: Sequence[float], values: Sequence[float]) -> float:
    """The loss at a rate, by the parabola through the three nearest of the grid."""
    x = np.log(rates) - np.log(rate)
    middle = int(np.clip(np.argmin(np.abs(x)), 1, len(x) - 2))
    near = slice(middle - 1, middle + 2)
    return float(np.polyval(np.polyfit(x[near], np.asarray(values)[near], 2), 0))


def sweep(options: argparse.Namespace) -> dict[str, Any]:
    """All runs: losses by parametrization and width, averaged over seeds, printed on the way."""
    store = open_store(str(options.store))
    base = recipe(options, store.vocab)
    half = options.points // 2
    middle = options.rate or RATES[options.optimizer]
    rates = [middle * options.factor**k for k in range(-half, options.points - half)]
    print(f"{'':24}" + "".join(f"{rate:>9.4f}" for rate in rates) + "  best rate    loss")
    found: dict[str, Any] = {"rates": rates, "standard": {}, "mup": {}}
    networks = family(base.model, options.widths, [options.layers] * len(options.widths), "heads")
    for network in networks:
        for name, own in (("standard", standard(network)), ("mup", network)):
            began = time.monotonic()
            if name == "mup" and network.width == options.base:
                values = found["standard"][network.width]["losses"]  # the same model, bit for bit
            else:
                each = []
                for seed in range(options.seeds):
                    config = dataclasses.replace(base, model=own, seed=seed)
                    windows = Windows(store, TRAIN, own.context, seed=seed)
                    rows = windows.batch(0, options.batch * options.steps)
                    batches = jnp.asarray(rows).reshape(options.steps, options.batch, -1)
                    each.append(losses(config, batches, store.eod, rates))
                values = np.mean(each, axis=0).tolist()
            rate, loss, inside = optimum(rates, values)
            found[name][network.width] = {
                "losses": values,
                "best_rate": rate,
                "best_loss": loss,
                "inside": inside,
                "seconds": time.monotonic() - began,
            }
            line = f"{name:<10}width {network.width:<8}" + "".join(f"{v:9.4f}" for v in values)
            print(f"{line}  {rate:9.4f} {loss:7.4f}" + ("" if inside else "  at the grid's edge"),
                  flush=True)  # fmt: skip
    return found


def readings(found: dict[str, Any], widths: Sequence[int]) -> dict[str, Any]:
    """The two readings of transfer for each larger width."""
    result: dict[str, Any] = {}
    for name in ("standard", "mup"):
        start = found[name][widths[0]]["best_rate"]
        for width in widths[1:]:
            there = found[name][width]
            ratio = there["best_rate"] / start
            excess = at(start, found["rates"], there["losses"]) / there["best_loss"] - 1
            result.setdefault(name, {})[width] = {"rate_ratio": ratio, "loss_excess": excess}
            print(
                f"{name:<10}width {width:<8}best rate {ratio:.2f} x that of width {widths[0]}; "
                f"with that of width {widths[0]} the loss is {excess:.2%} above its lowest"
            )
    return result


def main() -> None:
    formatter = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--optimizer", choices=sorted(RATES), default="adamw")
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--base", type=int, default=128, help="muP's base width")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--points", type=int, default=7, help="rates")
    parser.add_argument("--factor", type=float, default=2.0, help="between rates")
    parser.add_argument("--rate", type=float, default=0.0, help="the middle one; 0: a usual one")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    began = time.monotonic()
    found = sweep(options)
    report = {
        "settings": {key: str(value) for key, value in vars(options).items()},
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "jax": jax.__version__,
        "runs": found,
        "transfer": readings(found, options.widths),
        "seconds": time.monotonic() - began,
    }
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
