"""The loss under a learning rate that falls, as a law of two columns.

scaling/annealing.py computes the columns from schedules, and has the laws of whole schedules, which
read no columns.
"""

from collections.abc import Mapping

import numpy as np

from scaling.laws_form import Columns, Law, coefficient, exponent, power


def _annealed(p: Columns, t: Columns) -> Mapping[str, np.ndarray | float]:
    return {"L0": 1.0, "A": power(t["x"], -p["alpha"]), "B": -t["felt"]}


ANNEALED = Law(
    name="annealed",
    symbols={
        "x": "sum of the learning rates of all updates",
        "felt": "1 + the share of a whole fall of the rate that is felt, or 1 + S2",
    },
    parameters=(
        coefficient("L0", "limit of the loss without a fall, plus B"),
        coefficient("A", "size of the power law"),
        exponent("alpha", "exponent of the summed rate"),
        coefficient("B", "nats that a whole fall gains in the end"),
    ),
    terms=_annealed,
    source="L = L0 + A x^-alpha - B felt: with felt = 1 + S2 the momentum law of Tissue et al. "
    "2024, arXiv:2408.11029; with scaling.annealing.share_felt the Multi-Power law of Luo et al. "
    "2025, arXiv:2503.12811, its inner constants held",
)
