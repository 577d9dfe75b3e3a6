"""Devices that are not here: from the name of a topology to devices that JAX can compile for.

    v5e:16x16   v6e:8x8   v4:4x4x8   v5p:8x8x16   tpu7x:4x4x4     one TPU slice, in chips
    2*v5e:16x16                                                  two slices over the network
    h100:8   h200:8   h200:2x8                                   GPUs of a node; nodes x GPUs
    cpu:8                                                        virtual devices of this machine

Nothing here imports JAX before `devices` is called: `environment` has to be set before that.
"""

import dataclasses
import importlib.util
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from configs.schema import Config, InputError, require

if TYPE_CHECKING:
    import jax

# Slices of the chips with two-dimensional wires: cloud.google.com/tpu/docs/{v5e,v6e}.
_FLAT = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
# Of the others those below a cube of 4 x 4 x 4 chips; larger ones are made of such cubes.
_SMALL = ((1, 1, 1), (2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))
_CUBES = {"v4": 4096, "v5p": 6144, "tpu7x": 9216}  # chips of the largest slice, same pages
_GPUS = {"h100": "NVIDIA H100 80GB HBM3", "h200": "NVIDIA H200 141GB HBM3e"}
NAMES = "v4, v5e, v5p, v6e, tpu7x, h100, h200, cpu"


@dataclass(frozen=True)
class Topology:
    """A topology by its parts.

    Attributes:
        name: as it was given.
        family: v4, v5e, v5p, v6e, tpu7x, h100, h200 or cpu.
        slices: TPU slices, or nodes of GPUs: what only the data-centre network connects.
        shape: chips of one slice along each direction of its wires; GPUs of a node; devices.
    """

    name: str
    family: str
    slices: int
    shape: tuple[int, ...]

    @property
    def platform(self) -> str:
        """JAX's name: tpu, gpu, cpu."""
        return {"h100": "gpu", "h200": "gpu", "cpu": "cpu"}.get(self.family, "tpu")

    @property
    def wrap(self) -> tuple[bool, ...]:
        """Along which directions the wires close to a ring.

        v5e and v6e: where all 16 chips of a pod are there; the others: on whole cubes.
        """
        if self.family in ("v5e", "v6e"):
            return tuple(size == 16 for size in self.shape)
        return (all(size % 4 == 0 for size in self.shape),) * len(self.shape)


def parse(name: str) -> Topology:
    """A topology from its name.

    Raises:
        InputError: there is none of that name, or none of that shape.
    """
    found = re.fullmatch(r"(?:(\d+)\*)?([a-z0-9]+):(\d+(?:x\d+)*)", name)
    if not found or found[2] not in (*_CUBES, "v5e", "v6e", *_GPUS, "cpu"):
        raise InputError(
            f"--topology={name}: no such topology; write CHIP:SHAPE with a chip of {NAMES}, such "
            "as v5e:16x16, v5p:4x4x8, 2*v5e:16x16 (two slices), h200:2x8 (nodes x GPUs) or cpu:8"
        )
    slices, family = int(found[1] or 1), found[2]
    shape = tuple(map(int, found[3].split("x")))
    require(slices > 0 and min(shape) > 0, f"--topology={name}: sizes must be positive")
    if family in _GPUS:
        require(len(shape) <= 2 and not found[1], f"--topology={name}: write {family}:GPUS or "
                f"{family}:NODESxGPUS")  # fmt: skip
        require(shape[-1] <= 8, f"--topology={name}: a node has at most 8 GPUs; write nodes x GPUs,"
                f" such as {family}:2x8")  # fmt: skip
        return Topology(name, family, math.prod(shape[:-1]), shape[-1:])
    if family == "cpu":
        require(len(shape) == 1 and not found[1], f"--topology={name}: write cpu:DEVICES")
        return Topology(name, family, 1, shape)
    _check_slice(name, family, shape)
    return Topology(name, family, slices, shape)


def _check_slice(name: str, family: str, shape: tuple[int, ...]) -> None:
    if family in ("v5e", "v6e"):
        listed = ", ".join("x".join(map(str, sizes)) for sizes in _FLAT)
        require(shape in _FLAT, f"--topology={name}: no such slice; {family} has {listed}")
        return
    most = _CUBES[family]
    cubes = len(shape) == 3 and all(s % 4 == 0 for s in shape) and list(shape) == sorted(shape)
    require(
        shape in _SMALL or (cubes and math.prod(shape) <= most),
        f"--topology={name}: no such slice; {family} has 2x2x1, 2x2x2, 2x2x4, 2x4x4, and AxBxC "
        f"with multiples of 4, A <= B <= C, up to {most} chips",
    )


def with_slices(config: Config, where: Topology) -> Config:
    """The config with one replica a TPU slice, where the topology has several and it does not say.

    Raises:
        InputError: config and topology name different numbers of slices.
    """
    if where.platform != "tpu" or config.mesh.slices == where.slices:
        return config
    require(
        config.mesh.slices == 1,
        f"mesh.slices={config.mesh.slices} and --topology={where.name} has {where.slices}: make "
        "them agree",
    )
    print(f"config.mesh.slices: 1 -> {where.slices}")
    return dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, slices=where.slices))


def environment(topology: Topology, present: str = "") -> dict[str, str]:
    """Variables that must be set before JAX starts.

    Args:
        topology: what is compiled for.
        present: the XLA_FLAGS that are already set.
    """
    if topology.platform == "cpu":
        count = f"--xla_force_host_platform_device_count={topology.shape[0]}"
        return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{present} {count}".strip()}
    if topology.platform == "gpu":
        return {"JAX_PLATFORMS": "cpu"}
    return {
        "JAX_PLATFORMS": "cpu",  # the platform that JAX itself runs on, even beside a TPU
        "TPU_SKIP_MDS_QUERY": "1",  # else libtpu asks the cloud's metadata server, and waits
        "TPU_ACCELERATOR_TYPE": "v5litepod-16",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # else two compilations at once end one another
    }


def devices(topology: Topology) -> "list[jax.Device]":
    """The devices of a topology, to be compiled for and not run on.

    Raises:
        InputError: what is needed to compile for them is not installed, or refuses.
    """
    if topology.platform == "cpu":
        import jax

        found = jax.devices()
        require(len(found) == topology.shape[0], f"--topology={topology.name}: JAX had already "
                f"started with {len(found)} devices; set XLA_FLAGS before")  # fmt: skip
        return found
    return _tpus(topology) if topology.platform == "tpu" else _gpus(topology)


def _tpus(topology: Topology) -> "list[jax.Device]":
    require(
        importlib.util.find_spec("libtpu") is not None,
        f"--topology={topology.name}: compiling for a TPU needs libtpu, which is not installed: "
        'pip install "jax[tpu]" (no TPU is needed)',
    )
    shape = "x".join(map(str, topology.shape))
    options: dict[str, Any] = {"num_slices": topology.slices, "wrap": (*topology.wrap, False)[:3]}
    if topology.family in ("v4", "v5p"):
        options["chip_config_name"] = "megacore"  # both cores of a chip as one device
    if math.prod(topology.shape) == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    return _describe(topology, platform="tpu", topology_name=f"{topology.family}:{shape}",
                     **options)  # fmt: skip


def _gpus(topology: Topology) -> "list[jax.Device]":
    plugins = ("jax_cuda12_plugin", "jax_cuda13_plugin")
    require(
        any(importlib.util.find_spec(plugin) is not None for plugin in plugins),
        f"--topology={topology.name}: compiling for a GPU needs JAX's CUDA plugin, which is not "
        'installed: pip install "jax[cuda12]" (4 GB; no GPU is needed)',
    )
    layout = f"1x{topology.slices}x{topology.shape[0]}"
    return _describe(topology, platform="cuda", topology=layout,
                     target_config=gpu_target(topology.family))  # fmt: skip


def _describe(of: Topology, platform: str, **options: Any) -> "list[jax.Device]":
    import jax
    from jax.experimental import topologies

    try:
        description = topologies.get_topology_desc(platform=platform, **options)
    except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"--topology={of.name}: the compiler refuses it: {first}") from error
    return list(description.devices)


def gpu_target(family: str) -> str:
    """XLA's description of a GPU that is not there, as the text of a protocol buffer.

    Hopper's figures: NVIDIA H100 whitepaper (132 multiprocessors, 50 MB of second-level cache, 228
    KB shared memory) and CUDA programming guide, table of compute capability 9.0; memory and its
    bandwidth: chips.py.
    """
    from parallel import chips

    chip = chips.find(_GPUS[family])
    assert chip is not None
    name = _GPUS[family]
    return f"""
gpu_device_info {{
  name: "{name}"
  device_vendor: "NVIDIA Corporation"
  platform_version: "Compute Capability 9.0a"
  cuda_compute_capability {{ major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES }}
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  l2_cache_size: 52428800
  memory_bandwidth: {int(chip.memory_bandwidth)}
  device_memory_size: {int(chip.memory)}
  device_address_bits: 64
  pcie_bandwidth: 64000000000
  ecc_enabled: true
  driver_version: "13.0.0"
  runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0"
  dnn_version: "9.10.0"
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
device_description_str: "{name}"
"""
