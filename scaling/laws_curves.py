"""Laws of one quantity in another, learning curves first, and products of powers."""

from collections.abc import Mapping

import numpy as np

from scaling.laws_form import Columns, Law, Parameter, coefficient, exponent, power, scale

_ALABDULMOHSIN = "Alabdulmohsin, Neyshabur and Zhai 2022, arXiv:2209.06640"
_WIDE = tuple(10.0**k for k in range(4, 21, 4))
_WIDE_INVERSE = tuple(10.0**-k for k in range(4, 21, 4))


def _m1(p: Columns, t: Columns) -> Mapping[str, np.ndarray | float]:
    return {"B": power(t["x"], -p["c"])}


def _m2(p: Columns, t: Columns) -> Mapping[str, np.ndarray | float]:
    return {"E": 1.0, "B": power(t["x"], -p["c"])}


def _m3(p: Columns, t: Columns) -> Mapping[str, np.ndarray | float]:
    return {"E": 1.0, "B": power(1 / t["x"] + p["gamma"], p["c"])}


_X = {"x": "parameters, tokens, FLOPs or updates"}
_LIMIT = coefficient("E", "limit of the loss")
_SIZE = coefficient("B", "size of the power law")
_SLOPE = exponent("c", "exponent")
M1 = Law("M1", _X, (_SIZE, _SLOPE), _m1, f"{_ALABDULMOHSIN}, M1: L = B x^-c")
M2 = Law("M2", _X, (_LIMIT, _SIZE, _SLOPE), _m2, f"{_ALABDULMOHSIN}, M2: L = E + B x^-c")
M3 = Law(
    "M3",
    _X,
    (
        _LIMIT,
        _SIZE,
        _SLOPE,
        scale("gamma", "1 / x at which the curve flattens", 1e-30, 1e3, _WIDE_INVERSE),
    ),
    _m3,
    f"{_ALABDULMOHSIN}, M3: L = E + B (1 / x + gamma)^c",
)


def _m4(p: Columns, t: Columns) -> Mapping[str, np.ndarray | float]:
    """y = sigmoid(u) with log y - a log(1 - y) = c log(x_0 / x), by Newton's method in u.

    The left side rises with u, bent in one direction throughout and with a slope between 1 and a,
    so that the method converges from anywhere.
    """
    right = p["c"] * (np.log(p["x_0"]) - np.log(t["x"]))
    u = right / np.where(right.real > 0, np.maximum(p["a"].real, 0.1), 1.0)
    for _ in range(50):
        above = u.real > 0
        small = np.exp(np.where(above, -u, u))
        log_y = np.where(above, 0.0, u) - np.log1p(small)
        y = np.where(above, 1.0, small) / (1 + small)
        step = (log_y - p["a"] * (log_y - u) - right) / (1 - y + p["a"] * y)
        u = u - step
        if np.all(np.abs(step.real) < 1e-9):  # the imaginary part, a derivative, is as far
            break
    return {"E": 1.0, "span": 1 / (1 + np.exp(-u))}


M4 = Law(
    "M4",
    _X,
    (
        _LIMIT,
        coefficient("span", "loss before any training, less E"),
        _SLOPE,
        Parameter(
            "a", "sharpness of the bend from the level to the power law", 1e-3, 9, (0.3, 1, 3)
        ),
        scale("x_0", "x at which the two meet", 1e-6, 1e40, _WIDE),
    ),
    _m4,
    f"{_ALABDULMOHSIN}, M4: (L - E) / (L_0 - L)^a = B x^-c, as L = E + span y, "
    "y / (1 - y)^a = (x_0 / x)^c, with span = L_0 - E and B = x_0^c span^(1 - a)",
)


def _critical_batch(p: Columns, t: Columns) -> Mapping[str, np.ndarray | float]:
    return {"S_min": 1.0, "E_min": 1 / t["batch"]}


CRITICAL_BATCH = Law(
    name="critical_batch",
    symbols={"batch": "tokens, or sequences"},
    parameters=(
        coefficient("S_min", "updates that the largest batch needs"),
        coefficient("E_min", "tokens, or sequences, that the smallest batch needs"),
    ),
    terms=_critical_batch,
    observed="S",
    source="McCandlish et al. 2018, arXiv:1812.06162, equation 2.11: "
    "(S / S_min - 1) (E / E_min - 1) = 1 with E = S batch; the critical batch is E_min / S_min",
)


def _joint(p: Columns, t: Columns) -> Mapping[str, np.ndarray | float]:
    logs = {f"a_{name}": np.log(t[name]) for name in ("N", "D", "C")}
    return {"log_K": 1.0, **logs}


JOINT = Law(
    name="joint",
    symbols={"N": "parameters", "D": "data, in any unit", "C": "compute, in any unit"},
    parameters=(
        coefficient("log_K", "logarithm of the size", signed=True),
        coefficient("a_N", "exponent of N, negative where more is better", signed=True),
        coefficient("a_D", "exponent of D", signed=True),
        coefficient("a_C", "exponent of C", signed=True),
    ),
    terms=_joint,
    link=lambda total, p: np.exp(total),
    source="a product of power laws for quick estimates: L = K N^a_N D^a_D C^a_C",
    apart=("N", "D", "C"),
)


def _power(p: Columns, t: Columns) -> Mapping[str, np.ndarray | float]:
    return {"log_K": 1.0, "a": np.log(t["x"])}


POWER = Law(
    name="power",
    symbols={"x": "any"},
    parameters=(
        coefficient("log_K", "logarithm of the size", signed=True),
        coefficient("a", "exponent, of either sign", signed=True),
    ),
    terms=_power,
    link=lambda total, p: np.exp(total),
    observed="y",
    source="y = K x^a, as for optimal sizes against compute or a critical batch against N",
)


def _downstream(p: Columns, t: Columns) -> Mapping[str, np.ndarray | float]:
    return {"epsilon": 1.0, "k": -np.exp(-p["gamma"] * t["loss"])}


DOWNSTREAM = Law(
    name="downstream",
    symbols={"loss": "nats per token"},
    parameters=(
        coefficient("epsilon", "error of a model that knows nothing"),
        coefficient("k", "size of what a lower loss takes off"),
        exponent("gamma", "by how much a lower loss takes off more", 1e-3, 20.0, (0.3, 1.0, 3.0)),
    ),
    terms=_downstream,
    observed="error",
    source="Gadre et al. 2024, arXiv:2403.08540: error = epsilon - k exp(-gamma loss), error the "
    "mean over downstream tasks, a share",
)
