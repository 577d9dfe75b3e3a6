"""The transformer beside the LSTM: time an update over length and batch, and loss, by what it cost.

    python -m benchmarks.recurrence --peer --json=recurrence.json --figure=recurrence

A small transformer (rotary, no biases) with full attention, chunked attention and windows; the LSTM
of model/lstm.py at equal parameters, and at equal operations a token (at each length its width is
what makes them equal: model.counts, strict convention). Each is a process of its own, and they
alternate: every round takes one update of `python -m train` at each length (windows of equal tokens
in all) and at each batch size (one length). --peer adds PyTorch's LSTM in the layers of ours, with
equal parameters. Then both train on the Python standard library as bytes, or on --text, on equally
many tokens; the last tenth is held out, and clocks stop for compiling and for evaluating.

The LSTM's chain: of each token's product with the one before it, T times its layers products of
[b, d] x [d, 4 d] come one after another, and as many backward; their operations a byte grow with b
only. The transformer's chain is as long as its layers whatever T, and its products are over all
tokens; its attention's operations a token grow with T. About 6 minutes on 2 cores with --loss=off,
about 3 more with it; --lengths, --batches, --rounds and --contenders take less.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.cost import compile_point, power
from benchmarks.recurrence_plot import draw
from benchmarks.recurrence_train import CONTENDERS, OURS, VOCAB, configure, losses, sized

PEER = "PyTorch LSTM"


def points(options: argparse.Namespace) -> dict[str, tuple[int, int]]:
    """Windows and their length, by name."""
    lengths = [int(n) for n in options.lengths.split(",") if n]
    batches = [int(n) for n in options.batches.split(",") if n]
    found = {f"T{length}": (max(1, options.tokens // length), length) for length in lengths}
    return found | {f"B{batch}": (batch, options.length) for batch in batches}


def isoflop(options: argparse.Namespace) -> None:
    """Serve as one of ours."""
    import jax

    import model
    from train.peak import device_peak

    running: dict[str, list[Any]] = {}
    facts: dict[str, Any] = {"peak": device_peak("float32").flops, "points": {}}
    for name, (windows, length) in points(options).items():
        config = configure(sized(options, options.worker, length), windows)
        running[name] = list(compile_point(config)[:3])
        counts, network = model.counts(config.model), config.model
        chain, lstm = 2 * network.layers, network.kind == "lstm"
        moved = 4 * (4 * network.width**2 + 5 * windows * network.width)
        facts["points"][name] = {
            "parameters": counts.parameters,
            "width": network.width,
            "operations_a_token": counts.flops_per_token("strict"),
            "tokens": windows * length,
            # Layers forward and backward, each token of each after the one before in an LSTM.
            "chain": chain * length if lstm else chain,
            "intensity": 8 * windows * network.width**2 / moved if lstm else None,
        }

    def update(name: str) -> float:
        state, batch, step = running[name]
        began = time.perf_counter()
        running[name][0], metrics = step(state, batch)
        jax.block_until_ready(metrics)
        return time.perf_counter() - began

    harness.serve(facts, lambda: {name: update(name) for name in running})


def pytorch(options: argparse.Namespace) -> None:
    """Serve as the peer: the same layers around torch.nn.LSTM."""
    import torch
    from torch import nn

    found = points(options)
    network = sized(options, OURS, options.length)
    table = nn.Embedding(VOCAB, network.width)
    norms = nn.ModuleList(
        nn.LayerNorm(network.width, bias=False) for _ in range(network.layers + 1)
    )
    layers = nn.ModuleList(
        nn.LSTM(network.width, network.width, batch_first=True, bias=False)
        for _ in range(network.layers)
    )
    weights = [*table.parameters(), *norms.parameters(), *layers.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=1e-4, weight_decay=0.1)
    sets = {name: torch.randint(0, VOCAB - 1, (b, t + 1)) for name, (b, t) in found.items()}

    def update(name: str) -> float:
        began = time.perf_counter()
        window_bt = sets[name]
        x_btd = table(window_bt[:, :-1])
        for norm, layer in zip(norms, layers, strict=False):
            x_btd = x_btd + layer(norm(x_btd))[0]
        logits = norms[-1](x_btd) @ table.weight.T
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), window_bt[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        return time.perf_counter() - began

    harness.serve({}, lambda: {name: update(name) for name in found})


def crossings(full: dict[int, float], other: list[float]) -> list[int]:
    """The lengths at which two series are equal, by a line through logarithms between points."""
    lengths = np.log(list(full))
    gaps = np.log(list(full.values())) - np.log(other)
    signs = zip(lengths, lengths[1:], gaps, gaps[1:], strict=False)
    return [
        round(float(np.exp(a + (b - a) * gap / (gap - after))))
        for a, b, gap, after in signs
        if gap * after < 0
    ]


def report(found: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Print the tables; by contender and point what a token took, in microseconds."""
    times: dict[str, Any] = {}
    rows, slopes = [], []
    for name in found["facts"]:
        facts = found["facts"][name] or found["facts"].get(OURS, {})
        times[name] = {}
        for point, (windows, length) in points(options).items():
            seconds = harness.summary([each[name][point] for each in found["rounds"]])
            micro = [1e6 * s / (windows * length) for s in seconds]
            times[name][point] = micro
            known = facts.get("points", {}).get(point)
            row = [name, str(length), str(windows), f"{1000 * seconds.median:.4g}"]
            row.append(str(harness.Summary(*micro)))
            if known:
                flops = known["operations_a_token"] * known["tokens"]
                share = flops / seconds.median / facts["peak"]
                row += [f"{known['parameters']:,}", f"{known['operations_a_token']:,}"]
                row += [f"{share:.1%}", f"{known['chain']:,}", f"{flops / known['chain']:.3g}"]
                row.append(f"{known['intensity']:.3g}" if known["intensity"] else "")
            rows.append(row + [""] * (11 - len(row)))
        for kind in "TB":
            series = [(int(p[1:]), v[0]) for p, v in times[name].items() if p[0] == kind]
            if len(series) > 2:
                late = str(power(*zip(*series[-3:], strict=True)))
                slopes.append([name, kind, str(power(*zip(*series, strict=True))), late])
    head = [
        "contender",
        "length",
        "windows",
        "ms",
        "us a token",
        "parameters",
        "operations a token",
    ]
    head += ["of peak", "chain", "operations a link", "LSTM product, operations a byte"]
    print(harness.table(head, rows), "\n")
    print(harness.table(["us a token of", "over", "slope", "of the last three"], slopes), "\n")
    full = {int(p[1:]): v[0] for p, v in times.get("full", {}).items() if p[0] == "T"}
    if len(full) > 2:
        each = np.array(list(full.values()))
        slope, start = np.polyfit(list(full), each, 1, w=1 / each)
        print(f"full attention: the part that grows with length is half at {start / slope:,.0f}")
        for name in times.keys() - {"full"}:
            other = [times[name][f"T{length}"][0] for length in full]
            print(f"full attention against {name}: as fast at {crossings(full, other) or 'none'}")
    return times


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--lengths", default="32,128,512,2048,8192")
    parser.add_argument("--batches", default="1,4,16,64,256")
    parser.add_argument("--length", type=int, default=128, help="of windows in --batches")
    parser.add_argument("--tokens", type=int, default=8192, help="of a batch in --lengths")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--peer", action="store_true", help="PyTorch's LSTM too")
    parser.add_argument("--loss", choices=("on", "off"), default="on")
    parser.add_argument("--loss_lengths", default="64,512")
    parser.add_argument("--loss_tokens", type=int, default=400_000)
    parser.add_argument("--loss_batch", type=int, default=4096, help="tokens of an update")
    parser.add_argument("--rates", default="0.004,0.012", help="the best of them counts")
    parser.add_argument("--text", type=Path, help="to train on")
    parser.add_argument("--figure", type=Path, help="write FIGURE.png and FIGURE.svg")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return pytorch(options) if options.worker == PEER else isoflop(options)
    names = [*options.contenders.split(","), *([PEER] if options.peer else [])]
    # On a GPU each process would otherwise take most of its memory.
    shared = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    command = [sys.executable, "-m", "benchmarks.recurrence", *sys.argv[1:]]
    contenders = {name: ([*command, f"--worker={name}"], shared) for name in names}
    found = harness.alternate(contenders, options.rounds)
    for name, reason in found["missing"].items():
        print(f"no {name}: {reason}")
    times = report(found, options)
    print(f"load {os.getloadavg()[0]:.1f}, steal {found['state']['steal']:.1%}")
    trained = losses(options) if options.loss == "on" else []
    if options.figure:
        draw(times, trained, options.length, options.figure)
    harness.write(options.json, {**found, "us_a_token": times, "losses": trained})
    return None


if __name__ == "__main__":
    main()
