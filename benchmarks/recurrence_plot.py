"""The figure of benchmarks/recurrence.py."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = ("#4c7fd0", "#2b9a8b", "#8a63c7", "#d9703c", "#b3413a", "#888888")


def draw(
    times: dict[str, dict[str, list[float]]],
    losses: list[dict[str, Any]],
    length: int,
    path: Path,
) -> None:
    """Write it as PNG and SVG.

    Args:
        times: by contender and point ("T" and a length, "B" and a batch) the median, least and
            most microseconds a token.
        losses: runs with a name, a length and a curve of tokens, seconds and loss.
        length: of the windows of the "B" points.
        path: without an ending.
    """
    from matplotlib import rc_context, style
    from matplotlib.figure import Figure

    colors = dict(zip(times, COLORS, strict=False))
    titles = {"T": "tokens in a window, equal tokens an update", "B": f"windows of {length} tokens"}
    with style.context("default"), rc_context({"svg.hashsalt": "isoflop", "font.size": 9}):
        figure = Figure(figsize=(11, 8 if losses else 4), dpi=150)
        rows = 2 if losses else 1
        for place, kind in enumerate("TB"):
            ax = figure.add_subplot(rows, 2, place + 1)
            for name, points in times.items():
                seen = [(int(p[1:]), *v) for p, v in points.items() if p[0] == kind]
                if seen:
                    x, middle, low, high = zip(*seen, strict=True)
                    ax.plot(x, middle, "o-", ms=4, color=colors[name], label=name)
                    ax.fill_between(x, low, high, color=colors[name], alpha=0.15, lw=0)
            _label(ax, titles[kind], "microseconds a token", log=True)
        for place, unit in enumerate(("tokens", "seconds")):
            if losses:
                ax = figure.add_subplot(2, 2, place + 3)
                for run in losses:
                    line = "-" if run["length"] == losses[0]["length"] else "--"
                    curve = [(each[unit], each["loss"]) for each in run["curve"]]
                    label = f"{run['name']}, {run['length']}"
                    ax.plot(
                        *zip(*curve, strict=True),
                        line,
                        color=colors.get(run["name"], "black"),
                        label=label,
                    )
                _label(ax, f"training {unit}", "held-out loss (nats per byte)", log=False)
        figure.tight_layout()
        figure.savefig(path.with_suffix(".png"), metadata={"Software": None})
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})


def _label(ax: "Axes", x: str, y: str, log: bool) -> None:
    ax.set(xlabel=x, ylabel=y, xscale="log", yscale="log" if log else "linear")
    ax.grid(alpha=0.3, linewidth=0.6)
    if ax.lines:
        ax.legend(fontsize=7)
