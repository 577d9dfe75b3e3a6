"""The solver under every fit: many robust nonlinear least-squares problems at once.

Variable projection (Golub and Pereyra 1973, "The differentiation of pseudo-inverses"): at given
exponents a law is linear in its coefficients, so that the search for a start is one over exponents
alone. From the best starts on, Newton's method polishes coefficients and exponents together.

Legend: b problem (a start, or a resample with its own weights), n row, p parameter.
"""

from dataclasses import dataclass

import numpy as np

from scaling.problem import Problem

_PATIENCE = 8  # steps without a gain before a problem is given up as finished or stuck


@dataclass(frozen=True)
class Criterion:
    """What is summed over rows: squares, Huber's function, or absolute values, of residuals.

    huber: r**2 / 2 up to delta, delta * (|r| - delta / 2) beyond (Huber 1964).
    lad: |r|, taken as huber(delta) / delta with a delta that goes to zero.
    squared: r**2.
    """

    kind: str
    delta: float

    @property
    def floor(self) -> float:
        """A slope that counts as none: residuals of 1e-10 come from rounding."""
        if self.kind == "squared":
            return 1e-10
        return 1e-10 if self.kind == "huber" else 1e-10 / max(self.delta, 1e-10)

    @property
    def _unit(self) -> float:
        return 1 / self.delta if self.kind == "lad" else 1.0

    def value(self, r_bn: np.ndarray) -> np.ndarray:
        """The summand of each residual."""
        if self.kind == "squared":
            return r_bn**2
        size = np.abs(r_bn)
        if self.delta == 0:
            return size
        inside = np.minimum(size, self.delta)
        return self._unit * inside * (size - inside / 2)

    def slope(self, r_bn: np.ndarray) -> np.ndarray:
        """Its derivative."""
        if self.kind == "squared":
            return 2 * r_bn
        return self._unit * np.clip(r_bn, -self.delta, self.delta)

    def curvature(self, r_bn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Its second derivative, and slope / residual (the weight of reweighted least squares)."""
        if self.kind == "squared":
            return np.full_like(r_bn, 2.0), np.full_like(r_bn, 2.0)
        size = np.abs(r_bn)
        second = self._unit * (size <= self.delta)
        return second, self._unit * self.delta / np.maximum(size, self.delta)


@dataclass(frozen=True)
class Solution:
    """Where each problem ended: parameters (b, p), objective (b,), projected gradient (b,)."""

    theta_bp: np.ndarray
    objective_b: np.ndarray
    gradient_b: np.ndarray


def minimise(
    problem: Problem,
    criterion: Criterion,
    weights_bn: np.ndarray,
    theta_bp: np.ndarray,
    iterations: int = 100,
    frozen_p: np.ndarray | None = None,
    tolerance: float = 1e-8,
) -> Solution:
    """Local minima of the weighted sum of criteria, from each row of theta_bp.

    Projected Newton steps with the second derivative of the criterion (that of the model is left
    out, as in Gauss and Newton's method), damped by the matrix of reweighted least squares, whose
    steps go down whatever the criterion: with much damping the method is reweighted least squares
    with short steps, with none it is Newton's. Stops where the gradient is below `tolerance` times
    the sum of its rows' absolute contributions.
    """
    theta_bp = theta_bp.copy()
    rounding = 4e-16 * float(np.abs(problem.target_n).max())  # of a residual
    objective_b = _objective(problem, criterion, weights_bn, theta_bp)
    gradient_b = np.full(len(theta_bp), np.inf)
    damping_b = np.full(len(theta_bp), 1e-2)
    idle_b = np.zeros(len(theta_bp), int)  # steps without a gain beyond rounding
    active = np.flatnonzero(np.isfinite(objective_b))
    for _ in range(iterations):
        theta, weights = theta_bp[active], weights_bn[active]
        with np.errstate(all="ignore"):  # where it has no value, no step is accepted
            residual, jacobian = problem.linearised(theta)
        slope = weights * criterion.slope(residual)
        gradient = np.matmul(slope[:, None, :], jacobian)[:, 0]
        held = ((theta <= problem.lower_p) & (gradient > 0)) | (
            (theta >= problem.upper_p) & (gradient < 0)
        )
        if frozen_p is not None:
            held |= frozen_p
        size = np.abs(slope) + criterion.floor * weights
        contributed = np.matmul(size[:, None, :], np.abs(jacobian))[:, 0]
        relative = np.where(held, 0.0, np.abs(gradient) / np.maximum(contributed, 1e-300))
        gradient_b[active] = np.nan_to_num(relative.max(1), nan=np.inf)
        going = (gradient_b[active] > tolerance) & (idle_b[active] < _PATIENCE)
        active = active[going]
        if not active.size:
            break
        step = _step(
            criterion.curvature(residual[going]),
            weights[going],
            jacobian[going],
            np.where(held, 0.0, gradient)[going],
            held[going],
            damping_b[active],
        )
        tried = np.clip(theta[going] + step, problem.lower_p, problem.upper_p)
        objective = _objective(problem, criterion, weights_bn[active], tried)
        noise = rounding * np.abs(slope[going]).sum(1)
        better = objective <= objective_b[active] + noise
        gained = objective < objective_b[active] - noise
        theta_bp[active[better]] = tried[better]
        objective_b[active[better]] = objective[better]
        damping_b[active] = np.clip(damping_b[active] * np.where(better, 1 / 8, 8), 1e-15, 1e12)
        idle_b[active] = np.where(gained, 0, idle_b[active] + 1)
    return Solution(theta_bp, objective_b, gradient_b)


def _step(
    curvatures: tuple[np.ndarray, np.ndarray],
    weights_bn: np.ndarray,
    jacobian_bnp: np.ndarray,
    gradient_bp: np.ndarray,
    held_bp: np.ndarray,
    damping_b: np.ndarray,
) -> np.ndarray:
    """Damped Newton steps (b, p), zero where a parameter is held."""
    p = jacobian_bnp.shape[2]
    second, reweighted = curvatures
    share = (damping_b / (damping_b + 0.1))[:, None]
    mixed = weights_bn * ((1 - share) * second + share * reweighted)
    hessian = np.matmul(jacobian_bnp.transpose(0, 2, 1) * mixed[:, None, :], jacobian_bnp)
    diagonal = np.matmul((weights_bn * reweighted)[:, None, :], jacobian_bnp**2)[:, 0]
    # Next to nothing is added even without damping: terms may be alike at the present exponents.
    hessian[:, range(p), range(p)] += (damping_b[:, None] + 1e-12) * diagonal + 1e-300
    hessian *= ~held_bp[:, :, None] & ~held_bp[:, None, :]
    hessian[:, range(p), range(p)] += held_bp
    return -np.linalg.solve(hessian, gradient_bp[:, :, None])[:, :, 0]


def _objective(
    problem: Problem, criterion: Criterion, weights_bn: np.ndarray, theta_bp: np.ndarray
) -> np.ndarray:
    """Weighted sums (b,); infinite where the model has no value."""
    with np.errstate(all="ignore"):
        sums = (weights_bn * criterion.value(problem.residuals(theta_bp))).sum(1)
    return np.where(np.isfinite(sums), sums, np.inf)
