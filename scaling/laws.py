"""The published scaling laws by name; `scaling.laws_form` says how to declare one's own.

Laws of whole learning-rate schedules (momentum, Multi-Power) read no columns: scaling/annealing.py.
"""

from collections.abc import Mapping

import numpy as np

from configs.schema import require
from scaling.laws_annealing import ANNEALED
from scaling.laws_curves import CRITICAL_BATCH, DOWNSTREAM, JOINT, M1, M2, M3, M4, POWER
from scaling.laws_form import Columns, Law, Parameter, coefficient, exponent, power, scale
from scaling.laws_loss import (
    CHINCHILLA,
    KAPLAN_C,
    KAPLAN_D,
    KAPLAN_N,
    KAPLAN_ND,
    KAPLAN_NS,
    REPETITION,
    ROUTED,
    SHAPE,
)

__all__ = [
    "ANNEALED",
    "CHINCHILLA",
    "CRITICAL_BATCH",
    "DOWNSTREAM",
    "JOINT",
    "KAPLAN_C",
    "KAPLAN_D",
    "KAPLAN_N",
    "KAPLAN_ND",
    "KAPLAN_NS",
    "LAWS",
    "M1",
    "M2",
    "M3",
    "M4",
    "POWER",
    "REPETITION",
    "ROUTED",
    "SHAPE",
    "Columns",
    "Law",
    "Parameter",
    "coefficient",
    "exponent",
    "get",
    "joint_estimate",
    "power",
    "scale",
]

LAWS: Mapping[str, Law] = {
    law.name: law
    for law in (
        CHINCHILLA,
        KAPLAN_N,
        KAPLAN_D,
        KAPLAN_C,
        KAPLAN_ND,
        KAPLAN_NS,
        REPETITION,
        SHAPE,
        ROUTED,
        M1,
        M2,
        M3,
        M4,
        CRITICAL_BATCH,
        JOINT,
        POWER,
        DOWNSTREAM,
        ANNEALED,
    )
}


def get(name: str) -> Law:
    """The law of that name. Raises InputError for one there is not."""
    require(name in LAWS, f"there is no law {name}: choose one of {', '.join(LAWS)}")
    return LAWS[name]


def joint_estimate(
    loss: float,
    at: Mapping[str, float],
    target: Mapping[str, float],
    exponents: Mapping[str, float],
) -> float:
    """Loss at `target` from one known run: L1 (N2/N1)^a_N (D2/D1)^a_D (C2/C1)^a_C.

    The three mappings have the same keys, usually N, D and C, in any units; the exponents are
    negative where more is better. Raises InputError where the keys differ or a size is not
    positive.
    """
    require(
        set(at) == set(target) == set(exponents),
        f"the known run has {', '.join(at)}, the target {', '.join(target)}, the exponents "
        f"{', '.join(exponents)}: name the same in all three",
    )
    for name, size in [*at.items(), *target.items()]:
        require(size > 0, f"{name}={size:g} must be positive")
    ratios = [exponents[name] * np.log(target[name] / at[name]) for name in at]
    return float(loss * np.exp(sum(ratios)))
