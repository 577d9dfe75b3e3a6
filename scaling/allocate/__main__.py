"""How to divide a budget between parameters and tokens, by a fit of a law L(N, D).

    python -m scaling.allocate --fit=fit.json --budget=1e21 --json=allocation.json
    python -m scaling.allocate --fit=fit.json --hours=1000 --peak=989e12 --mfu=0.4 --devices=64
    python -m scaling.allocate --fit=fit.json --hours=1000 --step_times=steps.csv
    python -m scaling.allocate --fit=fit.json --money=5e4 --price_per_hour=2.5 --peak=989e12
    python -m scaling.allocate --fit=fit.json --budget=1e22 --serve_tokens=2e12 --instead="N=7e9"
    python -m scaling.allocate --fit=fit.json --budget=1e22 --config=configs/llama_1b.py --shapes=3

The budget is in operations, device hours or money, and the best division is where more parameters
and more tokens gain the same per unit of it. --step_times is a CSV file of measured updates with
the columns N, step_seconds, tokens (of an update) and, if more than one worked, devices.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
from absl import flags

from configs.flags import define_recipe, main
from configs.schema import Config, InputError, require
from scaling import record
from scaling.allocate import Allocation, Price, allocate, flat_region, price, tokens_left
from scaling.allocate.terms import Terms, Wanted, law, suggestions, terms
from scaling.shapes import Shape, by_depth, shapes_near

_FIT = flags.DEFINE_string("fit", None, "the file that scaling.fit wrote")
_WANTED: dict[str, Any] = {
    "budget": flags.DEFINE_float("budget", 0.0, "operations to spend"),
    "hours": flags.DEFINE_float("hours", 0.0, "hours of one device to spend, instead"),
    "money": flags.DEFINE_float("money", 0.0, "money to spend, instead"),
    "peak": flags.DEFINE_float("peak", 0.0, "dense operations a second of a device"),
    "mfu": flags.DEFINE_float("mfu", 0.4, "the share of the peak that training reaches"),
    "step_times": flags.DEFINE_string("step_times", "", "measured updates, in place of a peak"),
    "price_per_hour": flags.DEFINE_float("price_per_hour", 0.0, "of one device"),
    "devices": flags.DEFINE_integer("devices", 1, "that train together"),
    "serve_tokens": flags.DEFINE_float("serve_tokens", 0.0, "read or written once trained"),
    "unique_tokens": flags.DEFINE_float("unique_tokens", math.inf, "that there are to train on"),
    "price_per_token": flags.DEFINE_float("price_per_token", 0.0, "of each different one"),
}
_TOLERANCE = flags.DEFINE_float("tolerance", 0.01, "of the loss, within which sizes are as good")
_INSTEAD = flags.DEFINE_string("instead", "", 'a size to compare with, such as "N=7e9"')
_SHAPES = flags.DEFINE_integer("shapes", 0, "models near the best size to list, like --config")
_JSON = flags.DEFINE_string("json", "", "write the allocation to this file")
_RECIPE = define_recipe(Config)
_FACTORS = (0.1, 0.5, 2.0, 10.0)  # of the best N, for the price of a wrong choice


def run() -> None:
    """The command."""
    if not _FIT.value:
        raise InputError("no fit: name one with --fit=FILE, which scaling.fit --json wrote")
    require(_SHAPES.value >= 0, f"--shapes={_SHAPES.value} must not be negative")
    require(
        bool(_SHAPES.value) == bool(_RECIPE.path),
        "--shapes=COUNT and --config=RECIPE (for vocabulary, heads and all that is not size) go "
        "together: give both",
    )
    wanted = Wanted(**{name: flag.value for name, flag in _WANTED.items()})
    fit, _ = record.load(_FIT.value)
    problem = terms(law(fit), wanted)
    budget, unit = wanted.amount, wanted.unit
    best = allocate(problem.loss, problem.cost, budget, problem.sizes)
    region = flat_region(problem.loss, problem.cost, budget, _TOLERANCE.value, problem.sizes)
    prices = [each for factor in _FACTORS if (each := _price(problem, budget, factor))]
    low, high = region.sizes
    print(f"budget {budget:.4g} {unit}: N = {best.N:.4g}, D = {best.D:.4g}, ", end="")
    print(f"{best.D / best.N:.3g} tokens a parameter, loss {best.loss:.5g}")
    if best.limited_by:
        print(f"the choice is at the end of the {best.limited_by} that there are")
    gains = [gain * budget / 100 for gain in (best.per_cost_in_N, best.per_cost_in_D)]
    print("one percent more budget gains ", end="")
    print(f"{gains[0]:.3g} nats a token spent on parameters, {gains[1]:.3g} on tokens")
    print(f"within {_TOLERANCE.value:.1%} of that loss: N from {low:.4g} to {high:.4g}")
    for each in prices:
        print(f"N x {each.factor:g}: {_said(each, unit)}")
    values = dataclasses.asdict(best) | {"budget": budget, "disagreement": best.disagreement}
    values |= {"unit": unit, "flat_region": dataclasses.asdict(region) | {"best": None}}
    values |= {"prices": [dataclasses.asdict(each) for each in prices]}
    values |= _instead(problem, budget, best, unit) | _bill(problem, wanted, best)
    values |= {"suggested": _suggest(best)} | _shapes(problem, budget, best)
    record.write(_JSON.value, "json", values)


def _price(problem: Terms, budget: float, factor: float) -> Price | None:
    """None for a size that the budget or a table of steps does not reach."""
    try:
        return price(problem.loss, problem.cost, budget, factor, problem.sizes)
    except InputError:
        return None


def _said(found: Price, unit: str) -> str:
    match = "no budget" if math.isinf(found.to_match) else f"{found.to_match:.4g}"
    return (
        f"loss {found.loss:.5g}, as well spent as {found.equivalent:.4g} {unit} "
        f"({found.wasted:.0%} lost); {match} would match the best loss"
    )


def _instead(problem: Terms, budget: float, best: Allocation, unit: str) -> dict[str, Any]:
    """The price of the size that was asked for."""
    if not _INSTEAD.value:
        return {}
    at = record.places(_INSTEAD.value, "instead")
    require(
        set(at) == {"N"} and at["N"] > 0,
        f'--instead="{_INSTEAD.value}": give one size, as in --instead="N=7e9"; the budget says '
        "how many tokens are left for it",
    )
    found = price(problem.loss, problem.cost, budget, at["N"] / best.N, problem.sizes)
    print(f"instead N = {found.N:.4g}, D = {found.D:.4g}: {_said(found, unit)}")
    return {"instead": dataclasses.asdict(found)}


def _bill(problem: Terms, wanted: Wanted, best: Allocation) -> dict[str, Any]:
    """What the cost is made of, and the time."""
    N, D = np.array([best.N]), np.array([best.D])
    spent = {name: float(part(N, D)[0]) for name, part in problem.parts.items()}
    if len(spent) > 1:
        print(", ".join(f"{name} {sum_:.4g}" for name, sum_ in spent.items()) + f" {wanted.unit}")
    if problem.hours is None:
        return {"spent": spent}
    hours = float(problem.hours(N, D)[0])
    clock = hours / wanted.devices
    print(f"training takes {hours:.4g} device hours: {clock / 24:.4g} days on {wanted.devices}")
    return {"spent": spent, "device_hours": hours, "wall_clock_hours": clock}


def _suggest(best: Allocation) -> dict[str, dict[str, float]]:
    rules = suggestions(best.N, best.D)
    print("first guesses by published rules, for the setups they were fitted on:")
    for name, rule in rules.items():
        rate = f", learning rate {rule['learning_rate']:.3g}" if "learning_rate" in rule else ""
        print(f"  {name}: batch of {rule['batch']:.3g} tokens{rate}")
    return rules


def _shapes(problem: Terms, budget: float, best: Allocation) -> dict[str, Any]:
    """Models that exist near the best size, and depth against width among them."""
    if not _SHAPES.value:
        return {}
    counts = json.loads(Path(_FIT.value or "").read_text())["read"]["conventions"].get("N", "total")
    size: Literal["parameters", "non_embedding"] = (
        "non_embedding" if counts == "non_embedding" else "parameters"
    )
    near = shapes_near(_RECIPE.load().model, best.N, size)
    print(f"models near N = {best.N:.4g}, {size.replace('_', '-')} counted exactly:")
    listed = [_shape(problem, budget, shape) for shape in near[: _SHAPES.value]]
    for each in listed:
        print(
            f"  {each['layers']} x {each['width']}, {each['heads']} heads, feed-forward "
            f"{each['ffn_width']}: N = {each['N']:,}, D = {each['D']:.4g}, loss {each['loss']:.5g}"
        )
    depths = [_shape(problem, budget, shape) for shape in by_depth(near)]
    print("depth against width at that size, in operations a token with attention:")
    for each in depths:
        print(f"  {each['layers']} x {each['width']}: {each['flops_per_token'] / each['N']:.3f} N")
    return {"shapes": listed, "by_depth": depths}


def _shape(problem: Terms, budget: float, shape: Shape) -> dict[str, Any]:
    N = np.array([float(shape.N)])
    D = tokens_left(problem.cost, budget, N)
    model = shape.model
    return {
        "layers": model.layers,
        "width": model.width,
        "heads": int(model.heads),
        "kv_heads": int(model.kv_heads),
        "ffn_width": int(model.ffn_width),
        "N": shape.N,
        "parameters": shape.parameters,
        "non_embedding": shape.non_embedding,
        "flops_per_token": shape.flops_per_token,
        "D": float(D[0]),
        "loss": float(problem.loss(N, D)[0]),
    }


if __name__ == "__main__":
    main(run, _RECIPE)
