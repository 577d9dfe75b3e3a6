"""How often 95 % intervals hold what comes true, on simulated sweeps whose truth no law has.

    python -m benchmarks.coverage --sweeps=10

The truth is L = E + A N^-alpha + B D^-beta and a slow part that the law does not have, of a size
that makes the law, fitted without noise, wrong by 1 to 4 % at 20 times the largest compute (or as
much as it can be: the law takes up most of some). Runs scatter by .1 to .5 %. Every sweep is fitted
by the Chinchilla law and predicts one run at 20 times its largest compute; it counts as covered if
that run's loss, scatter included, lies in the interval. Printed by kind of truth and by design: the
share covered by the plain bootstrap and by the calibrated interval, and their half-widths.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from absl import flags

from configs.flags import main
from scaling import laws
from scaling.calibration import forecast
from scaling.fit import fit
from scaling.uncertainty import bootstrap

_SWEEPS = flags.DEFINE_integer("sweeps", 10, "of each kind and design", lower_bound=1)
_FIRST = flags.DEFINE_integer("first", 0, "seed of the first sweep")
_BEYOND = 20.0  # times the largest compute
Columns = Mapping[str, np.ndarray]


def _law(p: Mapping[str, float], t: Columns) -> np.ndarray:
    return laws.CHINCHILLA.predict(p, t)


def _sizes(t: Columns) -> tuple[np.ndarray, np.ndarray]:
    """N and D in units of a small run."""
    return t["N"] / 1e8, t["D"] / 2e9


def _slow(p: Mapping[str, float], t: Columns, c: float, symbol: int) -> np.ndarray:
    return _law(p, t) + c * _sizes(t)[symbol] ** -0.05


def _interaction(p: Mapping[str, float], t: Columns, c: float) -> np.ndarray:
    n, d = _sizes(t)
    return _law(p, t) + c * (n * d) ** -0.1


def _logarithm(p: Mapping[str, float], t: Columns, c: float) -> np.ndarray:
    n, d = _sizes(t)
    return _law(p, t) - c * np.log(n * d)


def _inverse(p: Mapping[str, float], t: Columns, c: float) -> np.ndarray:
    n, d = _sizes(t)
    return _law(p, t) + 10 * c / np.log(1e6 * n * d)


def _shelf(p: Mapping[str, float], t: Columns, c: float) -> np.ndarray:
    n, d = _sizes(t)
    return _law(p, t) + 0.3 * c * np.log1p(n * d / 30)


def _bending(p: Mapping[str, float], t: Columns, c: float) -> np.ndarray:
    n, _ = _sizes(t)
    model = p["A"] * t["N"] ** -p["alpha"]
    return _law(p, t) + model * (n ** (0.3 * c * np.log10(n)) - 1)


def _joint(p: Mapping[str, float], t: Columns, c: float) -> np.ndarray:
    model, data = p["A"] * t["N"] ** -p["alpha"], p["B"] * t["D"] ** -p["beta"]
    return p["E"] + (model ** (1 + c) + data ** (1 + c)) ** (1 / (1 + c))


TRUTHS: Mapping[str, Callable[[Mapping[str, float], Columns, float], np.ndarray]] = {
    "the law itself": lambda p, t, c: _law(p, t),
    "+ c N^-.05": lambda p, t, c: _slow(p, t, c, 0),
    "+ c D^-.05": lambda p, t, c: _slow(p, t, c, 1),
    "+ c (N D)^-.1": _interaction,
    "- c log C": _logarithm,
    "+ c / log C": _inverse,
    "+ c log(1 + C)": _shelf,
    "alpha falls with N": _bending,
    "terms of N, D joint": _joint,
}
DESIGNS = ("isoflop", "grid", "ratios")


@dataclass(frozen=True)
class Sweep:
    """A made sweep, a place beyond it, and the loss that came true there."""

    table: Columns
    at: Mapping[str, float]
    came: float
    miss: float  # log error of the law fitted without noise


def sweep(truth: str, design: str, seed: int) -> Sweep:
    """One sweep. Everything follows from the arguments."""
    random = np.random.default_rng([seed, list(TRUTHS).index(truth), DESIGNS.index(design)])
    p = {
        "E": random.uniform(1.2, 2.0),
        "alpha": random.uniform(0.28, 0.5),
        "beta": random.uniform(0.28, 0.5),
    }
    p["A"] = random.uniform(0.4, 0.9) * 1e8 ** p["alpha"]
    p["B"] = random.uniform(0.4, 0.9) * 2e9 ** p["beta"]
    sizes = _places(design, p, random)
    compute = sizes["N"] * sizes["D"]
    large = compute >= compute.max() / 2
    n, d = (float(np.exp(np.log(sizes[name][large]).mean())) for name in ("N", "D"))
    grow = np.sqrt(_BEYOND * compute.max() / (n * d))
    over = random.choice([1.0, 1.0, 1.0, 0.4, 3.0])  # more or fewer tokens for the same compute
    at = {"N": n * grow / np.sqrt(over), "D": d * grow * np.sqrt(over)}
    place = {name: np.array([value]) for name, value in at.items()}

    def miss(c: float) -> float:
        table = {**sizes, "loss": TRUTHS[truth](p, sizes, c)}
        found = fit(laws.CHINCHILLA, table, "squared")
        predicted = found.law.predict(found.parameters, place)
        return float(np.log(predicted / TRUTHS[truth](p, place, c))[0])

    wanted = random.uniform(0.01, 0.04)
    c, off = 0.0, 0.0
    for step in (0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28):
        if truth == "the law itself" or abs(off) > wanted:
            break
        c, below, off = step, c, miss(step)
    if abs(off) > wanted:
        for middle in ((below + c) / 2, (3 * below + c) / 4, (7 * below + c) / 8):
            if abs(miss(middle)) > wanted:
                c = middle
        off = miss(c)
    noise = 10 ** random.uniform(-3, -2.3)
    exact = TRUTHS[truth](p, sizes, c)
    loss = exact * np.exp(noise * random.standard_normal(len(exact)))
    came = TRUTHS[truth](p, place, c)[0] * np.exp(noise * random.standard_normal())
    return Sweep({**sizes, "loss": loss}, at, float(came), off)


def _places(design: str, p: Mapping[str, float], random: np.random.Generator) -> Columns:
    """N and D of a sweep's runs."""
    if design == "isoflop":
        budgets, sizes = random.integers(5, 10), random.integers(5, 9)
        spread = random.uniform(0.4, 0.8)
        c = 10 ** random.uniform(17.3, 18.7) * np.logspace(0, random.uniform(1.5, 3), budgets)
        share = p["beta"] / (p["alpha"] + p["beta"])
        g = (p["alpha"] * p["A"] / (p["beta"] * p["B"])) ** (1 / (p["alpha"] + p["beta"]))
        off = random.uniform(-0.1, 0.1, (budgets, 1))  # how well the best size was guessed
        steps = np.linspace(-spread, spread, sizes)
        n = (g * (c[:, None] / 6) ** share * 10 ** (steps + off)).ravel()
        return {"N": n, "D": np.repeat(c, sizes) / 6 / n}
    if design == "grid":
        n = 10 ** random.uniform(7, 7.7) * np.logspace(
            0, random.uniform(1, 1.8), random.integers(5, 8)
        )
        d = 10 ** random.uniform(8.5, 9.3) * np.logspace(
            0, random.uniform(1, 1.7), random.integers(4, 7)
        )
        return {"N": np.repeat(n, len(d)), "D": np.tile(d, len(n))}
    n = 10 ** random.uniform(7, 7.7) * np.logspace(
        0, random.uniform(1.2, 1.8), random.integers(7, 13)
    )
    ratios = np.array([[10, 20, 40], [5, 20, 80]][random.integers(2)])
    return {"N": np.repeat(n, 3), "D": (n[:, None] * ratios).ravel()}


@dataclass(frozen=True)
class Outcome:
    """What the two intervals did on one sweep."""

    plain: bool  # covered
    calibrated: bool
    half: float  # of the calibrated interval, relative
    plain_half: float


def judge(made: Sweep) -> Outcome:
    """Fit the sweep, predict beyond it, compare with what came true."""
    found = fit(laws.CHINCHILLA, made.table)
    said = forecast(found, made.at, draws=bootstrap(found, 200))
    return Outcome(
        plain=said.plain.lower <= made.came <= said.plain.upper,
        calibrated=said.lower <= made.came <= said.upper,
        half=float(np.log(said.upper / said.lower) / 2),
        plain_half=float(np.log(said.plain.upper / said.plain.lower) / 2),
    )


def run() -> None:
    """The command."""
    rows: list[tuple[str, str, float, Outcome]] = []
    for truth in TRUTHS:
        for design in DESIGNS:
            for seed in range(_FIRST.value, _FIRST.value + _SWEEPS.value):
                made = sweep(truth, design, seed)
                rows.append((truth, design, made.miss, judge(made)))
        _print(truth, [row for row in rows if row[0] == truth])
    for design in DESIGNS:
        _print(design, [row for row in rows if row[1] == design and row[0] != "the law itself"])
    _print("all but the law", [row for row in rows if row[0] != "the law itself"])


def _print(title: str, rows: list[tuple[str, str, float, Outcome]]) -> None:
    """One line of the table."""
    done = [row[3] for row in rows]
    half = np.array([each.half for each in done])
    plain = np.array([each.plain_half for each in done])
    miss = np.mean([abs(row[2]) for row in rows])
    print(
        f"{title:20} {len(done):4} sweeps; the law misses by {miss:.1%}; "
        f"covered: plain {np.mean([each.plain for each in done]):4.0%}, calibrated "
        f"{np.mean([each.calibrated for each in done]):4.0%}; half-width: plain "
        f"{np.median(plain):.1%}, calibrated {np.median(half):.1%}, at most 5 % in "
        f"{np.mean(half <= 0.05):.0%}",
        flush=True,
    )


if __name__ == "__main__":
    main(run)
