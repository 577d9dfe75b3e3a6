"""From the names of a parameter's dimensions to where its parts lie.

Each logical axis has one rule (model.placement.RULES, next to the exchanges that rely on it).
Optimizer state that has the shape of a parameter lies as the parameter does.
"""

import math
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from configs.schema import Config
from model.parameters import Parameter
from model.placement import FSDP, RULES, SEQUENCE, STAGE, TENSOR, Placement
from parallel.mesh import AXES, ROWS


def spec(parameter: Parameter) -> PartitionSpec:
    """What each dimension of a parameter is split over.

    Raises:
        ValueError: an axis has no rule, or two are split over the same.
    """
    uncovered = [axis for axis in parameter.axes if axis not in RULES]
    if uncovered:
        raise ValueError(f"no rule says what {uncovered} of a parameter {parameter} is split over")
    over = [RULES[axis] for axis in parameter.axes]
    used = [axis for axis in over if axis]
    if len(used) > len(set(used)):
        raise ValueError(f"two dimensions of {parameter} would be split over the same mesh axis")
    return PartitionSpec(*over)


def specs(declarations: Any) -> Any:
    """The same tree with a PartitionSpec for each declaration."""
    return jax.tree.map(spec, declarations)


def summed_over(parameter: Parameter) -> tuple[str, ...]:
    """The mesh axes over which devices have parts of the sum that its gradient is.

    Where it is split over fsdp, its gradient has been summed over fsdp where it was used.
    """
    return tuple(axis for axis in AXES if axis not in spec(parameter))


def placement(config: Config, mesh: Mesh, microbatch: int) -> Placement:
    """What the network must know of a mesh.

    Args:
        config: the run.
        mesh: from make_mesh.
        microbatch: windows of all devices that go through a pipeline at once.
    """
    return Placement(
        platform=mesh.devices.flat[0].platform,
        fsdp=mesh.shape[FSDP],
        sequence=mesh.shape[SEQUENCE],
        tensor=mesh.shape[TENSOR],
        stage=mesh.shape[STAGE],
        rounds=config.mesh.rounds,
        microbatch=microbatch // math.prod(mesh.shape[axis] for axis in ROWS),
    )


def state_shardings(mesh: Mesh, declarations: Any, state: Any) -> Any:
    """Where each array of a training state lies.

    Args:
        mesh: from make_mesh.
        declarations: those of the parameters.
        state: a tree of arrays or shapes. A leaf belongs to the parameter whose path its own path
            ends with, if it has its shape; all else is on every device.
    """
    leaves = jax.tree.leaves_with_path(declarations)
    by_path = {_names(path): parameter for path, parameter in leaves}

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        names = _names(path)
        for start in range(len(names)):
            parameter = by_path.get(names[start:])
            if parameter and parameter.shape == leaf.shape:
                return NamedSharding(mesh, spec(parameter))
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree.map_with_path(place, state)


def _names(path: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)
