"""The machine in place of a card: what netdsl.cuda.launch asks a card for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptx.machine import NAN, Machine, Program, Wrong
from ptx.memory import UNWRITTEN, WRITTEN, Room, Touched, touched
from ptx.text import parsed

FIRST = 0x7F12_0000_0000
"""The address of the first word: one that takes more than 32 bits, as a card's do."""
ALIGN, SPARE = 64, 64
"""Words: arrays begin at multiples of these, so many apart."""
TOGETHER = 16
"""Blocks that are run at once, if they are of 256 threads."""
CAPABILITY = (9, 0)


READ_PAST = ("winograd_product",)
"""Kernels that read past the last of what was written, and make of it what nobody reads: they are
given NaN, which would show."""


class Array:
    """Some words of the card's memory, as Numba's arrays on a device are."""

    def __init__(
        self, card: Card, start: int, size: int, kind: Any, *, whole: bool = False
    ) -> None:
        self.card, self.start, self.size, self.dtype = card, start, size, np.dtype(kind)
        self.shape, self.whole = (size,), whole

    def __getitem__(self, part: Any) -> Any:
        if not isinstance(part, slice):
            return self.copy_to_host()[part]
        start, stop, step = part.indices(self.size)
        assert step == 1
        return Array(self.card, self.start + start, max(stop - start, 0), self.dtype)

    def __len__(self) -> int:
        return self.size

    @property
    def _own(self) -> slice:
        return slice(self.start, self.start + self.size)

    @property
    def address(self) -> int:
        return FIRST + 4 * self.start

    @property
    def end(self) -> int:
        return self.address + 4 * self.size

    def copy_to_device(self, values: Any, stream: Any = 0, *, filled: bool = False) -> None:
        """From an array here or there. Given to a whole array, as tests do to poison it, NaN counts
        as never written, if it is not `filled`."""
        memory = self.card.memory
        if isinstance(values, Array):
            memory.words[self._own] = memory.words[values._own]
            memory.state[self._own] = memory.state[values._own]
            return
        given = np.ascontiguousarray(values).reshape(-1)
        assert given.dtype == self.dtype
        memory.words[self._own] = given.view(np.uint32)
        memory.state[self._own] = WRITTEN
        if self.whole and not filled and self.dtype == np.float32:
            memory.state[self._own][np.isnan(given)] = UNWRITTEN

    def copy_to_host(self, into: Any = None, stream: Any = 0) -> Any:
        found = self.card.memory.words[self._own].view(self.dtype)
        if into is None:
            return found.copy()
        into[:] = found
        return into

    def poison(self) -> None:
        """As if nothing had been written yet."""
        memory = self.card.memory
        memory.words[self._own] = NAN
        memory.state[self._own] = UNWRITTEN


class Launched(NamedTuple):
    """A kernel, blocks along each axis of the grid, threads of a block."""

    kernel: Any
    grid: tuple[int, int, int]
    threads: int

    def __str__(self) -> str:
        return f"{self.kernel.py_func.__name__}, grid {self.grid}"


@dataclass
class Card:
    """A card's memory, the kernels compiled for it, and its clock.

    processors: how many it says it has. random: for the order of warps, if it shall differ. count:
    makes what counts a launch's instructions. sample: how many blocks of a launch are run; those
    that are not write nothing, so that all memory then counts as written. lines: whether kernels
    know the lines of Python. launched: what was launched, with what it counted.
    """

    processors: int = 3
    random: np.random.Generator | None = None
    count: Any = None
    sample: int | None = None
    lines: bool = False
    memory: Touched = field(default_factory=lambda: touched(1 << 16))
    taken: int = 0
    clock: int = 1
    programs: dict[Any, Program] = field(default_factory=dict)
    launched: list[tuple[Launched, Any]] = field(default_factory=list)

    def clear(self) -> None:
        """Gives all memory back."""
        self.memory, self.taken = touched(1 << 16), 0

    def take(self, size: int, kind: Any) -> Array:
        start = -(-(self.taken + SPARE) // ALIGN) * ALIGN
        self.taken = start + size
        if self.taken + SPARE > self.memory.words.size:
            more = touched(2 * self.taken)
            self.memory = Touched(
                *(np.concatenate([a, b]) for a, b in zip(self.memory, more, strict=True))
            )
        found = Array(self, start, size, kind, whole=True)
        if self.sample is None:
            found.poison()
        else:
            self.memory.state[start : start + size] = WRITTEN
        return found

    def program(self, kernel: Any) -> Program:
        """A kernel compiled, once."""
        if kernel not in self.programs:
            self.programs[kernel] = Program(parsed(compiled(kernel, self.lines)))
        return self.programs[kernel]

    def configured(self, kernel: Any, grid: Any, threads: int) -> Callable[..., None]:
        """A launch that lacks its arguments, which may also be arrays of NumPy."""

        def start(*arguments: Any) -> None:
            *arrays, at = arguments
            there = [
                a if isinstance(a, Array) else self.holding(a, filled=i > 0)
                for i, a in enumerate(arrays)
            ]
            self.launch(Launched(kernel, (*grid,), threads), there, int(at))
            for here, array in zip(arrays, there, strict=True):
                if here is not array:
                    here[...] = array.copy_to_host().reshape(here.shape)

        return start

    def holding(self, values: NDArray[Any], *, filled: bool = False) -> Array:
        """A new array with these values; of no values, one that holds zero. filled: whether NaN is
        a value too."""
        given = values.reshape(-1) if values.size else np.zeros(1, values.dtype)
        array = self.take(given.size, given.dtype)
        array.copy_to_device(given, filled=filled)
        return array

    def _blocks(self, count: int, threads: int) -> Iterator[range]:
        """The blocks of a launch that are run, together: all, or some spread over the grid."""
        each = max(TOGETHER * 256 // threads, 1)
        if self.sample is None or self.sample >= count:
            yield from (range(i, min(i + each, count)) for i in range(0, count, each))
        else:
            chosen = np.linspace(0, count - 1, self.sample).astype(int)
            yield from (range(int(i), int(i) + 1) for i in chosen)

    def launch(self, call: Launched, arrays: Sequence[Array], at: int) -> None:
        """Runs all blocks of a launch. Raises Wrong."""
        program = self.program(call.kernel)
        starts, ends = (np.array([getattr(a, n) for a in arrays]) for n in ("address", "end"))
        heap = Room(self.memory, starts, ends, (starts - FIRST) // 4, 0)
        size = call.threads, 1, 1
        given = parameters(program, arrays, at)
        counts = None if self.count is None else self.count(program)
        begun = self.clock
        for some in self._blocks(int(np.prod(call.grid)), call.threads):
            machine = Machine(
                program,
                given,
                heap,
                call.grid,
                size,
                some,
                begun,
                self.random,
                counts,
                empty=call.kernel.py_func.__name__ in READ_PAST,
            )
            try:
                self.clock = max(self.clock, machine.run() + 1)
            except Wrong as problem:
                raise Wrong(f"{call}: {problem}") from None
        self.launched.append((call, counts))


def parameters(program: Program, arrays: Iterable[Array], at: int) -> dict[str, Any]:
    """What Numba hands to a kernel: of an array of one axis two words for the host, its elements,
    their size, where they lie, the length and the step."""
    values: list[int] = []
    for array in arrays:
        values += [0, 0, array.size, 4, array.address, array.size, 4]
    values.append(at)
    names = program.text.parameters
    assert len(names) == len(values)
    kinds = {"u64": np.uint64, "u32": np.uint32, "b64": np.uint64, "b32": np.uint32}
    return {
        name: kinds[kind](value) for (name, kind), value in zip(names.items(), values, strict=True)
    }


def compiled(kernel: Any, lines: bool) -> str:
    """A kernel's PTX. lines: with the lines of Python, for which the code is ordered otherwise."""
    from numba import cuda
    from numba.cuda import dispatcher

    from netdsl.cuda.launch import SIGNATURE

    # Device functions ask which card there is.
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=CAPABILITY)
    try:
        ptx, _ = cuda.compile_ptx(kernel.py_func, SIGNATURE, cc=CAPABILITY, lineinfo=lines)
    except Exception:
        # NVIDIA's compiler refuses the lines of some kernels.
        if not lines:
            raise
        return compiled(kernel, False)
    return str(ptx)


class _Nothing:
    """A stream, and a mark in it: here everything is done when it is asked for."""

    def __getattr__(self, name: str) -> Any:
        return lambda *given: None


def put_in_place(card: Card) -> None:
    """Makes netdsl's plans run on this one."""
    from numba.cuda.dispatcher import CUDADispatcher

    from netdsl.cuda import device, launch

    replaced: dict[str, Any] = {
        "processors": lambda: card.processors,
        "bandwidth": lambda: launch.H200,
        "free_bytes": lambda: None,
        "prepare": lambda kernels: 0,
        "on_device": card.holding,
        "room": lambda floats: card.take(max(floats, 1), np.float32),
        "staging": lambda floats: np.empty(floats, np.float32),
        "attach": lambda: None,
        "stream": _Nothing,
        "event": lambda *, timed=False: _Nothing(),
        "wait": lambda: None,
    }
    for name, function in replaced.items():
        assert hasattr(launch, name)
        setattr(launch, name, function)
    CUDADispatcher.__getitem__ = lambda kernel, how: card.configured(kernel, *how[:2])
    device.missing = lambda: None
    here = device.Found(cards=(device.Card("the machine of the tests", CAPABILITY),))
    device.found = lambda: here  # type: ignore[assignment]
