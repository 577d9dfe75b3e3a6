"""What is wrong with a table of runs, said before anything is fitted to it.

Each finding names its rows, what it does to a fit in figures, and where these come from. Those
whose answer would be wrong are of severity "refuse": `refuse` raises them. Checks on what single
rows look like among the others are in scaling/suspects.py.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np
from scipy.stats import spearmanr

from configs.schema import InputError
from scaling import isoflop, suspects
from scaling.suspects import Finding, finding
from scaling.tables import Table

_SAME_LOG = 0.1  # budgets or sizes whose logarithms differ by less count as one
_SHARP = 0.1  # spread of log C within a budget over the distance to the next
_OFF_CENTER = 2.0  # factor between the middle of an isoFLOP grid and its minimum
_WIDE = 8.0  # factor from the minimum to the end of a grid
_LONG_WARMUP = 0.1  # share of the tokens
_FAR, _TOO_FAR = 5.0, 30.0  # target's compute over the largest budget


def diagnose(
    table: Table,
    parameters: int = 5,
    variables: Collection[str] = ("N", "D"),
    target: Mapping[str, float] | None = None,
    accept: Collection[str] = (),
) -> list[Finding]:
    """All findings, the severest first.

    `parameters` and `variables` are those of the law to be fitted; `target`, such as {"N": 7e9,
    "D": 2e12} or {"C": 1e23}, is where it will be asked. Codes in `accept` are no refusals: the
    caller knows. Of the table's conventions these count: "N" (total, non_embedding), "loss" (nats,
    bits, bits_per_byte) and "schedule" (constant, wsd, cosine, linear, ...).
    """
    found = list(suspects.not_finite(table))
    sound = table.take(suspects.usable(table))
    if len(sound):
        found += _identified(sound, parameters, variables)
        for check in (*_CHECKS, *suspects.CHECKS):
            found += check(sound)
        found += _extrapolation(sound, target or {})
    found = [
        Finding(f.code, "warn", f.rows, f.sentence)
        if f.code in accept and f.severity == "refuse"
        else f
        for f in found
    ]
    return sorted(found, key=lambda f: ("refuse", "warn", "note").index(f.severity))


def refuse(findings: Collection[Finding]) -> None:
    """Raise InputError with the refusals among the findings, if there are any."""
    reasons = [f"{f.sentence} [{f.code}]" for f in findings if f.severity == "refuse"]
    if reasons:
        raise InputError("; ".join(reasons))


def _identified(table: Table, parameters: int, variables: Collection[str]) -> Iterator[Finding]:
    """Too few points, or points that leave a parameter open."""
    names = [name for name in variables if name in table.columns]
    logs = {name: np.log(table[name]) for name in names}
    places = np.unique(np.round(np.column_stack([table["loss"], *logs.values()]), 9), axis=0)
    if len(places) <= parameters:
        yield finding(
            "too_few_points",
            "refuse",
            table,
            range(len(table)),
            f"{len(places)} distinct points for {parameters} parameters: a curve passes through "
            f"them all, and nothing tells how wrong it is elsewhere",
        )
        return
    elif len(places) < 2 * parameters:
        yield finding(
            "few_points",
            "warn",
            table,
            range(len(table)),
            f"{len(places)} points for {parameters} parameters: intervals rest on "
            f"{len(places) - parameters} degrees of freedom",
        )
    if len(set(table.runs)) == 1 and len(table) > 1:
        yield finding(
            "one_run",
            "refuse",
            table,
            range(len(table)),
            f"all {len(table)} points are of the run {table.runs[0]}: one run says nothing about "
            f"other sizes",
        )
    for name in names:
        count = 1 + int(np.sum(np.diff(np.sort(logs[name])) > _SAME_LOG / 10))
        if count < 3:
            yield finding(
                "single_" + name,
                "refuse",
                table,
                range(len(table)),
                f"{name} takes {count} value{'s' * (count > 1)}: coefficient, exponent and floor "
                f"of its term need 3 to be told apart",
            )
    if {"N", "D"} <= set(names) and len(table) > 2:
        yield from _plane(table, logs["N"], logs["D"])


def _plane(table: Table, log_n: np.ndarray, log_d: np.ndarray) -> Iterator[Finding]:
    """Points on one line of the (log N, log D) plane: one budget, or one ratio D/N."""
    if min(np.ptp(log_n), np.ptp(log_d)) < _SAME_LOG:
        return  # said by the count of values
    log_c = np.log(isoflop.compute(table))
    if np.ptp(log_c) < _SAME_LOG:
        yield finding(
            "single_budget",
            "refuse",
            table,
            range(len(table)),
            f"all runs have the budget {np.exp(log_c.mean()):.3g}: along one isoFLOP curve N and D "
            f"move together, and how the loss falls with compute is not in the table",
        )
        return
    slope, middle = np.polyfit(log_n, log_d, 1)
    if np.std(log_d - middle - slope * log_n) < _SAME_LOG / 2:
        yield finding(
            "one_line",
            "refuse",
            table,
            range(len(table)),
            f"D follows N in all runs (D ~ N^{slope:.2f}): the two terms of a law in N and D can "
            f"be exchanged for each other; add runs of other D/N, or fit a law in one variable",
        )


def _flops(table: Table) -> Iterator[Finding]:
    """The C that was given against 6 N D."""
    if not {"N", "D", "C"} <= set(table.columns):
        return
    ratio = table["C"] / (6 * table["N"] * table["D"])
    low, middle, high = np.quantile(ratio, [0.05, 0.5, 0.95])
    spread = high / low
    follows = 0.0
    if spread > 1.05 and np.ptp(table["N"]):
        follows = float(spearmanr(table["N"], ratio).statistic)
    says = f"C / 6ND is {middle:.3g} (5 % to 95 %: {low:.3g} to {high:.3g})"
    everywhere = range(len(table))
    if abs(follows) > 0.8:
        what = "C counts what N leaves out" if follows < 0 else "N counts what C leaves out"
        yield finding(
            "embeddings",
            "refuse" if spread > 1.2 else "warn",
            table,
            everywhere,
            f"{says} and {'falls' if follows < 0 else 'rises'} with N: {what} (embeddings, head, "
            f"attention); the exponent of N*(C) is .78 counting neither with embeddings and .52 "
            f"counting both with them (Pearce and Song 2024, Epoch's law; .84 and .71 in Porian et "
            f"al. 2024): count N and C one way",
        )
    elif spread > 1.1:
        rows = np.flatnonzero(np.abs(np.log(ratio / middle)) > 0.05)
        yield finding(
            "flops_mixed",
            "refuse" if spread > 2 else "warn",
            table,
            rows,
            f"{says}: rows count their operations in different ways, and budgets that look equal "
            f"are not",
        )
    elif abs(np.log(middle)) > 0.05:
        yield finding(
            "flops_factor",
            "warn",
            table,
            everywhere,
            f"{says}: one factor for all (attention, 8ND with recomputation, 2ND forward alone); "
            f"exponents stay, and budgets must be counted the same way",
        )
    else:
        yield finding("flops_6nd", "note", table, (), says)


def _budgets(table: Table) -> Iterator[Finding]:
    """IsoFLOP groups: no interior minimum, or a grid that moves it."""
    if not {"N", "D"} <= set(table.columns):
        return
    groups = isoflop.budgets(table)
    if len(groups) < 2 or sum(len(group) for group in groups) < len(table) / 2:
        return
    log_c = np.log(isoflop.compute(table))
    within = np.median([np.ptp(log_c[group]) for group in groups])
    between = np.median(np.diff([log_c[group].mean() for group in groups]))
    if within > _SHARP * between:
        return  # neighbours in a cloud of runs, and no budgets that somebody chose
    off_center: list[isoflop.Minimum] = []
    wide: list[isoflop.Minimum] = []
    narrow: list[isoflop.Minimum] = []
    for minimum in isoflop.minima(table):
        if minimum.why:
            yield finding(
                "no_interior_minimum",
                "warn",
                table,
                minimum.points,
                f"{minimum.why}; approach 2 leaves the budget out, other laws may use it",
            )
            continue
        ends = table["N"][minimum.points[[0, -1]]]
        if abs(np.log(np.sqrt(ends[0] * ends[1]) / minimum.N)) > np.log(_OFF_CENTER):
            off_center.append(minimum)
        if max(minimum.N / ends[0], ends[1] / minimum.N) > _WIDE:
            wide.append(minimum)
        if table["loss"][minimum.points[[0, -1]]].min() - minimum.loss < 2 * isoflop.SEED_NOISE:
            narrow.append(minimum)
    for code, found, sentence in (
        (
            "off_center",
            off_center,
            f"the middle of the grid is off the best size by more than {_OFF_CENTER:g} times; at a "
            f"factor 2 a parabola moves the tokens advised at 1e24 by -4 to +2 % on Chinchilla's "
            f"law and by -20 to +6 % where alpha = 3 beta",
        ),
        (
            "wide_grid",
            wide,
            f"sizes reach beyond {_WIDE:g} times the best one; a parabola over 1/8 to 8 times "
            f"misses the tokens advised at 1e24 by -2.9 % on Chinchilla's law and -14 % where "
            f"alpha = 3 beta, over 1/16 to 16 by -5 and -23 % (Czech et al. 2026, "
            f"arXiv:2603.22339): use the spline, or fit the law itself",
        ),
        (
            "narrow_grid",
            narrow,
            f"an end of the grid is less than {2 * isoflop.SEED_NOISE:g} nats above the minimum, "
            f"while seeds alone range over .002 to .006, so that noise moves the minimum",
        ),
    ):
        if found:
            rows = np.unique(np.concatenate([minimum.points for minimum in found]))
            names = ", ".join(f"{minimum.C:.3g}" for minimum in found)
            yield finding(code, "warn", table, rows, f"budgets {names}: {sentence}")


def _warmup(table: Table) -> Iterator[Finding]:
    if not {"warmup", "D"} <= set(table.columns):
        return
    share = table["warmup"] / table["D"]
    rows = np.flatnonzero(share > _LONG_WARMUP)
    if rows.size:
        yield finding(
            "long_warmup",
            "warn",
            table,
            rows,
            f"warm-up takes up to {share.max():.0%} of the tokens: a fixed long warm-up hurts "
            f"small budgets most, and raised the exponent of N*(C) from .60 to .71 (Porian et al. "
            f"2024); let it last as many tokens as the model has parameters",
        )


def _batch(table: Table) -> Iterator[Finding]:
    """Batches above the critical one of Kaplan et al. 2020 (arXiv:2001.08361), equation 5.3."""
    if not {"batch", "loss"} <= set(table.columns):
        return
    excess = table["batch"] / (2e8 * table["loss"] ** (-1 / 0.21))
    rows = np.flatnonzero(excess > 1)
    if rows.size:
        yield finding(
            "large_batch",
            "warn",
            table,
            rows,
            f"the batch is up to {excess.max():.3g} times the critical one, B_crit = 2e8 tokens / "
            f"L^(1/.21): such runs use 1 + B/B_crit times the tokens that small batches need "
            f"(Kaplan et al. 2020, section 5.1), and look worse for it the shorter they are",
        )


def _shape(table: Table) -> Iterator[Finding]:
    if not {"N", "depth", "width"} <= set(table.columns) or len(table) < 4:
        return
    aspect = table["width"] / table["depth"]
    if np.ptp(table["N"]) == 0 or aspect.max() <= 4 * aspect.min():
        return
    follows = float(spearmanr(table["N"], aspect).statistic)
    if abs(follows) > 0.7:
        yield finding(
            "shape_with_size",
            "warn",
            table,
            range(len(table)),
            f"width / depth runs from {aspect.min():.3g} to {aspect.max():.3g} and goes with N "
            f"(rank correlation {follows:.2f}): the exponent of N takes in what the shape costs, "
            f"up to 3 % of the loss over a factor 40 (Kaplan et al. 2020, figure 5)",
        )


def _extrapolation(table: Table, target: Mapping[str, float]) -> Iterator[Finding]:
    if "C" in target:
        wanted = target["C"]
    elif {"N", "D"} <= set(target):
        wanted = 6 * target["N"] * target["D"]
    else:
        return
    if not {"N", "D"} <= set(table.columns) and "C" not in table.columns:
        return
    largest = float(isoflop.compute(table).max())
    ratio = wanted / largest
    if ratio > _FAR:
        beyond = f"; beyond {_TOO_FAR:g} times not even that is known" if ratio > _TOO_FAR else ""
        yield finding(
            "far_beyond" if ratio > _TOO_FAR else "extrapolation",
            "warn",
            table,
            (),
            f"the target's compute {wanted:.3g} is {ratio:.3g} times the largest in the table: at "
            f"20 times, the five-parameter law missed a held-out run by +1 to +3.6 % of its loss, "
            f"and its 95 % bootstrap intervals missed it too{beyond}",
        )


def fitted(
    parameters: Mapping[str, float],
    lower: Mapping[str, float] | None = None,
    upper: Mapping[str, float] | None = None,
) -> Iterator[Finding]:
    """Findings on what a fit returned: a parameter at its bound, or alpha = beta."""
    for name, value in parameters.items():
        for bound in ((lower or {}).get(name), (upper or {}).get(name)):
            if bound is None or not math.isfinite(bound):
                continue
            if abs(value - bound) <= 1e-6 * max(1.0, abs(bound)):
                floor = name == "E" and bound == (lower or {}).get(name)
                yield Finding(
                    "at_bound",
                    "warn",
                    (),
                    f"{name} = {value:g} lies at its bound: "
                    + (
                        "the table shows no floor of the loss, so that predictions far beyond it "
                        "are too low if there is one"
                        if floor
                        else "the optimum is beyond, and intervals that assume one inside are wrong"
                    ),
                )
    alpha, beta = parameters.get("alpha"), parameters.get("beta")
    if alpha is not None and beta is not None and abs(alpha - beta) < 1e-3 * abs(alpha):
        yield Finding(
            "equal_exponents",
            "warn",
            (),
            f"alpha = beta = {alpha:.4g}: N* and D* both go as C^.5 whatever the data say of A and "
            f"B; unless the two were tied, see whether N and D vary apart",
        )


_CHECKS: tuple[Callable[[Table], Iterator[Finding]], ...] = (
    _flops,
    _budgets,
    _warmup,
    _batch,
    _shape,
)
