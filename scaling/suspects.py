"""Rows that do not fit in with the others: duplicates, wrong units, diverged runs, outliers.

What a run should have reached is told by a robust surface of log loss over log N and log D, drawn
through the table itself; no law is assumed.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.spatial import cKDTree
from scipy.stats import spearmanr

from scaling.tables import Table, in_words

_DIVERGED = 0.3  # above the neighbours in log loss: 35 %
_WORSE = 0.5  # above a smaller run on no more tokens: surely no matter of tuning
_OUTLIER = 0.02  # away from them in log loss, if also beyond _SIGMAS
_SIGMAS = 8.0
_BITS = np.log(1 / np.log(2))  # log of the bits in a nat
_SAME_SIZE = 0.01  # of log N, log D and log C, between points that are perhaps one
_SAME_LOSS = 1e-4  # of log loss; seeds differ by 20 times as much
_CHUNK = 1000  # rows compared with all others at once
_GAP = np.log(1e3)  # between neighbouring sizes: rather a change of unit than of size
_FALLS = ("cosine", "linear", "inverse_sqrt", "decay", "exponential", "step")
_BIT_NAMES = ("bits_", "bit_", "_bits", "bpb", "bpc")
_PERPLEXITY = ("ppl", "perplexity")


@dataclass(frozen=True)
class Finding:
    """One thing to know about a table before fitting."""

    code: str
    severity: Literal["refuse", "warn", "note"]
    rows: tuple[int, ...]  # numbers in the source, from 1; empty: the table as a whole
    sentence: str


def finding(
    code: str,
    severity: Literal["refuse", "warn", "note"],
    table: Table,
    indices: Iterable[int],
    sentence: str,
) -> Finding:
    """A Finding about rows of a table by index; unless it concerns all, its sentence names them."""
    rows = tuple(int(table.rows[i]) for i in indices)
    named = f"{in_words(list(rows))}: " if rows and len(rows) < len(table) else ""
    if sentence.startswith("budget"):
        named = ""  # which names its rows
    return Finding(code, severity, rows, named + sentence)


def usable(table: Table) -> np.ndarray:
    """Rows whose numbers are finite and, where laws take logarithms, positive: bool [rows]."""
    good = np.ones(len(table), bool)
    for name, values in table.columns.items():
        good &= np.isfinite(values)
        if name in ("N", "D", "C", "loss"):
            good &= values > 0
    return good


def not_finite(table: Table) -> Iterator[Finding]:
    """Rows that `usable` leaves out."""
    rows = np.flatnonzero(~usable(table))
    if rows.size:
        names = [
            name
            for name, values in table.columns.items()
            if not np.isfinite(values[rows]).all() or (values[rows] <= 0).any()
        ]
        yield finding(
            "not_finite",
            "refuse",
            table,
            rows,
            f"{' or '.join(names)} is NaN, infinite or not positive; a run whose loss became NaN "
            f"diverged: leave it out, or lower its learning rate and run it again",
        )


def residuals(table: Table) -> tuple[np.ndarray, float]:
    """log loss less a robust surface over log N and log D, [rows], and its robust deviation.

    The surface is a polynomial of second degree where there are 12 points, else of first degree,
    by least absolute deviations. Without enough points all residuals are 0.
    """
    logs = [np.log(table[name]) for name in ("N", "D") if name in table.columns]
    logs = [u - u.mean() for u in logs if np.ptp(u) > 1e-9]
    y = np.log(table["loss"])
    terms = [np.ones(len(y)), *logs]
    if len(y) >= 12:
        terms += [u * v for i, u in enumerate(logs) for v in logs[i:]]
    design = np.column_stack(terms)
    if not logs or len(y) < design.shape[1] + 3:
        return np.zeros(len(y)), 0.0
    weights = np.ones(len(y))
    rest = y
    for _ in range(40):  # iteratively reweighted least squares; 1e-4 nats in a nat is no outlier
        root = np.sqrt(weights)
        rest = y - design @ np.linalg.lstsq(design * root[:, None], y * root, rcond=None)[0]
        weights = 1 / np.maximum(np.abs(rest), 1e-4)
    return rest, 1.4826 * float(np.median(np.abs(rest)))


def _high_rows(table: Table) -> Iterator[Finding]:
    """Diverged runs, rows in bits, and outliers."""
    rest, deviation = residuals(table)
    worse = _above_smaller(table)
    far = np.where(worse > _WORSE, np.maximum(rest, worse), rest)
    diverged = np.flatnonzero(far > _DIVERGED)
    bits = diverged[np.abs(rest[diverged] - _BITS) < 0.05]
    diverged = np.setdiff1d(diverged, bits)
    if bits.size:
        yield finding(
            "rows_in_bits",
            "refuse",
            table,
            bits,
            f"loss is {np.exp(rest[bits].mean()):.2f} times what the other rows let expect, and a "
            f"nat is 1.44 bits: convert these rows, or leave them out as diverged",
        )
    if diverged.size:
        yield finding(
            "diverged",
            "refuse",
            table,
            diverged,
            f"loss is up to {np.exp(far[diverged].max()):.2f} times that of neighbouring runs: "
            f"they diverged; five such rows of 245 move beta from .367 to .453 (Hoffmann et al.'s "
            f"runs, digitised by Epoch AI)",
        )
    limit = max(_OUTLIER, _SIGMAS * deviation)
    outliers = np.setdiff1d(np.flatnonzero(np.abs(rest) > limit), [*diverged, *bits])
    if outliers.size:
        yield finding(
            "outliers",
            "warn",
            table,
            outliers,
            f"log loss is off a smooth surface by up to {np.abs(rest[outliers]).max():.3f}, where "
            f"half of all rows are within {deviation / 1.4826:.4f}: squared error follows such "
            f"rows, and even Huber's loss moves beta from .367 to .453 for five of 245",
        )


def _above_smaller(table: Table) -> np.ndarray:
    """How far log loss lies above the best run with no more parameters and no more tokens."""
    if not {"N", "D"} <= set(table.columns):
        return np.zeros(len(table))
    N, D, y = table["N"], table["D"], np.log(table["loss"])
    best = np.empty(len(y))
    for part in np.array_split(np.arange(len(y)), 1 + len(y) // _CHUNK):
        less = (N[part, None] >= N) & (D[part, None] >= D)
        best[part] = np.where(less, y, np.inf).min(axis=1)
    return y - best


def _duplicates(table: Table) -> Iterator[Finding]:
    """Rows that repeat another: the same run twice, or a point digitised twice."""
    names = [name for name in ("N", "D", "C") if name in table.columns]
    if not names or len(table) < 2:
        return
    logs = np.column_stack([np.log(table[name]) for name in (*names, "loss")])
    scale = np.array([_SAME_SIZE] * len(names) + [_SAME_LOSS])
    pairs = cKDTree(logs / scale).query_pairs(1.0, p=np.inf, output_type="ndarray")
    runs = np.array(table.runs, object)
    same = (logs[pairs[:, 0]] == logs[pairs[:, 1]]).all(axis=1)
    apart = runs[pairs[:, 0]] != runs[pairs[:, 1]]  # a run's own neighbours may be as near
    exact = np.unique(pairs[same].max(axis=1))
    near = np.setdiff1d(pairs[~same & apart].max(axis=1), exact)
    for code, rows, what in (
        ("duplicates", exact, "repeats another row"),
        ("near_duplicates", near, "nearly repeats another row, as points read off figures do"),
    ):
        if rows.size:
            share = rows.size / len(table)
            yield finding(
                code,
                "warn" if share > 0.05 or code == "duplicates" else "note",
                table,
                rows,
                f"{what}, and counts twice in the fit; with {share:.1%} of all rows such, "
                f"intervals are too narrow by {np.sqrt(1 + share) - 1:.1%}",
            )


def _loss_unit(table: Table) -> Iterator[Finding]:
    """Loss in bits or as perplexity, by what was said of it and by its name."""
    said = table.conventions.get("loss", "")
    read = table.units.get("loss", "").lower()
    convert = "write loss=COLUMN*bits in columns (bits is ln 2)"
    in_bits = "bits" in said or any(word in read for word in _BIT_NAMES) or read == "bits"
    converted = read != "bits" and re.search(r"\bbits\b", read)
    if any(word in read for word in _PERPLEXITY) and "log(" not in read:
        yield finding(
            "loss_is_perplexity",
            "refuse",
            table,
            range(len(table)),
            f"loss is read from {table.units['loss']}, a perplexity: write loss=log(COLUMN)",
        )
    elif in_bits and not converted:
        yield finding(
            "loss_in_bits",
            "refuse",
            table,
            range(len(table)),
            f"loss is in bits: E, A and B come out 1.44 times too large and laws in nats (B_crit, "
            f"published E) do not apply; {convert}",
        )
    elif said != "nats" and not in_bits and {"N", "D"} <= set(table.columns):
        expected = 1.69 + 406.4 * table["N"] ** -0.34 + 410.7 * table["D"] ** -0.28
        ratio = float(np.median(table["loss"] / expected))
        if 1.3 < ratio < 1.6:
            yield finding(
                "loss_perhaps_bits",
                "warn",
                table,
                range(len(table)),
                f"loss is {ratio:.2f} times what Chinchilla's law gives, and a nat is 1.44 bits: "
                f"if it is in bits, {convert}",
            )


def _not_falling(table: Table) -> Iterator[Finding]:
    if not {"N", "D"} <= set(table.columns) or len(table) < 5:
        return
    compute = table["N"] * table["D"]
    if np.ptp(compute) == 0 or np.ptp(table["loss"]) == 0:
        return
    follows = float(spearmanr(compute, table["loss"]).statistic)
    if follows > 0.3:
        yield finding(
            "loss_rises",
            "refuse",
            table,
            range(len(table)),
            f"loss rises with N D (rank correlation {follows:.2f}): is it an accuracy, or has it "
            f"the wrong sign?",
        )


def _units(table: Table) -> Iterator[Finding]:
    """N or D in two units, or in millions."""
    for name, least in (("N", 1e3), ("D", 1e4)):
        if name not in table.columns:
            continue
        values = np.sort(table[name])
        gaps = np.diff(np.log(values))
        if gaps.size and gaps.max() > _GAP:
            split = int(np.argmax(gaps))
            rows = np.flatnonzero(table[name] <= values[split])
            yield finding(
                "mixed_units",
                "refuse",
                table,
                rows,
                f"{name} is at most {values[split]:.3g} here and at least {values[split + 1]:.3g} "
                f"elsewhere, with nothing between: two units are mixed",
            )
        elif values[-1] < least:
            yield finding(
                "small_unit",
                "warn",
                table,
                range(len(table)),
                f"{name} is at most {values[-1]:.3g}: if it is in millions or billions, write so, "
                f"as in {name}=COLUMN*1e9",
            )


def _intermediate(table: Table) -> Iterator[Finding]:
    """Several points of one run: fair ones only while the learning rate is constant."""
    counts: dict[str, list[int]] = {}
    for i, run in enumerate(table.runs):
        counts.setdefault(run, []).append(i)
    several = [points for points in counts.values() if len(points) > 1]
    if not several:
        return
    stated = table.conventions.get("schedule", "")
    kinds = {(table.schedules[p[0]] if table.schedules else stated).lower() for p in several}
    kinds.discard("")
    tokens = table["D"] if "D" in table.columns else table.rows
    earlier = sorted(i for points in several for i in points if tokens[i] < tokens[points].max())
    effect = (
        "in the middle of its cosine a 25M model's loss is .035 nats above that of a run decayed "
        "to end there (a third of 72000 steps; Luo et al. 2025)"
    )
    if any(fall in kind for kind in kinds for fall in _FALLS):
        yield finding(
            "intermediate_points",
            "refuse",
            table,
            earlier,
            f"taken before the learning rate had decayed, which makes them no (N, D) points: "
            f"{effect}; keep the last point of each run (last=True), or fit an annealing law",
        )
    elif kinds == {"constant"}:
        yield finding(
            "points_share_runs",
            "note",
            table,
            earlier,
            "several points share a run, and err together: resample runs, not points",
        )
    else:
        yield finding(
            "intermediate_points",
            "warn",
            table,
            earlier,
            f"several points share a run (schedule {' or '.join(sorted(kinds)) or 'not stated'}), "
            f"and the learning rate may have decayed in the last one only: {effect}; state the "
            f"schedule, or keep the last point of each run (last=True)",
        )


CHECKS: tuple[Callable[[Table], Iterator[Finding]], ...] = (
    _units,
    _loss_unit,
    _not_falling,
    _high_rows,
    _duplicates,
    _intermediate,
)
