"""What a compiled step needs of a device and how long it should take: memory, operations, wires."""

import math
import re
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh

import model
from configs.schema import Config, Model
from model.pipeline import bubble, ticks
from parallel.chips import Chip
from parallel.compile.costs import Collective, Costs
from parallel.compile.topology import Topology
from parallel.compile.wires import seconds, wires
from parallel.mesh import ROWS

# Flash attention's backward pass multiplies five times where the forward pass does twice (Dao 2023,
# arXiv:2307.08691, section 3.1).
KERNEL_BACKWARD = 2.5
RECOMPUTING = ("full", "dots")  # remat policies that run the attention kernel again


@dataclass(frozen=True)
class Memory:
    """Bytes of one device.

    Attributes:
        parameters, optimizer, batch: of the step's arguments, before the layout's padding.
        activations: what the layers keep for the backward pass, by formula; see `activations`.
        temporaries: the rest of what lives during the step: gradients, whole matrices, one layer.
        code: the program.
        other: padding of arguments, metrics.
        limit: what a program may use; 0 where it is unknown.
    """

    parameters: float
    optimizer: float
    batch: float
    activations: float
    temporaries: float
    code: float
    other: float
    limit: float

    @property
    def total(self) -> float:
        """All of it."""
        held = self.parameters + self.optimizer + self.batch + self.other
        return held + self.activations + self.temporaries + self.code

    @property
    def fits(self) -> bool | None:
        """Whether it is within the limit; None where that is unknown."""
        return self.total <= self.limit if self.limit else None


@dataclass(frozen=True)
class Estimate:
    """Seconds and shares of one update.

    Attributes:
        model_flops: what the mathematics needs of each device, by convention of counting.
        products: operations of products in the program, a device.
        kernels: operations of opaque attention kernels, by formula, a device.
        compute: seconds of products and kernels at the chip's peak.
        traffic: seconds that memory needs for what the program reads and writes.
        compiler: seconds that the compiler predicts, with `kernels` at the peak; None where it
            predicts none.
        network: for each collective its seconds in all executions.
        overlapped, exposed: their sums, for those that run beside products and those that do not.
        step: predicted: the exposed ones, and the longest of the others.
        bubble: the share of the pipeline's ticks in which a stage is idle.
    """

    model_flops: dict[str, float]
    products: float
    kernels: float
    compute: float
    traffic: float
    compiler: float | None
    network: tuple[tuple[Collective, float], ...]
    overlapped: float
    exposed: float
    step: float
    bubble: float
    mfu: dict[str, float]


def activations(config: Config, mesh: Mesh) -> float:
    """Bytes that a device keeps of all its layers for the backward pass, by formula.

    What is kept of a token in a layer follows from the remat policy; a pipeline keeps it for every
    tick, and all else for one microbatch.
    """
    network, stages = config.model, mesh.shape["stage"]
    rows = math.prod(mesh.shape[axis] for axis in ROWS)
    tokens = config.batch.microbatch // rows * network.context / mesh.shape["sequence"]
    updates = config.batch.size // config.batch.microbatch
    rounds = ticks(updates, stages, config.mesh.rounds) / config.mesh.rounds if stages > 1 else 1
    return _kept(network, mesh.shape["tensor"]) * tokens * network.layers / stages * rounds


def _kept(network: Model, tensor: int) -> float:
    """Bytes a layer keeps of each token for the backward pass, on a device."""
    size = 2 if network.compute_dtype == "bfloat16" else 4
    heads, keys = network.heads * network.head_dim, network.kv_heads * network.head_dim
    stream = size * network.width / tensor
    if network.remat == "full" or network.kind == "lstm":
        return stream
    if network.remat == "attention":
        return stream + (size * heads + 4 * network.heads) / tensor
    wide = 2 if network.ffn == "swiglu" else 1
    dots = 2 * heads + 2 * keys + 2 * network.width + wide * network.ffn_width
    extra = 4 * network.width + 2 * network.ffn_width if network.remat == "none" else 0
    return stream + size * (dots + extra) / tensor


def memory(
    compiled: Any, config: Config, mesh: Mesh, state: Any, batch: Any, chip: Chip | None
) -> Memory:
    """Bytes by kind, of the compiled step.

    Args:
        compiled: jax's compiled object.
        config: the run.
        mesh: what it was compiled for.
        state: the abstract State with shardings.
        batch: the abstract batch with its sharding.
        chip: whose memory is the limit; None: unknown.
    """
    found = compiled.memory_analysis()
    parts = {
        "parameters": local_bytes(state.params),
        "optimizer": local_bytes(state.optimizer),
        "batch": local_bytes(batch),
    }
    held = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    # The sum of all buffers has gaps where the peak, which newer compilers state, has none.
    peak = getattr(found, "peak_memory_in_bytes", 0)
    lives = peak - held if peak > held else found.temp_size_in_bytes
    kept = min(activations(config, mesh), lives)
    return Memory(
        **parts,
        activations=kept,
        temporaries=lives - kept,
        code=found.generated_code_size_in_bytes,
        other=max(0.0, held - sum(parts.values())),
        limit=chip.memory if chip else 0,
    )


def exceeded(
    error: Exception, config: Config, mesh: Mesh, state: Any, batch: Any, chip: Chip | None
) -> Memory | None:
    """The memory of a step that the compiler refuses because it does not fit, from its message."""
    found = re.search(r"\(([\d.]+)([KMGT])\) exceeds available", str(error)) or re.search(
        r"Used ([\d.]+)([KMGT]) of", str(error)
    )
    if "RESOURCE_EXHAUSTED" not in str(error) or found is None:
        return None
    total = float(found[1]) * 1024 ** ("KMGT".index(found[2]) + 1)
    parts = local_bytes(state.params), local_bytes(state.optimizer), local_bytes(batch)
    rest = max(total - sum(parts), 0.0) if "Used" in found[0] else total
    kept = min(activations(config, mesh), rest)
    return Memory(*parts, kept, rest - kept, 0, 0, chip.memory if chip else 0)


def local_bytes(tree: Any) -> float:
    """What one device holds of a tree of abstract arrays with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def estimate(
    config: Config, mesh: Mesh, costs: Costs, topology: Topology, chip: Chip | None
) -> Estimate:
    """How long an update takes by the chip's figures, which no program exceeds.

    On an unknown chip there are operations and bytes, and no seconds.
    """
    counts = model.counts(config.model)
    tokens = config.batch.size * config.model.context / mesh.size
    model_flops = {
        "palm": counts.flops_per_token("palm") * tokens,
        "strict": counts.flops_per_token("strict") * tokens,
    }
    stages, rounds = mesh.shape["stage"], config.mesh.rounds
    idle = bubble(config.batch.size // config.batch.microbatch, stages, rounds)
    kernels = 0.0
    if costs.kernels:
        passes = 1 + KERNEL_BACKWARD + (config.model.remat in RECOMPUTING)
        kernels = counts.flops_attention_causal * tokens * passes / (1 - idle)
    if chip is None or not chip.memory_bandwidth:
        network = tuple((c, 0.0) for c in costs.collectives)
        return Estimate(model_flops, costs.flops, kernels, 0, 0, None, network, 0, 0, 0, idle, {})
    compute, memory_time = (
        (costs.flops + kernels) / chip.flops,
        costs.traffic / chip.memory_bandwidth,
    )
    compiler = None
    if costs.cycles and chip.per_cycle:
        compiler = (costs.cycles * chip.per_cycle + kernels) / chip.flops
    network = tuple(
        (c, c.count * seconds(c, wires(mesh, c.axes, topology, chip))) for c in costs.collectives
    )
    overlapped = sum(time for c, time in network if c.overlapped)
    exposed = sum(time for c, time in network if not c.overlapped)
    step = exposed + max(overlapped, compiler or max(compute, memory_time))
    return Estimate(
        model_flops,
        costs.flops,
        kernels,
        compute,
        memory_time,
        compiler,
        network,
        overlapped,
        exposed,
        step,
        idle,
        {name: flops / (chip.flops * step) for name, flops in model_flops.items()},
    )


def advice(config: Config, mesh: Mesh, needed: Memory) -> list[str]:
    """Which number to change for the step to fit, what helps most first."""
    if needed.fits is not False:
        return []
    sizes, batch = mesh.shape, config.batch
    rows = sizes["slice"] * sizes["data"] * sizes["fsdp"]
    held = needed.parameters + needed.optimizer
    changes = []
    if sizes["data"] > 1 and held > needed.limit / 8:
        changes.append(
            f"mesh.fsdp={sizes['fsdp'] * sizes['data']} with mesh.data=1: parameters and "
            f"optimizer state are {held / 2**30:.1f} GiB on each device"
        )
    if config.model.remat != "full":
        changes.append("model.remat=full: activations of a layer are computed again, not kept")
    if batch.microbatch > rows:
        changes.append(f"batch.microbatch={rows}: one window at once on each device")
    else:
        changes.append(
            "a larger mesh.tensor, or mesh.sequence for long windows, with mesh.fsdp smaller by as "
            "much and batch.microbatch at slices x data x fsdp: fewer tokens at once on a device"
        )
    if held > needed.limit / 2:
        changes.append("more devices, or mesh.stage: the state alone fills most of the memory")
    return changes
