"""What a training run costs, as functions cost(N, D) that are scaled and added up.

N is a number of parameters and D one of training tokens, numpy arrays of one shape. A cost is in
FLOPs, device hours or money; what is added must be in one unit:

    hours = device_hours(training_flops, peak=989e12, mfu=0.4)
    money = total(scaled(hours, 2.5), data_price(1e-9))

The peak is the dense one (a data sheet's larger figure may assume sparsity).
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.interpolate import PchipInterpolator

from configs.schema import require

if TYPE_CHECKING:
    from configs.schema import Model

Function = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of N and D

_BEYOND = 1.05  # a table serves this far beyond its ends, so that derivatives exist at them


def training_flops(N: np.ndarray, D: np.ndarray) -> np.ndarray:
    """6 N D floating-point operations (Kaplan et al. 2020, section 2.1): no attention scores."""
    return 6 * np.asarray(N, float) * D


def attention_flops(context: int, aspect: float) -> Function:
    """Operations of the attention scores, over all pairs of tokens: 12 L d T a token.

    Chowdhery et al. 2022 (PaLM), appendix B, with heads * head_dim = d; T is the context. Depth L
    and width d follow from N = 12 L d^2 (Kaplan et al. 2020, equation 2.1; N without embeddings)
    and d / L = aspect. To be added to training_flops.
    """
    require(context > 0 and aspect > 0, "attention needs a positive context and aspect ratio")

    def cost(N: np.ndarray, D: np.ndarray) -> np.ndarray:
        depth = np.cbrt(np.asarray(N, float) / (12 * aspect**2))
        return 12 * aspect * depth**2 * context * D

    return cost


def exact_flops(
    models: Sequence["Model"],
    size: Literal["parameters", "non_embedding"] = "non_embedding",
    convention: Literal["6n", "palm", "strict"] = "palm",
) -> Function:
    """Training operations from exact counts of a family of models, interpolated between them.

    `size` says what the law's N counts; `convention` what an operation is, see
    model.count.Counts.flops_per_token. Raises InputError as `per_token` does.
    """
    from model.count import counts

    counted = sorted((getattr(c, size), c.flops_per_token(convention)) for c in map(counts, models))
    return per_token([n for n, _ in counted], [flops for _, flops in counted], "FLOPs")


def per_token(sizes: Sequence[float], costs: Sequence[float], what: str = "cost") -> Function:
    """A cost proportional to D, from a table of its value per token at rising sizes N.

    Between the rows a monotone cubic in log-log coordinates (Fritsch and Carlson
    1980); asked for sizes outside the table it raises InputError. So it does for fewer than two
    rows, and for sizes or costs that are not positive and rising.
    """
    require(
        len(sizes) == len(costs) >= 2,
        f"a table of {what} by size needs two rows at least, and as many sizes as values",
    )
    for row in range(len(sizes)):
        least = (sizes[row - 1], costs[row - 1]) if row else (0.0, 0.0)
        require(
            sizes[row] > least[0] and costs[row] > least[1],
            f"row {row + 1} of the table of {what} by size (N={sizes[row]:.4g}, "
            f"{costs[row]:.4g}): both must be positive and greater than in the row before; "
            "measure again, or leave the row out",
        )
    curve = PchipInterpolator(np.log(np.array(sizes, float)), np.log(np.array(costs, float)))
    first, last = float(sizes[0]), float(sizes[-1])

    def cost(N: np.ndarray, D: np.ndarray) -> np.ndarray:
        n = np.asarray(N, float)
        require(
            first / _BEYOND <= n.min() and n.max() <= last * _BEYOND,
            f"the table of {what} by size goes from N={first:.4g} to {last:.4g}, and "
            f"N={n.min():.4g} to {n.max():.4g} was asked for: measure more sizes, or bound the "
            f"choice with sizes=({first:.4g}, {last:.4g})",
        )
        return np.exp(curve(np.log(n))) * D

    return cost


def measured_hours(
    sizes: Sequence[float], step_seconds: Sequence[float], step_tokens: float, devices: int = 1
) -> Function:
    """Device hours from the measured seconds of an update of `step_tokens` at each size.

    Interpolated and refused as by `per_token`. Wall-clock hours are these, scaled by 1 / devices.
    """
    require(step_tokens > 0 and devices > 0, "an update needs tokens and devices")
    hours = [devices * seconds / step_tokens / 3600 for seconds in step_seconds]
    return per_token(sizes, hours, "device hours")


def device_hours(flops: Function, peak: float, mfu: float) -> Function:
    """Hours of one device for a cost in FLOPs, at `mfu` of its peak (FLOP/s, dense)."""
    require(peak > 0, f"peak={peak} must be positive: FLOP/s of one device")
    require(0 < mfu <= 1, f"mfu={mfu} must lie in (0, 1]: the share of the peak that is reached")
    return scaled(flops, 1 / (peak * mfu * 3600))


def serving_flops(tokens: float) -> Function:
    """2 N D_inf: forward passes over `tokens` in the model's life (Sardana et al. 2024, sec. 2)."""
    require(tokens >= 0, f"the tokens to serve, {tokens}, must not be negative")
    return lambda N, D: 2.0 * tokens * N * np.ones(np.shape(D))


def data_price(per_token: float, unique: float = math.inf) -> Function:
    """What the data cost, each of at most `unique` tokens paid for once however often it is seen.

    Where there are no more than that, the loss must know it too: see `repeated`.
    """
    require(per_token >= 0 and unique > 0, "data need a price of 0 or more and a positive amount")
    return lambda N, D: per_token * np.minimum(D, unique) * np.ones(np.shape(N))


def total(*costs: Function) -> Function:
    """The sum of costs in one unit."""
    return lambda N, D: sum((cost(N, D) for cost in costs), np.zeros(np.shape(N)))


def scaled(cost: Function, factor: float) -> Function:
    """A cost in another unit: times a price, or a rate."""
    require(0 < factor < math.inf, f"the factor {factor} of a cost must be positive and finite")
    return lambda N, D: factor * cost(N, D)


def effective(amount: np.ndarray, unique: np.ndarray | float, r_star: float) -> np.ndarray:
    """What `amount` is worth of which `unique` is new: U + U R*(1 - exp(-R/R*)), R = amount/U - 1.

    Muennighoff et al. 2023 ("Scaling data-constrained language models"), section 3: for tokens, and
    likewise for parameters beyond those that the data can use. Never more than U (1 + R*).
    """
    unique = np.minimum(amount, unique)
    repeats = np.asarray(amount) / unique - 1
    return unique * (1 - r_star * np.expm1(-repeats / r_star))


def repeated(
    loss: Function,
    unique: float,
    matched_size: float = math.inf,
    r_tokens: float = 15.387756,
    r_parameters: float = 5.309743,
) -> Function:
    """The law where there are only `unique` tokens, and more are epochs over the same ones.

    `matched_size` is the N for which `unique` tokens are the best number (allocate.matched_size):
    parameters beyond it are worth less, too; infinite leaves them their full worth. The constants
    are those Muennighoff et al. 2023 fitted on C4, given to more digits in their published code;
    the fit pins the first down badly (values from 15 to 160 fit nearly as well).
    """
    require(unique > 0, f"unique={unique} must be positive: the tokens there are")

    def limited(N: np.ndarray, D: np.ndarray) -> np.ndarray:
        N, D = np.asarray(N, float), np.asarray(D, float)
        return loss(effective(N, matched_size, r_parameters), effective(D, unique, r_tokens))

    return limited
