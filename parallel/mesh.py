"""The mesh: all devices of a run, named by what is split over them.

Outermost to innermost, so that what talks most has the shortest way: slice (replicas over the slow
network), stage (consecutive layers), data (replicas), fsdp (windows, and parameters with them),
sequence (the tokens of a window), tensor (heads, feed-forward channels, vocabulary).
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from contextlib import suppress

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from configs import schema
from configs.schema import Config, InputError, require
from model.placement import FSDP, SEQUENCE, STAGE, TENSOR

SLICE, DATA = "slice", "data"
AXES = (SLICE, STAGE, DATA, FSDP, SEQUENCE, TENSOR)
ROWS = (SLICE, DATA, FSDP)  # what the windows of a batch are split over


def make_mesh(config: Config, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of a run, on all devices of all hosts or on those given.

    Raises:
        InputError: it does not fit the devices, the model or the batch.
    """
    devices = jax.devices() if devices is None else devices
    sizes = axis_sizes(config, len(devices))
    check(config, sizes)
    return Mesh(_arrange(tuple(sizes.values()), devices), AXES, axis_types=(AxisType.Auto,) * 6)


def fitting_mesh(config: Config) -> tuple[Config, Mesh]:
    """A mesh for a model that was trained elsewhere: its own, one of these devices, or one of them.

    Returns:
        The config with the mesh that it is, and that mesh.
    """
    for settings in (config.mesh, schema.Mesh(data=1, fsdp=-1)):
        changed = dataclasses.replace(config, mesh=settings)
        with suppress(InputError):
            return changed, make_mesh(changed)
    alone = dataclasses.replace(config, mesh=schema.Mesh(data=1))
    return alone, make_mesh(alone, jax.devices()[:1])


def axis_sizes(config: Config, count: int) -> dict[str, int]:
    """Each axis's size on `count` devices, -1 worked out.

    Raises:
        InputError: the sizes do not make up that many devices.
    """
    m = config.mesh
    sizes = dict(zip(AXES, (m.slices, m.stage, m.data, m.fsdp, m.sequence, m.tensor), strict=True))
    given = math.prod(size for size in sizes.values() if size > 0)
    asked = " x ".join(f"mesh.{axis}={size}" for axis, size in sizes.items() if size != 1)
    asked = asked.replace("mesh.slice=", "mesh.slices=")
    if -1 in sizes.values():
        require(
            count % given == 0,
            f"{asked}: {count} devices are no multiple of {given}; choose sizes whose product "
            f"divides {count}",
        )
        return {axis: size if size > 0 else count // given for axis, size in sizes.items()}
    require(
        given == count,
        f"{asked or 'the mesh'} makes {given} devices and there are {count}: change one of them, "
        "or set one to -1",
    )
    return sizes


def check(config: Config, sizes: dict[str, int]) -> None:
    """Raise InputError, with the number to change, unless model and batch can be split so."""
    model, rows = config.model, math.prod(sizes[axis] for axis in ROWS)
    require(
        config.batch.microbatch % rows == 0,
        f"batch.microbatch={config.batch.microbatch} cannot be shared evenly by {rows} devices "
        f"(slices x data x fsdp): choose a multiple of {rows}, or fewer of these",
    )
    evaluated = config.evaluation.batch or rows
    require(
        evaluated % rows == 0,
        f"evaluation.batch={evaluated} cannot be shared evenly by {rows} devices (slices x data x "
        f"fsdp): choose a multiple of {rows}, or 0",
    )
    _divides(model.width, "model.width", sizes[FSDP], "mesh.fsdp")
    if model.kind == "lstm":
        for axis in (SEQUENCE, TENSOR, STAGE):
            require(sizes[axis] == 1, f"mesh.{axis}={sizes[axis]}: an LSTM cannot be split so; use "
                    "mesh.data or mesh.fsdp")  # fmt: skip
        return
    for name in ("heads", "kv_heads", "ffn_width", "padded_vocab"):
        _divides(getattr(model, name), f"model.{name}", sizes[TENSOR], "mesh.tensor")
    # With a split sequence each device holds an early and a late piece, so that causal attention
    # is the same work for all.
    pieces = sizes[TENSOR] * (2 * sizes[SEQUENCE] if sizes[SEQUENCE] > 1 else 1)
    require(
        model.context % pieces == 0,
        f"model.context={model.context} cannot be split over mesh.sequence={sizes[SEQUENCE]} and "
        f"mesh.tensor={sizes[TENSOR]}: choose a multiple of {pieces}, or smaller ones",
    )
    _check_stages(config, sizes[STAGE])


def _check_stages(config: Config, stages: int) -> None:
    model, rounds = config.model, config.mesh.rounds
    if stages == 1:
        require(rounds == 1, f"mesh.rounds={rounds} needs a pipeline: set mesh.stage, or rounds=1")
        return
    require(
        stages <= model.layers,
        f"mesh.stage={stages} is more than model.layers={model.layers}: choose fewer stages",
    )
    require(model.scan, f"mesh.stage={stages} needs model.scan=true: stages hold stacked layers")
    pattern = len(model.windows)
    parts = stages * rounds * pattern
    each = f"mesh.stage={stages} x mesh.rounds={rounds}"
    each += f" x {pattern} entries of model.windows" if pattern > 1 else ""
    require(
        model.layers % parts == 0,
        f"model.layers={model.layers} cannot be split over {each}: choose a multiple of {parts}, "
        "or fewer",
    )


def _divides(size: int, name: str, parts: int, axis: str) -> None:
    require(
        size % parts == 0,
        f"{axis}={parts} does not divide {name}={size}: choose a divisor for {axis}, or another "
        f"{name}",
    )


def _arrange(shape: tuple[int, ...], devices: Sequence[jax.Device]) -> np.ndarray:
    """Devices in the shape of the mesh, neighbours in it near one another on the wires."""
    slices, *inner = shape
    try:
        if slices > 1 and hasattr(devices[0], "slice_index"):
            return mesh_utils.create_hybrid_device_mesh(
                (1, *inner), (slices, *(1 for _ in inner)), devices, allow_split_physical_axes=True
            )
        if devices[0].platform == "tpu":
            return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    except (NotImplementedError, ValueError) as error:
        asked = " x ".join(f"{axis}={n}" for axis, n in zip(AXES, shape, strict=True) if n > 1)
        raise InputError(
            f"a mesh of {asked} cannot be laid over the wires of these {len(devices)} devices: "
            "choose mesh.slices as there are slices, and sizes that divide their sides"
        ) from error
    return np.asarray(devices).reshape(shape)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def row_sharding(mesh: Mesh) -> NamedSharding:
    """Rows split over the devices, whatever the other dimensions."""
    return NamedSharding(mesh, PartitionSpec(ROWS))


def shard_batch(mesh: Mesh, rows_bt: np.ndarray) -> jax.Array:
    """This host's rows of a batch as its part of one global array, split by rows.

    Args:
        mesh: from make_mesh.
        rows_bt: the rows that `host_share` says; hosts hold equally many.
    """
    _, shares = host_share(mesh)
    shape = (len(rows_bt) * shares, *rows_bt.shape[1:])
    return jax.make_array_from_process_local_data(row_sharding(mesh), rows_bt, shape)


@functools.cache  # asked for with every batch
def host_share(mesh: Mesh) -> tuple[int, int]:
    """Which share of each batch this host loads: (its number, how many shares there are).

    Hosts that hold different layers or tokens of the same windows load the same share.

    Raises:
        InputError: the hosts cannot have even shares.
    """
    processes = np.array([device.process_index for device in mesh.devices.flat])
    shares = row_shares(processes.reshape(mesh.devices.shape))
    return shares[jax.process_index()], len(set(shares.values()))


def row_shares(processes: np.ndarray) -> dict[int, int]:
    """The number of each process's share of the rows of a batch.

    A pod's wires, not its hosts, decide where its devices lie in the mesh, so a host's rows need
    not lie together: which windows of a batch are whose does not matter, as long as each is once.

    Args:
        processes: the process of each device, in the shape of the mesh.

    Raises:
        InputError: two processes need some of the same rows and not all, or unequally many.
    """
    axes = [AXES.index(axis) for axis in ROWS]
    shape = [size if dim in axes else 1 for dim, size in enumerate(processes.shape)]
    rows = np.broadcast_to(np.arange(math.prod(shape)).reshape(shape), processes.shape)
    held = {
        process: tuple(np.unique(rows[processes == process])) for process in np.unique(processes)
    }
    shares = sorted(set(held.values()))
    require(
        sum(map(len, shares)) == math.prod(shape) and len(set(map(len, shares))) == 1,
        "the processes cannot load even shares of a batch on this mesh: choose slices, data and "
        "fsdp so that the devices of a process hold whole rows of their own",
    )
    return {int(process): shares.index(rows_held) for process, rows_held in held.items()}
