"""The report's figures as PNG and SVG, the same bytes for the same report."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from configs.schema import InputError
from scaling.report.words import count, power

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _ORANGE = "#4c7fd0", "#d9703c"
_AXES = {"N": "parameters N", "D": "training tokens D", "C": "training compute C (operations)"}
_POWERS = ("C", "S", "x")
_LOSS = "loss (nats per token)"


def write(report: dict[str, Any], folder: Path, names: Collection[str] = ()) -> list[str]:
    """Draw every figure that the report has numbers for, or those named, and return their names.

    Raises InputError where the folder cannot be written.
    """
    from matplotlib import rc_context, style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    try:
        folder.mkdir(parents=True, exist_ok=True)
        drawn = []
        # Names in an SVG are random without a salt, and the date is that of drawing.
        with style.context("default"), rc_context({"svg.hashsalt": "isoflop", "font.size": 9}):
            for name in names or FIGURES:
                figure = Figure(figsize=(6.4, 4), dpi=150)
                FigureCanvasAgg(figure)
                figure.subplots_adjust(0.11, 0.12, 0.98, 0.97)
                if not FIGURES[name](figure.add_subplot(), report):
                    continue
                figure.savefig(folder / f"{name}.png", metadata={"Software": None})
                figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
                drawn.append(name)
    except OSError as error:
        raise InputError(f"--plots={folder}: {error.strerror}; choose another folder") from error
    return drawn


def _colors(values: list[float]) -> Callable[[float], Any]:
    """A color for each size, by its logarithm."""
    from matplotlib import colormaps

    logs = np.log(np.array([v for v in values if v and v > 0] or [1.0]))
    reach = float(np.ptp(logs)) or 1.0
    return lambda v: colormaps["viridis"](0.9 * (np.log(v) - logs.min()) / reach)


def _scales(ax: "Axes", x: str, y: str = "", log_y: bool = True) -> None:
    ax.set(xscale="log", yscale="log" if log_y else "linear", xlabel=_AXES.get(x, x), ylabel=y)
    ax.grid(alpha=0.3, linewidth=0.6)
    shown = power if x in _POWERS else count
    low, high = ax.get_xlim()
    ax.xaxis.set_major_formatter(lambda v, _: shown(v))
    # All of them would run into one another.
    few = high < 20 * low
    ax.xaxis.set_minor_formatter(lambda v, _: shown(v) if few and f"{v:e}"[0] in "235" else "")
    ax.tick_params(axis="x", which="minor", labelsize=7)
    if log_y:
        ax.yaxis.set_major_formatter(lambda v, _: f"{v:.3g}" if v < 1e4 else count(v))
        ax.yaxis.set_minor_formatter(lambda v, _: f"{v:.3g}" if v < 30 else "")
    ax.tick_params(axis="y", which="minor", labelsize=7)


def _sized(report: dict[str, Any]) -> tuple[str, list[float]]:
    """The column that colors the rows, and its values."""
    name = report["lines"]["by"] or report["lines"]["x"]
    return name, report["rows"]["columns"][name]


def _fit(ax: "Axes", report: dict[str, Any]) -> bool:
    lines, columns = report["lines"], report["rows"]["columns"]
    name, sizes = _sized(report)
    color = _colors(sizes)
    x, y = columns[lines["x"]], columns[report["observed"]]
    ax.scatter(x, y, c=[color(v) for v in sizes], s=12, zorder=3)
    ax.set_xlim(*_room(x))
    ax.set_ylim(*_room(y))
    for line in lines["lines"]:
        shown = color(line["value"]) if lines["by"] else _BLUE
        label = f"{name} = {count(line['value'])}" if lines["by"] else "the law"
        ax.plot(line["x"], line["y"], color=shown, linewidth=1.2, label=label)
        if "low" in line:
            ax.fill_between(line["x"], line["low"], line["high"], color=shown, alpha=0.2, lw=0)
    _scales(ax, lines["x"], _LOSS if report["observed"] == "loss" else report["observed"])
    if lines["lines"]:
        ax.legend(fontsize=7)
    return True


def _room(values: list[float], share: float = 0.06) -> tuple[float, float]:
    """The ends of a logarithmic axis around values."""
    logs = np.log(np.array(values))
    away = max(share * float(np.ptp(logs)), 1e-3)
    return float(np.exp(logs.min() - away)), float(np.exp(logs.max() + away))


def _residuals(ax: "Axes", report: dict[str, Any]) -> bool:
    columns = report["rows"]["columns"]
    x = "C" if "C" in columns else report["lines"]["x"]
    name, sizes = _sized(report)
    color = _colors(sizes)
    away = 100 * np.expm1(np.array(report["rows"]["residual"], float))
    ax.axhline(0, color="gray", linewidth=0.8)
    ax.scatter(columns[x], away, c=[color(v) for v in sizes], s=12)
    _scales(ax, x, f"observed over predicted, % (color: {name})", log_y=False)
    return True


def _isoflop(ax: "Axes", report: dict[str, Any]) -> bool:
    if not report["isoflop"]:
        return False
    budgets = report["isoflop"]["budgets"]
    color = _colors([each["C"] for each in budgets])
    for each in budgets:
        shown, label = color(each["C"]), f"C = {power(each['C'])}"
        ax.plot(each["curve"]["N"], each["curve"]["loss"], color=shown, linewidth=1.2, label=label)
        ax.scatter(each["points"]["N"], each["points"]["loss"], s=14, fc="none", ec=[shown])
        if not each["why"]:
            ax.scatter(each["minimum"]["N"], each["minimum"]["loss"], s=36, color=[shown], zorder=3)
    _scales(ax, "N", _LOSS)
    ax.legend(fontsize=7)
    return True


def _found(report: dict[str, Any]) -> dict[str, Any] | None:
    return report["frontier"] if report["frontier"] and not report["frontier"]["why"] else None


def _frontier(ax: "Axes", report: dict[str, Any]) -> bool:
    found = _found(report)
    if found is None:
        return False
    for name, color, label in (("N", _BLUE, "N, parameters"), ("D", _ORANGE, "D, tokens")):
        ax.plot(found["C"], found[name], color=color, label=label)
        if f"{name}_low" in found:
            low, high = found[f"{name}_low"], found[f"{name}_high"]
            ax.fill_between(found["C"], low, high, color=color, alpha=0.2, lw=0)
        for each in (report["isoflop"] or {"budgets": []})["budgets"]:
            if not each["why"]:
                ax.scatter(each["C"], each["minimum"][name], s=22, fc="none", ec=color)
    ax.axvspan(*found["rows"], color=_BLUE, alpha=0.08, lw=0, label="rows")
    _scales(ax, "C", "best N and D")
    ax.yaxis.set_minor_formatter(lambda v, _: "")
    ax.legend(fontsize=7)
    return True


def _losses(ax: "Axes", report: dict[str, Any]) -> bool:
    found = _found(report)
    if found is None:
        return False
    columns = report["rows"]["columns"]
    ax.plot(found["C"], found["point"], color=_BLUE, label="forecast at the best division")
    label = f"{found['level']:.0%} interval of one run"
    ax.fill_between(found["C"], found["lower"], found["upper"], color=_BLUE, alpha=0.2, lw=0)
    ax.fill_between([], [], color=_BLUE, alpha=0.2, label=label)
    ax.scatter(columns["C"], columns["loss"], s=12, fc="none", ec=_ORANGE, label="rows")
    _scales(ax, "C", _LOSS)
    ax.legend(fontsize=7)
    return True


def _backtest(ax: "Axes", report: dict[str, Any]) -> bool:
    found = report["backtest"]
    if not found["ratio"]:
        return False
    away = 100 * np.expm1(np.array(found["error"], float))
    ax.axhline(0, color="gray", linewidth=0.8)
    ax.scatter(found["ratio"], away, s=14, fc="none", ec=_BLUE, label="one prediction")
    if found["drift"]:
        ratio, drift = np.array(found["drift"]).T
        ax.plot(ratio, 100 * np.expm1(drift), "o-", color=_ORANGE, label="drift, the mean error")
    _scales(ax, f"how far beyond the fitted rows ({found['by']}, times)", "", log_y=False)
    ax.set_ylabel("predicted over observed, %")
    ax.legend(fontsize=7)
    return True


def _ladder(ax: "Axes", report: dict[str, Any]) -> bool:
    runs = (report["ladder"] or {"held_out": []})["held_out"]
    if not runs:
        return False
    loss = np.array([each["loss"] for each in runs])
    ratio = np.array([each["compute_ratio"] for each in runs])
    middle = 100 * (np.array([each["prediction"] for each in runs]) / loss - 1)
    ax.axhline(0, color="gray", linewidth=0.8)
    for kind, color, label, aside in (
        ("", _BLUE, "calibrated interval", 1.0),
        ("plain_", _ORANGE, "bootstrap alone", 1.02),
    ):
        ends = [np.array([each[f"{kind}{end}"] for each in runs]) for end in ("lower", "upper")]
        away = np.abs([100 * (end / loss - 1) - middle for end in ends])
        ax.errorbar(ratio * aside, middle, away, fmt="o", color=color, label=label)
    ax.set_xlim(ratio.min() / 2, ratio.max() * 2)
    _scales(ax, "compute, times that of the largest fitted run", log_y=False)
    ax.set_ylabel("predicted over observed, %")
    ax.legend(fontsize=7)
    return True


def _curves(ax: "Axes", report: dict[str, Any]) -> bool:
    curves = report["curves"]
    if not curves:
        return False
    known = [curve["N"] for curve in curves if curve["N"]]
    color = _colors(known)
    for curve in curves:
        shown = color(curve["N"]) if curve["N"] else _BLUE
        ax.plot(curve["tokens"], curve["loss"], color=shown, linewidth=0.9)
    _scales(ax, "training tokens", _LOSS)
    return True


FIGURES: dict[str, Callable[["Axes", dict[str, Any]], bool]] = {
    "curves": _curves,
    "fit": _fit,
    "residuals": _residuals,
    "isoflop": _isoflop,
    "frontier": _frontier,
    "losses": _losses,
    "backtest": _backtest,
    "ladder": _ladder,
}
