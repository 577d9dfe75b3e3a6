"""Batch size: what a larger one buys in time and costs in data, and how it is measured.

S is a number of updates, E = B S the data they see, B the batch; E and B are in one unit (tokens or
sequences). S_min updates are needed with very large batches, E_min data with very small ones, and

    (S / S_min - 1) (E / E_min - 1) = 1,    B_crit = E_min / S_min

(McCandlish et al. 2018, "An empirical model of large-batch training"; Kaplan et al. 2020, equations
5.1 and 5.2).
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from configs.schema import require


@dataclass(frozen=True)
class Trade:
    """One batch size: its updates and data as multiples of the least possible of each."""

    batch: float
    steps_factor: float
    data_factor: float


@dataclass(frozen=True)
class StepsFit:
    """S = steps_min + data_min / B, fitted to the updates that runs needed to reach one loss.

    `rms` is the root mean square of the residuals of log S.
    """

    steps_min: float
    data_min: float
    rms: float

    @property
    def critical(self) -> float:
        """B_crit = E_min / S_min: twice the least updates and twice the least data."""
        return self.data_min / self.steps_min


@dataclass(frozen=True)
class NoiseScale:
    """B_simple = tr(Sigma) / |G|^2, in the unit of the batch, with its jackknife standard error.

    `signal` is the mean estimate of |G|^2, `noise` that of tr(Sigma).
    """

    value: float
    standard_error: float
    signal: float
    noise: float


def trade(batch: float, critical: float) -> Trade:
    """What batches of this size cost: S / S_min = 1 + B_crit / B and E / E_min = 1 + B / B_crit."""
    require(batch > 0 and critical > 0, f"batch={batch}, critical={critical}: must be positive")
    return Trade(batch, 1 + critical / batch, 1 + batch / critical)


def batch_for_overhead(critical: float, overhead: float) -> float:
    """The largest batch that needs at most (1 + overhead) times the least data: overhead * B_crit.

    1 is the critical batch itself: twice the data, twice the updates.
    """
    require(critical > 0 and overhead > 0, "the critical batch and the overhead must be positive")
    return overhead * critical


def cheapest_batch(fit: StepsFit, cost_per_step: float, cost_per_data: float) -> float:
    """The batch of least cost_per_step * S + cost_per_data * E.

    `cost_per_step` is what an update costs whatever its size (the value of the time it takes),
    `cost_per_data` what one unit of data costs to process. Setting the derivative of
    cost_per_step (S_min + E_min / B) + cost_per_data (E_min + S_min B) to 0 gives
    B = sqrt(B_crit cost_per_step / cost_per_data).
    """
    require(cost_per_step > 0 and cost_per_data > 0, "both costs must be positive")
    return float(np.sqrt(fit.critical * cost_per_step / cost_per_data))


def minimum_compute(compute: float, batch: float, critical: float) -> float:
    """C_min = C / (1 + B / B_crit): the compute at very small batches (Kaplan et al. 2020, 5.5)."""
    return compute / trade(batch, critical).data_factor


def minimum_steps(steps: float, batch: float, critical: float) -> float:
    """S_min = S / (1 + B_crit / B): the updates at very large batches (Kaplan et al. 2020, 5.4)."""
    return steps / trade(batch, critical).steps_factor


def critical_batch_kaplan(loss: float) -> float:
    """B_crit = 2e8 tokens / L^(1/0.21), L in nats per token (Kaplan et al. 2020, equation 5.3)."""
    require(loss > 0, f"loss={loss} must be positive: nats per token")
    return 2e8 / loss ** (1 / 0.21)


def fit_steps(batch: np.ndarray, steps: np.ndarray) -> StepsFit:
    """Fit S = S_min + E_min / B to runs that reached the same loss, by least squares of log S.

    `batch` and `steps` are of one shape [n], n >= 3, with two different batches at least. The
    procedure of Zhang et al. 2024 ("How does critical batch size scale in pre-training?").
    """
    batch, steps = np.asarray(batch, float), np.asarray(steps, float)
    require(
        batch.shape == steps.shape and batch.ndim == 1 and len(batch) >= 3,
        f"{batch.size} batches and {steps.size} step counts: give three runs at least, and one "
        "step count for each batch",
    )
    bad = np.flatnonzero(~((batch > 0) & (steps > 0) & np.isfinite(batch * steps)))
    require(
        bad.size == 0,
        f"row {bad[0] + 1 if bad.size else 0}: batch and steps must be positive and finite",
    )
    require(
        np.unique(batch).size > 1,
        f"all runs have the batch {batch[0]:g}: two different ones are needed at least",
    )

    def residuals(log_parameters: np.ndarray) -> np.ndarray:
        steps_min, data_min = np.exp(log_parameters)
        return np.log(steps_min + data_min / batch) - np.log(steps)

    start = np.log([steps.min(), (batch * steps).min()])
    found = least_squares(residuals, start, xtol=1e-15, ftol=1e-15, gtol=1e-15)
    steps_min, data_min = np.exp(found.x)
    share = steps_min / (steps_min + data_min / batch.max())
    require(
        share > 1e-6,
        f"the steps still fall in proportion to the batch at B={batch.max():g}: no critical batch "
        "can be read from these runs; add larger batches",
    )
    return StepsFit(float(steps_min), float(data_min), float(np.sqrt(np.mean(found.fun**2))))


def batch_at_overhead(fit: StepsFit, reference: float, overhead: float) -> float:
    """The batch that needs (1 + overhead) times the data of the reference batch.

    From S_min B + E_min = (1 + overhead) (S_min B_ref + E_min). Zhang et al. 2024 call it critical
    with an overhead of 0.2 over 256 sequences.
    """
    require(reference > 0 and overhead > 0, "the reference batch and the overhead must be positive")
    return (1 + overhead) * reference + overhead * fit.critical


def noise_estimates(
    small_norm2: np.ndarray, big_norm2: np.ndarray, small: float, big: float
) -> tuple[np.ndarray, np.ndarray]:
    """Unbiased estimates of |G|^2 and of tr(Sigma), one of each per update.

    `small_norm2` and `big_norm2` are squared norms of gradients that are means over `small` and
    over `big` examples, of one shape; where several small ones are averaged, the mean of their
    squared norms. McCandlish et al. 2018, appendix A.1.
    """
    require(0 < small < big, f"the batches {small} and {big} must be positive and rising")
    small_norm2, big_norm2 = np.asarray(small_norm2, float), np.asarray(big_norm2, float)
    signal = (big * big_norm2 - small * small_norm2) / (big - small)
    noise = (small_norm2 - big_norm2) / (1 / small - 1 / big)
    return signal, noise


def noise_scale(signal: np.ndarray, noise: np.ndarray, blocks: int = 20) -> NoiseScale:
    """The noise scale of many updates: the ratio of the averages.

    Never the average of the ratios: each `signal` is noisy, and 1 / signal is larger on average
    than 1 / average. The standard error leaves out one of `blocks` runs of neighbouring updates at
    a time (jackknife), since neighbours are alike. Raises InputError where there are fewer updates
    than blocks, or where the signal is lost in the noise.
    """
    signal, noise = np.asarray(signal, float), np.asarray(noise, float)
    require(
        signal.shape == noise.shape and signal.ndim == 1,
        "signal and noise must be one number per update each",
    )
    require(
        2 <= blocks <= len(signal),
        f"{len(signal)} updates do not make {blocks} blocks: average over more updates",
    )
    require(
        bool(np.isfinite(signal).all() and np.isfinite(noise).all()),
        "an estimate is not finite: leave out updates whose gradient was skipped or overflowed",
    )
    parts = np.array_split(np.arange(len(signal)), blocks)
    sums = np.array([[signal[part].sum(), noise[part].sum()] for part in parts])
    left = sums.sum(axis=0) - sums
    require(
        bool((left[:, 0] > 0).all() and sums[:, 0].sum() > 0),
        "the gradient's mean square is lost in its noise: average over more updates or raise the "
        "larger batch",
    )
    ratios = left[:, 1] / left[:, 0]
    error = np.sqrt((blocks - 1) / blocks * ((ratios - ratios.mean()) ** 2).sum())
    mean_signal, mean_noise = sums.sum(axis=0) / len(signal)
    return NoiseScale(
        float(mean_noise / mean_signal), float(error), float(mean_signal), float(mean_noise)
    )
