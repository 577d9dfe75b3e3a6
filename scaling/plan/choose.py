"""From a budget in operations to a model that exists, its tokens, and the recipe that trains it."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from configs.schema import Config, require
from scaling import costs
from scaling.allocate import Function, Region, flat_region
from scaling.fit import Fit
from scaling.shapes import USUAL_ASPECTS, Shape, shapes_near

Count = Literal["parameters", "non_embedding"]
TOLERANCE = 0.05  # of N, within which a shape is looked for
_CLOSE = 0.02  # shapes whose N is that near are as good: then the usual aspect ratio decides
_SETTLED = 0.01  # change of N from one round to the next
_ROUNDS = 4  # of finding the operations a parameter of the size they lead to


@dataclass(frozen=True)
class Choice:
    """What a budget should buy by a law, as a run that can be started."""

    region: Region  # the best division by the law, and the sizes that are nearly as good
    shape: Shape  # N of it is that of the law
    steps: int
    tokens: int
    flops: float  # of training, attention included (PaLM's convention)
    config: Config


def law(fit: Fit) -> Function:
    """The fitted law as loss(N, D). Raises InputError for a law of other columns."""
    require(
        set(fit.law.symbols) == {"N", "D"},
        f"the law {fit.law.name} is of {', '.join(fit.law.symbols)}: a plan needs one of N and D",
    )

    def loss(n: np.ndarray, d: np.ndarray) -> np.ndarray:
        return fit.law.predict(fit.parameters, {"N": n, "D": d})

    return loss


def choose(fit: Fit, base: Config, budget: float, count: Count, tolerance: float = 0.01) -> Choice:
    """The run of least loss that `budget` operations pay for, of the family of `base`.

    `count` is what N counts in the fit. Operations are exact: those a token of the shape costs,
    attention included; the best N by them is found first as a number, then as a shape.

    Raises InputError for a budget that no shape of the family or no batch fits.
    """
    loss, factor, wanted = law(fit), 1.0, 0.0
    for _ in range(_ROUNDS):
        region = flat_region(loss, costs.scaled(costs.training_flops, factor), budget, tolerance)
        if abs(region.best.N / (wanted or math.inf) - 1) < _SETTLED:
            break
        wanted = region.best.N
        shape = _shape(base, wanted, count)
        factor = shape.flops_per_token / (6 * shape.N)
    return planned(base, shape, region, budget / shape.flops_per_token)


def planned(base: Config, shape: Shape, region: Region, tokens: float) -> Choice:
    """The run of a shape on so many tokens, in whole updates of the base's batch."""
    step_tokens = base.batch.size * base.model.context
    require(not base.batch.ramp, "batch.ramp must be empty in the base recipe of a plan")
    steps = math.floor(tokens / step_tokens)
    least = 10
    require(
        steps >= least,
        f"the budget pays for {tokens:.4g} tokens of a model of {shape.N:.4g} parameters, and the "
        f"base's batch has {step_tokens}: that is less than {least} updates; lower batch.size",
    )
    share = steps / base.steps
    schedule = dataclasses.replace(
        base.schedule,
        warmup=round(base.schedule.warmup * share),
        decay=round(base.schedule.decay * share),
    )
    config = dataclasses.replace(base, model=shape.model, schedule=schedule, steps=steps)
    trained = steps * step_tokens
    return Choice(region, shape, steps, trained, float(trained) * shape.flops_per_token, config)


def _shape(base: Config, wanted: float, count: Count) -> Shape:
    model = base.model
    aspect = model.width / model.layers
    found = shapes_near(
        model,
        wanted,
        count,
        (min(USUAL_ASPECTS[0], aspect / 1.5), max(USUAL_ASPECTS[1], aspect * 1.5)),
        TOLERANCE,
        128 if model.width >= 1024 else 16,
    )
    near = [shape for shape in found if abs(shape.N / wanted - 1) <= _CLOSE] or found
    return min(near, key=lambda shape: abs(math.log(shape.aspect / aspect)))
