"""How fast the devices of a collective can talk: from mesh axes to bytes a second.

On a TPU slice a ring along a closed direction of the wires uses both its ways, a line one way; a
group that spans two directions uses both at once ("How to Scale Your Model", part 3). What leaves a
slice, or a node of GPUs, goes through the network, and each device brings its own share of that.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.sharding import Mesh

from parallel.chips import Chip
from parallel.compile.costs import PERMUTE, Collective
from parallel.compile.topology import Topology

HOP_SECONDS = 1e-6  # of one TPU link ("How to Scale Your Model", part 3)
LAUNCH_SECONDS = 1e-5  # of one collective between GPUs or over a network; measured by nobody here


@dataclass(frozen=True)
class Wires:
    """What a group of devices has between its members.

    Attributes:
        inside: bytes a second that one device can send to others of its slice or node; 0 where
            the group has one device in each.
        outside: the same to other slices, the network of all members in its slice put together; 0
            where the group has only one slice.
        neighbour: bytes a second to the one next to it inside, which is all a permutation uses.
        latency: seconds of the longest way inside.
    """

    inside: float
    outside: float
    neighbour: float
    latency: float


def wires(mesh: Mesh, axes: tuple[str, ...], topology: Topology, chip: Chip) -> Wires:
    """What lies between the devices that differ along some axes of a mesh."""
    place = tuple(slice(None) if axis in axes else 0 for axis in mesh.axis_names)
    members = mesh.devices[place].reshape(-1)
    homes = [_home(device, topology) for device in members]
    first = [device for device, home in zip(members, homes, strict=True) if home == homes[0]]
    outside = chip.network * len(first) if len(set(homes)) > 1 else 0.0
    if len(first) == 1:
        return Wires(0.0, outside, 0.0, LAUNCH_SECONDS)
    if topology.platform != "tpu":
        return Wires(chip.link, outside, chip.link, LAUNCH_SECONDS)
    inside, hops = _torus(np.asarray([device.coords for device in first]), topology, chip)
    return Wires(inside, outside, min(inside, chip.link), hops * HOP_SECONDS)


def seconds(collective: Collective, between: Wires) -> float:
    """How long one execution takes at least, in seconds."""
    sent, total = collective.sent_bytes, between.latency
    if between.outside:
        total += sent / between.outside + LAUNCH_SECONDS
    inside = between.neighbour if collective.kind == PERMUTE else between.inside
    return total + (sent / inside if inside else 0.0)


def _home(device: Any, topology: Topology) -> int:
    """The number of a device's slice or node."""
    if topology.platform == "gpu":
        return device.id // topology.shape[0]
    return getattr(device, "slice_index", 0) or 0


def _torus(coordinates: np.ndarray, topology: Topology, chip: Chip) -> tuple[float, int]:
    """Bytes a second one device can send along all directions, and hops to the farthest."""
    rate, hops = 0.0, 0
    for direction, (size, closed) in enumerate(zip(topology.shape, topology.wrap, strict=True)):
        places = np.unique(coordinates[:, direction])
        if len(places) == 1:
            continue
        ring = closed and len(places) == size
        stride = int(np.diff(places).min())
        rate += chip.link * (2 if ring else 1) / stride
        hops += len(places) // 2 if ring else int(places[-1] - places[0])
    return (rate, hops) if rate else (chip.link * chip.links, 1)  # two devices of one chip
