"""What a compiled program does, read from its text: products of matrices, collectives, traffic.

XLA's own cost analysis counts the body of a loop once, and says nothing of who talks to whom. Here
the program is walked from its entry; what a loop does counts as often as the loop runs.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jax.sharding import Mesh

from parallel.compile.groups import axes_of, groups
from parallel.compile.hlo import (
    Instruction,
    Program,
    arrays,
    branches,
    called,
    parse,
    rounds,
    shape_bytes,
)
from parallel.compile.traffic import traffic

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
PERMUTE = "collective-permute"
SLICE = "slice"  # the mesh axis between TPU slices


@dataclass(frozen=True)
class Collective:
    """Collectives alike in everything.

    Attributes:
        kind: one of COLLECTIVES. What a TPU writes as a fused all-reduce and slice is the
            reduce-scatter that it is.
        axes: the mesh axes along which the devices of a group differ, outermost first.
        group: devices in a group (2 for a permutation).
        operand_bytes: what each device holds before one execution.
        count: executions a step.
        overlapped: whether the program starts it and does other things before it needs it.
        name: the JAX operation it comes from.
    """

    kind: str
    axes: tuple[str, ...]
    group: int
    operand_bytes: float
    count: float
    overlapped: bool
    name: str

    @property
    def sent_bytes(self) -> float:
        """What each device sends in one execution when a ring does it, the least that is possible.

        Thakur et al. 2005, "Optimization of Collective Communication Operations in MPICH".
        """
        others = (self.group - 1) / self.group
        factor = {
            "all-gather": self.group - 1,
            "all-reduce": 2 * others,
            "reduce-scatter": others,
            "all-to-all": others,
            "ragged-all-to-all": others,
        }
        return self.operand_bytes * factor.get(self.kind, 1)


@dataclass(frozen=True)
class Costs:
    """What one device does in one execution of a program.

    Attributes:
        flops: of products and convolutions, a multiply-add being two.
        collectives: with the number of their executions.
        traffic: bytes from and to the device's memory, each array once for each instruction
            that reads or writes it.
        cycles: the TPU compiler's own estimate for what it fused, products included and
            collectives not; 0 elsewhere.
        kernels: opaque kernels by target, whose operations nobody counts.
        endless: loops whose number of rounds cannot be read, counted as one.
        unread: computations with products or collectives that nothing read here calls.
    """

    flops: float = 0.0
    collectives: tuple[Collective, ...] = ()
    traffic: float = 0.0
    cycles: float = 0.0
    kernels: tuple[tuple[str, float], ...] = ()
    endless: int = 0
    unread: int = 0

    def __add__(self, other: "Costs") -> "Costs":
        return Costs(
            self.flops + other.flops,
            self.collectives + other.collectives,
            self.traffic + other.traffic,
            self.cycles + other.cycles,
            self.kernels + other.kernels,
            self.endless + other.endless,
        )

    def overlapped(self) -> "Costs":
        """Of what runs beside something else, whose time nobody waits for."""
        collectives = (dataclasses.replace(c, overlapped=True) for c in self.collectives)
        return dataclasses.replace(self, collectives=tuple(collectives), cycles=0.0)

    def times(self, rounds: float) -> "Costs":
        """Of a loop of so many rounds."""
        return Costs(
            self.flops * rounds,
            tuple(dataclasses.replace(c, count=c.count * rounds) for c in self.collectives),
            self.traffic * rounds,
            self.cycles * rounds,
            tuple((target, count * rounds) for target, count in self.kernels),
            self.endless,
        )


def costs(text: str, mesh: Mesh) -> Costs:
    """The costs of a compiled program, from `compiled.as_text()`, on each device of its mesh."""
    program, entry = parse(text)

    reached = set()

    @functools.cache
    def of(computation: str) -> Costs:
        reached.add(computation)
        body = program[computation].values()
        return sum((_instruction_costs(i, program, mesh, of, computation) for i in body), Costs())

    total = of(entry)
    unread = [name for name in program.keys() - reached if _matters(program[name])]
    return dataclasses.replace(total, collectives=_merge(total.collectives), unread=len(unread))


def _matters(body: dict[str, Instruction]) -> bool:
    kinds = {instruction.opcode.removesuffix("-start") for instruction in body.values()}
    return not kinds.isdisjoint({"dot", "convolution", *COLLECTIVES})


def _instruction_costs(
    instruction: Instruction,
    program: Program,
    mesh: Mesh,
    of: Callable[[str], Costs],
    computation: str,
) -> Costs:
    own = Costs(cycles=_cycles(instruction), traffic=traffic(instruction, program, computation))
    opcode = instruction.opcode
    kind = opcode.removesuffix("-start")
    body = program[computation]
    if kind in COLLECTIVES:
        return own + _collective_costs(kind, instruction, program, mesh, computation)
    if opcode in ("dot", "convolution"):
        multiply = _dot_flops if opcode == "dot" else _convolution_flops
        return own + Costs(flops=multiply(instruction, body))
    if opcode == "while":
        loop = called(instruction)
        count = rounds(instruction, program[loop["condition"]])
        return of(loop["body"]).times(count or 1) + Costs(endless=int(count is None))
    if opcode == "conditional":  # whichever is taken: the dearest
        return own + max(map(of, branches(instruction)), key=lambda c: (c.flops, c.cycles))
    if opcode == "custom-call":
        return own + _custom_costs(instruction, body)
    if opcode == "send" and "megascale" in instruction.rest:
        return own + _between_slices(instruction, body, mesh)
    callees = called(instruction)
    callee = callees.get("calls") or callees.get("to_apply")
    if callee and (opcode in ("fusion", "call") or opcode.endswith("-start")):
        total = of(callee)
        if opcode.endswith("-start"):  # async-start; call-start where another core does it
            total = total.overlapped()
        if opcode == "fusion":  # its own cycles are for all that is in it, and so is its traffic
            cycles = 0.0 if own.cycles else total.cycles
            total = dataclasses.replace(total, cycles=cycles, traffic=0.0)
        return own + total
    return own


def _cycles(instruction: Instruction) -> float:
    found = re.search(r'"estimated_cycles":"(\d+)"', instruction.rest)
    return float(found[1]) if found else 0.0


def _dims(name: str, body: dict[str, Instruction]) -> tuple[int, ...]:
    return next(arrays(body[name].shape))[1]


def _numbers(attribute: str, text: str) -> list[int]:
    found = re.search(rf"\b{attribute}=\{{([\d,]*)", text)
    return [int(n) for n in found[1].split(",") if n] if found else []


def _dot_flops(dot: Instruction, body: dict[str, Instruction]) -> float:
    """2 * what comes out * what is summed over."""
    left = _dims(dot.operands[0], body)
    summed = _numbers("lhs_contracting_dims", dot.rest)
    out = next(arrays(dot.shape))[1]
    return 2.0 * math.prod(out) * math.prod(left[dim] for dim in summed)


def _convolution_flops(convolution: Instruction, body: dict[str, Instruction]) -> float:
    """2 * pairs of kernel and input elements that meet; padding and holes meet nothing.

    A TPU's batched products are convolutions whose dilated windows meet one element each.
    """
    text = convolution.rest
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", text)
    if labels is None:
        return 0.0
    sides = (*map(functools.partial(_dims, body=body), convolution.operands[:2]),
             next(arrays(convolution.shape))[1])  # fmt: skip
    image, kernel, out = (
        dict(zip(label, dims, strict=True))
        for label, dims in zip(labels.groups(), sides, strict=True)
    )
    window = re.search(r"window=\{([^}]*)\}", text)
    settings = dict(s.split("=") for s in window[1].split()) if window else {}
    spatial = sorted(key for key in out if key.isdigit())
    pairs = 1.0
    for place, key in enumerate(spatial):

        def setting(name: str, default: int, place: int = place) -> int:
            return int(settings[name].split("x")[place]) if name in settings else default

        low = int(settings["pad"].split("x")[place].split("_")[0]) if "pad" in settings else 0
        holes = setting("lhs_dilate", 1)
        at = np.arange(out[key])[:, None] * setting("stride", 1) - low
        at = at + np.arange(kernel[key])[None] * setting("rhs_dilate", 1)
        meets = (at >= 0) & (at <= (image[key] - 1) * holes) & (at % holes == 0)
        pairs *= int(meets.sum())
    return 2.0 * pairs * out["b"] * out["f"] * kernel["i"]


def _custom_costs(call: Instruction, body: dict[str, Instruction]) -> Costs:
    found = re.search(r'custom_call_target="([^"]*)"', call.rest)
    target = found[1] if found else ""
    if "cublas" in target or "matmul" in target:
        left = _dims(call.operands[0], body)
        summed = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', call.rest)
        dims = [int(n.strip('"')) for n in summed[1].split(",") if n] if summed else [len(left) - 1]
        out = next(arrays(call.shape))[1]
        return Costs(flops=2.0 * math.prod(out) * math.prod(left[dim] for dim in dims))
    if target == "tpu_custom_call" or "cudnn" in target or "triton" in target:
        return Costs(kernels=((target, 1.0),))
    return Costs()


def _collective_costs(
    kind: str,
    instruction: Instruction,
    program: Program,
    mesh: Mesh,
    computation: str,
) -> Costs:
    body = program[computation]
    # A TPU weaves a collective into the fusions that run beside it: it then stands in the one that
    # starts it, in those beside it, and in the one that ends it, with the same chain_id.
    woven = any('"AsyncCollectiveStart"' in i.rest for i in body.values())
    if "chain_id=" in instruction.rest and not woven:
        return Costs()
    if kind == "all-reduce" and computation.startswith("all-reduce-scatter"):
        kind = "reduce-scatter"
    if kind == PERMUTE:
        written = re.search(r"source_target_pairs=(\{.*?\}\})", instruction.rest)
        members = groups(written[1], 0) if written else np.zeros((1, 1), int)
    else:
        written = re.search(
            r"replica_groups=(mesh\[.*?\].*?\{[^}]*\}|\[[\d,]+\]<=\[[\d,]+\](?:T\([\d,]+\))?"
            r"|\{\{.*?\}\}|\{\})",
            instruction.rest,
        )
        members = groups(written[1] if written else "{}", mesh.size)
    axes = axes_of(members, mesh)
    if not axes:
        return Costs()
    size = sum(shape_bytes(body[name].shape) for name in instruction.operands if name in body)
    name = re.search(r'op_name="([^"]*)"', instruction.rest)
    overlapped = instruction.opcode.endswith("-start") or woven
    found = Collective(kind, axes, members.shape[1], size, 1.0, overlapped, name[1] if name else "")
    return Costs(collectives=(found,))


def _between_slices(send: Instruction, body: dict[str, Instruction], mesh: Mesh) -> Costs:
    """What a TPU's host does for it over the network: a send, and a receive much later."""
    written = re.search(r'_xla_megascale_transfer_type="(\w+)"', send.rest)
    kind = written[1].lower().replace("_", "-") if written else PERMUTE
    slices = dict(zip(mesh.axis_names, mesh.devices.shape, strict=True)).get(SLICE, 1)
    size = shape_bytes(body[send.operands[0]].shape)
    return Costs(collectives=(Collective(kind, (SLICE,), slices, size, 1.0, True, ""),))


def _merge(collectives: tuple[Collective, ...]) -> tuple[Collective, ...]:
    """One entry for collectives that differ only in number; those that send most first."""
    counts: dict[Collective, float] = {}
    for one in collectives:
        key = dataclasses.replace(one, count=0.0)
        counts[key] = counts.get(key, 0.0) + one.count
    merged = [dataclasses.replace(key, count=count) for key, count in counts.items()]
    return tuple(sorted(merged, key=lambda c: -c.sent_bytes * c.count))
