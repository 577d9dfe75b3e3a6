"""Published rules for learning rate, batch size and weight decay, and a quick estimate of a loss.

Each holds for the setup it was fitted on (optimizer, parametrisation, data, range of sizes), and is
a first guess elsewhere. N is a number of parameters, D one of training tokens, C of training
operations; batches are in tokens.
"""

import math
from collections.abc import Mapping

from configs.schema import require


def step_law_learning_rate(N: float, D: float) -> float:
    """Peak rate 1.79 N^-0.713 D^0.307, N without embeddings (Li et al. 2025, "Step Law", abstract).

    arXiv:2503.04715. AdamW with a final rate of 1e-5, N from 59M to 1B.
    """
    _positive(N=N, D=D)
    return 1.79 * N**-0.713 * D**0.307


def step_law_batch(D: float) -> float:
    """Batch of 0.58 D^0.571 tokens, whatever N (Li et al. 2025, arXiv:2503.04715)."""
    _positive(D=D)
    return 0.58 * D**0.571


def deepseek_learning_rate(C: float) -> float:
    """Peak rate 0.3118 C^-0.1250 (DeepSeek-AI 2024, arXiv:2401.02954, equation 1)."""
    _positive(C=C)
    return 0.3118 * C**-0.1250


def deepseek_batch(C: float) -> float:
    """Batch of 0.2920 C^0.3271 tokens (DeepSeek-AI 2024, arXiv:2401.02954, equation 1)."""
    _positive(C=C)
    return 0.2920 * C**0.3271


def deepseek_flops_per_token(layers: int, width: int, context: int) -> float:
    """M = 72 L d^2 + 12 L d T: operations per token without embeddings, their measure of size.

    DeepSeek-AI 2024, arXiv:2401.02954, equation 2; C = M D.
    """
    return 72 * layers * width**2 + 12 * layers * width * context


def deepseek_allocation(C: float) -> tuple[float, float]:
    """M = 0.1715 C^0.5243 and D = 5.8316 C^0.4757 (DeepSeek-AI 2024, equation 4)."""
    _positive(C=C)
    return 0.1715 * C**0.5243, 5.8316 * C**0.4757


def kaplan_learning_rate(N: float) -> float:
    """Peak rate 0.003239 - 0.0001395 ln N, N without embeddings (Kaplan et al. 2020, eq. D.1).

    The paper says that it breaks down above 1e10 parameters, where it nears 0: refused there.
    """
    _positive(N=N)
    require(
        N <= 1e10,
        f"N={N:.3g}: Kaplan's rule for the learning rate ends at 1e10 parameters; use another",
    )
    return 0.003239 - 0.0001395 * math.log(N)


def power_lines_batch(D: float) -> float:
    """Batch of 0.0306 D^0.383 sequences of 2048, in tokens (Bergsma et al. 2025, "Power lines").

    arXiv:2505.13738: the batch of least loss at a given D, whatever N; AdamW under muP, N from 111M
    to 3.3B.
    """
    _positive(D=D)
    return 2048 * 0.0306 * D**0.383


def power_lines_timescale(tokens_per_parameter: float) -> float:
    """AdamW's best timescale tau = 1.084 (D / N)^-0.527, as a share of the run.

    Bergsma et al. 2025, arXiv:2505.13738.
    """
    _positive(tokens_per_parameter=tokens_per_parameter)
    return 1.084 * tokens_per_parameter**-0.527


def weight_decay(timescale: float, batch: float, learning_rate: float, D: float) -> float:
    """lambda = B / (eta tau D): the decoupled weight decay with that timescale, B in tokens.

    Bergsma et al. 2025, arXiv:2505.13738.
    """
    _positive(timescale=timescale, batch=batch, learning_rate=learning_rate, D=D)
    return batch / (learning_rate * timescale * D)


def zhang_critical_batch(N: float) -> float:
    """Critical batch of 93.197 (N / 1e6)^0.46828 sequences of 512, in tokens.

    Zhang et al. 2024 (arXiv:2410.21676), to the digits of their published notebook: C4 runs of 85M
    to 1.2B parameters whose tokens grow with N. At a fixed D it hardly depends on N.
    """
    _positive(N=N)
    return 512 * 93.197 * (N / 1e6) ** 0.46828


def product_estimate(
    loss: float,
    base: Mapping[str, float],
    target: Mapping[str, float],
    exponents: Mapping[str, float],
) -> float:
    """L1 (N2/N1)^a_N (D2/D1)^a_D (C2/C1)^a_C: a quick estimate from one run and known exponents.

    The three mappings have the same names, in any units that base and target share. Exponents are
    negative where more helps. There is no floor: far from `base` it promises too much.
    """
    require(
        set(base) == set(target) == set(exponents),
        f"base has {sorted(base)}, target {sorted(target)}, exponents {sorted(exponents)}: "
        "give each name in all three",
    )
    _positive(loss=loss)
    for name in base:
        _positive(**{f"base {name}": base[name], f"target {name}": target[name]})
    return loss * math.prod((target[x] / base[x]) ** exponents[x] for x in base)


def _positive(**values: float) -> None:
    for name, value in values.items():
        require(0 < value < math.inf, f"{name}={value} must be positive and finite")
