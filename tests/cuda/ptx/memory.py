"""Memory of a launch, and of every word of it who touched it last.

What a thread reads, another must not write without something between that orders the two: in a
block a barrier, in a warp a barrier of the warp, and between blocks of a launch there is nothing.
Clocks count barriers: a block's all that its threads have passed, a warp's those of the warp too.
They go on from launch to launch, so that what was touched in an earlier one has an earlier clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

WARP = 32

ABSENT, UNWRITTEN, WRITTEN, UNDER_WAY = range(4)
"""Of a word: none of the memory, room in which nothing is written, a value, one that a copy under
way will bring."""

ONE, LANES, WARPS, BLOCKS = range(1, 5)
"""Who has read a word since what they read is ordered: a thread, several of a warp, several warps,
several blocks."""

FINE, OUTSIDE, CROOKED, EMPTY, EARLY, READ_WRITTEN, WRITE_READ, WRITE_WRITTEN = range(8)
SAID = {
    OUTSIDE: "outside of all arrays",
    CROOKED: "misaligned",
    EMPTY: "reads what was never written",
    EARLY: "touches what an asynchronous copy may still write",
    READ_WRITTEN: "reads what another thread wrote, without a barrier between",
    WRITE_READ: "overwrites what another thread read, without a barrier between",
    WRITE_WRITTEN: "overwrites what another thread wrote, without a barrier between",
}


class Touched(NamedTuple):
    """The words of one kind of memory, in one row, and of each what is there, who wrote it last and
    when (the block's clock, the warp's), who read it last, when, and how many did."""

    words: NDArray[np.uint32]
    state: NDArray[np.uint8]
    writer: NDArray[np.int32]
    written: NDArray[np.int64]
    written_warp: NDArray[np.int64]
    reader: NDArray[np.int32]
    read: NDArray[np.int64]
    read_warp: NDArray[np.int64]
    readers: NDArray[np.uint8]


def touched(words: int) -> Touched:
    """So many words of which none is there. All is zero: what was never touched was touched when
    the clock stood at 0, before anything begins."""
    kinds: dict[str, Any] = {"words": np.uint32, "state": np.uint8, "readers": np.uint8}
    kinds |= {"writer": np.int32, "reader": np.int32}
    return Touched(*(np.zeros(words, kinds.get(name, np.int64)) for name in Touched._fields))


class Clocks(NamedTuple):
    """Where the threads of a run stand: the number of the first thread among all of the launch,
    threads of a block, every block's and every warp's clock, the clock when the launch began."""

    first: int
    threads: int
    blocks: NDArray[np.int64]
    warps: NDArray[np.int64]
    begun: int


class Trouble(NamedTuple):
    """What is wrong, with which thread's access, of which word, after which other thread's."""

    what: int
    thread: int
    place: int
    other: int


@njit(cache=True)  # type: ignore[misc]
def _ordered(who, when, when_warp, thread, clocks):  # type: ignore[no-untyped-def]
    """Whether what `who` did then comes before what a thread does now."""
    if who == thread or when < clocks.begun:
        return True
    if who // clocks.threads != thread // clocks.threads:
        return False
    local = thread - clocks.first
    if when < clocks.blocks[local // clocks.threads]:
        return True
    return who // WARP == thread // WARP and when_warp < clocks.warps[local // WARP]


@njit(cache=True)  # type: ignore[misc]
def _reads_ordered(memory, at, thread, clocks):  # type: ignore[no-untyped-def]
    """Whether all reads of a word come before what a thread does now."""
    when, readers = memory.read[at], memory.readers[at]
    if readers == 0 or when < clocks.begun:
        return True
    if readers == BLOCKS:
        return False
    if readers == ONE:
        return _ordered(memory.reader[at], when, memory.read_warp[at], thread, clocks)
    local = thread - clocks.first
    if memory.reader[at] // clocks.threads != thread // clocks.threads:
        return False
    if when < clocks.blocks[local // clocks.threads]:
        return True
    if readers == WARPS or memory.reader[at] // WARP != thread // WARP:
        return False
    return memory.read_warp[at] < clocks.warps[local // WARP]


@njit(cache=True)  # type: ignore[misc]
def _note_read(memory, at, thread, clocks):  # type: ignore[no-untyped-def]
    """Keeps that a thread reads a word now."""
    local = thread - clocks.first
    now, now_warp = clocks.blocks[local // clocks.threads], clocks.warps[local // WARP]
    before, when, readers = memory.reader[at], memory.read[at], memory.readers[at]
    if readers == 0 or when < clocks.begun:
        readers = ONE
    elif before // clocks.threads != thread // clocks.threads:
        readers = BLOCKS
    elif readers != BLOCKS:
        if when < now:
            readers = ONE
        elif before // WARP != thread // WARP:
            readers = WARPS
        elif readers != WARPS:
            if memory.read_warp[at] < now_warp:
                readers = ONE
            elif before != thread:
                readers = LANES
    memory.reader[at], memory.read[at], memory.read_warp[at] = thread, now, now_warp
    memory.readers[at] = readers


@njit(cache=True)  # type: ignore[misc]
def _note_write(memory, at, thread, clocks, state):  # type: ignore[no-untyped-def]
    """Keeps that a thread writes a word now."""
    local = thread - clocks.first
    memory.state[at], memory.writer[at] = state, thread
    memory.written[at] = clocks.blocks[local // clocks.threads]
    memory.written_warp[at] = clocks.warps[local // WARP]


@njit(cache=True)  # type: ignore[misc]
def _before_write(memory, at, thread, clocks):  # type: ignore[no-untyped-def]
    """What forbids a thread to write a word now."""
    if memory.state[at] == ABSENT:
        return OUTSIDE
    if memory.state[at] == UNDER_WAY:
        return EARLY
    who = memory.writer[at]
    if not _ordered(who, memory.written[at], memory.written_warp[at], thread, clocks):
        return WRITE_WRITTEN
    if not _reads_ordered(memory, at, thread, clocks):
        return WRITE_READ
    return FINE


@njit(cache=True)  # type: ignore[misc]
def _before_read(memory, at, thread, clocks):  # type: ignore[no-untyped-def]
    """What forbids a thread to read a word now."""
    state, who = memory.state[at], memory.writer[at]
    if state != WRITTEN:
        return EARLY if state == UNDER_WAY else OUTSIDE if state == ABSENT else EMPTY
    if not _ordered(who, memory.written[at], memory.written_warp[at], thread, clocks):
        return READ_WRITTEN
    return FINE


@njit(cache=True)  # type: ignore[misc]
def read(memory, places, count, clocks, found):  # type: ignore[no-untyped-def]
    """Every thread reads `count` words from its place on (below 0: it does not), into
    found[word, thread]."""
    for local in range(places.size):
        for k in range(count if places[local] >= 0 else 0):
            at, thread = places[local] + k, clocks.first + local
            what = _before_read(memory, at, thread, clocks)
            if what != FINE:
                return what, thread, at, memory.writer[at]
            _note_read(memory, at, thread, clocks)
            found[k, local] = memory.words[at]
    return FINE, 0, 0, 0


@njit(cache=True)  # type: ignore[misc]
def read_around(memory, places, count, clocks, found, least):  # type: ignore[no-untyped-def]
    """The same where words may lie beside those that a thread wants: what it must not read it is
    not given, found[word, thread] stays. least: words of each thread that it must be given."""
    for local in range(places.size):
        given, first = 0, FINE
        for k in range(count if places[local] >= 0 else 0):
            at, thread = places[local] + k, clocks.first + local
            what = _before_read(memory, at, thread, clocks)
            if what == FINE:
                given += 1
                found[k, local] = memory.words[at]
            elif first == FINE:
                first = what
        if first != FINE and given < least:
            return first, clocks.first + local, places[local], memory.writer[places[local]]
    return FINE, 0, 0, 0


@njit(cache=True)  # type: ignore[misc]
def write(memory, places, count, clocks, given):  # type: ignore[no-untyped-def]
    """Every thread writes given[word, thread] from its place on."""
    for local in range(places.size):
        for k in range(count if places[local] >= 0 else 0):
            at, thread = places[local] + k, clocks.first + local
            what = _before_write(memory, at, thread, clocks)
            if what != FINE:
                other = memory.reader[at] if what == WRITE_READ else memory.writer[at]
                return what, thread, at, other
            _note_write(memory, at, thread, clocks, WRITTEN)
            memory.words[at] = given[k, local]
    return FINE, 0, 0, 0


@njit(cache=True)  # type: ignore[misc]
def begin_copy(memory, places, count, clocks):  # type: ignore[no-untyped-def]
    """Every thread starts to write `count` words from its place on."""
    for local in range(places.size):
        for k in range(count if places[local] >= 0 else 0):
            at, thread = places[local] + k, clocks.first + local
            what = _before_write(memory, at, thread, clocks)
            if what != FINE:
                other = memory.reader[at] if what == WRITE_READ else memory.writer[at]
                return what, thread, at, other
            _note_write(memory, at, thread, clocks, UNDER_WAY)
    return FINE, 0, 0, 0


@njit(cache=True)  # type: ignore[misc]
def end_copy(memory, places, count, clocks, given):  # type: ignore[no-untyped-def]
    """What was started has come: as if its threads wrote it now."""
    for local in range(places.size):
        for k in range(count if places[local] >= 0 else 0):
            at = places[local] + k
            _note_write(memory, at, clocks.first + local, clocks, WRITTEN)
            memory.words[at] = given[k, local]


@njit(cache=True)  # type: ignore[misc]
def _places(addresses, active, size, starts, ends, firsts, step, group, places):  # type: ignore[no-untyped-def]
    """The word that each active thread's address means; -1 for the others.

    starts, ends, firsts: the bytes where arrays begin and end, and their first words; in memory
    that every `group` threads have of their own, `step` words further on for each.
    """
    for local in range(addresses.size):
        places[local] = -1
        if not active[local]:
            continue
        address, found = addresses[local], False
        if address % size != 0:
            return CROOKED, local
        for a in range(starts.size):
            if starts[a] <= address and address + size <= ends[a]:
                places[local] = firsts[a] + (address - starts[a]) // 4 + local // group * step
                found = True
        if not found:
            return OUTSIDE, local
    return FINE, 0


@dataclass
class Room:
    """Arrays of one kind of memory: the bytes where they begin and end, and their first words. Each
    `group` threads have `step` words of their own, if not all have the same."""

    memory: Touched
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    firsts: NDArray[np.int64]
    step: int = 0
    group: int = 1 << 30

    def locate(self, addresses: NDArray[Any], active: NDArray[np.bool_], size: int) -> Any:
        """Every thread's word, or the Trouble with an address."""
        places = np.empty(addresses.size, np.int64)
        given = addresses.astype(np.int64)
        arrays = self.starts, self.ends, self.firsts, self.step, self.group
        what, local = _places(given, active, size, *arrays, places)
        return places if what == FINE else Trouble(what, int(local), int(given[local]), -1)


SPARE = 32
"""Words between arrays that belong to none."""


def own_room(places: dict[str, tuple[int, int]], copies: int, group: int) -> Room:
    """Memory that every `group` threads have of their own: arrays by name, where each begins and
    its bytes."""
    starts = np.array([start for start, _ in places.values()], np.int64)
    ends = np.array([start + size for start, size in places.values()], np.int64)
    step = int(ends.max(initial=0)) // 4 + SPARE
    memory = touched(copies * step)
    for start, end in zip(starts // 4, ends // 4, strict=True):
        memory.state.reshape(copies, step)[:, start:end] = UNWRITTEN
    return Room(memory, starts, ends, starts // 4, step, group)
