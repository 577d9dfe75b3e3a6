"""What a budget may be spent on: the loss and the cost of allocate, from plain settings.

One unit holds for a whole problem: operations (FLOPs), hours of one device, or money. Training is
6ND operations, or what steps were measured to take; serving a token costs a third of training on
it (2N of 6N operations, Sardana et al. 2024, section 2).
"""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs.schema import InputError, require
from scaling import costs
from scaling.allocate import Function, Range, matched_size
from scaling.fit import Fit
from scaling.rules import (
    deepseek_batch,
    deepseek_learning_rate,
    power_lines_batch,
    step_law_batch,
    step_law_learning_rate,
)

UNITS = {"budget": "operations", "hours": "device hours", "money": "money"}


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A budget, in exactly one unit, and what it has to pay for.

    Attributes:
        budget, hours, money: in operations, hours of one device, or money; 0: not given.
        peak: dense operations a second of a device, and `mfu` the share that training reaches.
        step_times: a table of measured steps by size, in place of peak and mfu.
        price_per_hour: of a device, in money.
        devices: at work together; for the time on the clock.
        serve_tokens: that the model will read or write when trained.
        unique_tokens: the tokens there are, more being repetition; infinite: no end.
        price_per_token: of each different one.
    """

    budget: float = 0.0
    hours: float = 0.0
    money: float = 0.0
    peak: float = 0.0
    mfu: float = 0.4
    step_times: str = ""
    price_per_hour: float = 0.0
    devices: int = 1
    serve_tokens: float = 0.0
    unique_tokens: float = math.inf
    price_per_token: float = 0.0

    def __post_init__(self) -> None:
        given = [f"--{name}" for name in UNITS if getattr(self, name)]
        require(
            bool(given),
            "no budget: give --budget=OPERATIONS, --hours=DEVICE_HOURS or --money=SUM",
        )
        require(len(given) == 1, f"{' and '.join(given)} are given together: choose one budget")
        for name in (*UNITS, "peak", "price_per_hour", "serve_tokens", "price_per_token"):
            value = getattr(self, name)
            require(
                0 <= value < math.inf, f"--{name}={value:g} must be a positive and finite number"
            )
        require(self.unique_tokens > 0, f"--unique_tokens={self.unique_tokens:g} must be positive")
        require(self.devices > 0, f"--devices={self.devices} must be at least 1")
        require(0 < self.mfu <= 1, f"--mfu={self.mfu:g} must lie in (0, 1]")
        require(
            not (self.peak and self.step_times),
            "--peak and --step_times both say how fast training is: choose one",
        )
        require(
            self.timed or not (self.hours or self.money or self.devices > 1),
            f"{given[0] if self.devices == 1 else '--devices'} needs the speed of a device: give "
            "--peak=OPERATIONS_A_SECOND (dense; with --mfu), or measured --step_times=TABLE",
        )
        require(
            bool(self.money) == bool(self.price_per_hour),
            "--money needs --price_per_hour=PRICE of a device, and that is for --money alone",
        )
        require(
            bool(self.money) or not self.price_per_token,
            "--price_per_token is for a budget in money: give --money and --price_per_hour",
        )

    @property
    def timed(self) -> bool:
        """Whether it is known how long training takes."""
        return bool(self.peak or self.step_times)

    @property
    def unit(self) -> str:
        """Of the budget and of all costs."""
        return UNITS[self._named]

    @property
    def amount(self) -> float:
        """The budget."""
        return float(getattr(self, self._named))

    @property
    def _named(self) -> str:
        return next(name for name in UNITS if getattr(self, name))


@dataclass(frozen=True)
class Terms:
    """The problem: loss(N, D), the whole cost(N, D), and where N may lie (a table has ends).

    `parts` are what the cost is the sum of, in the budget's unit, and `hours` are those of one
    device for training alone; None where the speed is unknown.
    """

    loss: Function
    cost: Function
    parts: Mapping[str, Function]
    hours: Function | None
    sizes: Range | None


def law(fit: Fit) -> Function:
    """The fitted law as loss(N, D). Raises InputError where it is of something else."""
    require(
        {"N", "D"} == set(fit.law.symbols),
        f"the law {fit.law.name} is of {', '.join(fit.law.symbols)}: fit one of N and D",
    )

    def loss(N: np.ndarray, D: np.ndarray) -> np.ndarray:
        return fit.law.predict(fit.parameters, {"N": N, "D": D})

    return loss


def terms(loss: Function, wanted: Wanted) -> Terms:
    """The problem that is wanted. Raises InputError for a table of steps that cannot be used."""
    hours, sizes = None, None
    if wanted.step_times:
        hours, sizes = read_step_times(wanted.step_times)
    elif wanted.peak:
        hours = costs.device_hours(costs.training_flops, wanted.peak, wanted.mfu)
    training: Function = costs.training_flops
    if not wanted.budget:
        assert hours  # Wanted asks for the speed
        training = costs.scaled(hours, wanted.price_per_hour) if wanted.money else hours
    parts: dict[str, Function] = {"training": training}
    if wanted.serve_tokens:
        parts["serving"] = _serving(training, wanted.serve_tokens)
    if wanted.price_per_token:
        parts["data"] = costs.data_price(wanted.price_per_token, wanted.unique_tokens)
    cost = costs.total(*parts.values())
    if math.isfinite(wanted.unique_tokens):
        # The size that the data can use is a matter of operations, whatever they cost.
        most = matched_size(loss, costs.training_flops, wanted.unique_tokens)
        loss = costs.repeated(loss, wanted.unique_tokens, most)
    return Terms(loss, cost, parts, hours, sizes)


def _serving(training: Function, tokens: float) -> Function:
    return lambda N, D: training(N, np.full(np.shape(D), tokens / 3))


def read_step_times(path: str) -> tuple[Function, Range]:
    """Device hours from a CSV of measured updates, and the sizes between which it speaks.

    Columns: N, step_seconds, tokens (of an update), and devices (1 where there is no such column).

    Raises:
        InputError: for a missing file or column, or a row that is no positive number.
    """
    try:
        with Path(path).open(newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"--step_times={path}: cannot be read: {error}") from error
    require(len(rows) >= 2, f"--step_times={path}: {len(rows)} rows: two sizes at least are needed")
    read = []
    for number, row in enumerate(rows, start=1):
        missing = [name for name in ("N", "step_seconds", "tokens") if row.get(name) is None]
        require(not missing, f"--step_times={path}: row {number} has no {', '.join(missing)}")
        read.append([_positive(row.get(name) or "1", name, path, number)
                     for name in ("N", "step_seconds", "tokens", "devices")])  # fmt: skip
    N, seconds, tokens, devices = np.array(sorted(read)).T
    hours = seconds * devices / tokens / 3600
    return costs.per_token(list(N), list(hours), "device hours"), (float(N[0]), float(N[-1]))


def _positive(text: str, name: str, path: str, number: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    require(
        0 < value < math.inf,
        f"--step_times={path}: row {number}: {name}={text} must be a positive number",
    )
    return value


def suggestions(N: float, D: float) -> dict[str, dict[str, float]]:
    """Batches (tokens) and peak learning rates that published rules give; see scaling.rules.

    C is 6ND. Where the rules disagree, so do the setups they were fitted on.
    """
    C = 6 * N * D
    return {
        "Step Law": {"batch": step_law_batch(D), "learning_rate": step_law_learning_rate(N, D)},
        "DeepSeek": {"batch": deepseek_batch(C), "learning_rate": deepseek_learning_rate(C)},
        "Power lines": {"batch": power_lines_batch(D)},
    }
