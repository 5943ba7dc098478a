"""A kernel as a program, and the threads of some blocks going through it together.

The program is cut into parts that are gone through from top to bottom. Of all threads those that
are at the earliest part take it next, as one array; what the others hold stays. So threads that
went different ways meet again. What needs a whole warp or block is a part of its own, which begins
when all of its threads have come. In `random` order only some warps may go on at each step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptx import memory, together
from ptx.arithmetic import WIDER, computed
from ptx.memory import SAID, WARP, Clocks, Room, Trouble
from ptx.text import Address, Instruction, Text
from ptx.values import POISON, SPECIAL, TYPES, Names, Read, Unknown, Values

Mask = NDArray[np.bool_]
Size = tuple[int, int, int]
NAN = 0xFFFFFFFF
"""What a thread is given of words that it must not read but may touch."""
OVER = 1 << 30
"""The part of threads that have returned."""


class Wrong(Exception):  # noqa: N818 - what the machine is there to find
    """What a kernel does that it must not."""


@dataclass
class Part:
    """Instructions without a way in or out between them. waits: for whom before it begins. target:
    the part that threads go on with for which `guard` holds, or all; the others with the next."""

    instructions: list[Instruction] = field(default_factory=list)
    steps: list[Callable[[Machine], None]] = field(default_factory=list)
    waits: str = ""
    target: int | None = None
    guard: Read | None = None


class Program:
    """A kernel that can be run. Raises Unknown for an instruction that is not known."""

    def __init__(self, text: Text) -> None:
        self.text, self.names = text, Names(text)
        self.specials = {name: self.names.register(name) for name in SPECIAL}
        self.shared, self.local = laid_out(text.shared), laid_out(text.local)
        for places in (self.shared, self.local):
            self.names.symbols |= {name: start for name, (start, _) in places.items()}
        starts = self._starts()
        parts = {start: i for i, start in enumerate(starts)}
        ends = [*starts[1:], len(text.instructions)]
        self.parts = [
            self._part(text.instructions[start:end], parts)
            for start, end in zip(starts, ends, strict=True)
        ]
        if unwritten := self.names.unwritten():
            raise Unknown(f"nothing writes {', '.join(unwritten)}")

    def _starts(self) -> list[int]:
        """The instructions at which parts begin."""
        starts = {0, *self.text.labels.values()}
        for i, each in enumerate(self.text.instructions):
            if each.op[0] in ("bra", "ret", "exit"):
                starts.add(i + 1)
            elif together.waits(each):
                starts |= {i, i + 1}
        return sorted(starts - {len(self.text.instructions)})

    def _part(self, instructions: list[Instruction], parts: Mapping[int, int]) -> Part:
        part, last = Part(instructions), instructions[-1]
        body = instructions
        if last.op[0] in ("bra", "ret", "exit"):
            body = instructions[:-1]
            part.target = parts[self.text.labels[last.operands[0]]] if last.operands else OVER
            if last.guard:
                part.guard = self.names.read("!" * last.negated + last.guard, "pred")
        part.waits = together.waits(instructions[0])
        part.steps = [self._guarded(each) for each in body]
        return part

    def _guarded(self, each: Instruction) -> Callable[[Machine], None]:
        try:
            step = self._step(each)
        except Unknown as problem:
            raise Unknown(f"{each}: {problem}") from None
        if not each.guard:
            return step
        holds = self.names.read("!" * each.negated + each.guard, "pred")

        def guarded(machine: Machine) -> None:
            held = machine.active, machine.whole
            machine.active, machine.whole = machine.active & holds(machine.registers), False
            step(machine)
            machine.active, machine.whole = held

        return guarded

    def _step(self, each: Instruction) -> Callable[[Machine], None]:
        """What an instruction does."""
        word = each.op[0]
        if word in ("ld", "st"):
            return self._access(each)
        if word == "cvta" and each.op[1:] == ("to", "global", "u64"):
            return self._moved(each, "u64")
        if found := together.step(each, self.names):
            return found
        return self._computed(each)

    def _moved(self, each: Instruction, kind: str) -> Callable[[Machine], None]:
        number = self.names.written(each.operands[0], kind)
        read = self.names.read(each.operands[1], kind)
        return lambda machine: machine.put(number, read(machine.registers))

    def _computed(self, each: Instruction) -> Callable[[Machine], None]:
        how = computed(each.op)
        target, *operands = each.operands
        if len(operands) != len(how.operands):
            raise Unknown(str(each))
        number = self.names.written(target, how.result)
        wide = each.op[0] == "cvt"
        kinds = zip(operands, how.operands, strict=True)
        reads = [self.names.read(operand, kind, narrowed=wide) for operand, kind in kinds]
        function, held = how.function, TYPES[self.names.types[number]]
        same = held is TYPES[how.result]

        def compute(machine: Machine) -> None:
            given = [read(machine.registers) for read in reads]
            if how.divides:
                given[1] = machine.divisor(given[1], each)
            found = function(*given)
            machine.put(number, found if same else found.view(held))

        return compute

    def _access(self, each: Instruction) -> Callable[[Machine], None]:
        """A load or a store of one word, of two or of four."""
        word, space, *vector, kind = each.op
        if kind not in TYPES or kind == "pred" or vector not in ([], ["v2"], ["v4"]):
            raise Unknown(str(each))
        values, place = each.operands if word == "ld" else each.operands[::-1]
        if space == "param" and word == "ld" and not vector:
            number = self.names.written(values, kind)
            return lambda machine: machine.put(number, machine.parameters[place.base])
        if space not in ("global", "shared", "local"):
            raise Unknown(str(each))
        address = self.address(place)
        names = values if vector else (values,)
        each_words = np.dtype(TYPES[kind]).itemsize // 4
        words = each_words * len(names)
        if word == "ld":
            # A register may be wider than what it is given, which is extended.
            wide = WIDER.get(kind, kind)
            result = wide if self.names.takes(names[0], wide) else kind
            numbers = [self.names.written(name, result) for name in names]
            held = [TYPES[self.names.types[number]] for number in numbers]

            def load(machine: Machine) -> None:
                found = machine.load(space, address(machine.registers), words, each)
                for i, (number, kept) in enumerate(zip(numbers, held, strict=True)):
                    piece = found[i * each_words : (i + 1) * each_words]
                    given = np.ascontiguousarray(piece.T).view(TYPES[kind]).reshape(-1)
                    machine.put(number, given.astype(TYPES[result], copy=False).view(kept))

            return load
        reads = [self.names.read(name, kind, narrowed=True) for name in names]

        def store(machine: Machine) -> None:
            given = np.concatenate(
                [
                    machine.every(read(machine.registers)).view(np.uint32).reshape(-1, each_words).T
                    for read in reads
                ]
            )
            machine.store(space, address(machine.registers), given, each)

        return store

    def address(self, place: Address) -> Read:
        """What gives an address as int64."""
        base, offset = place
        number = self.names.register(base)
        if number is None:
            start = np.int64(self.names.constant(base, "u64") + np.uint64(offset))
            return lambda registers: start
        return lambda registers: registers[number].astype(np.int64) + offset


def laid_out(rooms: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Where arrays begin, in bytes, and their sizes; words between them belong to none."""
    found, end = {}, 4 * memory.SPARE
    for name, (align, size) in rooms.items():
        start = -(-end // align) * align
        found[name] = start, size
        end = start + size + 4 * memory.SPARE
    return found


class Machine:
    """Some blocks of a launch on their way through a program."""

    def __init__(
        self,
        program: Program,
        parameters: Mapping[str, Any],
        heap: Room,
        grid: Size,
        block: Size,
        blocks: range,
        begun: int,
        random: np.random.Generator | None = None,
        counts: Any = None,
        empty: bool = False,
    ) -> None:
        """blocks: which of the grid's. begun: the clock when the launch began. empty: whether what
        lies in global memory may be read before it is written."""
        threads = int(np.prod(block))
        assert threads % WARP == 0
        self.program, self.parameters, self.grid, self.block = program, parameters, grid, block
        self.random, self.counts, self.empty = random, counts, empty
        self.threads, self.count = threads, threads * len(blocks)
        self.registers: list[Any] = [TYPES[kind](POISON[kind]) for kind in program.names.types]
        self.clocks = Clocks(
            blocks.start * threads,
            threads,
            np.full(len(blocks), begun, np.int64),
            np.full(self.count // WARP, begun, np.int64),
            begun,
        )
        self.rooms = {
            "global": heap,
            "shared": memory.own_room(program.shared, len(blocks), threads),
            "local": memory.own_room(program.local, self.count, 1),
        }
        self.at = np.zeros(self.count, np.int32)
        self.active, self.whole = np.ones(self.count, np.bool_), True
        self.copies: list[together.Copy] = []
        self.groups = np.zeros(self.count, np.int32)
        for name, values in self._specials(blocks):
            self.registers[program.specials[name]] = values

    def _specials(self, blocks: range) -> Iterator[tuple[str, Values]]:
        thread = np.tile(np.arange(self.threads, dtype=np.uint32), len(blocks))
        block = np.repeat(np.arange(blocks.start, blocks.stop, dtype=np.uint32), self.threads)
        for number, name, of in ((thread, "tid", self.block), (block, "ctaid", self.grid)):
            for axis, size in zip("xyz", of, strict=True):
                yield f"%{name}.{axis}", number % np.uint32(size)
                yield f"%n{name}.{axis}", np.full(self.count, size, np.uint32)
                number = number // np.uint32(size)

    def run(self) -> int:
        """Until all threads have returned; the latest clock."""
        with np.errstate(all="ignore"):
            while self._take():
                pass
        return int(max(self.clocks.warps.max(), self.clocks.blocks.max()))

    def _take(self) -> bool:
        """Lets threads take a part; whether any is left. Raises Wrong."""
        at = self._allowed() if self.random else self.at
        floor = -1
        while True:
            part = int(np.where(at > floor, at, OVER).min()) if floor >= 0 else int(at.min())
            if part == OVER:
                if at is not self.at:
                    at, floor = self.at, -1
                    continue
                if floor >= 0:
                    raise Wrong(self._stuck())
                return False
            waits = self.program.parts[part].waits
            active = self.at == part if waits else at == part
            if waits:
                active = self._gathered(active, WARP if waits == "warp" else self.threads)
            if active.any():
                self._through(part, active)
                return True
            floor = part

    def _allowed(self) -> NDArray[np.int32]:
        """Where threads are of the warps that may go on; the others as if they had returned."""
        assert self.random is not None
        warps = self.random.random(self.count // WARP) < 0.5
        return np.where(np.repeat(warps, WARP), self.at, OVER)

    def _gathered(self, here: Mask, size: int) -> Mask:
        """Those of here of whose warp or block all are that have not returned."""
        rows = here.reshape(-1, size)
        all_here = (rows | (self.at == OVER).reshape(-1, size)).all(1)
        return (rows & all_here[:, None]).reshape(-1)

    def _through(self, number: int, active: Mask) -> None:
        part = self.program.parts[number]
        self.active, self.whole = active, bool(active.all())
        if self.counts is not None:
            self.counts.took(number, active)
        for step in part.steps:
            step(self)
        if part.target is None:
            self.at = np.where(active, np.int32(number + 1), self.at)
        elif part.guard is None:
            self.at = np.where(active, np.int32(part.target), self.at)
        else:
            goes = np.where(part.guard(self.registers), part.target, number + 1)
            self.at = np.where(active, goes.astype(np.int32), self.at)

    def _stuck(self) -> str:
        """Who waits where."""
        waiting = []
        for part in np.unique(self.at[self.at != OVER]):
            threads = np.flatnonzero(self.at == part)
            which = self.program.parts[part].instructions[0]
            waiting.append(f"{len(threads)} threads from {self.who(threads[0])} on at {which}")
        return f"{self.program.text.name}: threads wait for others that never come: " + "; ".join(
            waiting
        )

    def who(self, local: int) -> str:
        block, thread = divmod(int(local) + self.clocks.first, self.threads)
        return f"thread {thread} of block {block}"

    def wrong(self, each: Instruction, local: int, said: str) -> Wrong:
        return Wrong(f"{self.who(local)}: {each}: {said}")

    def every(self, values: Values) -> Values:
        """An element a thread."""
        return np.full(self.count, values) if np.ndim(values) == 0 else values

    def divisor(self, values: Values, each: Instruction) -> Values:
        """The same where nobody divides by zero; with ones for threads that are not there."""
        bad = self.active & (values == 0)
        if bad.any():
            raise self.wrong(each, int(bad.argmax()), "divides by zero")
        return np.where(values == 0, values.dtype.type(1), values)

    def put(self, number: int, values: Values) -> None:
        """Gives a register new values where threads are active."""
        if not self.whole:
            values = np.where(self.active, values, self.registers[number])
        elif np.ndim(values) == 0:
            values = np.full(self.count, values)
        self.registers[number] = values

    def _places(self, space: str, address: Values, words: int, each: Instruction) -> Values:
        room = self.rooms[space]
        found = room.locate(self.every(address), self.active, 4 * words)
        if isinstance(found, Trouble):
            said = f"{SAID[found.what]}: address {found.place:#x} of {space} memory"
            raise self.wrong(each, found.thread, said)
        if self.counts is not None:
            self.counts.touched(each, space, self.every(address), self.active, words)
        return found

    def raise_for(self, trouble: tuple[int, ...], space: str, each: Instruction) -> None:
        """Raises Wrong where there is trouble."""
        what, thread, place, other = trouble
        if what == memory.FINE:
            return
        local = thread - self.clocks.first
        said = f"{SAID[what]}: word {place} of {space} memory"
        if what >= memory.EARLY:
            said += f", after {self.who(other - self.clocks.first)}"
        raise self.wrong(each, local, said)

    def load(self, space: str, address: Values, words: int, each: Instruction) -> Values:
        """What threads read: (words, threads)."""
        found = np.full((words, self.count), NAN, np.uint32)
        places = self._places(space, address, words, each)
        asked = self.rooms[space].memory, places, words, self.clocks, found
        if space == "global" and (words == 4 or self.empty):
            # Rows that begin anywhere are read by fours, of which some are another row's.
            trouble = memory.read_around(*asked, 0 if self.empty else 1)
        else:
            trouble = memory.read(*asked)
        self.raise_for(trouble, space, each)
        return found

    def store(self, space: str, address: Values, given: Values, each: Instruction) -> None:
        places = self._places(space, address, len(given), each)
        touched = self.rooms[space].memory
        trouble = memory.write(touched, places, len(given), self.clocks, given)
        self.raise_for(trouble, space, each)

    def begin_copy(self, address: Values, words: int, each: Instruction) -> Values:
        """Starts to write into shared memory; which words."""
        places = self._places("shared", address, words, each)
        trouble = memory.begin_copy(self.rooms["shared"].memory, places, words, self.clocks)
        self.raise_for(trouble, "shared", each)
        return places
