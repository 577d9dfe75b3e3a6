"""What the TPU's compiler is told beyond its defaults, by chip, as data.

By default libtpu lets collectives of v5p and v6e stand in the way of products; on v5e it weaves
all-gathers into them, and on tpu7x the SparseCores carry collectives, without being told. Listed is
only what makes the compiler expect a shorter train step (docs/tpu.md has the counts).

Source of the names and of what they do, read in November 2026: MaxText
(github.com/AI-Hypercomputer/maxtext), benchmarks/xla_flags_library.py
(ENABLE_SPARSECORE_OFFLOADING_FOR_RS_AG_AR), and for two and three directions
docs/guides/optimization/benchmark_and_performance.md. The memory to tile in is MaxText's for dense
models on each. Of its other options, libtpu 0.0.50.1 refuses to fuse all-gathers into products
(xla_tpu_enable_async_collective_fusion) on any chip but v5e.

Nothing here imports JAX: libtpu reads its options once, when the runtime starts.
"""

import importlib.util
import mmap
import re
from collections.abc import Mapping
from pathlib import Path

Options = dict[str, str]

VARIABLE = "LIBTPU_INIT_ARGS"

# The SparseCores move data between chips while the TensorCore multiplies.
_SPARSE_CORES = {
    "xla_tpu_enable_sparse_core_collective_offload_all_gather": "true",
    "xla_tpu_enable_sparse_core_collective_offload_reduce_scatter": "true",
    "xla_tpu_enable_sparse_core_collective_offload_all_reduce": "true",
    "xla_tpu_use_tc_device_shape_on_sc": "true",
    "xla_sc_disable_megacore_partitioning": "true",
}

# All-gathers along two or three directions of the wires at once, which v5p needs to be told apart.
_DIRECTIONS = {
    "xla_tpu_enable_sparse_core_collective_offload_2d_all_gather": "true",
    "xla_tpu_enable_sparse_core_collective_offload_3d_all_gather": "true",
}

# Memory of the core that an operation may tile in: with more, products read factors less often.
_TILES = "xla_tpu_scoped_vmem_limit_kib"

OPTIONS: dict[str, Options] = {
    "v5p": _SPARSE_CORES | _DIRECTIONS | {_TILES: "65536"},
    "v6e": _SPARSE_CORES | {_TILES: "98304"},
}

# Google's devices on the PCI bus: jax/_src/hardware_utils.py.
_VENDOR = "0x1ae0"
_CHIPS = {
    "0x005e": "v4",
    "0x0062": "v5p",
    "0x0063": "v5e",
    "0x006f": "v6e",
    "0x0076": "tpu7x",
}


def attached(devices: Path = Path("/sys/bus/pci/devices")) -> str:
    """The family of this host's TPU chips by the bus they sit on; empty where there is none."""
    for vendor in devices.glob("*/vendor"):
        device = vendor.with_name("device")
        if vendor.read_text().strip() == _VENDOR and device.is_file():
            family = _CHIPS.get(device.read_text().strip())
            if family:
                return family
    return ""


def chosen(family: str, present: str = "", library: Path | None = None) -> Options:
    """The options for a chip that the user has not set and that libtpu knows.

    libtpu ends the process at a name that it does not know, so names that its library does not
    contain are left out.

    Args:
        family: as in a topology's name (v5p); for many there are none.
        present: LIBTPU_INIT_ARGS as the user set it, which wins.
        library: libtpu.so; None: the installed one.
    """
    taken = set(re.findall(r"--(?:no)?(\w+)", present))
    options = {name: value for name, value in OPTIONS.get(family, {}).items() if name not in taken}
    library = library or installed()
    if not options or library is None:
        return {}
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return {
            name: value
            for name, value in options.items()
            if text.find(b"\0" + name.encode() + b"\0") >= 0
        }


def variables(environment: Mapping[str, str], devices: Path | None = None) -> dict[str, str]:
    """What to add to the environment before the runtime starts on this host's TPU, or nothing."""
    family = attached(devices) if devices else attached()
    if not family or "tpu" not in (environment.get("JAX_PLATFORMS") or "tpu"):
        return {}
    present = environment.get(VARIABLE, "")
    library = environment.get("TPU_LIBRARY_PATH")  # as JAX itself looks for it
    options = chosen(family, present, Path(library) if library else None)
    added = " ".join(f"--{name}={value}" for name, value in options.items())
    return {VARIABLE: f"{present} {added}".strip()} if added else {}


def installed() -> Path | None:
    """The library of the installed libtpu, where there is one."""
    found = importlib.util.find_spec("libtpu")
    folder = Path(found.origin).parent if found and found.origin else None
    return folder / "libtpu.so" if folder and (folder / "libtpu.so").is_file() else None
