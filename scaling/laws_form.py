"""Scaling laws as declared forms: what they predict, from what, with which parameters.

A law is a sum of terms. Each term is a column of the table raised to exponents, times a
coefficient; the fitter solves for the coefficients at any exponents, and so must know which is
which. A law of one's own is one short function and one declaration:

    def terms(p, t):
        return {"E": 1.0, "A": power(t["N"], -p["alpha"])}

    LAW = Law(
        name="mine",
        symbols={"N": "parameters"},
        parameters=(
            coefficient("E", "irreducible loss"),
            coefficient("A", "size of the model term"),
            exponent("alpha", "exponent of the model size"),
        ),
        terms=terms,
        source="where the form comes from",
    )

`terms` is differentiated by complex steps: it must use functions that NumPy has for complex
numbers (so `power` below, np.exp, np.expm1, np.log, np.where on real parts; not np.abs, np.maximum
or np.logaddexp), elementwise.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from configs.schema import require

Columns = Mapping[str, np.ndarray]
_COMMON_EXPONENTS = (0.08, 0.2, 0.35, 0.55, 1.0)


@dataclass(frozen=True)
class Parameter:
    """One number of a law, where it may lie, and where the search for it begins."""

    name: str
    what: str
    lower: float
    upper: float
    starts: tuple[float, ...] = ()  # none: the law is linear in it, and it needs no start
    log: bool = False  # searched on a logarithmic scale

    @property
    def linear(self) -> bool:
        """Whether the law is linear in this parameter at fixed values of the others."""
        return not self.starts

    def __post_init__(self) -> None:
        if self.linear:
            require(
                self.lower in (0.0, -np.inf) and self.upper == np.inf,
                f"the coefficient {self.name} may be bounded by zero from below or not at all",
            )
        require(
            not self.log or self.lower > 0,
            f"parameter {self.name} is searched by its logarithm: its lower bound must be positive",
        )
        require(
            all(self.lower <= start <= self.upper for start in self.starts),
            f"parameter {self.name} starts outside its bounds [{self.lower:g}, {self.upper:g}]",
        )


def coefficient(name: str, what: str, signed: bool = False) -> Parameter:
    """A parameter that multiplies a term; not negative unless `signed`."""
    return Parameter(name, what, -np.inf if signed else 0.0, np.inf)


def exponent(
    name: str,
    what: str,
    lower: float = 0.0,
    upper: float = 3.0,
    starts: tuple[float, ...] = _COMMON_EXPONENTS,
) -> Parameter:
    """A parameter that a column is raised to, and that is searched."""
    return Parameter(name, what, lower, upper, starts)


def scale(name: str, what: str, lower: float, upper: float, starts: tuple[float, ...]) -> Parameter:
    """A positive parameter of unknown order of magnitude, searched by its logarithm."""
    return Parameter(name, what, lower, upper, starts, log=True)


def power(base: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """base ** exponent for a positive base, several times faster where the exponent is complex."""
    return np.exp(exponent * np.log(base))


@dataclass(frozen=True)
class Law:
    """A form that predicts one column of a table from others.

    Its value is link(sum of coefficient * term, parameters); without a link, the sum itself.
    """

    name: str
    symbols: Mapping[str, str]  # columns it reads, with their units
    parameters: tuple[Parameter, ...]
    terms: Callable[[Columns, Columns], Mapping[str, np.ndarray | float]]
    # terms(parameters that are not linear, columns): the term of each coefficient; the key "" is
    # for a part without a coefficient
    source: str
    observed: str = "loss"  # the column it predicts
    apart: tuple[str, ...] = ()  # columns that must vary independently of each other
    link: Callable[[np.ndarray, Columns], np.ndarray] | None = None

    def __post_init__(self) -> None:
        names = [parameter.name for parameter in self.parameters]
        require(len(set(names)) == len(names), f"law {self.name} names a parameter twice")

    def predict(
        self,
        parameters: Mapping[str, float | np.ndarray],
        table: Mapping[str, float | np.ndarray],
    ) -> np.ndarray:
        """The observed column at the rows of `table` (arrays or numbers, broadcast together).

        Raises InputError for a parameter or a column that is missing.
        """
        names = [each.name for each in self.parameters]
        for kind, wanted, given in (
            ("parameter", names, parameters),
            ("column", list(self.symbols), table),
        ):
            missing = [name for name in wanted if name not in given]
            require(not missing, f"law {self.name} needs the {kind} {', '.join(missing)}: give it")
        values = {name: np.asarray(parameters[name], float) for name in names}
        columns = {name: np.asarray(table[name], float) for name in self.symbols}
        total = np.asarray(0.0)
        for name, term in self.terms(values, columns).items():
            total = total + (values[name] if name else 1.0) * term
        rows = np.broadcast(total, *columns.values(), *values.values())
        return np.broadcast_to(self.link(total, values) if self.link else total, rows.shape)
