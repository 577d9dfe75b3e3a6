"""Bytes that one instruction of a compiled program moves from and to the device's memory."""

from parallel.compile.hlo import Instruction, Program, called, shape_bytes

# What only names memory, or is counted by what it calls or by the other half of its pair.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "iota",
    "while", "call", "conditional", "partition-id", "replica-id", "opt-barrier", "custom-call",
}  # fmt: skip
_SLICES = ("dynamic-slice", "gather", "slice")


def traffic(instruction: Instruction, program: Program, computation: str) -> float:
    """Bytes read and written by an instruction that stands outside a fusion.

    Of an array that it only cuts a slice out of, or writes a slice into, the slice counts.
    """
    body, opcode = program[computation], instruction.opcode
    if opcode in _FREE or opcode.endswith(("-done", "-update")):
        return 0.0
    result = shape_bytes(instruction.shape, chip=False)
    if opcode == "copy-start":
        return result  # source and target
    if opcode == "slice-start":
        return result - sum(_size(name, body) for name in instruction.operands)
    if opcode in _SLICES:
        return 2 * result
    if opcode == "dynamic-update-slice":
        return 2 * _size(instruction.operands[1], body)
    if opcode == "fusion":
        return _fusion(instruction, program, body)
    if opcode.endswith("-start"):
        return 2 * sum(_size(name, body) for name in instruction.operands)
    return result + sum(_size(name, body) for name in instruction.operands)


def _size(name: str, body: dict[str, Instruction]) -> float:
    return shape_bytes(body[name].shape, chip=False) if name in body else 0.0


def _fusion(fusion: Instruction, program: Program, body: dict[str, Instruction]) -> float:
    inner = program[called(fusion)["calls"]]
    *_, root = inner.values()
    total = shape_bytes(fusion.shape, chip=False)
    if root.opcode == "dynamic-update-slice":
        total = _size(root.operands[1], inner)
    parameters = {i.inside: i.name for i in inner.values() if i.opcode == "parameter"}
    for number, operand in enumerate(fusion.operands):
        name = parameters.get(str(number), "")
        users = [i for i in inner.values() if name in i.operands]
        whole = _size(operand, body)
        if whole and users and all(_touches_part(user, name) for user in users):
            whole = min(whole, sum(_part(user, inner) for user in users))
        total += whole
    return total


def _touches_part(user: Instruction, name: str) -> bool:
    return user.opcode in _SLICES or (
        user.opcode == "dynamic-update-slice" and user.operands[0] == name
    )


def _part(user: Instruction, inner: dict[str, Instruction]) -> float:
    return shape_bytes(user.shape) if user.opcode in _SLICES else 0.0
