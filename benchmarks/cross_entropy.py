"""The output head's cross-entropy with its gradients: ours in chunks, plain JAX, and PyTorch.

    python -m benchmarks.cross_entropy --rounds=8 --peer_python=PYTHON --json=cross_entropy.json

Each makes, of the hidden states and the output table, the mean loss and both gradients, at the
sizes of benchmarks/train_step.py. Ours is model.loss.cross_entropy, which has a few MiB of logits
at a time and makes their gradient while they are there; plain JAX is logsumexp over the table of
all logits, differentiated; PyTorch is linear and cross_entropy. Operations are those of the three
products, bytes those of the arrays that go in and come out, over this machine's measured peaks.
Memory is what the compiler plans for. About three minutes on two quiet cores.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from benchmarks import harness
from benchmarks.attention import timed
from benchmarks.train_step import SIZES

MIB = 2**20
CONTENDERS = ("PyTorch", "plain JAX", "isoflop")


def sizes_of(name: str) -> tuple[int, int, int, int]:
    """Windows, tokens of each, width and vocabulary."""
    size = SIZES[name]
    return size["batch"], size["context"], size["width"], size["vocab"]


def operations(name: str) -> int:
    """Logits, and the gradients of the hidden states and of the table."""
    b, t, d, v = sizes_of(name)
    return 6 * b * t * d * v


def bytes_moved(name: str) -> int:
    """Hidden states and table, and as much for their gradients, in float32."""
    b, t, d, v = sizes_of(name)
    return 2 * 4 * (b * t * d + v * d)


def ours(name: str) -> Callable[..., Any]:
    """The mean loss by model.loss."""
    import jax
    import jax.numpy as jnp

    from configs.schema import Model
    from model.inputs import Targets
    from model.loss import cross_entropy
    from model.placement import here

    shape: Any = {key: SIZES[name][key] for key in ("vocab", "context", "layers", "width", "heads")}
    config = Model(**shape)

    def loss(x_btd: jax.Array, head_vd: jax.Array, target_bt: jax.Array) -> jax.Array:
        targets = Targets(target_bt, jnp.ones(target_bt.shape, jnp.float32))
        total, _ = cross_entropy(config, 0.0, here(), x_btd, head_vd, targets)
        return total / target_bt.size

    return loss


def plain(name: str) -> Callable[..., Any]:
    """The same as one writes it first."""
    del name
    import jax
    import jax.numpy as jnp

    def loss(x_btd: jax.Array, head_vd: jax.Array, target_bt: jax.Array) -> jax.Array:
        z_btv = jnp.einsum("btd,vd->btv", x_btd, head_vd)
        chosen_bt = jnp.take_along_axis(z_btv, target_bt[..., None], axis=-1)[..., 0]
        return jnp.mean(jax.nn.logsumexp(z_btv, axis=-1) - chosen_bt)

    return loss


def in_jax(contender: str, names: list[str]) -> None:
    """Serve as ours or as plain JAX."""
    import jax

    facts: dict[str, Any] = {"planned": {}, "loss": {}}
    runs: dict[str, Callable[[], Any]] = {}
    for name in names:
        b, t, d, v = sizes_of(name)
        keys = jax.random.split(jax.random.key(0), 3)
        x_btd = jax.random.normal(keys[0], (b, t, d))
        head_vd = jax.random.normal(keys[1], (v, d)) * d**-0.5
        given = x_btd, head_vd, jax.random.randint(keys[2], (b, t), 0, v)
        loss = {"isoflop": ours, "plain JAX": plain}[contender](name)
        compiled = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*given).compile()
        analysis: Any = compiled.memory_analysis()
        facts["planned"][name] = analysis.temp_size_in_bytes
        facts["loss"][name] = float(compiled(*given)[0])
        runs[name] = lambda run=compiled, given=given: jax.block_until_ready(run(*given))  # type: ignore[misc]
    harness.serve(facts, timed(runs))


def pytorch(names: list[str]) -> None:
    """Serve as the peer."""
    import torch
    from torch.nn import functional

    facts: dict[str, Any] = {"loss": {}}
    runs: dict[str, Callable[[], Any]] = {}
    for name in names:
        b, t, d, v = sizes_of(name)
        x_btd = torch.randn(b, t, d, requires_grad=True)
        head_vd = (torch.randn(v, d) * d**-0.5).requires_grad_()
        target_bt = torch.randint(0, v, (b, t))

        def run(
            x_btd: Any = x_btd, head_vd: Any = head_vd, target_bt: Any = target_bt, v: int = v
        ) -> tuple[Any, Any]:
            z_btv = functional.linear(x_btd, head_vd)
            loss = functional.cross_entropy(z_btv.view(-1, v), target_bt.view(-1))
            return loss, torch.autograd.grad(loss, (x_btd, head_vd))

        facts["loss"][name] = run()[0].item()
        runs[name] = run
    harness.serve(facts, timed(runs))


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--peer_python", default=sys.executable, help="one that has PyTorch")
    parser.add_argument("--worker", help="for the processes it starts")
    options = parser.parse_args()
    names = options.sizes.split(",")
    if options.worker == "PyTorch":
        return pytorch(names)
    if options.worker:
        return in_jax(options.worker, names)
    return compare(options, names)


def compare(options: argparse.Namespace, names: list[str]) -> None:
    """Run all of them, and print."""
    from benchmarks import roofline

    peak = roofline.measure("float32")
    commands: dict[str, Any] = {}
    for name in CONTENDERS:
        python = options.peer_python if name == "PyTorch" else sys.executable
        flags = [f"--worker={name}", f"--sizes={options.sizes}"]
        commands[name] = ([python, "-m", "benchmarks.cross_entropy", *flags], {})
    found = harness.alternate(commands, options.rounds)
    for name, reason in found["missing"].items():
        print(f"no {name}: {reason}")
    rows = []
    first = next(iter(found["facts"]))
    for name in names:
        least = roofline.bound(operations(name), bytes_moved(name), peak)
        for contender, facts in found["facts"].items():
            seconds = harness.summary([each[contender][name] for each in found["rounds"]])
            ratio = harness.ratio(found["rounds"], contender, first, name)
            planned = facts.get("planned", {}).get(name)
            rows.append(
                [
                    *(name, contender, f"{1000 * seconds.median:.4g}", str(ratio)),
                    f"{least.seconds / seconds.median:.0%} of {least.by}",
                    "" if planned is None else f"{planned / MIB:,.1f}",
                ]
            )
    head = ["size", "contender", "ms", "speed against the first", "of the roofline"]
    head += ["planned MiB"]
    print(harness.table(head, rows))
    print(f"load {found['state']['load']:.1f}, steal {found['state']['steal']:.1%}")
    harness.write(options.json, {"peak": peak._asdict(), **found})


if __name__ == "__main__":
    main()
