"""The lower envelope of training curves over compute: Chinchilla's approach 1.

Hoffmann et al. 2022 (arXiv:2203.15556, section 3.1): for each of many budgets, the run with the
lowest loss after that much compute says the best model size and number of tokens, and power laws
are fitted to them. It takes whole curves, where approach 2 takes the ends of runs.

A point in the middle of a run whose learning rate decays lies above what a run planned for that
budget would have reached. Longer runs are the further from it, so that the envelope is bent and its
exponents biased: use runs at a constant rate, or one run for each horizon (`warnings` says so).

Legend: r run, c budget, b resample.
"""

from dataclasses import dataclass

import numpy as np

from configs.schema import InputError, require
from scaling.fit import Fit, fit
from scaling.laws_curves import M2
from scaling.tables import Table, from_columns

_CONSTANT = ("constant", "wsd")  # wsd's points before its decay are as good; those in it are few
_SIZES = 3  # different best sizes that a power law needs


@dataclass(frozen=True)
class PowerLaw:
    """y = size * C ** exponent, with the spread of the exponent over resampled runs."""

    size: float
    exponent: float
    standard_error: float

    def __call__(self, c: np.ndarray | float) -> np.ndarray:
        """The value at budgets C."""
        return self.size * np.asarray(c, float) ** self.exponent


@dataclass(frozen=True)
class Envelope:
    """The best runs by budget and the laws through them."""

    points: Table  # run, N, D, C, loss of the best run at each budget that counts
    N: PowerLaw  # parameters, N_opt(C)
    D: PowerLaw  # tokens, D_opt(C)
    loss: Fit | None  # M2 of the lowest loss in C, in the column x; None for too few best runs
    left_out: int  # budgets that do not count
    warnings: tuple[str, ...]


def envelope(table: Table, budgets: int = 1500, resamples: int = 200, seed: int = 0) -> Envelope:
    """The envelope of the runs of a table with columns N, D, C (operations) and loss.

    The curves are read at `budgets` log-spaced budgets, between their points along straight lines
    in log C. A budget counts only where a smaller and a larger run than the best have points around
    it: else a size beyond may have been better there. Standard errors are the spread over
    `resamples` drawings of runs with replacement.

    Raises InputError for fewer than three best sizes, or a run whose points are not in one line.
    """
    require(budgets >= 10, f"{budgets} budgets are too few for a law: ask for 1500, as published")
    names, log_c, loss_rc, log_d_rc, size_r = _curves(table, budgets)
    best_c, counts = _best(loss_rc, size_r)
    columns = np.flatnonzero(counts)
    sizes = len(np.unique(size_r[best_c[counts]]))
    require(
        sizes >= _SIZES,
        f"{table.path}: of {len(np.unique(size_r))} sizes {sizes} are best at some budget that "
        f"smaller and larger runs have reached too: {_SIZES} are needed; add sizes, or longer runs",
    )
    best = best_c[columns]
    log_d, lowest = log_d_rc[best, columns], loss_rc[best, columns]
    points = from_columns(
        {
            "N": size_r[best],
            "D": np.exp(log_d),
            "C": np.exp(log_c[columns]),
            "loss": lowest,
        },
        runs=tuple(names[r] for r in best),
    )
    spread = _resampled(log_c, loss_rc, log_d_rc, size_r, resamples, seed)
    return Envelope(
        points=points,
        N=_power(log_c[columns], np.log(size_r[best]), spread[:, 0]),
        D=_power(log_c[columns], log_d, spread[:, 1]),
        loss=_loss_law(points),
        left_out=int((~counts).sum()),
        warnings=_warnings(table),
    )


def _curves(
    table: Table, budgets: int
) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Names of the runs, log budgets, and of each run loss and log D there (NaN outside), and N."""
    runs = np.array(table.runs)
    names = [name for name in dict.fromkeys(table.runs) if (runs == name).sum() > 1]
    require(
        len(names) >= _SIZES,
        f"{table.path} has {len(names)} runs of more than one point: an envelope is one of curves; "
        "map the column that names the run",
    )
    c = table["C"]
    log_c = np.linspace(np.log(c.min()), np.log(c.max()), budgets)
    loss, log_d, sizes = [], [], []
    for name in names:
        rows = np.flatnonzero(runs == name)
        rows = rows[np.argsort(c[rows], kind="stable")]
        n = table["N"][rows]
        if np.ptp(n) > 1e-6 * n[0] or np.any(np.diff(np.log(c[rows])) <= 0):
            raise InputError(
                f"{table.path}: run {name} ({table.where(rows)}) has several sizes, or several "
                "losses at one budget: give each run its own name"
            )
        at = np.log(c[rows])
        inside = (log_c >= at[0]) & (log_c <= at[-1])
        loss.append(np.where(inside, np.interp(log_c, at, table["loss"][rows]), np.nan))
        log_d.append(np.interp(log_c, at, np.log(table["D"][rows])))
        sizes.append(n[0])
    return names, log_c, np.array(loss), np.array(log_d), np.array(sizes)


def _best(loss_rc: np.ndarray, size_r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best run of each budget, and whether the budget counts."""
    there_rc = np.isfinite(loss_rc)
    best_c = np.argmin(np.where(there_rc, loss_rc, np.inf), axis=0)
    smaller_rc = there_rc & (size_r[:, None] < size_r[best_c])
    larger_rc = there_rc & (size_r[:, None] > size_r[best_c])
    return best_c, smaller_rc.any(0) & larger_rc.any(0)


def _power(log_c: np.ndarray, log_y: np.ndarray, spread_b: np.ndarray) -> PowerLaw:
    """Least squares in logarithms."""
    exponent, size = np.polyfit(log_c, log_y, 1)
    return PowerLaw(float(np.exp(size)), float(exponent), float(np.std(spread_b, ddof=1)))


def _resampled(
    log_c: np.ndarray,
    loss_rc: np.ndarray,
    log_d_rc: np.ndarray,
    size_r: np.ndarray,
    resamples: int,
    seed: int,
) -> np.ndarray:
    """Exponents of N and D of drawings of runs (b, 2); those with too few sizes are left out."""
    require(resamples >= 2, f"{resamples} resamples give no standard error: ask for 200")
    random = np.random.default_rng(seed)
    found = []
    for _ in range(resamples):
        drawn = np.unique(random.integers(len(size_r), size=len(size_r)))
        place_c, counts = _best(loss_rc[drawn], size_r[drawn])
        best_c = drawn[place_c]
        if len(np.unique(size_r[best_c[counts]])) < 2:
            continue
        at, best = np.flatnonzero(counts), best_c[counts]
        logs = np.stack([np.log(size_r[best]), log_d_rc[best, at]], axis=1)
        found.append(np.polyfit(log_c[at], logs, 1)[0])
    return np.array(found) if len(found) > 1 else np.full((2, 2), np.nan)


def _loss_law(points: Table) -> Fit | None:
    """L(C) = E + B C^-c through the lowest loss of each best run, at its middle budget.

    A thousand budgets between the same few points would only look like more data.
    """
    runs = np.array(points.runs)
    middles = [int(np.median(np.flatnonzero(runs == name))) for name in dict.fromkeys(points.runs)]
    if len(middles) <= len(M2.parameters):
        return None
    return fit(M2, {"x": points["C"][middles], "loss": points["loss"][middles]})


def _warnings(table: Table) -> tuple[str, ...]:
    """What biases the envelope."""
    if not table.schedules:
        return (
            "the learning-rate schedules are not known: if they decay, points from the middle of "
            "a run lie above what a run of that length would reach, and the exponents are biased",
        )
    decaying = sorted(set(table.schedules) - set(_CONSTANT))
    if not decaying:
        return ()
    return (
        f"runs with a schedule that decays ({', '.join(decaying)}) count at budgets before their "
        "end, where their loss is above that of a run planned for that budget: the exponents are "
        "biased; use a constant rate, or only the ends of runs (scaling/isoflop.py)",
    )
