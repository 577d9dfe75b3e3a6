"""The transformer beside the LSTM: time an update over length and batch, and loss, by what it cost.

    python -m benchmarks.recurrence --peer --json=recurrence.json --figure=recurrence

A small transformer (rotary, no biases) with full attention, chunked attention and windows; the LSTM
of model/lstm.py at equal parameters, and at equal operations a token (at each length its width is
what makes them equal: model.counts, strict convention). Each is a process of its own, and they
alternate: every round takes updates of `python -m train` for some time at each length (windows of
equal tokens in all) and at each batch size (of one length). --peer adds PyTorch's LSTM in the
layers of ours, with equal parameters. Then each trains on the Python standard library as bytes, or
on --text, at a few lengths and batch sizes, on equally many tokens; the last tenth is held out, and
clocks stop while the loss of that is taken.

The LSTM's chain: of each token's product with the one before it, T times its layers products of
[b, d] x [d, 4 d] come one after another, and as many backward; their operations a byte grow with b
only. The transformer's chain is as long as its layers whatever T, and its products are over all
tokens; its attention's operations a token grow with T. Most of the first minutes is compiling.
"""

import argparse
import itertools
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks import recurrence_train as networks
from benchmarks.cost import power, say
from benchmarks.recurrence_plot import crossings, draw, half
from benchmarks.recurrence_train import OURS, PEER, Point


def isoflop(options: argparse.Namespace) -> None:
    """Serve as one of ours: rounds that count and the one before, then training."""
    import model
    from train.peak import device_peak

    name = options.worker
    running: dict[Point, networks.Runner] = {}
    facts: dict[str, Any] = {"peak": device_peak("float32").flops, "points": {}}
    began = time.perf_counter()
    for point in networks.points(options, name):
        running[point] = networks.Runner(options, name, point)
        network = running[point].config.model
        counts = model.counts(network)
        chain, lstm = 2 * network.layers, network.kind == "lstm"
        moved = 4 * (4 * network.width**2 + 5 * point.windows * network.width)
        facts["points"][str(point)] = {
            "parameters": counts.parameters,
            "width": network.width,
            "operations_a_token": counts.flops_per_token("strict"),
            # Layers forward and backward, each token of each after the one before in an LSTM.
            "chain": chain * point.length if lstm else chain,
            "intensity": 8 * point.windows * network.width**2 / moved if lstm else None,
        }
        say(f"{name}: {point} compiled at {time.perf_counter() - began:.0f} s")
    turns = itertools.count()

    def burst() -> dict[str, Any]:
        began, turn = time.perf_counter(), next(turns)
        found: dict[str, Any] = {}
        if turn <= options.rounds:
            found = {str(point): runner.burst() for point, runner in running.items()}
        else:
            for point in networks.trained(options, name):
                found[str(point)] = running[point].train()
                say(f"{name}: {point} trained, {found[str(point)][-1]}")
        say(f"{name}: turn {turn} in {time.perf_counter() - began:.1f} s")
        return found

    harness.serve(facts, burst)


def pytorch(options: argparse.Namespace) -> None:
    """Serve as the peer: the same layers around torch.nn.LSTM."""
    import torch
    from torch import nn

    network = networks.sized(options, OURS, options.length)
    table = nn.Embedding(networks.VOCAB, network.width)
    norms = nn.ModuleList(
        nn.LayerNorm(network.width, bias=False) for _ in range(network.layers + 1)
    )
    layers = nn.ModuleList(
        nn.LSTM(network.width, network.width, batch_first=True, bias=False)
        for _ in range(network.layers)
    )
    weights = [*table.parameters(), *norms.parameters(), *layers.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=1e-4, weight_decay=0.1)
    sets = {
        p: torch.randint(0, networks.VOCAB - 1, (p.windows, p.length + 1))
        for p in networks.points(options, PEER)
    }
    turns, found, threads = itertools.count(), dict[str, float](), dict[Point, int]()

    def update(window_bt: torch.Tensor) -> None:
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

    def spend(window_bt: torch.Tensor, threads: int) -> float:
        torch.set_num_threads(threads)
        began, count = time.perf_counter(), 0
        while not count or time.perf_counter() - began < options.seconds:
            update(window_bt)
            count += 1
        return (time.perf_counter() - began) / count

    def burst() -> dict[str, float]:
        turn = next(turns)
        if turn > options.rounds:
            return {}
        for point, window_bt in sets.items():
            name, all_threads = str(point), os.cpu_count() or 1
            if not turn:  # where products are small, one thread may be faster than all
                seconds = {n: spend(window_bt, n) for n in {1, all_threads}}
                threads[point] = min(seconds, key=lambda n: seconds[n])
            if found.get(name, 0.0) <= networks.PATIENCE:
                found[name] = spend(window_bt, threads[point])
                say(f"{PEER}: turn {turn}, {name}, {threads[point]} threads: {found[name]:.3g} s")
        return found

    harness.serve({}, burst)


def over(times: dict[str, list[float]], series: list[Point], key: str) -> dict[int, float]:
    """Medians by the length or the number of windows of a point."""
    return {getattr(p, key): times[str(p)][0] for p in series if str(p) in times}


def report(found: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Print the tables; by contender and point what a token took, and what follows of it."""
    times: dict[str, dict[str, list[float]]] = {}
    shares: dict[str, dict[str, tuple[float, float]]] = {}
    rows, slopes = [], []
    peak = max((facts["peak"] for facts in found["facts"].values() if facts), default=math.nan)
    for name in found["facts"]:
        facts = found["facts"][name] or found["facts"].get(OURS) or {"points": {}}
        times[name], shares[name] = {}, {}
        for point in networks.points(options, name):
            key = str(point)
            seconds = harness.summary([each[name][key] for each in found["rounds"]])
            micro = harness.Summary(*(1e6 * s / point.tokens for s in seconds))
            times[name][key] = list(micro)
            row = [name, str(point.length), str(point.windows), f"{1000 * seconds.median:.4g}"]
            row.append(str(micro))
            if known := facts["points"].get(key):
                flops = known["operations_a_token"] * point.tokens
                shares[name][key] = (flops / known["chain"], flops / seconds.median / peak)
                link, share = shares[name][key]
                row += [f"{known['parameters']:,}", f"{known['operations_a_token']:,}"]
                row += [f"{share:.1%}", f"{known['chain']:,}", f"{link:.3g}"]
                row.append(f"{known['intensity']:.3g}" if known["intensity"] else "")
            rows.append(row + [""] * (11 - len(row)))
        for key, series in (
            ("length", networks.over_length(options, options.lengths)),
            ("windows", networks.over_batch(options, options.batches)),
        ):
            line = over(times[name], series, key)
            if len(line) > 2:
                slope, late = (power(list(line)[at:], list(line.values())[at:]) for at in (0, -3))
                slopes.append([name, key, str(slope), str(late)])
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
    places: dict[str, Any] = {"crossings": {}}
    series = networks.over_length(options, options.lengths)
    full = over(times.get("full", {}), series, "length")
    if len(full) > 2:
        places["half"] = half(full)
        print(f"full attention: half the time grows with length at {places['half']:,.0f}")
        for name in times.keys() - {"full"}:
            other = over(times[name], series, "length")
            met = crossings({length: full[length] for length in other}, list(other.values()))
            places["crossings"][name] = met
            print(f"full attention against {name}: as fast at {met or 'none'}")
    return {"us_a_token": times, "shares": shares, **places}


def main() -> None:
    parser = harness.parser(__doc__, rounds=4)
    parser.add_argument("--seconds", type=float, default=0.4, help="of a point in a round, or more")
    parser.add_argument("--lengths", default="32,128,512,2048,8192")
    parser.add_argument("--batches", default="1,8,64,256")
    parser.add_argument("--length", type=int, default=128, help="of windows in --batches")
    parser.add_argument("--tokens", type=int, default=8192, help="of a batch in --lengths")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--contenders", default=",".join(networks.CONTENDERS))
    parser.add_argument("--peer", action="store_true", help="PyTorch's LSTM too")
    parser.add_argument("--loss", choices=("on", "off"), default="on")
    parser.add_argument("--loss_lengths", default="32,512,8192", help="of --lengths")
    parser.add_argument("--loss_batches", default="1,256", help="of --batches")
    parser.add_argument("--loss_tokens", type=int, default=262_144, help="of each run")
    parser.add_argument("--rate", type=float, default=0.006, help="at --tokens an update")
    parser.add_argument("--lstm_rate", type=float, default=0.012, help="the same")
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
    found = harness.alternate(contenders, options.rounds + (options.loss == "on"))
    for name, reason in found["missing"].items():
        print(f"no {name}: {reason}")
    found["losses"] = found["rounds"].pop() if options.loss == "on" else {}
    for name, runs in found["losses"].items():
        for point, curve in runs.items():
            last = curve[-1]
            print(f"{name}, {point}: {last['loss']:.4f} nats a byte in {last['seconds']:.1f} s")
    settings = ("tokens", "length", "window", "loss_tokens")
    found["settings"] = {key: getattr(options, key) for key in settings}
    found |= report(found, options)
    print(f"load {os.getloadavg()[0]:.1f}, steal {found['state']['steal']:.1%}")
    harness.write(options.json, found)
    if options.figure:
        draw(found, options.figure)
    return None


if __name__ == "__main__":
    main()
