"""Tables of runs, whoever made them: columns by name, units stated, rows that can be found again.

    read("runs.csv", "N=n_params,D=tokens*1e9,loss=bpb*bits,run=name", "loss<3.4 and N>=1e6")

Laws want N (parameters), D (tokens), C (operations of training), loss (nats a token) and weight;
diagnosis also looks at batch and warmup (tokens), depth and width. Nothing is converted unless the
mapping says so.
"""

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from configs.schema import InputError, require
from scaling import expressions
from scaling.curves_in import Raw, load

LABELS = ("run", "schedule")  # columns that are texts
_KNOWN = ("N", "D", "C", "loss", "weight", *LABELS)  # read by default where a table has them
_POSITIVE = ("N", "D", "C", "batch")
_SUFFIXED = re.compile(r"([-+]?\d+\.?\d*(?:[eE][-+]?\d+)?)\s*([KMBTkmbt])$")
_PLAIN = re.compile(
    r"[A-Za-z_][\w.:]*(?: +(?!and |or |not )[A-Za-z_][\w.:]*)+"
)  # a name with spaces
_MISSING = {"", "-", "none", "null", "na", "n/a", "nan"}
_SHOWN = 8  # rows that a message names


@dataclass(frozen=True)
class Table:
    """Rows of runs, or of points of runs."""

    columns: dict[str, np.ndarray]  # name: float64 [rows]
    runs: tuple[str, ...]  # of each row; its own number where no column names one
    rows: np.ndarray  # number of each row in its file, from 1; a header is not counted
    path: str
    units: dict[str, str]  # name: the expression it was read by
    conventions: dict[str, str]  # what is known: N "total" or "non_embedding", C "6nd", ...
    schedules: tuple[str, ...] = ()  # learning-rate schedule of each row, where known

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> np.ndarray:
        """A column. Raises InputError for one that was not read."""
        if name not in self.columns:
            there = ", ".join(self.columns)
            raise InputError(
                f"{self.path}: no column {name} was mapped, only {there}: add {name}=... to columns"
            )
        return self.columns[name]

    def take(self, keep: np.ndarray) -> "Table":
        """The rows a mask (bool [rows]) or indices name."""
        index = np.arange(len(self))[keep]
        return replace(
            self,
            columns={name: values[index] for name, values in self.columns.items()},
            runs=tuple(self.runs[i] for i in index),
            rows=self.rows[index],
            schedules=tuple(self.schedules[i] for i in index) if self.schedules else (),
        )

    def where(self, indices: Any) -> str:
        """Rows in words: "row 3" or "rows 3, 5"."""
        return in_words([int(self.rows[i]) for i in np.asarray(indices).ravel()])


def from_columns(
    columns: Mapping[str, Any],
    runs: tuple[str, ...] = (),
    schedules: tuple[str, ...] = (),
    conventions: Mapping[str, str] | None = None,
) -> Table:
    """A table of arrays at hand, of one length, such as {"N": ..., "D": ..., "loss": ...}."""
    arrays = {name: np.array(values, np.float64).ravel() for name, values in columns.items()}
    sizes = {len(values) for values in arrays.values()}
    require(len(sizes) == 1, f"columns have different lengths: {sorted(sizes)}")
    rows = np.arange(1, sizes.pop() + 1)
    runs = tuple(runs) or tuple(str(row) for row in rows)
    units = {name: name for name in arrays}
    return Table(arrays, runs, rows, "table", units, dict(conventions or {}), tuple(schedules))


def read(
    path: str,
    columns: str = "",
    where: str = "",
    last: bool | None = None,
    conventions: Mapping[str, str] | None = None,
) -> Table:
    """A table from a file, a folder of files, or run directories (see scaling/curves_in.py).

    `columns` maps names to columns of the source or expressions of them (scaling/expressions.py):
    "N=n_params,D=tokens*1e9,loss=bpb*bits,run=name". A name means the source's column where it has
    one, else one mapped before. Empty: the known names that the source has. `run` and `schedule`
    are texts. `where` keeps the rows it is true for; in it the mapped names come first. `last`
    keeps the last row of each run only; None: so for our run directories, whose runs are points,
    and not for other tables. `conventions` are added to those known from the source.

    Numbers may carry K, M, B or T ("1.4B"). Raises InputError for columns that are missing, cells
    that are no numbers, non-finite values that `where` leaves in, and where no row is left.
    """
    raw = load(path)
    cells = _Cells(path, raw)
    known: dict[str, np.ndarray] = {}
    labels: dict[str, np.ndarray] = {}
    bad: dict[int, str] = {}  # row: what is wrong with it, should it be kept
    mapping = _mapping(path, columns, raw)
    for name, expression in mapping.items():
        if name in LABELS:
            labels[name] = cells.texts(expression)
            continue
        values, used = cells.value(expression, known)
        known[name] = np.broadcast_to(values, len(raw.rows)).astype(np.float64)
        for column in used:
            bad |= {i: f"{column} is no number: {t!r}" for i, t in cells.bad[column].items()}
    keep = _keep(cells, where, known) if where else np.ones(len(raw.rows), bool)
    runs = labels.get("run", np.arange(1, len(raw.rows) + 1).astype(str))
    if raw.runs if last is None else last:
        keep &= _last(keep, runs, known.get("D"))
    _check(raw, keep, known, bad)
    schedules = tuple(labels["schedule"].tolist()) if "schedule" in labels else ()
    facts = {**raw.conventions, **(conventions or {})}
    table = Table(known, tuple(runs.tolist()), np.array(raw.rows), path, mapping, facts, schedules)
    return table.take(keep)


class _Cells:
    """The columns of a source as numbers or texts, turned into these when they are asked for."""

    def __init__(self, path: str, raw: Raw) -> None:
        self.path = path
        self.columns = raw.columns
        self.rows = raw.rows
        self.bad: dict[str, dict[int, str]] = {}  # column: cells that are no numbers, by row
        self._numbers: dict[str, np.ndarray] = {}

    def numbers(self, name: str) -> np.ndarray:
        """float64 [rows]; NaN for what is missing or no number."""
        if name not in self._numbers:
            parsed = [_number(cell) for cell in self.columns[name]]
            self._numbers[name] = np.array([np.nan if v is None else v for v in parsed], np.float64)
            cells = self.columns[name]
            self.bad[name] = {i: str(cells[i]) for i, v in enumerate(parsed) if v is None}
            self._mixed(name)
        return self._numbers[name]

    def texts(self, name: str) -> np.ndarray:
        """str objects [rows]."""
        name = name.strip("`")
        if name not in self.columns:
            raise self.lacks(name)
        cells = ["" if cell is None else str(cell) for cell in self.columns[name]]
        return np.array(cells, object)

    def value(
        self, expression: str, known: dict[str, np.ndarray], known_first: bool = False
    ) -> tuple[np.ndarray, list[str]]:
        """An expression's value, and which columns of the source it took."""
        used: list[str] = []

        def numbers(name: str) -> Any:
            if name in expressions.CONSTANTS and name != expression:
                require(
                    name not in self.columns,
                    f"{self.path}: {name} is a constant in '{expression}', and a column there: "
                    f"rename the column",
                )
                return expressions.CONSTANTS[name]
            if name in known and (known_first or name not in self.columns):
                return known[name]
            if name not in self.columns:
                raise self.lacks(name, known)
            used.append(name)
            return self.numbers(name)

        if expression in self.columns:  # as it stands, whatever signs or spaces it has
            return numbers(expression), used
        if _PLAIN.fullmatch(expression) and not expression.isidentifier():
            raise self.lacks(expression, known)
        return expressions.evaluate(expression, numbers, self.texts), used

    def lacks(self, name: str, known: Mapping[str, Any] = MappingProxyType({})) -> InputError:
        """What to say about a column that is not there."""
        names = [*known, *self.columns]
        near = difflib.get_close_matches(name, names, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        return InputError(f"{self.path}: there is no column {name}{hint}, only {', '.join(names)}")

    def _mixed(self, name: str) -> None:
        """Refuse a column in which small plain numbers stand among some like 1.4B."""
        cells = self.columns[name]
        suffixed = np.array(
            [isinstance(c, str) and bool(_SUFFIXED.match(c.strip())) for c in cells]
        )
        small = ~suffixed & (np.abs(self._numbers[name]) < expressions.SUFFIXES["K"])
        if suffixed.any() and small.any():
            one, other = int(np.argmax(suffixed)), int(np.argmax(small))
            raise InputError(
                f"{self.path}: {name} mixes units: {cells[one]} in row {self.rows[one]} and "
                f"{cells[other]} in row {self.rows[other]}; write all of them one way"
            )


def _number(cell: Any) -> float | None:
    """A cell as a number: NaN where there is nothing, None where there is something else."""
    if cell is None:
        return math.nan
    if isinstance(cell, str):
        text = cell.strip()
        if text.lower() in _MISSING:
            return math.nan
        if match := _SUFFIXED.match(text):
            return float(match[1]) * expressions.SUFFIXES[match[2].upper()]
        cell = text
    try:
        return float(cell)
    except (TypeError, ValueError):
        return None


def _mapping(path: str, columns: str, raw: Raw) -> dict[str, str]:
    """name: expression, from "N=n_params,D=tokens*1e9"; empty: what the source has by name."""
    if not columns:
        found = raw.defaults or {name: name for name in _KNOWN if name in raw.columns}
        require(
            "loss" in found,
            f'{path}: say which columns are what, as in columns="N=...,D=...,loss=..."; '
            f"there are {', '.join(raw.columns)}",
        )
        return found
    mapping: dict[str, str] = {}
    # Commas inside backticks belong to a name.
    for part in re.findall(r"(?:`[^`]*`|[^,`])+", columns):
        name, equals, expression = (text.strip() for text in part.partition("="))
        require(
            bool(equals and expression) and name.isidentifier() and name not in mapping,
            f"columns: '{part}' must be NAME=COLUMN, each name once, as in N=n_params,D=tokens*1e9",
        )
        mapping[name] = expression
    return mapping


def _keep(cells: _Cells, where: str, known: dict[str, np.ndarray]) -> np.ndarray:
    """The rows a condition keeps, bool [rows]; a condition that keeps none is an error."""

    def rows(condition: str) -> np.ndarray:
        values, _ = cells.value(condition, known, known_first=True)
        require(values.dtype == bool, f"where: '{condition}' is no condition, such as loss<3.4")
        return np.broadcast_to(values, len(cells.rows)).copy()

    keep = rows(where)
    if not keep.any():
        parts = expressions.conjuncts(where)
        counts = [(part, int(rows(part).sum())) for part in parts]
        empty = [part for part, count in counts if not count]
        why = (
            " and ".join(f"'{part}'" for part in empty) + f" keeps 0 of {len(keep)}"
            if empty
            else ", ".join(f"'{part}' keeps {count} of {len(keep)}" for part, count in counts)
            + ", but none are in all of them"
        )
        raise InputError(f"{cells.path}: where leaves no row: {why}")
    return keep


def _last(keep: np.ndarray, runs: np.ndarray, tokens: np.ndarray | None) -> np.ndarray:
    """The row of most tokens of each run, or the lowest one where tokens are not known."""
    order = np.arange(len(runs)) if tokens is None else tokens
    best: dict[str, int] = {}
    for i in np.flatnonzero(keep):
        if runs[i] not in best or not order[i] < order[best[runs[i]]]:
            best[runs[i]] = int(i)
    mask = np.zeros(len(runs), bool)
    mask[list(best.values())] = True
    return mask


def _check(raw: Raw, keep: np.ndarray, known: dict[str, np.ndarray], bad: dict[int, str]) -> None:
    """Refuse kept rows with cells that are no numbers, not finite, or not positive."""

    def say(rows: np.ndarray) -> str:
        return f"{raw.files[rows[0]]}: {in_words([raw.rows[i] for i in rows])}"

    for row in sorted(bad):
        require(not keep[row], f"{say(np.array([row]))}: {bad.get(row)}")
    for name, values in known.items():
        broken = np.flatnonzero(keep & ~np.isfinite(values))
        if broken.size:
            kind = "infinite" if np.isinf(values[broken[0]]) else "NaN or missing"
            raise InputError(
                f"{say(broken)}: {name} is {kind}; leave such rows out with "
                f'where="finite({name})"'
                + (", once it is known why these runs diverged" if name == "loss" else "")
            )
        low = np.flatnonzero(keep & (values <= 0)) if name in _POSITIVE else broken
        if name == "weight":
            low = np.flatnonzero(keep & (values < 0))
        if low.size:
            must = "not be negative" if name == "weight" else "be positive"
            raise InputError(f"{say(low)}: {name} is {values[low[0]]:g}, and must {must}")


def in_words(rows: list[int]) -> str:
    """Rows as a message names them: "row 3", or "rows 3, 5 (7 in all)"."""
    if len(rows) == 1:
        return f"row {rows[0]}"
    more = f" ({len(rows)} in all)" if len(rows) > _SHOWN else ""
    return "rows " + ", ".join(str(row) for row in rows[:_SHOWN]) + more
