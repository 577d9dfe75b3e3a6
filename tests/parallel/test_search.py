"""Choices divide, formulas move the right way, and the search ranks what was compiled."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from configs import schema
from configs.schema import Batch, Config, Data, InputError, Model, Optimizer
from parallel.chips import CHIPS, find
from parallel.compile import search as searching
from parallel.compile.costs import Collective
from parallel.compile.plan import choices, guess
from parallel.compile.search import flags, search
from parallel.compile.topology import parse
from parallel.compile.wires import seconds, wires
from parallel.mesh import AXES, axis_sizes, check

CHIP = find("TPU v5 lite") or CHIPS[0]


def config(**mesh: int) -> Config:
    model = Model(vocab=256, context=256, layers=4, width=128, heads=4, scan=True)
    return Config(
        model=dataclasses.replace(model, compute_dtype="bfloat16"),
        data=Data(path="synthetic"),
        batch=Batch(size=32),
        mesh=schema.Mesh(**mesh),
        optimizer=Optimizer(learning_rate=1e-2),
        steps=1,
    )


def torus(name: str) -> list[Any]:
    """Chips as libtpu lists them: the first direction of the wires runs fastest."""
    where = parse(name)
    x, y = where.shape
    return [
        SimpleNamespace(id=n, coords=[n % x, n // x % y, 0], slice_index=n // (x * y),
                        device_kind="TPU v5 lite", platform="tpu")
        for n in range(where.slices * x * y)
    ]  # fmt: skip


def mesh_on(name: str, **sizes: int) -> Any:
    shape = tuple(sizes.get(axis, 1) for axis in AXES)
    devices = np.asarray(torus(name), object).reshape(shape)
    named = dict(zip(AXES, shape, strict=True))
    return _Mesh(devices, AXES, named, devices.size)


@dataclasses.dataclass(frozen=True, eq=False)
class _Mesh:
    """A Mesh of devices that JAX does not know."""

    devices: Any
    axis_names: tuple[str, ...]
    shape: dict[str, int]
    size: int


def test_every_choice_divides_and_none_is_missing():
    found = list(choices(config(), 8))
    for choice in found:
        check(choice, axis_sizes(choice, 8))
    kinds = {(c.mesh.data, c.mesh.fsdp, c.mesh.tensor, c.mesh.stage) for c in found}
    assert kinds >= {(8, 1, 1, 1), (1, 8, 1, 1), (2, 2, 2, 1), (2, 1, 1, 4), (1, 2, 4, 1)}
    assert {c.model.remat for c in found} == {"none", "attention", "dots", "full"}
    assert {c.batch.microbatch for c in found if c.mesh.data == 8} == {8, 16, 32}
    assert len({flags(choice) for choice in found}) == len(found)


def test_slices_stay_as_they_are():
    assert {c.mesh.slices for c in choices(config(slices=2), 8)} == {2}


@pytest.mark.parametrize(
    ("name", "sizes", "axis", "inside"),
    [
        ("v5e:16x16", {"fsdp": 256}, "fsdp", 4 * 50e9),  # rings in both directions
        ("v5e:16x16", {"fsdp": 16, "tensor": 16}, "tensor", 2 * 50e9),
        ("v5e:16x16", {"fsdp": 16, "tensor": 16}, "fsdp", 2 * 50e9),
        ("v5e:16x16", {"fsdp": 64, "tensor": 4}, "tensor", 50e9),  # a piece of a ring is a line
        ("v5e:16x16", {"fsdp": 64, "tensor": 4}, "fsdp", 2 * 50e9 + 50e9 / 4),
        ("v5e:4x4", {"fsdp": 4, "tensor": 4}, "tensor", 50e9),  # not closed
    ],
)
def test_wires_of_a_torus(name, sizes, axis, inside):
    between = wires(mesh_on(name, **sizes), (axis,), parse(name), CHIP)
    assert between.inside == pytest.approx(inside)
    assert between.outside == 0


def test_slices_talk_over_the_network():
    where, mesh = parse("2*v5e:4x4"), mesh_on("2*v5e:4x4", slice=2, fsdp=16)
    alone, both = wires(mesh, ("slice",), where, CHIP), wires(mesh, ("slice", "fsdp"), where, CHIP)
    assert alone.inside == 0
    assert both.outside == 16 * alone.outside == 16 * CHIP.network
    one = Collective("all-reduce", ("slice",), 2, 1e9, 1, False, "")
    assert seconds(one, alone) == pytest.approx(1e9 / CHIP.network, rel=1e-3)


def test_formulas_move_the_right_way():
    where = parse("v5e:4x4")

    def of(changes: dict[str, Any] | None = None, **sizes: int) -> Any:
        mesh = mesh_on("v5e:4x4", **sizes)
        named = {axis: size for axis, size in sizes.items() if axis != "slice"}
        base = config(**{"data": 1} | named)
        model = dataclasses.replace(base.model, **changes or {})
        return guess(dataclasses.replace(base, model=model), mesh, where, CHIP)

    assert of(fsdp=16).state == pytest.approx(of(data=16).state / 16)
    assert of(fsdp=4, tensor=4).state == pytest.approx(of(fsdp=16).state)
    assert of({"remat": "full"}, fsdp=16).temporaries < of(fsdp=16).temporaries
    assert of({"remat": "full"}, fsdp=16).busy > of(fsdp=16).busy
    assert of(data=16).beside == 0 < of(fsdp=16).beside


def report(step: float, total: float, limit: float) -> dict[str, Any]:
    return {
        "fits": total <= limit,
        "bytes_per_device": {"total": total, "limit": limit},
        "seconds": {"step": step, "network_exposed": 0.0},
        "mfu": {"palm": 0.5, "strict": 0.4},
    }


def test_what_fits_is_ranked_by_its_compiled_time(monkeypatch, capsys):
    monkeypatch.setattr("parallel.compile.topology.devices", lambda where: torus(where.name))
    monkeypatch.setattr(
        searching, "make_mesh", lambda c, devices: mesh_on(
            "v5e:2x4", **{axis: getattr(c.mesh, axis) for axis in AXES if axis != "slice"}
        )
    )  # fmt: skip
    compiled: list[Config] = []

    def compile_step(choice: Config, where: Any) -> dict[str, Any]:
        compiled.append(choice)
        number = len(compiled)
        step = 1 / number if number < 6 else 1e-9  # which no formula hopes to beat: the end
        return report(step, 2e10 if number % 2 else 1e9, 1.6e10)

    found = search(config(), parse("v5e:2x4"), 0.2, compile_step)
    steps = [choice["seconds"]["step"] for choice in found["choices"]]
    assert steps == [1e-9, 1 / 4, 1 / 2]
    assert all(not refused["fits"] for refused in found["refused"])
    assert len(compiled) == len(set(map(flags, compiled)))
    assert found["choices"][0]["flags"] in capsys.readouterr().out


def test_a_chip_without_figures_cannot_be_searched_for():
    with pytest.raises(InputError, match="nothing is known of cpu:1's chip"):
        search(config(), parse("cpu:1"), 1, lambda c, w: {})
