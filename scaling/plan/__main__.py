"""From a budget and a fit to the run that should be made: recipe, hours, price, and the next test.

    python -m scaling.plan --fit=fit.json --budget=1e21 --config=configs/llama_1b.py \\
        --topology=v5p:4x4x4 --price_per_hour=2.5 --out=plan.py
    python -m scaling.plan --fit=fit.json --hours=100 --topology=h200:8 --out=plan.py

N and D are those of least loss for the budget, operations counted exactly with attention; the shape
is one of the base recipe's family within 5 % of N. The recipe is compiled for the machine
(docs/compile.md) where that is possible here. --hours is of the whole machine at 40 % of its peak.
The loss and the hours come with intervals; the run proposed next is the one, within --next_budget,
that would narrow the predicted loss most.
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, cast

from absl import flags

from configs import flags as config_flags
from configs.schema import Config, InputError, require
from scaling import record, rules
from scaling.calibration import Forecast, forecast
from scaling.plan import following, machine, recipe
from scaling.plan.choose import Choice, Count, choose
from scaling.plan.following import Candidate
from scaling.plan.machine import Hours, Machine

_RECIPE = config_flags.define_recipe(Config)
_FIT = flags.DEFINE_string("fit", None, "the file that scaling.fit wrote", required=True)
_BUDGET = flags.DEFINE_float("budget", None, "operations of training", lower_bound=1.0)
_HOURS = flags.DEFINE_float(
    "hours", None, "of the whole machine, in place of a budget", lower_bound=0.0
)
_TOPOLOGY = flags.DEFINE_string("topology", "", "the machine, such as v5p:4x4x4 or h200:8")
_OUT = flags.DEFINE_string("out", None, "write the recipe to this file, NAME.py", required=True)
_COUNT = flags.DEFINE_enum(
    "count", None, ["parameters", "non_embedding"], "what N is in the fit; else as the fit says"
)
_PRICE = flags.DEFINE_float("price_per_hour", None, "of one device", lower_bound=0.0)
_MINUTES = flags.DEFINE_float("search", 0.0, "minutes to search the best mesh; 0: data and fsdp")
_NEXT = flags.DEFINE_float("next_budget", None, "operations of the next run; else a tenth")
_LEVEL = flags.DEFINE_float("level", 0.95, "of the interval of the loss")
_NOTHING = 0.99  # of the interval: what leaves more is not worth making
_JSON = flags.DEFINE_string("json", "", "write the plan to this file")


def run() -> None:
    """The command."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # this process only counts
    base = _RECIPE.load()
    require(_OUT.value.endswith(".py"), f"--out={_OUT.value}: a recipe is a file NAME.py")
    fit, draws = record.load(_FIT.value)
    on = machine.describe(_TOPOLOGY.value) if _TOPOLOGY.value else None
    choice = choose(fit, base, _budget(on), _count())
    says = (
        f"{choice.shape.parameters:,} parameters on {choice.tokens:,} tokens.\n\n"
        f"    python -m train --config={_OUT.value} --workdir=DIR\n\n"
        f"Written by python -m scaling.plan: {choice.flops:.4g} operations.\n"
    )
    path = Path(_OUT.value)
    recipe.write(path, choice.config, says)
    at = {"N": float(choice.shape.N), "D": float(choice.tokens)}
    said = forecast(fit, at, _LEVEL.value, draws=draws)
    _print(choice, said)
    taken = None
    if on:
        mesh = [] if _MINUTES.value else ["--config.mesh.data=1", "--config.mesh.fsdp=-1"]
        taken = machine.hours(path, choice.steps, choice.flops, on, mesh, _MINUTES.value)
        _print_hours(on, taken)
    tests = following.next_runs(fit, at, _NEXT.value or choice.flops / 10, said)
    cheap = max(tests, key=lambda each: each.gain_per_cost)
    _print_next(tests[0], cheap)
    print(f"the recipe: {path}")
    values = _values(choice, said, on, taken)
    values["next"] = [dataclasses.asdict(each) for each in tests]
    values["next_per_cost"] = dataclasses.asdict(cheap)
    record.write(_JSON.value, "json", values)


def _budget(on: Machine | None) -> float:
    budget, hours = _BUDGET.value, _HOURS.value
    if (budget is None) == (hours is None):
        raise InputError("give one of --budget=OPERATIONS and --hours=HOURS")
    if budget is not None:
        return float(budget)
    if on is None:
        raise InputError("--hours needs --topology, the machine they are of")
    if not on.peak:
        raise InputError(f"nobody publishes the peak of {on.topology}: give --budget in operations")
    return float((hours or 0.0) * 3600 * on.devices * on.peak * machine.USUAL_MFU[1])


def _count() -> Count:
    """What N counts in the fit: as the flag says, else as the fit's table did."""
    if _COUNT.value:
        return cast(Count, _COUNT.value)
    read = json.loads(Path(_FIT.value).read_text()).get("read") or {}
    counted = (read.get("conventions") or {}).get("N", "total")
    return "non_embedding" if counted == "non_embedding" else "parameters"


def _print(choice: Choice, said: Forecast) -> None:
    model, best = choice.config.model, choice.region.best
    low, high = choice.region.sizes
    print(
        f"by the law: N = {best.N:.4g}, D = {best.D:.4g}; within {choice.region.tolerance:.0%} of "
        f"its loss: N from {low:.4g} to {high:.4g}"
    )
    print(
        f"the run: {model.layers} layers x {model.width}, {model.heads} heads of {model.head_dim} "
        f"({model.kv_heads} for keys and values), feed-forward {model.ffn_width}: "
        f"{choice.shape.parameters:,} parameters, {choice.shape.non_embedding:,} without embeddings"
    )
    batch = choice.config.batch.size * model.context
    print(
        f"  {choice.tokens:,} tokens in {choice.steps:,} updates of {batch:,}; "
        f"{choice.flops:.4g} operations, attention included"
    )
    print(
        f"  for comparison, Step Law (arXiv:2503.04715) would take batches of "
        f"{rules.step_law_batch(choice.tokens):.3g} tokens and, without muP, a rate of "
        f"{rules.step_law_learning_rate(choice.shape.non_embedding, choice.tokens):.3g}"
    )
    print(f"loss: {said.point:.4f}, {said.level:.0%}: {said.lower:.4f} to {said.upper:.4f}")
    print(f"  {said.why}" + (f"\n  warn: {said.warning}" if said.warning else ""))


def _print_hours(on: Machine, taken: Hours) -> None:
    if taken.report and taken.fits is not None:
        needed = taken.report.get("bytes_per_device") or {}
        room = "fits" if taken.fits else "DOES NOT FIT"
        print(f"memory: {room}, {needed.get('total', 0) / 2**30:.2f} GiB of ", end="")
        print(f"{(needed.get('limit') or 0) / 2**30:.2f} a device; mesh {taken.report.get('mesh')}")
        for line in taken.report.get("advice") or ():
            print(f"  {line}")
    print(
        f"time on {on.topology}, {on.devices} devices: {taken.hours:.4g} hours ({taken.lower:.4g} "
        f"to {taken.upper:.4g}), {taken.why}"
    )
    if _PRICE.value is not None:
        ends = (taken.lower, taken.hours, taken.upper)
        low, middle, high = (_PRICE.value * on.devices * each for each in ends)
        print(f"price: {middle:,.2f} ({low:,.2f} to {high:,.2f})")


def _print_next(best: Candidate, cheap: Candidate) -> None:
    if best.interval > _NOTHING:
        print("the next run: none of that cost would narrow the interval by a percent")
        return
    for name, each in (("the next run", best), ("the most for its cost", cheap)):
        print(
            f"{name}: N = {each.N:.3g}, D = {each.D:.3g}, {each.flops:.3g} operations: the "
            f"interval becomes {each.interval:.0%} of what it is, the law's own part "
            f"{each.width:.0%}"
        )


def _values(
    choice: Choice, said: Forecast, on: Machine | None, taken: Hours | None
) -> dict[str, Any]:
    model = choice.config.model
    values: dict[str, Any] = {
        "N": choice.shape.N,
        "D": choice.tokens,
        "parameters": choice.shape.parameters,
        "non_embedding": choice.shape.non_embedding,
        "flops": choice.flops,
        "steps": choice.steps,
        "layers": model.layers,
        "width": model.width,
        "heads": model.heads,
        "best": {"N": choice.region.best.N, "D": choice.region.best.D},
        "flat_region": list(choice.region.sizes),
        "loss": {"prediction": said.point, "lower": said.lower, "upper": said.upper},
        "why": said.why,
        "warning": said.warning,
        "recipe": _OUT.value,
    }
    if on and taken:
        values["machine"] = dataclasses.asdict(on)
        values["hours"] = dataclasses.asdict(taken)
        if _PRICE.value is not None:
            ends = (taken.lower, taken.hours, taken.upper)
            low, middle, high = (_PRICE.value * on.devices * each for each in ends)
            values["price"] = {"expected": middle, "lower": low, "upper": high}
    return values


if __name__ == "__main__":
    config_flags.main(run, _RECIPE)
