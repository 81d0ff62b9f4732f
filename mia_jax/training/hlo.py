"""Reads the text of a compiled program (HLO): which kernels run, and what they read and write.

Every instruction of the schedule that is no bookkeeping counts as a kernel. A loop counts as often
as the compiler says that it runs, and once if it does not say. Operands and results count whole,
but of an array that is only sliced, gathered from or updated in place the part that is touched.
Caches are not considered. So the bytes are an estimate of the traffic of the memory, good for
comparing forms of a program.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

# Instructions that start no kernel. The results of asynchronous pairs count at their start.
FREE = frozenset(
    "parameter constant tuple get-tuple-element bitcast after-all partition-id replica-id "
    "opt-barrier add-dependency copy-done async-done async-update send-done recv-done "
    "all-gather-done all-reduce-done".split()
)
PARTS = ("dynamic-slice", "gather")
_BYTES = dict(pred=1, token=0, opaque=0)
_SHAPE = re.compile(
    r"\b([a-z]+[0-9]*(?:e[0-9]m[0-9][a-z]*)?|pred|token|opaque)\[([0-9,]*)\](\{[^}]*\})?"
)
_NEAR = "S("  # in a layout: the array is not in the device's main memory, but near its units
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .* )?\{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CALLED = re.compile(r"(?:calls|to_apply|body|branch_computations)=(\{[^}]*\}|%?[\w.\-]+)")


class Kernels(NamedTuple):
    """Holds what the kernels of a program read and write, and how many there are."""

    bytes: float
    launches: float

    def times(self, count: int) -> Kernels:
        """Returns the kernels of so many rounds."""
        return Kernels(self.bytes * count, self.launches * count)

    def plus(self, other: Kernels) -> Kernels:
        """Returns the kernels of both."""
        return Kernels(self.bytes + other.bytes, self.launches + other.launches)


class Instruction(NamedTuple):
    """Holds one instruction: its operation, the bytes of its result, and what it refers to."""

    name: str
    op: str
    bytes: int
    operands: tuple[str, ...]
    called: tuple[str, ...]
    trips: int
    root: bool
    number: int


Computation = Mapping[str, Instruction]
NOTHING = Kernels(0.0, 0.0)


def kernels(text: str) -> Kernels:
    """Returns the kernels of a compiled program, given its text."""
    computations, entry = parsed(text)
    known: dict[str, Kernels] = {}

    def of(name: str) -> Kernels:
        if name not in known:
            total = NOTHING
            for one in computations.get(name, {}).values():
                total = total.plus(instruction(one, computations[name]))
            known[name] = total
        return known[name]

    def instruction(one: Instruction, inside: Computation) -> Kernels:
        if one.op in FREE:
            return NOTHING
        if one.op == "while":
            return of(one.called[0]).times(one.trips) if one.called else NOTHING
        if one.op in ("call", "async-start") and one.called:
            return of(one.called[0])
        if one.op == "conditional":
            return max((of(name) for name in one.called), default=NOTHING)
        if one.op == "fusion" and one.called:
            return Kernels(_fusion(one, inside, computations.get(one.called[0], {})), 1)
        return Kernels(_moved(one, inside), 1)

    return of(entry)


def _moved(one: Instruction, inside: Computation) -> float:
    """Returns the bytes that an instruction which is no fusion reads and writes."""
    read = [_bytes(name, inside) for name in one.operands]
    if one.op in PARTS:
        return 2 * one.bytes + sum(read[1:])
    if one.op == "dynamic-update-slice":
        return 2 * read[1] if len(read) > 1 else one.bytes
    return one.bytes + sum(read)


def _fusion(one: Instruction, inside: Computation, body: Computation) -> float:
    """Returns the bytes that a fusion reads and writes."""
    total = 0.0
    parameters = {i.number: i for i in body.values() if i.op == "parameter"}
    for number, name in enumerate(one.operands):
        whole = _bytes(name, inside)
        total += _read(parameters[number], body, whole) if number in parameters else whole
    root = next((i for i in body.values() if i.root), None)
    return total + (_written(root, body) if root is not None else one.bytes)


def _read(parameter: Instruction, body: Computation, whole: float) -> float:
    """Returns the bytes that a fusion reads of a parameter: what is sliced of it, or all."""
    users = [i for i in body.values() if parameter.name in i.operands]
    touched = 0.0
    for user in users:
        first = user.operands[0] == parameter.name
        if user.op in PARTS and first:
            touched += user.bytes
        elif user.op == "dynamic-update-slice" and first:
            touched += _bytes(user.operands[1], body) if len(user.operands) > 1 else 0
        elif user.op == "bitcast":
            touched += _read(user, body, whole)
        else:
            return whole
    return min(whole, touched) if users else whole


def _written(root: Instruction, body: Computation) -> float:
    """Returns the bytes that a fusion writes: what it updates in place, or its result."""
    if root.op == "dynamic-update-slice" and len(root.operands) > 1:
        return _bytes(root.operands[1], body)
    if root.op == "tuple":
        return sum(_written(body[name], body) for name in root.operands if name in body)
    if root.op == "bitcast" and root.operands and root.operands[0] in body:
        return min(root.bytes, _written(body[root.operands[0]], body))
    return root.bytes


def _bytes(name: str, inside: Computation) -> int:
    """Returns the bytes of the result of an instruction."""
    return inside[name].bytes if name in inside else 0


def parsed(text: str) -> tuple[dict[str, dict[str, Instruction]], str]:
    """Returns ({computation: {instruction: what it says}}, the name of the entry)."""
    computations: dict[str, dict[str, Instruction]] = {}
    current, entry = None, ""
    for line in text.splitlines():
        if head := _HEAD.match(line):
            current = computations.setdefault(head[2], {})
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (match := _LINE.match(line)):
            made = _instruction(match[2], match[3], root=bool(match[1]))
            current[made.name] = made
    return computations, entry


def _instruction(name: str, rest: str, *, root: bool) -> Instruction:
    """Returns one instruction, from the text after its '='."""
    shape, rest = _type(rest)
    op, _, rest = rest.lstrip().partition("(")
    inside, attributes = _balanced(rest)
    operands = tuple(part.split()[-1].lstrip("%") for part in _split(inside) if part.strip())
    number = int(inside) if op == "parameter" and inside.strip().isdigit() else -1
    called = tuple(
        each.strip().lstrip("%")
        for group in _CALLED.findall(attributes)
        for each in group.strip("{}").split(",")
    )
    trips = _TRIPS.search(attributes)
    count = int(trips[1]) if trips else 1
    return Instruction(name, op.strip(), size(shape), operands, called, count, root, number)


def _type(text: str) -> tuple[str, str]:
    """Returns (the type at the start of a text, the rest)."""
    if text.startswith("("):
        inside, rest = _balanced(text[1:])
        return inside, rest
    shape, _, rest = text.partition(" ")
    return shape, rest


def _balanced(text: str) -> tuple[str, str]:
    """Returns (what is before the bracket that closes, what follows it)."""
    depth = 1
    for at, letter in enumerate(text):
        depth += (letter in "({[") - (letter in ")}]")
        if not depth:
            return text[:at], text[at + 1 :]
    return text, ""


def _split(text: str) -> Sequence[str]:
    """Returns the operands of an instruction, which commas part outside of brackets."""
    parts, depth, start = [], 0, 0
    for at, letter in enumerate(text):
        depth += (letter in "({[") - (letter in ")}]")
        if letter == "," and not depth:
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]


def size(shape: str) -> int:
    """Returns the bytes in main memory of a type, or of a tuple of types.

    >>> size("f32[8,3]{1,0}"), size("(bf16[4], pred[2,2])"), size("s32[]"), size("f32[8]{0:S(1)}")
    (96, 12, 4, 0)
    """
    total = 0
    for kind, dims, layout in _SHAPE.findall(shape):
        if _NEAR in layout:
            continue
        bits = re.search(r"\d+", kind)
        each = _BYTES.get(kind, math.ceil(int(bits[0]) / 8) if bits else 0)
        total += each * math.prod(int(n) for n in dims.split(",") if n)
    return total
