"""The text of a compiled program (`compiled.as_text()`) as computations of instructions."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "bf16": 2, "c64": 8, "c128": 16, "token": 0, "opaque": 0}


class Instruction(NamedTuple):
    """One line of a program."""

    name: str
    shape: str  # "bf16[8,128]{1,0}" or a tuple of such in parentheses
    opcode: str
    operands: tuple[str, ...]  # names
    inside: str  # what stands in the parentheses after the opcode
    rest: str  # attributes


Program = dict[str, dict[str, Instruction]]  # computations by name, instructions by name


def parse(text: str) -> tuple[Program, str]:
    """The computations of a program and the name of its entry."""
    program: Program = {}
    entry, current = "", ""
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line)
        if head and not line.startswith("HloModule"):
            current = head[2]
            program[current] = {}
            entry = current if head[1] else entry
        elif line.startswith("  ") and current and " = " in line:
            instruction = _parse_instruction(line.strip())
            program[current][instruction.name] = instruction
        elif line == "}":  # and not the end of an attribute that takes several lines
            current = ""
    return program, entry


def _parse_instruction(line: str) -> Instruction:
    name, _, rest = line.removeprefix("ROOT ").partition(" = ")
    shape, rest = _cut(rest) if rest.startswith("(") else rest.split(" ", 1)
    opcode, rest = rest.strip().split("(", 1)
    inside, rest = _cut("(" + rest)
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    return Instruction(name.lstrip("%"), shape, opcode, operands, inside[1:-1], rest)


def _cut(text: str) -> tuple[str, str]:
    """The parenthesis that opens the text, and what comes after it."""
    depth = 0
    for found in re.finditer(r"[()]", text):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return text[: found.end()], text[found.end() :]
    raise ValueError(f"an open parenthesis in {text[:80]!r}")


def called(instruction: Instruction) -> dict[str, str]:
    """The computations that an instruction calls, by the attribute that names them."""
    found = re.findall(r"\b(calls|to_apply|condition|body)=%?([\w.\-]+)", instruction.rest)
    return dict(found)


def branches(instruction: Instruction) -> list[str]:
    """The computations of which a conditional takes one."""
    listed = re.search(r"branch_computations=\{([^}]*)\}", instruction.rest)
    if listed:
        return [name.strip().lstrip("%") for name in listed[1].split(",")]
    return re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", instruction.rest)


def rounds(loop: Instruction, condition: dict[str, Instruction]) -> float | None:
    """How often a loop runs: as XLA knows it, or the bound that its counter is compared with."""
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest)
    if known:
        return int(known[1])
    bounds = [i.inside for i in condition.values() if i.opcode == "constant" and "[]" in i.shape]
    compares = [i for i in condition.values() if "direction=LT" in i.rest]
    fused = any(i.opcode == "fusion" for i in condition.values())
    if len(bounds) == 1 and bounds[0].isdigit() and (compares or fused):
        return int(bounds[0])
    return None


def arrays(shape: str, chip: bool = True) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Element types and dimensions of the arrays in the text of a shape.

    Args:
        shape: such as "bf16[8,128]{1,0:T(8,128)S(1)}".
        chip: also those that the compiler keeps in the chip's own memory or the host's.
    """
    for dtype, dims, layout in re.findall(r"\b([a-z][a-z0-9]*)\[([\d,]*)\](\{[^}]*\})?", shape):
        if chip or not re.search(r"S\([1-9]", layout):
            yield dtype, tuple(int(d) for d in dims.split(",") if d)


def shape_bytes(shape: str, chip: bool = True) -> float:
    """What the arrays of a shape hold, padding of the layout left out; see arrays."""
    return sum(math.prod(dims) * _element_bytes(dtype) for dtype, dims in arrays(shape, chip))


def _element_bytes(dtype: str) -> float:
    if dtype in BYTES:
        return BYTES[dtype]
    bits = re.match(r"[a-z]+(\d+)", dtype)
    return int(bits[1]) / 8 if bits else 0
