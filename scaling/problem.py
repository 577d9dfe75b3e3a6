"""A law on a table as a function of a vector, with exact derivatives.

Legend: b problem (a start, or a resample), n row, p parameter, k coefficient.

The law's coefficients are rescaled: each term is divided by its root mean square over the rows,
which depends on the exponents. A coefficient then says how much its term contributes to the loss
whatever the exponent is, and the condition of the problem falls from about 1e11 to about 10.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from configs.schema import InputError, require
from scaling.laws_form import Columns, Law, Parameter

_STEP = 1e-30  # of complex differentiation, which loses no digits however small the step


@dataclass(frozen=True)
class Problem:
    """A law on a table, as a function of a vector: coefficients first, then searched parameters."""

    law: Law
    columns: Columns
    target_n: np.ndarray  # what is observed, or its logarithm
    log: bool  # residuals of logarithms
    coefficients: tuple[str, ...]
    searched: tuple[str, ...]
    logarithmic: tuple[bool, ...]  # of the searched ones
    fixed: Mapping[str, float]
    stands_for: Mapping[str, str]  # a tied parameter: the one that gives its value
    lower_p: np.ndarray
    upper_p: np.ndarray

    def _values(self, theta_bp: np.ndarray, moved: int = -1) -> dict[str, np.ndarray]:
        """What `terms` reads by name, each (b, 1); the searched parameter `moved` is complex."""
        values = {name: np.array([[value]]) for name, value in self.fixed.items()}
        for index, (name, log) in enumerate(zip(self.searched, self.logarithmic, strict=True)):
            theta = theta_bp[:, len(self.coefficients) + index, None]
            theta = theta + 1j * _STEP if index == moved else theta
            values[name] = np.exp(theta) if log else theta
        for name, other in self.stands_for.items():
            if other in values:
                values[name] = values[other]
        return values

    def _terms(self, values: Columns, b: int) -> tuple[np.ndarray | float, list[np.ndarray]]:
        """(part without free coefficients, each free coefficient's term (b, n))."""
        offset: np.ndarray | float = 0.0
        terms: dict[str, np.ndarray | float] = dict.fromkeys(self.coefficients, 0.0)
        for name, term in self.law.terms(values, self.columns).items():
            first = self.stands_for.get(name, name)
            if first in terms:
                terms[first] = terms[first] + term
            else:
                offset = offset + (values[first] if first else 1.0) * term
        shape = (b, len(self.target_n))
        return offset, [np.broadcast_to(term, shape) for term in terms.values()]

    def _model(self, theta_bp: np.ndarray, moved: int = -1) -> tuple:
        """(value to compare with the target, its sum before the link, scaled terms, values)."""
        values = self._values(theta_bp, moved)
        total, terms = self._terms(values, len(theta_bp))
        scaled = [term / _rms(term) for term in terms]
        for index, term in enumerate(scaled):
            total = total + theta_bp[:, index, None] * term
        total = np.broadcast_to(total, (len(theta_bp), len(self.target_n)))
        return self._finish(total, values), total, scaled, values

    def _finish(self, total_bn: np.ndarray, values: Columns) -> np.ndarray:
        """From the sum of terms to what is compared with the target."""
        value = self.law.link(total_bn, values) if self.law.link else total_bn
        return np.log(value) if self.log else value

    def residuals(self, theta_bp: np.ndarray) -> np.ndarray:
        """Model minus target (b, n); NaN where the model has no value."""
        return self._model(theta_bp)[0] - self.target_n

    def linearised(self, theta_bp: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Residuals (b, n) and their derivatives (b, n, p)."""
        value, total, scaled, values = self._model(theta_bp)
        jacobian = np.empty((*value.shape, theta_bp.shape[1]))
        if self.law.link is None:
            outer = 1 / total if self.log else 1.0
        else:
            outer = self._finish(total + 1j * _STEP, values).imag / _STEP
        for index, term in enumerate(scaled):
            jacobian[:, :, index] = outer * term
        for index in range(len(self.searched)):
            moved = self._model(theta_bp, index)[0]
            jacobian[:, :, len(scaled) + index] = moved.imag / _STEP
        return value - self.target_n, jacobian

    def check_derivatives(self, theta_bp: np.ndarray) -> None:
        """Raise InputError where `terms` loses the imaginary part, which is the derivative."""
        _, jacobian = self.linearised(theta_bp)
        offset = len(self.coefficients)
        for index, name in enumerate(self.searched):
            step = np.zeros_like(theta_bp)
            step[:, offset + index] = 1e-5 * (1 + np.abs(theta_bp[:, offset + index]))
            rise = self.residuals(theta_bp + step) - self.residuals(theta_bp - step)
            slopes = rise / (2 * step.sum(1, keepdims=True))
            off = np.linalg.norm(jacobian[:, :, offset + index] - slopes)
            require(
                bool(off <= 0.1 * np.linalg.norm(slopes) + 1e-6),
                f"the derivative of law {self.law.name} by {name} is wrong: its terms must use "
                "functions of complex numbers, not np.abs and the like",
            )

    def parameters(self, theta_bp: np.ndarray) -> dict[str, np.ndarray]:
        """The law's parameters, each (b,), from the solver's."""
        values = self._values(theta_bp)
        _, terms = self._terms(values, len(theta_bp))
        for index, (name, term) in enumerate(zip(self.coefficients, terms, strict=True)):
            values[name] = theta_bp[:, index, None] / _rms(term)
        for name, other in self.stands_for.items():
            values[name] = values[other]
        shape = (len(theta_bp),)
        return {p.name: np.broadcast_to(values[p.name][:, 0], shape) for p in self.law.parameters}

    def vector(self, parameters: Mapping[str, float]) -> np.ndarray:
        """The solver's parameters (1, p) from the law's."""
        theta = np.zeros((1, len(self.coefficients) + len(self.searched)))
        for index, (name, log) in enumerate(zip(self.searched, self.logarithmic, strict=True)):
            value = parameters[name]
            theta[0, len(self.coefficients) + index] = np.log(value) if log else value
        _, terms = self._terms(self._values(theta), 1)
        for index, (name, term) in enumerate(zip(self.coefficients, terms, strict=True)):
            theta[0, index] = parameters[name] * _rms(term)[0, 0]
        return theta


def _rms(term_bn: np.ndarray) -> np.ndarray:
    """Root mean square over rows (b, 1): what a coefficient's unit becomes."""
    return np.sqrt((term_bn**2).mean(1, keepdims=True))


def build(
    law: Law,
    table: Columns,
    space: str,
    fixed: Mapping[str, float],
    tied: Mapping[str, str],
) -> Problem:
    """The problem of fitting `law` to `table`, its input checked.

    Raises InputError for an unknown parameter, a missing column, columns of different lengths, and
    a value that is not a positive number, with its row.
    """
    known = {parameter.name: parameter for parameter in law.parameters}
    for name in [*fixed, *tied, *tied.values()]:
        require(name in known, f"law {law.name} has no parameter {name}: it has {', '.join(known)}")
    for name, other in tied.items():
        require(
            other not in tied and name not in fixed and other != name,
            f"{name} is tied to {other}, which must itself be neither tied nor fixed",
        )
        require(
            known[name].linear == known[other].linear,
            f"{name} cannot be tied to {other}: one is a coefficient and the other is not",
        )
    free = [each for name, each in known.items() if name not in fixed and name not in tied]
    require(bool(free), f"every parameter of law {law.name} is fixed: leave one to be fitted")
    coefficients = [each for each in free if each.linear]
    searched = [each for each in free if not each.linear]
    lower = [each.lower for each in coefficients] + [_inner(e, e.lower) for e in searched]
    upper = [each.upper for each in coefficients] + [_inner(e, e.upper) for e in searched]
    columns = {name: _column(law, table, name) for name in law.symbols}
    observed = _column(law, table, law.observed)
    lengths = {name: len(column) for name, column in {**columns, law.observed: observed}.items()}
    require(len(set(lengths.values())) == 1, f"columns differ in length: {lengths}")
    return Problem(
        law=law,
        columns=columns,
        target_n=np.log(observed) if space == "log" else observed,
        log=space == "log",
        coefficients=tuple(each.name for each in coefficients),
        searched=tuple(each.name for each in searched),
        logarithmic=tuple(each.log for each in searched),
        fixed={name: float(value) for name, value in fixed.items()},
        stands_for=dict(tied),
        lower_p=np.array(lower),
        upper_p=np.array(upper),
    )


def _inner(parameter: Parameter, value: float) -> float:
    """A value of a searched parameter as the solver sees it."""
    return float(np.log(value)) if parameter.log else value


def _column(law: Law, table: Columns, name: str) -> np.ndarray:
    """A column as floats, checked to be positive numbers."""
    if name not in table:
        raise InputError(
            f"law {law.name} reads the column {name}, and the table has {', '.join(table)}: "
            "name the column"
        )
    column = np.asarray(table[name], float)
    require(column.ndim == 1, f"column {name} must have one dimension, not {column.ndim}")
    wrong = np.flatnonzero(~(np.isfinite(column) & (column > 0)))
    if wrong.size:
        raise InputError(
            f"{name} is {column[wrong[0]]:g} in row {wrong[0] + 1} of {len(column)}: "
            "leave out rows that are not positive numbers"
        )
    return column
