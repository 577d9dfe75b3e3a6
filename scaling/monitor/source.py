"""Where a curve to be watched comes from: a run directory, or anybody's table.

A run directory is read as docs/run_directory.md lays it down, from files alone, so that a run can
be watched while it goes on, and from another machine.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.schema import InputError, require
from scaling import tables
from scaling.monitor.forecast import LEAST, Curve


@dataclass(frozen=True)
class Watched:
    """A run as it stands, and what more of it costs."""

    curve: Curve
    kind: str  # "validation" or "training" loss
    tokens: float  # that the whole run will have read
    complete: bool
    ended: str  # why it has ended, in words; empty where it goes on
    tokens_per_second: float  # all devices together; NaN where it is not known
    devices: int


def from_run(workdir: str, loss: str = "auto") -> Watched:
    """A run directory of ours; `loss` is eval, train, or auto: eval where it has enough points.

    Raises InputError where there is no run, no such loss, or a row whose loss is no number.
    """
    place = Path(workdir)
    rows = _rows(place / "metrics.jsonl")
    config, run = _read(place / "config.json"), _read(place / "run.json")
    eta_t = rates(config)
    by_kind = {kind: [row for row in rows if row["kind"] == kind] for kind in ("eval", "train")}
    past = [row for row in by_kind["eval"] if row["step"] > config["schedule"]["warmup"]]
    kind = loss if loss != "auto" else "eval" if len(past) >= LEAST else "train"
    require(kind in by_kind, f"--loss={loss} must be auto, eval or train")
    chosen = by_kind[kind]
    require(bool(chosen), f"{workdir}: metrics.jsonl has no {kind} rows yet: wait for some")
    curve = Curve(
        tokens_n=_column(chosen, "tokens"),
        loss_n=_column(chosen, "loss"),
        at_n=np.array([row["step"] for row in chosen]),
        eta_t=eta_t,
        rows_n=np.array([row["line"] for row in chosen]),
        name=f"{workdir} ({kind} rows of metrics.jsonl)",
    )
    speeds = [row["tokens_per_second"] for row in by_kind["train"] if row.get("tokens_per_second")]
    events = [row for row in rows if row["kind"] == "event"]
    last = events[-1] if events else {"event": ""}
    return Watched(
        curve=curve,
        kind={"eval": "validation", "train": "training"}[kind],
        tokens=_whole(config),
        complete=last["event"] in ("finished", "stopped_early"),
        ended=str(last.get("reason", "")),
        tokens_per_second=float(np.median(speeds)) if speeds else math.nan,
        devices=int(run.get("devices", {}).get("count", 1)),
    )


def from_table(
    path: str, columns: str, where: str = "", tokens: float = 0.0, final_lr: float | None = None
) -> Watched:
    """A table of one run: columns D (tokens), loss, and where there are some, step and lr.

    `tokens` are those of the whole run; 0: twice what there is. With `step` (updates finished) and
    `lr` the schedule is known: before the first row the rate is taken to be the first row's, after
    the last row to stay, or to go to `final_lr` along a line.

    Raises InputError for columns that are missing, more than one run, or a cell that is no number.
    """
    table = tables.read(path, columns, where, last=False)
    runs = list(dict.fromkeys(table.runs)) if "run" in table.units else []
    require(
        len(runs) < 2,
        f"{path} holds {len(runs)} runs, such as {runs[:1]}: choose one with --where, as in "
        "--where=\"run=='NAME'\"",
    )
    d, loss = table["D"], table["loss"]
    whole = tokens or 2 * float(d[-1])
    require(whole >= d[-1], f"--tokens={whole:g} are fewer than the {d[-1]:g} that {path} has")
    at, eta = None, None
    if "lr" in table.columns:
        at = table["step"].astype(int)
        updates = round(at[-1] * whole / d[-1])
        eta = np.interp(np.arange(1, updates + 1), at, table["lr"])
        last = eta[at[-1] - 1] if final_lr is None else final_lr
        eta[at[-1] :] = np.linspace(eta[at[-1] - 1], last, updates - at[-1] + 1)[1:]
    require(
        final_lr is None or eta is not None,
        "--final_lr says where the rate goes: map step and lr in --columns for where it has been",
    )
    curve = Curve(d, loss, at, eta, table.rows, path)
    return Watched(curve, "recorded", whole, whole <= d[-1], "", math.nan, 1)


def rates(config: dict[str, Any]) -> np.ndarray:
    """The learning rate of every update of a run [steps], from its config.json.

    With p the peak, w updates of warm-up and T updates, update k = 0 .. T - 1 has p times the
    smaller of (k + 1) / w and, by kind: constant 1; linear and cosine a fall from 1 at update
    w - 1 to `final` at update T - 1, along a line or half a cosine wave; inverse_sqrt
    sqrt(w / (k + 1)); wsd 1, and over the last `decay` updates a line to `final`.
    """
    schedule, t = config["schedule"], int(config["steps"])
    warmup, final = schedule["warmup"], schedule["final"]
    k = np.arange(t, dtype=float)
    first = t - 1 - schedule["decay"] if schedule["kind"] == "wsd" else max(warmup - 1, 0)
    done = np.clip((k - first) / max(t - 1 - first, 1), 0, 1)
    shapes = {
        "constant": np.ones(t),
        "linear": 1 - (1 - final) * done,
        "cosine": final + (1 - final) * (1 + np.cos(np.pi * done)) / 2,
        "inverse_sqrt": np.sqrt(max(warmup, 1) / (k + 1)),
        "wsd": 1 - (1 - final) * done if schedule["decay"] else np.ones(t),
    }
    require(
        schedule["kind"] in shapes,
        f"config.json names the schedule {schedule['kind']}, which is not known here: give the "
        "curve as a table with its learning rates",
    )
    rise = (k + 1) / max(warmup, 1)
    return config["optimizer"]["learning_rate"] * np.minimum(
        np.minimum(rise, 1), shapes[schedule["kind"]]
    )


def _whole(config: dict[str, Any]) -> float:
    """Tokens of the whole run."""
    batch, windows, start = config["batch"], 0, 0
    for end, size in [*batch["ramp"], (config["steps"], batch["size"])]:
        end = min(end, config["steps"])
        windows += max(end - start, 0) * size
        start = max(start, end)
    return float(windows * config["model"]["context"])


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl with the number of their line, from 1; broken lines are skipped."""
    require(
        path.is_file(), f"{path.parent} holds no run (metrics.jsonl is missing): check --workdir"
    )
    rows = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue  # cut short by a crash, or by the run being in the middle of writing it
        if isinstance(row, dict) and "kind" in row:
            rows.append(row | {"line": number})
    return rows


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    except FileNotFoundError as error:
        raise InputError(f"{path.parent} holds no run: there is no {path.name}") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is no JSON ({error}): the run is damaged") from error


def _column(rows: list[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([math.nan if row[name] is None else row[name] for row in rows], float)
