"""The figure of benchmarks/recurrence.py, also from the JSON that it wrote; what it marks.

python -m benchmarks.recurrence_plot recurrence.json recurrence
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES = {  # label, color, marker
    "full": ("full attention", "#1f5fbf", "o"),
    "chunked": ("full attention in chunks", "#17a08c", "s"),
    "window": ("attention to the last {window}", "#8a63c7", "^"),
    "LSTM parameters": ("LSTM, equal parameters", "#e07b28", "D"),
    "LSTM operations": ("LSTM, equal operations", "#b3302a", "v"),
    "PyTorch LSTM": ("PyTorch LSTM, equal parameters", "#777777", "x"),
}
LINES = ("-", "--", ":", "-.")


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


def half(full: dict[int, float]) -> float:
    """The length at which the part of the time that grows with length is as large as the rest."""
    micro = np.array(list(full.values()))
    slope, start = np.polyfit(list(full), micro, 1, w=1 / micro)
    return float(start / slope)


def draw(found: dict[str, Any], path: Path) -> None:
    """Write what benchmarks.recurrence found as PNG and SVG; `path` is without an ending."""
    from matplotlib import rc_context, style
    from matplotlib.figure import Figure

    usual: Any = {"svg.hashsalt": "isoflop", "font.size": 9, "axes.titlesize": 10}
    rows = 2 if any(found["losses"].values()) else 1
    with style.context("default"), rc_context(usual):
        figure = Figure(figsize=(13.5, 4.3 * rows + 0.5), dpi=130, layout="constrained")
        panels = figure.subplots(rows, 3, squeeze=False)
        _lengths(panels[0, 0], found)
        _batches(panels[0, 1], found)
        _reason(panels[0, 2], found)
        if rows == 2:
            _training(panels[1, 0], found, over="length")
            _training(panels[1, 1], found, over="windows")
            _losses(panels[1, 2], found)
        handles = [_line(panels[0, 0], name, found) for name in found["us_a_token"]]
        figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False)
        figure.savefig(path.with_suffix(".png"), metadata={"Software": None})
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})


def _shape(point: str) -> dict[str, int]:
    windows, length = point.split("x")
    return {"windows": int(windows), "length": int(length)}


def _series(points: dict[str, Any], over: str, settings: dict[str, Any]) -> list[tuple[int, Any]]:
    """What belongs to a series, by what changes in it, in order."""
    shapes = {point: _shape(point) for point in points}
    if over == "length":
        inside = [p for p, s in shapes.items() if s["windows"] * s["length"] == settings["tokens"]]
    else:
        inside = [p for p, s in shapes.items() if s["length"] == settings["length"]]
    return sorted((shapes[point][over], points[point]) for point in inside)


def _line(ax: "Axes", name: str, found: dict[str, Any]) -> Any:
    label, color, marker = STYLES[name]
    label = label.format(**found["settings"])
    return ax.plot([], [], marker=marker, ms=5, color=color, label=label)[0]


def _plot(ax: "Axes", found: dict[str, Any], over: str) -> None:
    ticks: set[int] = set()
    for name, points in found["us_a_token"].items():
        series = _series(points, over, found["settings"])
        if not series:
            continue
        x = [value for value, _ in series]
        ticks.update(x)
        middle, low, high = zip(*(micro for _, micro in series), strict=True)
        _, color, marker = STYLES[name]
        ax.plot(x, middle, marker=marker, ms=5, color=color)
        ax.fill_between(x, low, high, color=color, alpha=0.15, lw=0)
    _logarithmic(ax, "x", ticks)
    _logarithmic(ax, "y")
    _axes(ax, "microseconds a token")


def _lengths(ax: "Axes", found: dict[str, Any]) -> None:
    _plot(ax, found, "length")
    ax.set_title(f"Time over length: {found['settings']['tokens']:,} tokens an update")
    ax.set_xlabel("tokens in a window")
    full = dict(_series(found["us_a_token"].get("full", {}), "length", found["settings"]))
    if not full:
        return

    half = found.get("half", 0)
    notes = [("half its time grows with length", [half], "full")]
    for name in ("LSTM parameters", "LSTM operations", "PyTorch LSTM"):
        label = STYLES[name][0]
        notes.append((f"as fast as {label}", found["crossings"].get(name, []), name))
    ax.set_ylim(top=3 * ax.get_ylim()[1])
    place = 0.94
    for text, lengths, name in notes:
        for length in lengths:
            if not min(full) < length < max(full):
                continue
            y = np.interp(np.log(length), np.log(list(full)), [np.log(v[0]) for v in full.values()])
            color = STYLES[name][1]
            ax.plot(length, np.exp(y), "o", ms=12, mfc="none", mec=color, mew=1.5)
            said = f"full attention (ring): {text}: {length:,.0f}"
            ax.text(0.03, place, said, transform=ax.transAxes, fontsize=8, color=color)
            place -= 0.06


def _batches(ax: "Axes", found: dict[str, Any]) -> None:
    _plot(ax, found, "windows")
    ax.set_title(f"Time over batch: windows of {found['settings']['length']} tokens")
    ax.set_xlabel("windows in a batch")


def _reason(ax: "Axes", found: dict[str, Any]) -> None:
    """Work that does not wait for other work, against what the machine makes of it."""
    for name, points in found["shares"].items():
        _, color, marker = STYLES[name]
        for over, filled in (("length", color), ("windows", "white")):
            series = _series(points, over, found["settings"])
            links, shares = zip(*(pair for _, pair in series), strict=True) if series else ((), ())
            ax.plot(links, shares, marker, ms=5, color=color, mfc=filled)
    ax.set_title("Why: work between two waits")
    ax.set_xscale("log")
    _logarithmic(ax, "y")
    ax.set_xlabel("operations a link of the chain (open: over batch)")
    _axes(ax, "share of the measured peak")


def _training(ax: "Axes", found: dict[str, Any], over: str) -> None:
    values: dict[int, str] = {}
    for name, runs in found["losses"].items():
        for value, curve in _series(runs, over, found["settings"]):
            line = values.setdefault(value, LINES[len(values) % len(LINES)])
            _, color, marker = STYLES[name]
            seconds, loss = zip(*((each["seconds"], each["loss"]) for each in curve), strict=True)
            ax.plot(seconds, loss, line, marker=marker, ms=3, color=color)
    what = {"length": "tokens in a window", "windows": "windows in a batch"}[over]
    handles = [
        ax.plot([], [], line, color="black", label=f"{value:,}")[0]
        for value, line in sorted(values.items())
    ]
    ax.legend(handles=handles, title=what, fontsize=8, title_fontsize=8, loc="lower left")
    ax.set(title=f"Loss against seconds, by {over}", xlabel="seconds of updates")
    _logarithmic(ax, "x")
    _axes(ax, "held-out loss (nats a byte)")


def _losses(ax: "Axes", found: dict[str, Any]) -> None:
    """Full attention in chunks and not is one transformer, of one loss."""
    ticks: set[int] = set()
    for name in found["losses"]:
        runs = dict(found["losses"][name])
        if name == "chunked":
            continue
        if name == "full":
            runs |= found["losses"].get("chunked", {})
        series = _series(runs, "length", found["settings"])
        if series:
            _, color, marker = STYLES[name]
            x, y = zip(*((value, curve[-1]["loss"]) for value, curve in series), strict=True)
            ticks.update(x)
            ax.plot(x, y, marker=marker, ms=5, color=color)
    _logarithmic(ax, "x", ticks)
    ax.set_title(f"Loss over length: {found['settings']['loss_tokens']:,} tokens trained on")
    ax.set_xlabel("tokens in a window")
    _axes(ax, "held-out loss (nats a byte)")


def _logarithmic(ax: "Axes", which: str, ticks: Iterable[int] = ()) -> None:
    """An axis with plain numbers, at these ticks or at 1, 2 and 5."""
    from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, StrMethodFormatter

    axis = {"x": ax.xaxis, "y": ax.yaxis}[which]
    (ax.set_xscale if which == "x" else ax.set_yscale)("log")
    axis.set_major_locator(FixedLocator(sorted(ticks)) if ticks else LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
    axis.set_minor_locator(NullLocator())


def _axes(ax: "Axes", y: str) -> None:
    ax.set_ylabel(y)
    ax.grid(alpha=0.3, linewidth=0.6)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
