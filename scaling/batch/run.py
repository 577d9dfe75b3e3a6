"""The gradient noise scale over a run that measured it (batch.noise_scale), and what follows.

The noise scale rises as the loss falls, so a run is cut into stretches, each with a ratio of
averages of its own. A stretch of n updates with batch B and noise scale B_i made the progress of
n / (1 + B_i / B) updates with very large batches, and needs S_i (1 + B_i / B') updates with another
batch B' (McCandlish et al. 2018, arXiv:1812.06162, section 2.3 and appendix D). Summed over the
stretches that is again S = S_min + E_min / B', with

    S_min = sum S_i,    E_min = sum S_i B_i,    B_crit = E_min / S_min.

Data and batches are in targets: tokens, where every position is one.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from configs.schema import InputError, require
from scaling.batch import NoiseScale, Trade, noise_scale, trade

SIGNAL, NOISE = "gradient_signal", "gradient_noise"  # docs/run_directory.md
LEAST = 8  # rows of a stretch
_BLOCKS = 20  # of the jackknife
_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the critical batch


@dataclass(frozen=True)
class Stretch:
    """Neighbouring updates: how many, their mean loss and batch, and their noise scale.

    `interval` is that of the noise scale at the level asked for, on a logarithmic scale.
    """

    first_step: int
    last_step: int
    updates: int
    loss: float
    batch: float
    noise: NoiseScale
    interval: tuple[float, float]

    @property
    def log_error(self) -> float:
        """Standard error of the logarithm of the noise scale."""
        return self.noise.standard_error / self.noise.value

    @property
    def steps_min(self) -> float:
        """Updates that would have made the same progress with very large batches."""
        return self.updates / trade(self.batch, self.noise.value).steps_factor


@dataclass(frozen=True)
class Measured:
    """What a run says of batch sizes.

    `window` is the targets of a window; `growth` the exponent of the noise scale by the loss, and
    NaN with fewer than three stretches; `interval` is that of `critical`.
    """

    stretches: tuple[Stretch, ...]
    steps_min: float
    data_min: float
    critical: float
    interval: tuple[float, float]
    growth: float
    window: float

    @property
    def suggested(self) -> int:
        """The critical batch in whole windows: twice the least updates and twice the least data."""
        return max(1, round(self.critical / self.window))

    def trades(self) -> tuple[tuple[float, float, Trade], ...]:
        """(updates, data, trade) at several batches: (S/S_min - 1)(E/E_min - 1) = 1."""
        each = [trade(factor * self.critical, self.critical) for factor in _FACTORS]
        return tuple(
            (self.steps_min * t.steps_factor, self.data_min * t.data_factor, t) for t in each
        )


def measure(workdir: str, stretches: int = 4, level: float = 0.95) -> Measured:
    """Read a run directory; fewer stretches are made where the rows do not carry so many.

    Raises:
        InputError: it is no run directory, holds too few estimates, or their signal is lost.
    """
    require(stretches >= 1, f"stretches={stretches} must be at least 1")
    require(0 < level < 1, f"level={level:g} must lie between 0 and 1, such as 0.95")
    rows, window = _rows(Path(workdir))
    require(
        len(rows) >= LEAST,
        f"{workdir}: {len(rows)} rows hold noise estimates and {LEAST} are needed: train longer, "
        "or lower log_every",
    )
    for count in range(min(stretches, len(rows) // LEAST), 0, -1):
        cuts = np.array_split(np.arange(len(rows)), count)
        try:
            found = tuple(_stretch(rows[cut[0] : cut[-1] + 1], level) for cut in cuts)
        except InputError as error:
            if count == 1:
                raise InputError(f"{workdir}: {error}") from error
        else:
            break
    return _over(found, window, level)


def _stretch(rows: list[dict[str, Any]], level: float) -> Stretch:
    updates = np.array([row["updates"] for row in rows], float)
    share = updates / updates.mean()  # a row is the mean of as many updates as lie before it
    signal, noise = (share * np.array([row[name] for row in rows]) for name in (SIGNAL, NOISE))
    blocks = min(_BLOCKS, len(rows))
    found = noise_scale(signal, noise, blocks)
    require(
        found.noise > 0, "the noise comes out negative: average over more updates, or more parts"
    )
    either_way = np.exp(
        student.ppf((1 + level) / 2, blocks - 1) * found.standard_error / found.value
    )
    return Stretch(
        first_step=int(rows[0]["step"] - rows[0]["updates"] + 1),
        last_step=int(rows[-1]["step"]),
        updates=int(updates.sum()),
        loss=float(np.average([row["loss"] for row in rows], weights=updates)),
        batch=float(np.average([row["targets"] for row in rows], weights=updates)),
        noise=found,
        interval=(found.value / float(either_way), found.value * float(either_way)),
    )


def _over(found: tuple[Stretch, ...], window: float, level: float) -> Measured:
    """The whole run from its stretches, whose errors are independent."""

    def sums(stretches: list[Stretch]) -> tuple[float, float]:
        return (
            sum(each.steps_min for each in stretches),
            sum(each.steps_min * each.noise.value for each in stretches),
        )

    def log_critical(moved: int, factor: float) -> float:
        changed = list(found)
        noise = changed[moved].noise
        changed[moved] = replace(changed[moved], noise=replace(noise, value=noise.value * factor))
        steps, data = sums(changed)
        return float(np.log(data / steps))

    steps_min, data_min = sums(list(found))
    critical = data_min / steps_min
    shifts = [
        (log_critical(i, np.exp(each.log_error)) - log_critical(i, np.exp(-each.log_error))) / 2
        for i, each in enumerate(found)
    ]
    freedom = len(found) * (min(_BLOCKS, LEAST) - 1)
    either_way = float(np.exp(student.ppf((1 + level) / 2, freedom) * np.linalg.norm(shifts)))
    growth = float("nan")
    if len(found) >= 3:
        loss, scale = np.log([[each.loss, each.noise.value] for each in found]).T
        weight = [1 / max(each.log_error, 1e-9) for each in found]
        growth = float(np.polyfit(loss, scale, 1, w=weight)[0])
    return Measured(
        found,
        steps_min,
        data_min,
        critical,
        (critical / either_way, critical * either_way),
        growth,
        window,
    )


def _rows(place: Path) -> tuple[list[dict[str, Any]], float]:
    """Rows with both estimates, with the updates of each, and the targets of a window."""
    try:
        context = json.loads((place / "config.json").read_text())["model"]["context"]
        lines = (place / "metrics.jsonl").read_text().splitlines()
    except OSError as error:
        raise InputError(
            f"{place}: no run directory ({error.strerror}): check --workdir"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{place}: config.json is damaged ({error})") from error
    rows, before = [], {"step": 0, "tokens": 0}
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue  # cut short by a crash, as docs/run_directory.md allows
        if isinstance(row, dict) and row.get("kind") == "train":
            rows.append(row | {"updates": row["step"] - before["step"],
                               "positions": row["tokens"] - before["tokens"]})  # fmt: skip
            before = row
    require(
        any(SIGNAL in row for row in rows),
        f"{place}: the run did not measure its gradient noise: train with "
        "--config.batch.noise_scale=true and batch.microbatch below batch.size",
    )
    wanted = (SIGNAL, NOISE, "loss", "targets")
    kept = [r for r in rows if r["updates"] > 0 and all(r.get(n) is not None for n in wanted)]
    targets = sum(row["targets"] * row["updates"] for row in kept)
    return kept, context * targets / max(1, sum(row["positions"] for row in kept))
