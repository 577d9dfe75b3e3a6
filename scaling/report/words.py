"""Numbers as people read them."""

import math

_SUFFIXES = (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3))
TIMES = "\N{MULTIPLICATION SIGN}"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def count(value: float) -> str:
    """A number of parameters or tokens: "1.40 B"."""
    for suffix, size in _SUFFIXES:
        if 0.9995 * size <= value < 1e15:
            return f"{trim(value / size)} {suffix}"
    return power(value) if value >= 1e15 else trim(value)


def trim(value: float) -> str:
    """Three digits."""
    if not math.isfinite(value):
        return "unknown"
    places = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{places}f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"


def power(value: float) -> str:
    """A number of operations: such as 1.40 times 10²¹."""
    if not (value > 0 and math.isfinite(value)) or 1e-2 <= value < 1e4:
        return trim(value)
    factor, exponent = f"{value:.2e}".split("e")
    raised = f"10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    return raised if factor == "1.00" else f"{factor} {TIMES} {raised}"


def digits(value: float, places: int = 5) -> str:
    """A parameter of a law: plain up to 5 digits, else as a power."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:.{places}g}" if abs(value) < 10**places else f"{value:,.0f}"
    return power(value) if value > 0 else f"{value:.{places}g}"
