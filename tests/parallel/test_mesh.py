"""The mesh follows from the config and the devices, or says which number to change."""

import re
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from configs import schema
from configs.schema import Batch, Config, Data, InputError, Model, Optimizer
from parallel.mesh import (
    axis_sizes,
    check,
    host_share,
    make_mesh,
    replicated,
    row_shares,
    shard_batch,
)


def config(**changes: Any) -> Config:
    model = {"vocab": 11, "context": 8, "layers": 4, "width": 8, "heads": 4, "scan": True}
    return Config(
        model=Model(**(model | changes.pop("model", {}))),
        data=Data(path="synthetic"),
        batch=Batch(**changes.pop("batch", {"size": 16})),
        mesh=schema.Mesh(**changes),
        optimizer=Optimizer(learning_rate=1e-2),
        steps=3,
    )


def sizes(count: int, **changes: Any) -> dict[str, int]:
    found = axis_sizes(config(**changes), count)
    check(config(**changes), found)
    return {axis: size for axis, size in found.items() if size > 1}


def test_one_device_holds_everything():
    mesh = make_mesh(config(batch={"size": 3}))
    rows_bt = np.arange(12, dtype=np.int32).reshape(3, 4)
    array = shard_batch(mesh, rows_bt)
    assert array.dtype == np.int32
    np.testing.assert_array_equal(array, rows_bt)
    assert jax.device_put(rows_bt, replicated(mesh)).sharding.is_fully_replicated
    assert host_share(mesh) == (0, 1)


def test_one_axis_takes_what_is_left():
    assert sizes(8) == {"data": 8}
    assert sizes(8, fsdp=2, tensor=2) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert sizes(8, data=1, fsdp=-1, stage=2, rounds=2) == {"stage": 2, "fsdp": 4}
    assert sizes(8, slices=2, data=1, sequence=2, tensor=-1) == {
        "slice": 2,
        "sequence": 2,
        "tensor": 2,
    }


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"fsdp": 3},
            "mesh.data=-1 x mesh.fsdp=3: 8 devices are no multiple of 3; choose sizes whose product"
            " divides 8",
        ),
        (
            {"data": 2, "tensor": 2},
            "mesh.data=2 x mesh.tensor=2 makes 4 devices and there are 8: change one of them, or "
            "set one to -1",
        ),
        (
            {"batch": {"size": 12}},
            "batch.microbatch=12 cannot be shared evenly by 8 devices (slices x data x fsdp): "
            "choose a multiple of 8, or fewer of these",
        ),
        (
            {"tensor": 8},
            "mesh.tensor=8 does not divide model.heads=4: choose a divisor for mesh.tensor, or "
            "another model.heads",
        ),
        (
            {"sequence": 8},
            "model.context=8 cannot be split over mesh.sequence=8 and mesh.tensor=1: choose a "
            "multiple of 16, or smaller ones",
        ),
        ({"stage": 8}, "mesh.stage=8 is more than model.layers=4: choose fewer stages"),
        (
            {"stage": 4, "rounds": 2},
            "model.layers=4 cannot be split over mesh.stage=4 x mesh.rounds=2: choose a multiple "
            "of 8, or fewer",
        ),
        ({"rounds": 2}, "mesh.rounds=2 needs a pipeline: set mesh.stage, or rounds=1"),
        (
            {"stage": 2, "model": {"scan": False}},
            "mesh.stage=2 needs model.scan=true: stages hold stacked layers",
        ),
        (
            {"tensor": 2, "model": {"kind": "lstm"}},
            "mesh.tensor=2: an LSTM cannot be split so; use mesh.data or mesh.fsdp",
        ),
        (
            {"fsdp": -1},
            "mesh.data and mesh.fsdp cannot both be -1 (the devices that are left): give numbers "
            "to all but one",
        ),
        ({"fsdp": 0}, "mesh.fsdp=0 must be positive, or -1"),
    ],
)
def test_what_does_not_divide_is_named(changes, sentence):
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        sizes(8, **changes)


def test_slices_that_the_devices_do_not_have_are_refused():
    chips: Any = [
        SimpleNamespace(
            platform="tpu",
            device_kind="TPU v5 lite",
            coords=(i % 4, i // 4, 0),
            core_on_chip=0,
            slice_index=0,
            process_index=0,
            id=i,
        )
        for i in range(16)
    ]
    sentence = "a mesh of slice=2 x fsdp=8 cannot be laid over the wires of these 16 devices: "
    with pytest.raises(InputError, match=sentence):
        make_mesh(config(slices=2, fsdp=8), chips)


class TestRowShares:
    """A mesh's shape is slice, stage, data, fsdp, sequence, tensor."""

    def shares(self, processes, *shape):
        return row_shares(np.array(processes).reshape(shape))

    def test_rows_of_a_host_need_not_lie_together(self):
        assert self.shares([0, 1, 0, 1], 1, 1, 2, 2, 1, 1) == {0: 0, 1: 1}

    def test_hosts_with_the_same_windows_load_the_same(self):
        by_stage = [0, 0, 1, 1, 2, 2, 3, 3]
        assert self.shares(by_stage, 1, 2, 1, 4, 1, 1) == {0: 0, 1: 1, 2: 0, 3: 1}
        assert self.shares([0, 1, 2, 3], 1, 1, 1, 1, 2, 2) == {0: 0, 1: 0, 2: 0, 3: 0}

    def test_rows_that_are_shared_in_part_are_refused(self):
        with pytest.raises(InputError, match="cannot load even shares of a batch"):
            self.shares([0, 0, 1, 1, 0, 1, 0, 1], 1, 2, 1, 4, 1, 1)
        with pytest.raises(InputError, match="cannot load even shares of a batch"):
            self.shares([0, 0, 0, 1], 1, 1, 1, 4, 1, 1)
