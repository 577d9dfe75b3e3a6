"""Laws of the loss of a finished run in its sizes: model, data, compute, shape, experts.

N is a number of parameters, D of tokens, C of FLOPs, S of updates. Which parameters N counts, and
which FLOPs C, is the table's to say: a law is as good with one count as with another, but its
exponents differ (Porian et al. 2024, arXiv:2406.19146).
"""

from collections.abc import Mapping

import numpy as np

from scaling.laws_form import Columns, Law, coefficient, exponent, power, scale

_KAPLAN = "Kaplan et al. 2020, arXiv:2001.08361"
_E = coefficient("E", "irreducible loss, the entropy of the text")
_WIDE = tuple(10.0**k for k in range(4, 21, 4))


def _chinchilla(p: Columns, t: Columns) -> Mapping[str, np.ndarray | float]:
    return {"E": 1.0, "A": power(t["N"], -p["alpha"]), "B": power(t["D"], -p["beta"])}


CHINCHILLA = Law(
    name="chinchilla",
    symbols={"N": "parameters", "D": "tokens"},
    parameters=(
        _E,
        coefficient("A", "size of the model term"),
        coefficient("B", "size of the data term"),
        exponent("alpha", "exponent of the model size"),
        exponent("beta", "exponent of the data"),
    ),
    terms=_chinchilla,
    source="Hoffmann et al. 2022, arXiv:2203.15556, equation 2: L = E + A / N^alpha + B / D^beta",
    apart=("N", "D"),
)


def _kaplan(symbol: str, unit: str, equation: str) -> Law:
    """L = (X_c / X)^alpha_X."""
    constant, slope = f"{symbol}_c", f"alpha_{symbol}"

    def terms(p: Columns, t: Columns) -> Mapping[str, np.ndarray | float]:
        return {"": power(p[constant] / t[symbol], p[slope])}

    return Law(
        name=f"kaplan_{symbol}",
        symbols={symbol: unit},
        parameters=(
            scale(constant, f"{symbol} at which the loss would be 1", 1.0, 1e60, _WIDE),
            exponent(slope, f"exponent of {symbol}"),
        ),
        terms=terms,
        source=f"{_KAPLAN}, equation {equation}: L = ({symbol}_c / {symbol})^alpha_{symbol}",
    )


def _kaplan_nd(p: Columns, t: Columns) -> Mapping[str, np.ndarray | float]:
    ratio = p["alpha_N"] / p["alpha_D"]
    return {"": power(p["N_c"] / t["N"], ratio) + p["D_c"] / t["D"]}


KAPLAN_N = _kaplan("N", "parameters without embeddings", "1.1")
KAPLAN_D = _kaplan("D", "tokens", "1.2")
KAPLAN_C = _kaplan("C", "FLOPs at a batch far below critical", "1.3")

KAPLAN_ND = Law(
    name="kaplan_ND",
    symbols={"N": "parameters without embeddings", "D": "tokens"},
    parameters=(
        scale("N_c", "N at which the loss would be 1 with endless data", 1.0, 1e60, _WIDE),
        scale("D_c", "D at which the loss would be 1 with an endless model", 1.0, 1e60, _WIDE),
        exponent("alpha_N", "exponent of N", 1e-3, 3.0, (0.08, 0.3)),
        exponent("alpha_D", "exponent of D", 1e-3, 3.0, (0.1, 0.4)),
    ),
    terms=_kaplan_nd,
    link=lambda total, p: power(total, p["alpha_D"]),
    source=f"{_KAPLAN}, equation 1.5: L = ((N_c / N)^(alpha_N / alpha_D) + D_c / D)^alpha_D",
    apart=("N", "D"),
)


def _kaplan_ns(p: Columns, t: Columns) -> Mapping[str, np.ndarray | float]:
    model, time = power(p["N_c"] / t["N"], p["alpha_N"]), power(p["S_c"] / t["S"], p["alpha_S"])
    return {"": model + time}


KAPLAN_NS = Law(
    name="kaplan_NS",
    symbols={"N": "parameters without embeddings", "S": "updates at a batch far above critical"},
    parameters=(
        scale("N_c", "N at which its term would be 1", 1.0, 1e60, _WIDE),
        scale("S_c", "S at which its term would be 1", 1e-3, 1e30, (1e2, 1e4, 1e8)),
        exponent("alpha_N", "exponent of N", starts=(0.08, 0.3)),
        exponent("alpha_S", "exponent of S", starts=(0.3, 0.8)),
    ),
    terms=_kaplan_ns,
    source=f"{_KAPLAN}, equation 1.6: L = (N_c / N)^alpha_N + (S_c / S_min)^alpha_S",
    apart=("N", "S"),
)


def _repetition(p: Columns, t: Columns) -> Mapping[str, np.ndarray | float]:
    ratio = power(p["alpha"] * p["A"] / (p["beta"] * p["B"]), 1 / (p["alpha"] + p["beta"]))
    enough = power(t["U"] * ratio, p["beta"] / p["alpha"]) * ratio  # the best N for U tokens
    unique = np.where(np.real(enough) < t["N"], enough, t["N"])
    model = _saturating(t["N"], unique, p["R_N"])
    data = _saturating(t["D"], t["U"], p["R_D"])
    return {"E": 1.0, "": p["A"] * power(model, -p["alpha"]) + p["B"] * power(data, -p["beta"])}


def _saturating(total: np.ndarray, unique: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """What `total` is worth when only `unique` of it is new: U + U R* (1 - exp(-R / R*))."""
    repeats = total / unique - 1
    return unique - unique * limit * np.expm1(-repeats / limit)


REPETITION = Law(
    name="repetition",
    symbols={"N": "parameters", "D": "tokens seen", "U": "unique tokens, at most D"},
    parameters=(
        _E,
        scale("A", "size of the model term", 1e-9, 1e30, (30.0, 500.0, 8e3)),
        scale("B", "size of the data term", 1e-9, 1e30, (30.0, 1e3, 3e4)),
        exponent("alpha", "exponent of the model size", 1e-3, 3.0, (0.2, 0.35, 0.6)),
        exponent("beta", "exponent of the data", 1e-3, 3.0, (0.2, 0.35, 0.6)),
        scale(
            "R_N", "excess parameters, in units of U_N, that are worth something", 1e-3, 1e6, (5,)
        ),
        scale("R_D", "repetitions that are worth something", 1e-3, 1e6, (3.0, 15.0, 60.0)),
    ),
    terms=_repetition,
    source="Muennighoff et al. 2023, arXiv:2305.16264, section 3: the Chinchilla law of "
    "U_N + U_N R_N (1 - exp(-(N / U_N - 1) / R_N)) and of D likewise; U_N is the smaller of N and "
    "the best model size for U tokens",
)


def _shape(p: Columns, t: Columns) -> Mapping[str, np.ndarray | float]:
    return {
        **_chinchilla(p, t),
        "W": power(t["width"], -p["omega"]),
        "H": power(t["depth"], -p["eta"]),
    }


SHAPE = Law(
    name="width_depth",
    symbols={**CHINCHILLA.symbols, "width": "channels", "depth": "layers"},
    parameters=(
        *CHINCHILLA.parameters,
        coefficient("W", "size of the width term"),
        coefficient("H", "size of the depth term"),
        exponent("omega", "exponent of the width"),
        exponent("eta", "exponent of the depth"),
    ),
    terms=_shape,
    source="McLeish et al. 2025, arXiv:2502.06857: log L = logsumexp(c_j - x_j log X_j, e) over "
    "width, depth, N and D",
    apart=("N", "D"),
)


def _routed(p: Columns, t: Columns) -> Mapping[str, np.ndarray | float]:
    above = 1 / (1 / p["E_start"] - 1 / p["E_max"])
    saturated = 1 / (1 / (t["experts"] - 1 + above) + 1 / p["E_max"])
    size, experts = np.log10(t["N"]), np.log(saturated) / np.log(10)
    return {"a": size, "b": experts, "c": size * experts, "d": 1.0}


ROUTED = Law(
    name="routed",
    symbols={"N": "parameters of the dense model", "experts": "experts a layer, 1 for dense"},
    parameters=(
        coefficient("a", "exponent of N", signed=True),
        coefficient("b", "exponent of the experts", signed=True),
        coefficient("c", "how the two act on each other", signed=True),
        coefficient("d", "log10 of the size", signed=True),
        scale("E_start", "experts below which more change little", 1.0, 1e3, (1.5, 3.0, 6.0)),
        scale("E_max", "experts beyond which more change little", 1.0, 1e9, (50.0, 300.0, 1e3)),
    ),
    terms=_routed,
    link=lambda total, p: power(np.asarray(10.0), total),
    source="Clark et al. 2022, arXiv:2202.01169, equation 1: log10 L = a log10 N + "
    "b log10 E' + c log10 N log10 E' + d, E' the saturated number of experts",
)
