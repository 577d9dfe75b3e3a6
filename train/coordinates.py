"""Coordinate check: does what an update does to the activations depend on the size of the model?

    python -m train.coordinates --config=configs/quickstart.py --widths=64,128,256,512 \
        [--depths=2,4,8,16] [--steps=4] [--json=FILE] [--plot=FILE.png]

Trains models that differ only in width (then, at the first width, only in depth) for a few updates
on the same batches, with the recipe's optimizer at its full rate, and prints the mean size of
activations at the start, and of their change, against the size of the model: once in the standard
parametrization and once in muP with the smallest as base (or the recipe's base). A learning rate
can serve all sizes only where no change grows. That some shrink at small sizes is what random
initial values leave, which fades as 1 / sqrt(width); at the start it is right that a muP model's
logits do (Yang et al. 2022, arXiv:2203.03466, appendix D).

The slope is that of log size over log width or depth: 1 is proportional, and up to .15 is flat.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import model
from configs import flags as config_flags
from configs import schema
from configs.schema import Batch, Config, InputError, Model, Schedule, require
from data.disk import writing
from data.loader import SYNTHETIC_EOD, train_batches
from data.store import Store
from model.inputs import split
from model.placement import here
from parallel.mesh import make_mesh, shard_batch
from train import setup
from train.state import create
from train.step import make_step

FLAT = 0.15  # slopes of noise and of small widths lie within

_RECIPE = config_flags.define_recipe(Config)
_WIDTHS = flags.DEFINE_list("widths", [], "widths to compare, such as 64,128,256,512")
_DEPTHS = flags.DEFINE_list("depths", [], "numbers of layers to compare")
_GROW = flags.DEFINE_enum(
    "grow", "heads", ["heads", "head_dim"], "what a wider model has more of: heads, or head_dim"
)
_STEPS = flags.DEFINE_integer("steps", 4, "updates", lower_bound=1)
_JSON = flags.DEFINE_string("json", "", "write the table to this file, too")
_PLOT = flags.DEFINE_string("plot", "", "draw it into this file, .png or .svg")


class Row(NamedTuple):
    """How the size of one activation goes with the size of the model."""

    sizes: tuple[float, ...]  # mean absolute values, one for each model
    slope: float | None  # of log size over log model size; None where a size is 0
    verdict: str  # flat, grows, shrinks, zero or not finite


Table = dict[str, dict[str, Row]]  # "start" and "change" -> activation -> row


def member(base: Model, width: int, layers: int, grow: str = "heads") -> Model:
    """The same model in another size; kv_heads and ffn_width keep their proportions.

    Args:
        base: any member of the family.
        width: the new width.
        layers: the new depth.
        grow: "heads" keeps head_dim, "head_dim" keeps the number of heads.

    Raises:
        InputError: there is no such number of heads.
    """

    def scaled(name: str) -> int:
        value, rest = divmod(getattr(base, name) * width, base.width)
        require(
            rest == 0,
            f"width {width}: model.{name}={getattr(base, name)} at width {base.width} cannot be "
            "scaled to a whole number: choose another width, or another --grow",
        )
        return value

    names = {"heads": ("heads", "kv_heads"), "head_dim": ("head_dim",)}[grow]
    given = [
        name
        for name in (*names, "ffn_width")
        if not isinstance(getattr(base, name), schema.Derived)
    ]
    fixed = {"head_dim": base.head_dim} if grow == "heads" else {}
    changes: dict[str, Any] = {name: scaled(name) for name in given} | fixed
    return dataclasses.replace(base, width=width, layers=layers, **changes)


def family(base: Model, widths: Sequence[int], depths: Sequence[int], grow: str) -> list[Model]:
    """Members of these widths and depths, in muP with the first, or the base's own, as base."""
    first = member(
        dataclasses.replace(base, parametrization="standard", base_width=0, base_head_dim=0,
                            base_layers=0),
        widths[0], depths[0], grow,
    )  # fmt: skip
    settings: dict[str, Any] = {
        "parametrization": "mup",
        "base_width": base.base_width or first.width,
        "base_layers": base.base_layers or (first.layers if len(set(depths)) > 1 else 0),
    }
    settings["base_head_dim"] = base.base_head_dim or (
        first.head_dim * settings["base_width"] // first.width if grow == "head_dim" else 0
    )
    return [
        dataclasses.replace(member(first, width, layers, grow), **settings)
        for width, layers in zip(widths, depths, strict=True)
    ]


def standard(network: Model) -> Model:
    """The same network in the standard parametrization."""
    return dataclasses.replace(
        network, parametrization="standard", base_width=0, base_head_dim=0, base_layers=0
    )


def observe(config: Config, store: Store | None) -> tuple[dict[str, float], dict[str, float]]:
    """Mean absolute activations on the first batch, and those of their change by the updates.

    Raises:
        InputError: the model cannot be trained so.
    """
    mesh = make_mesh(config, jax.devices()[:1])
    eod = store.eod if store else SYNTHETIC_EOD
    step, state = make_step(config, eod, mesh), create(config, mesh)
    batches = list(train_batches(store, config))
    inputs, _ = split(jnp.asarray(batches[0]), eod, config.data.attend_across, here())
    look = jax.jit(lambda params: model.activations(config.model, params, inputs))
    before = look(state.params)
    for rows_bt in batches:
        state, _ = step(state, shard_batch(mesh, rows_bt))
    change = jax.tree.map(jnp.subtract, look(state.params), before)
    return _means(before), _means(change)


def _means(kept: dict[str, jax.Array]) -> dict[str, float]:
    size = {name: np.asarray(jnp.abs(a).astype(jnp.float32)) for name, a in kept.items()}
    means = {"embedding": size["embedding"].mean()}
    for name, text in (("attention", "attention writes"), ("ffn", "ffn writes"),
                       ("stream", "stream"), ("scores", "scores")):  # fmt: skip
        layers = len(size[name])
        for place, layer in (("middle", (layers - 1) // 2), ("last", layers - 1)):
            means[f"{text}, {place} layer"] = size[name][layer].mean()
    means["logits"] = size["logits"].mean()
    return {name: float(mean) for name, mean in means.items()}


def row(of: Sequence[float], sizes: Sequence[float]) -> Row:
    """The slope of log(sizes) over log(of), by least squares, and what to think of it."""
    if not np.isfinite(sizes).all():
        return Row(tuple(sizes), None, "not finite")
    if not min(sizes) > 0:
        return Row(tuple(sizes), None, "zero")
    slope = float(np.polyfit(np.log(of), np.log(sizes), 1)[0])
    verdict = "flat" if abs(slope) <= FLAT else "grows" if slope > 0 else "shrinks"
    return Row(tuple(sizes), slope, verdict)


def compare(
    config: Config, networks: Sequence[Model], of: Sequence[float], store: Store | None, steps: int
) -> Table:
    """Observe each network for a few updates at the full rate, on the same batches.

    Args:
        config: the optimizer, the data and the batch (the first of a ramp).
        networks: what to compare.
        of: the size of each.
        store: where batches come from; None: random tokens.
        steps: updates.
    """
    seen = []
    for network in networks:
        network = dataclasses.replace(network, scan=False, remat="none", dropout=0.0)
        seen.append(
            observe(
                dataclasses.replace(
                    config,
                    model=network,
                    steps=steps,
                    mesh=schema.Mesh(data=1),
                    schedule=Schedule(kind="constant"),
                    batch=Batch(size=config.batch.size_at(0), microbatch=config.batch.microbatch),
                ),
                store,
            )
        )
    return {
        when: {name: row(of, [one[i][name] for one in seen]) for name in seen[0][i]}
        for i, when in enumerate(("start", "change"))
    }


def render(axis: str, of: Sequence[int], tables: dict[str, Table]) -> str:
    """The tables of the parametrizations, for people."""
    lines = []
    for parametrization, table in tables.items():
        for when, rows in table.items():
            title = f"{parametrization}, {'at the start' if when == 'start' else 'change'}"
            lines.append(f"{title:<32}" + "".join(f"{size:>10}" for size in of) + "     slope")
            for name, found in rows.items():
                slope = "" if found.slope is None else f"{found.slope:+.2f}"
                numbers = "".join(f"{size:10.3g}" for size in found.sizes)
                lines.append(f"  {name:<30}{numbers}{slope:>10}  {found.verdict}")
        change = table["change"].items()
        bent = [f"{name} {found.verdict}" for name, found in change if found.verdict != "flat"]
        lines.append(
            f"{parametrization}: with {axis}, what the updates change is flat"
            + (
                f" but for {len(bent)} of {len(change)}: {'; '.join(bent)}"
                if bent
                else " throughout"
            )
            + "\n"
        )
    return "\n".join(lines)


def _plot(path: Path, results: dict[str, tuple[list[int], dict[str, Table]]]) -> None:
    """Changes over size: a row an axis, a column a parametrization."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4 * len(results)), layout="constrained")
    grid = figure.subplots(len(results), 2, sharey="row", squeeze=False)
    for line, (axis, (of, tables)) in zip(grid, results.items(), strict=True):
        for plot, (parametrization, table) in zip(line, tables.items(), strict=True):
            for name, found in table["change"].items():
                plot.loglog(of, found.sizes, marker="o", label=name)
            plot.set(title=parametrization, xlabel=axis, ylabel="mean |change|")
            plot.set_xticks(of, labels=[str(size) for size in of], minor=False)
        line[-1].legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    with writing(path):
        figure.savefig(path, dpi=120)


def _sizes(name: str, values: Sequence[str]) -> list[int]:
    """The sizes of a flag, rising."""
    if not all(value.strip().isdecimal() and int(value) > 0 for value in values):
        raise InputError(f"--{name}={','.join(values)}: write whole numbers such as 64,128,256")
    sizes = sorted(int(value) for value in values)
    require(
        not sizes or len(set(sizes)) == len(sizes) > 1,
        f"--{name}={','.join(values)}: a slope needs at least two different sizes",
    )
    return sizes


def run() -> None:
    """The command."""
    config = _RECIPE.load()
    widths, depths = _sizes("widths", _WIDTHS.value), _sizes("depths", _DEPTHS.value)
    require(bool(widths or depths), "nothing to compare: give --widths, --depths or both")
    store, results = setup.open_data(config), {}
    for axis, of in (("width", widths), ("depth", depths)):
        if not of:
            continue
        wide = of if axis == "width" else [(widths or [config.model.width])[0]] * len(of)
        deep = of if axis == "depth" else [config.model.layers] * len(of)
        networks = family(config.model, wide, deep, _GROW.value)
        tables = {
            name: compare(config, members, of, store, _STEPS.value)
            for name, members in (("standard", [*map(standard, networks)]), ("mup", networks))
        }
        results[axis] = (of, tables)
        print(f"{axis}; {_STEPS.value} updates of {config.optimizer.name} at ", end="")
        print(f"{config.optimizer.learning_rate:g}; mean absolute values")
        print(render(axis, of, tables), flush=True)
    if _JSON.value:
        plain = {
            axis: {"of": of, **{name: _plain(table) for name, table in tables.items()}}
            for axis, (of, tables) in results.items()
        }
        with writing(Path(_JSON.value)):
            Path(_JSON.value).write_text(json.dumps(plain, indent=1) + "\n")
    if _PLOT.value:
        _plot(Path(_PLOT.value), results)


def _plain(table: Table) -> dict[str, dict[str, dict]]:
    return {
        when: {name: found._asdict() for name, found in rows.items()}
        for when, rows in table.items()
    }


if __name__ == "__main__":
    config_flags.main(run, _RECIPE)
