"""What a person wants to see of a run when it ends, from nothing but its directory."""

import math
import statistics
from pathlib import Path
from typing import NamedTuple

import numpy as np

from train.metrics import Row, duration, quantity, read_rows
from train.record import CHECKPOINTS, CURVE, METRICS, SAMPLES, read_run

_RECENT = 20  # rows that the closing training loss is averaged over


class History(NamedTuple):
    """A run's rows by kind."""

    train: list[Row]
    evaluations: list[Row]


def read_history(workdir: Path) -> History:
    """The rows of metrics.jsonl that carry a loss."""
    rows = [row for row in read_rows(workdir / METRICS) if row.get("loss") is not None]
    kinds = ([row for row in rows if row["kind"] == kind] for kind in ("train", "eval"))
    return History(*kinds)


def report(workdir: Path) -> str:
    """The closing table, the loss curve (also drawn to loss.png) and the newest sample."""
    history = read_history(workdir)
    parts = [table(workdir, history)]
    if history.train:
        parts.append(plot(history))
        try:
            draw_curve(workdir / CURVE, history)
        except OSError as error:
            parts.append(f"warning: {CURVE} was not drawn ({error})")
    samples = sorted((workdir / SAMPLES).glob("*.txt"))
    if samples:
        parts.append("sample\n" + samples[-1].read_text())
    return "\n\n".join(parts)


def table(workdir: Path, history: History) -> str:
    """What came out, at what speed, and where it lies."""
    run = read_run(workdir)
    lines = []
    if history.train:
        last = history.train[-1]
        recent = [row["loss"] for row in history.train[-_RECENT:]]
        lines += [
            ("step", f"{last['step']}, {quantity(last['tokens'])} tokens"),
            ("training loss", f"{statistics.fmean(recent):.4f} nats/token"),
        ]
    if history.evaluations:
        last = history.evaluations[-1]
        lines.append(("validation", f"{evaluation_line(last)}, at step {last['step']}"))
    if history.train:
        speeds = [r["tokens_per_second"] for r in history.train if r["tokens_per_second"]]
        shares = [r["mfu"] for r in history.train if r["mfu"]]
        if speeds:
            peak = run["peak"]["name"]
            lines += [
                ("speed", f"{quantity(statistics.median(speeds))} tokens/s"),
                ("MFU", f"{statistics.median(shares):.1%} (PaLM counting; peak: {peak})"),
            ]
        seconds = max(row["seconds"] for row in (*history.train, *history.evaluations))
        lines.append(("time", duration(seconds)))
    lines += [
        (name, str(workdir / place))
        for name, place in (
            ("checkpoints", CHECKPOINTS),
            ("metrics", METRICS),
            ("curve", CURVE),
            ("samples", SAMPLES),
        )
    ]
    return "\n".join(f"{name:<16}{value}" for name, value in lines)


def evaluation_line(row: Row) -> str:
    """Loss with its standard error, perplexity, and bits per byte."""
    error, bits = row["standard_error"], row["bits_per_byte"]
    margin = "" if error is None else f" +- {error:.4f}"
    per_byte = "" if bits is None else f", {bits:.4f} bits/byte"
    return f"{row['loss']:.4f}{margin} nats/token, perplexity {row['perplexity']:.2f}{per_byte}"


def plot(history: History, width: int = 72, height: int = 14) -> str:
    """The loss over the steps in characters: dots for training, o for validation."""
    xs = np.array([row["step"] for row in history.train])
    ys = np.array([row["loss"] for row in history.train])
    marks = [(row["step"], row["loss"]) for row in history.evaluations]
    low, high = min([*ys, *(y for _, y in marks)]), max([*ys, *(y for _, y in marks)])
    last = max([*xs, *(x for x, _ in marks)])

    def column(x: float) -> int:
        return min(int(x / max(last, 1) * width), width - 1)

    def line(y: float) -> int:
        return round((high - y) / (high - low or 1) * (height - 1))

    cells = [[" "] * width for _ in range(height)]
    for at in range(width):  # one dot a column, the mean of what falls into it
        inside = ys[[column(x) == at for x in xs]]
        if inside.size:
            cells[line(float(inside.mean()))][at] = "."
    for x, y in marks:
        cells[line(y)][column(x)] = "o"
    labels = [f"{high - (high - low) * i / (height - 1):8.3f} |" for i in range(height)]
    rows = [label + "".join(row).rstrip() for label, row in zip(labels, cells, strict=True)]
    axis = f"{'':8} +" + "-" * width
    legend = f"{'':10}0{'step':^{width - 2}}{last}"
    return "\n".join(["loss (. training, o validation; nats/token)", *rows, axis, legend])


def draw_curve(path: Path, history: History) -> None:
    """The loss over the steps as a picture."""
    from matplotlib.figure import Figure  # imported here: it takes longer than all else

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss (nats/token)")
    axes.plot(*_points(history.train), linewidth=0.8, label="training")
    if history.evaluations:
        errors = [row["standard_error"] or math.nan for row in history.evaluations]
        axes.errorbar(*_points(history.evaluations), errors, fmt="o-", label="validation")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def _points(rows: list[Row]) -> tuple[list[int], list[float]]:
    return [row["step"] for row in rows], [row["loss"] for row in rows]
