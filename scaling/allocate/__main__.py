"""How to divide a budget between parameters and tokens, by a fit of a law L(N, D).

    python -m scaling.allocate --fit=fit.json --budget=1e21 --json=allocation.json
    python -m scaling.allocate --fit=fit.json --hours=1000 --peak=989e12 --mfu=0.4
    python -m scaling.allocate --fit=fit.json --budget=1e21 --serve=1e13

The cost is 6ND operations, and 2N for each token to be served. The best division is where more
parameters and more tokens gain the same per unit of cost.
"""

import dataclasses

import numpy as np
from absl import flags

from configs.flags import main
from configs.schema import InputError, require
from scaling import costs, record
from scaling.allocate import Function, allocate, flat_region, price
from scaling.fit import Fit

_FIT = flags.DEFINE_string("fit", None, "the file that scaling.fit wrote")
_BUDGET = flags.DEFINE_float("budget", None, "operations")
_HOURS = flags.DEFINE_float("hours", None, "hours of one device, in place of a budget")
_PEAK = flags.DEFINE_float("peak", None, "dense operations a second of that device")
_MFU = flags.DEFINE_float("mfu", 0.4, "the share of the peak that training reaches")
_SERVE = flags.DEFINE_float("serve", 0.0, "tokens that the model will read or write when trained")
_TOLERANCE = flags.DEFINE_float("tolerance", 0.01, "of the loss, within which sizes are as good")
_JSON = flags.DEFINE_string("json", "", "write the allocation to this file")
_FACTORS = (0.1, 0.5, 2.0, 10.0)  # of the best N, for the price of a wrong choice


def run() -> None:
    """The command."""
    if not _FIT.value:
        raise InputError("no fit: name one with --fit=FILE, which scaling.fit --json wrote")
    fit, _ = record.load(_FIT.value)
    require(
        {"N", "D"} == set(fit.law.symbols),
        f"the law {fit.law.name} is of {', '.join(fit.law.symbols)}: fit one of N and D",
    )
    loss, budget = law(fit), _budget()
    cost: Function = costs.training_flops
    if _SERVE.value:
        cost = costs.total(cost, costs.serving_flops(_SERVE.value))
    best = allocate(loss, cost, budget)
    region = flat_region(loss, cost, budget, _TOLERANCE.value)
    prices = [price(loss, cost, budget, factor) for factor in _FACTORS]
    low, high = region.sizes
    print(f"budget {budget:.4g} operations: N = {best.N:.4g}, D = {best.D:.4g}, ", end="")
    print(f"{best.D / best.N:.3g} tokens a parameter, loss {best.loss:.5g}")
    print(f"within {_TOLERANCE.value:.1%} of that loss: N from {low:.4g} to {high:.4g}")
    for each in prices:
        print(
            f"N x {each.factor:g}: loss {each.loss:.5g}, as with {each.equivalent:.4g} operations"
        )
    gain = best.per_cost_in_D * budget / 100
    print(f"one percent more budget gains {gain:.3g} nats a token")
    values = dataclasses.asdict(best) | {"budget": budget, "disagreement": best.disagreement}
    values |= {"flat_region": dataclasses.asdict(region) | {"best": None}}
    values |= {"prices": [dataclasses.asdict(each) for each in prices]}
    record.write(_JSON.value, "json", values)


def law(fit: Fit) -> Function:
    """The fitted law as loss(N, D)."""

    def loss(n: np.ndarray, d: np.ndarray) -> np.ndarray:
        return fit.law.predict(fit.parameters, {"N": n, "D": d})

    return loss


def _budget() -> float:
    budget, hours, peak, mfu = _BUDGET.value, _HOURS.value, _PEAK.value, _MFU.value
    require(budget is None or hours is None, "--budget and --hours are both given: choose one")
    if budget is not None:
        return budget
    if hours is None:
        raise InputError("no budget: give --budget=OPERATIONS, or --hours and --peak")
    if peak is None:
        raise InputError("--hours needs --peak, the device's operations a second")
    require(mfu is not None and 0 < mfu <= 1, f"--mfu={mfu} must lie in (0, 1]")
    return float(hours * 3600 * peak * (mfu or 0.0))


if __name__ == "__main__":
    main(run)
