"""Which mesh axes the devices of a collective differ in, read from the text of its groups.

XLA writes groups of devices in four ways, all by logical number: the position in
`mesh.devices.flat`. (That holds for programs with `use_global_device_ids` and one replica, which is
what jax.jit makes.)

    {{0,1},{2,3}}                        a list; {} is everybody
    [4,2]<=[2,4]T(1,0)                   0..7 as [2, 4], transposed, reshaped to 4 groups of 2
    mesh['data'=2,'fsdp'=4] {'fsdp'}     along these axes of a mesh; 'fsdp':(2)2 is a part of one,
                                         device_ids=([4,2]T(1,0)) before them an order
    {{0,1},{1,2}}                        of a permutation: pairs of source and target
"""

import re

import numpy as np
from jax.sharding import Mesh


def groups(text: str, count: int) -> np.ndarray:
    """Logical device numbers, int [groups, devices of one], from the value of replica_groups.

    Raises:
        ValueError: it is written in no way known here.
    """
    if text.startswith("mesh["):
        return _along_axes(text)
    if "<=" in text:
        return _iota(text)
    rows = [[int(n) for n in row.split(",")] for row in re.findall(r"\{([\d,\s]+)\}", text)]
    if not rows:
        return np.arange(count)[None]
    return np.asarray(rows)


def _iota(text: str) -> np.ndarray:
    found = re.fullmatch(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text.strip())
    if not found:
        raise ValueError(f"cannot read the groups {text!r}")
    shape, source, order = (tuple(map(int, part.split(","))) if part else () for part in
                            found.groups())  # fmt: skip
    numbers = np.arange(np.prod(source)).reshape(source)
    return (numbers.transpose(order) if order else numbers).reshape(shape)


def _along_axes(text: str) -> np.ndarray:
    mesh, chosen = text.split("]", 1)
    chosen, named = chosen.rsplit("{", 1)
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh)}
    order = re.search(r"device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\)", chosen)
    if "device_ids" in chosen and not order:
        raise ValueError(f"cannot read the groups {text!r}")
    shape: list[int] = []
    group: list[int] = []
    parts = {
        name: (int(before), int(size))
        for name, before, size in re.findall(r"'([^']+)':\((\d+)\)(\d+)", named)
    }
    for name, size in sizes.items():
        if name in parts:
            before, own = parts[name]
            group.append(len(shape) + 1)
            shape += [before, own, size // before // own]
        else:
            if f"'{name}'" in named:
                group.append(len(shape))
            shape.append(size)
    numbers: np.ndarray = np.arange(np.prod(shape))
    if order:
        source, turned = (tuple(map(int, part.split(","))) if part else () for part in
                          order.groups())  # fmt: skip
        numbers = numbers.reshape(source).transpose(turned or None)
    numbers = numbers.reshape(shape)
    rest = [dim for dim in range(len(shape)) if dim not in group]
    return numbers.transpose(rest + group).reshape(-1, int(np.prod([shape[dim] for dim in group])))


def axes_of(members: np.ndarray, mesh: Mesh) -> tuple[str, ...]:
    """The mesh axes along which the devices of a group differ, outermost first.

    Args:
        members: logical numbers, int [groups, devices of one]; for a permutation the pairs.
        mesh: the mesh that the program was compiled for.
    """
    coordinates = np.unravel_index(members, mesh.devices.shape)
    return tuple(
        axis
        for axis, along in zip(mesh.axis_names, coordinates, strict=True)
        if (along != along[:, :1]).any()
    )
