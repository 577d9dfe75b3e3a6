"""Where arrays live: the rows of a batch are split over the devices, the state is on every one."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from configs.schema import Batch, require

DATA = "data"  # the mesh axis that rows of a batch are split over


def make_mesh(batch: Batch) -> Mesh:
    """All devices of all hosts in one row.

    Raises:
        InputError: the devices cannot share a microbatch evenly.
    """
    count = jax.device_count()
    require(
        batch.microbatch % count == 0,
        f"batch.microbatch={batch.microbatch} cannot be shared evenly by {count} devices: "
        f"choose a multiple of {count}",
    )
    return jax.make_mesh((count,), (DATA,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def shard_batch(mesh: Mesh, rows_bt: np.ndarray) -> jax.Array:
    """This host's rows of a batch as its part of one global array, split by rows.

    Args:
        mesh: from make_mesh.
        rows_bt: this host's rows; hosts hold equally many, in the order of their process index.
    """
    sharding = NamedSharding(mesh, PartitionSpec(DATA))
    return jax.make_array_from_process_local_data(sharding, rows_bt)


def host_share() -> tuple[int, int]:
    """Which share of each batch this host loads: (its number, how many hosts there are)."""
    return jax.process_index(), jax.process_count()
