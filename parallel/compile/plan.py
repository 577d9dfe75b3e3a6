"""What a mesh, a microbatch and a remat policy would cost, by formula and without compiling.

Good enough to rank thousands of choices; search.py corrects it by those it compiles, and only what
was compiled is recommended. Notation: T tokens a device has at once where nothing is
split over tensor, P parameters, layers as they lie on one stage.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from jax.sharding import Mesh

import model
from configs import schema
from configs.schema import Config, InputError
from model.loss import ACCELERATOR_FACTOR, CHUNK_LOGITS
from model.pipeline import ticks
from parallel.chips import Chip
from parallel.compile.costs import Collective
from parallel.compile.estimate import KERNEL_BACKWARD, RECOMPUTING, activations
from parallel.compile.topology import Topology
from parallel.compile.wires import Wires, seconds, wires
from parallel.mesh import ROWS, axis_sizes, check

MOST = {"tensor": 16, "sequence": 16, "stage": 16}  # further splits were never worth it
REMATS: tuple[Literal["none", "attention", "dots", "full"], ...] = (
    "none",
    "attention",
    "dots",
    "full",
)
# Of the chip's peak, before a compiled program says better: a little more than programs reach, so
# that each remat policy is tried before it is judged.
EFFICIENCY = 0.8


@dataclass(frozen=True)
class Guess:
    """What the formulas say of a choice.

    Attributes:
        state: bytes of parameters and optimizer state on a device.
        temporaries: bytes of everything else there.
        busy: seconds of products and kernels at the chip's peak.
        beside: seconds of exchanges that run beside them.
        alone: seconds of exchanges that do not.
    """

    state: float
    temporaries: float
    busy: float
    beside: float
    alone: float

    def step(self, efficiency: float) -> float:
        """Seconds of an update when products reach that share of the peak."""
        return self.alone + max(self.beside, self.busy / efficiency)


def choices(config: Config, count: int) -> Iterator[Config]:
    """Configs that differ in mesh, microbatch and remat, and that `count` devices can run."""
    for mesh in _meshes(config, count):
        sizes = axis_sizes(dataclasses.replace(config, mesh=mesh), count)
        rows = math.prod(sizes[axis] for axis in ROWS)
        for microbatch in _microbatches(config, rows):
            try:
                batch = dataclasses.replace(config.batch, microbatch=microbatch)
                changed = dataclasses.replace(config, mesh=mesh, batch=batch)
                check(changed, sizes)
            except InputError:
                continue
            for remat in REMATS:
                network = dataclasses.replace(config.model, remat=remat)
                yield dataclasses.replace(changed, model=network)


def _meshes(config: Config, count: int) -> Iterator[schema.Mesh]:
    slices = config.mesh.slices
    for stage in _divisors(count // slices, MOST["stage"]):
        for tensor in _divisors(count // slices // stage, MOST["tensor"]):
            rest = count // slices // stage // tensor
            for sequence in _divisors(rest, MOST["sequence"]):
                for fsdp in _divisors(rest // sequence, count):
                    for rounds in (1,) if stage == 1 else (1, 2, 4):
                        yield schema.Mesh(
                            slices=slices,
                            stage=stage,
                            data=rest // sequence // fsdp,
                            fsdp=fsdp,
                            sequence=sequence,
                            tensor=tensor,
                            rounds=rounds,
                        )


def _divisors(number: int, most: int) -> list[int]:
    return [d for d in range(1, min(number, most) + 1) if number % d == 0]


def _microbatches(config: Config, rows: int) -> Iterator[int]:
    size = rows
    while size <= min(config.batch.sizes()):
        yield size
        size *= 2


def guess(config: Config, mesh: Mesh, topology: Topology, chip: Chip) -> Guess:
    """Bytes and seconds of one update by formula.

    Args:
        config: a choice.
        mesh: its mesh.
        topology: where it lies.
        chip: of known figures.
    """
    network, sizes = config.model, mesh.shape
    counts = _counts(dataclasses.replace(network, remat="none"))
    tensor, fsdp, stage = sizes["tensor"], sizes["fsdp"], sizes["stage"]
    rows = math.prod(sizes[axis] for axis in ROWS)
    updates = config.batch.size // config.batch.microbatch
    tokens = config.batch.microbatch // rows * network.context / sizes["sequence"]
    layers = network.layers / stage
    split = counts.parameters / (tensor * fsdp * stage)
    held = 3 if config.optimizer.name in ("adam", "adamw") else 2
    per_layer = counts.matrices / network.layers / tensor
    table = network.padded_vocab * network.width / tensor
    run = ticks(updates, stage, config.mesh.rounds) / config.mesh.rounds if stage > 1 else updates

    kept = activations(config, mesh)
    wide = 12 * tokens * network.ffn_width / tensor
    logits = min(CHUNK_LOGITS * ACCELERATOR_FACTOR, tokens * network.padded_vocab / tensor)
    temporaries = kept + max(wide + 16 * per_layer, 10 * table + 12 * logits) + 8 * split

    again = network.remat in ("full", "attention")  # the products of a layer
    products = counts.flops_matrices * (3 + again) + 3 * counts.flops_head
    kernels = counts.flops_attention_causal * (1 + KERNEL_BACKWARD + (network.remat in RECOMPUTING))
    idle = run / updates
    share = config.batch.size * network.context / mesh.size
    busy = (products + kernels) * share * idle / chip.flops

    passes = 2 + again

    def time(kind: str, axes: tuple[str, ...], size: float, count: float) -> float:
        if all(sizes[axis] == 1 for axis in axes) or not count:
            return 0.0
        group = math.prod(sizes[axis] for axis in axes)
        one = Collective(kind, axes, group, size, count, False, "")
        return count * seconds(one, _wires(mesh, axes, topology, chip))

    stream = 2 * tokens * network.width / tensor
    keys = 2 * tokens * 2 * network.kv_heads * network.head_dim / tensor
    beside = time("all-gather", ("fsdp",), 2 * per_layer / fsdp, passes * layers * run)
    beside += time("collective-permute", ("stage",), stream, 2 * run * config.mesh.rounds)
    # libtpu makes all-reduces of reduce-scatters over more devices (seen at 256, not at 128).
    scatter = "all-reduce" if fsdp > 128 else "reduce-scatter"
    alone = time(scatter, ("fsdp",), 4 * per_layer, layers * run)
    alone += time("all-reduce", ("fsdp",), 4 * table, updates if stage == 1 else 1)
    alone += time("all-reduce", ("slice", "data"), 4 * split, 1)
    # Into and out of attention and feed-forward, forward, backward, and again.
    alone += time("all-gather", ("tensor",), stream, (3 + again) * 2 * layers * run)
    alone += time("reduce-scatter", ("tensor",), stream * tensor, (2 + again) * 2 * layers * run)
    alone += time("all-gather", ("sequence",), keys, (2 + again) * layers * run)
    state = 4 * held * split
    return Guess(state, temporaries, busy, beside, alone)


@functools.cache
def _counts(network: schema.Model) -> model.Counts:
    return model.counts(network)


@functools.cache
def _wires(mesh: Mesh, axes: tuple[str, ...], topology: Topology, chip: Chip) -> Wires:
    return wires(mesh, axes, topology, chip)
