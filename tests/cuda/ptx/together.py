"""What the threads of a warp or of a block do together, and asynchronous copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptx import memory
from ptx.arithmetic import bf16_values
from ptx.memory import WARP
from ptx.text import Address, Instruction
from ptx.values import Names, Unknown, Values

if TYPE_CHECKING:
    from ptx.machine import Machine

Step = Callable[["Machine"], None]


@dataclass
class Copy:
    """What threads have started to write: words of shared memory (below 0: none), what, and of
    which group of the thread's copies."""

    places: Values
    given: NDArray[np.uint32]
    group: NDArray[np.int32]


def waits(each: Instruction) -> str:
    """For whom an instruction waits: "warp", "block" or nobody."""
    op = each.op
    if op[0] in ("bar", "barrier"):
        return "warp" if op[1] == "warp" else "block"
    return "warp" if "sync" in op else ""


def step(each: Instruction, names: Names) -> Step | None:
    """What such an instruction does; None for one of another kind. Raises Unknown."""
    op = ".".join(each.op)
    if each.op[0] == "shfl":
        return shuffle(each, names)
    if op == "bar.sync" and each.operands == ("0",):
        return barrier
    if op == "bar.warp.sync":
        return warp_barrier(each, names)
    if op in PRODUCTS:
        return multiplication(each, names, PRODUCTS[op])
    if op in MATRICES:
        return matrices(each, names, turned="trans" in each.op)
    if op.startswith("cp.async"):
        return copying(op, each, names)
    return None


def barrier(machine: Machine) -> None:
    """All that a block's threads did comes before all that they do next."""
    blocks = machine.active.reshape(-1, machine.threads).any(1)
    machine.clocks.blocks[blocks] += 1
    machine.clocks.warps[np.repeat(blocks, machine.threads // WARP)] += 1


def of_all(each: Instruction, names: Names, operand: Any) -> Step:
    """Sees that a mask names all lanes of the warp, and that all are there."""
    mask = names.read(operand, "b32")

    def check(machine: Machine) -> None:
        wrong = machine.active & (mask(machine.registers) != np.uint32(0xFFFFFFFF))
        if wrong.any():
            raise machine.wrong(each, int(wrong.argmax()), "a mask that is not of all lanes")
        complete(machine, each)

    return check


def complete(machine: Machine, each: Instruction) -> None:
    """That no lane of a warp that is here has returned."""
    lanes = machine.active.reshape(-1, WARP)
    partial = lanes.any(1) & ~lanes.all(1)
    if partial.any():
        raise machine.wrong(
            each, WARP * int(partial.argmax()), "some lanes of the warp are not here"
        )


def warp_barrier(each: Instruction, names: Names) -> Step:
    check = of_all(each, names, each.operands[0])

    def sync(machine: Machine) -> None:
        check(machine)
        machine.clocks.warps[machine.active.reshape(-1, WARP).any(1)] += 1

    return sync


def shuffle(each: Instruction, names: Names) -> Step:
    """A word of another lane, and whether there is such a lane."""
    _, _, way, kind = each.op
    if way not in ("bfly", "down", "up", "idx") or kind != "b32":
        raise Unknown(str(each))
    *targets, value, by, bounds, mask = each.operands
    check = of_all(each, names, mask)
    read, by, bounds = (names.read(operand, "b32") for operand in (value, by, bounds))
    word = names.written(targets[0], "b32")
    there = names.written(targets[1], "pred") if len(targets) > 1 else None

    def exchange(machine: Machine) -> None:
        check(machine)
        registers = machine.registers
        lane = np.tile(np.arange(WARP), machine.count // WARP)
        far, ends = (machine.every(x(registers)).astype(np.int64) for x in (by, bounds))
        far, segment, clamp = far & 31, (ends >> 8) & 31, ends & 31
        last = (lane & segment) | (clamp & ~segment)
        if way == "up":
            source, inside = lane - far, lane - far >= last
        else:
            ways = {"bfly": lane ^ far, "down": lane + far}
            source = ways.get(way, (lane & segment) | (far & ~segment))
            inside = source <= last
        source = np.where(inside, source, lane)
        given = machine.every(read(registers))
        machine.put(word, given[np.arange(machine.count) - lane + source])
        if there is not None:
            machine.put(there, inside)

    return exchange


PRODUCTS = {
    "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32": "tf32",
    "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32": "bf16",
}
LANE = np.arange(WARP)
ROW, COLUMN = LANE // 4, LANE % 4
"""Lane 4 g + t holds words of row g and column t of a fragment."""


def values_of(words: NDArray[np.uint32], precision: str) -> Values:
    """The factors that words (..., n) stand for, as float64: (..., n), or (..., 2 n) of bf16."""
    if precision == "tf32":
        return (words & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)
    both = np.stack(bf16_values(words), axis=-1)
    return both.reshape(*words.shape[:-1], -1).astype(np.float64)


def multiplication(each: Instruction, names: Names, precision: str) -> Step:
    """c + a b: a of 16 rows of 8 words, b of 8 columns of 8 words. Products are exact, and their
    sum is rounded once, which a card may do more often."""
    target, left, right, sums = each.operands
    results = [names.written(name, "f32") for name in target]
    a_of, b_of = ([names.read(name, "b32") for name in of] for of in (left, right))
    c_of = [names.read(name, "f32") for name in sums]

    def multiply(machine: Machine) -> None:
        complete(machine, each)

        def held(read: Any) -> Values:
            return machine.every(read(machine.registers)).reshape(-1, WARP)

        warps = machine.count // WARP
        a, b = np.empty((warps, 16, 8), np.uint32), np.empty((warps, 8, 8), np.uint32)
        for i, read in enumerate(a_of):
            a[:, ROW + 8 * (i % 2), COLUMN + 4 * (i // 2)] = held(read)
        for i, read in enumerate(b_of):
            b[:, ROW, COLUMN + 4 * i] = held(read)
        exact = values_of(a, precision) @ values_of(b, precision).transpose(0, 2, 1)
        for i, (number, read) in enumerate(zip(results, c_of, strict=True)):
            part = exact[:, ROW + 8 * (i // 2), 2 * COLUMN + i % 2]
            whole = (held(read).astype(np.float64) + part).astype(np.float32)
            machine.put(number, whole.reshape(-1))

    return multiply


MATRICES = tuple(f"ldmatrix.sync.aligned.m8n8.x4{turned}.shared.b16" for turned in ("", ".trans"))


def matrices(each: Instruction, names: Names, *, turned: bool) -> Step:
    """Four matrices of 8 rows of 8 halves: lane l says where row l % 8 of matrix l / 8 begins."""
    targets, place = each.operands
    numbers = [names.written(name, "b32") for name in targets]
    address = located(names, place)

    def load(machine: Machine) -> None:
        complete(machine, each)
        found = machine.load("shared", address(machine), 4, each)
        # (words of a row, warps, matrices, rows) to (warps, matrices, rows, words).
        rows = found.reshape(4, -1, 4, 8).transpose(1, 2, 3, 0)
        if turned:
            halves = np.ascontiguousarray(rows).view(np.uint16)
            rows = np.ascontiguousarray(halves.swapaxes(2, 3)).view(np.uint32)
        for i, number in enumerate(numbers):
            machine.put(number, rows[:, i, ROW, COLUMN].reshape(-1))

    return load


def located(names: Names, place: Address) -> Callable[[Machine], Values]:
    """An address of 32 bits, or of 64, as int64."""
    number = names.register(place.base)
    if number is None:
        raise Unknown(str(place))
    return lambda machine: machine.registers[number].astype(np.int64) + place.offset


def copying(op: str, each: Instruction, names: Names) -> Step:
    """Copies of 16 bytes into shared memory, of which a thread waits for all groups but the last
    few; a copy of no bytes brings zeros."""
    if op == "cp.async.commit_group":
        return commit
    if op == "cp.async.wait_group":
        return arrival(int(each.operands[0]))
    copies = ("cp.async.cg.shared.global", "cp.async.ca.shared.global")
    if op not in copies or len(each.operands) != 4 or each.operands[2] != "16":
        raise Unknown(str(each))
    target, source = (located(names, place) for place in each.operands[:2])
    size = names.read(each.operands[3], "b32")

    def copy(machine: Machine) -> None:
        held = machine.active, machine.whole
        sizes = machine.every(size(machine.registers))
        if not np.isin(sizes[machine.active], (0, 16)).all():
            raise machine.wrong(each, int(machine.active.argmax()), "copies part of 16 bytes")
        machine.active, machine.whole = machine.active & (sizes == 16), False
        given = machine.load("global", source(machine), 4, each)
        machine.active, machine.whole = held
        places = machine.begin_copy(target(machine), 4, each)
        given = np.where(sizes == 0, np.uint32(0), given)
        machine.copies.append(Copy(places, given, machine.groups.copy()))

    return copy


def commit(machine: Machine) -> None:
    machine.groups = machine.groups + machine.active.astype(np.int32)


def arrival(behind: int) -> Step:
    def arrive(machine: Machine) -> None:
        shared = machine.rooms["shared"].memory
        for each in machine.copies:
            come = machine.active & (each.group < machine.groups - behind)
            places = np.where(come, each.places, -1)
            memory.end_copy(shared, places, 4, machine.clocks, each.given)
            each.places = np.where(come, -1, each.places)
        machine.copies = [each for each in machine.copies if (each.places >= 0).any()]

    return arrive
