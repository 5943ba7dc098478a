"""What a launch does, counted: instructions, sectors of device memory, turns of shared memory.

A warp's access to device memory takes whole sectors of 32 bytes. Its access to shared memory takes
as many turns as words are asked of the bank that is asked for most, of 32 banks; of 8 bytes a lane
half of a warp is served at a time, of 16 a quarter.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ptx.memory import WARP
from ptx.text import Instruction

SECTOR, BANKS = 32, 32


@dataclass
class Access:
    """Of one instruction: how many warps did it, what it took, sectors or turns, and the least that
    the same words could take."""

    requests: int = 0
    taken: int = 0
    least: int = 0


@dataclass
class Counts:
    """What the threads of a launch did. parts: of every part of the program, how many threads and
    warps took it. accesses: by instruction and kind of memory."""

    program: Any
    threads: NDArray[np.int64] = field(init=False)
    warps: NDArray[np.int64] = field(init=False)
    accesses: dict[tuple[Instruction, str], Access] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = len(self.program.parts)
        self.threads, self.warps = np.zeros(parts, np.int64), np.zeros(parts, np.int64)

    def took(self, part: int, active: NDArray[np.bool_]) -> None:
        """Threads go through a part."""
        self.threads[part] += active.sum()
        self.warps[part] += active.reshape(-1, WARP).any(1).sum()

    def touched(
        self,
        each: Instruction,
        space: str,
        addresses: NDArray[np.int64],
        active: NDArray[np.bool_],
        words: int,
    ) -> None:
        """Threads touch some words each."""
        if space == "local":
            return
        count = sectors if space == "global" else turns
        found = self.accesses.setdefault((each, space), Access())
        requests, taken, least = count(addresses.astype(np.int64), active, words)
        found.requests += requests
        found.taken += taken
        found.least += least

    def instructions(self) -> Counter[str]:
        """Instructions of threads by kind."""
        found: Counter[str] = Counter()
        for part, threads in zip(self.program.parts, self.threads, strict=True):
            for each in part.instructions:
                found[kind_of(each)] += int(threads)
        return found

    def issued(self) -> int:
        """Instructions of warps."""
        sizes = [len(part.instructions) for part in self.program.parts]
        return int((self.warps * sizes).sum())

    def total(self, space: str) -> Access:
        """All accesses to one kind of memory."""
        of = [each for (_, where), each in self.accesses.items() if where == space]
        return Access(*(sum(getattr(a, n) for a in of) for n in ("requests", "taken", "least")))

    def worst(self, space: str, most: float) -> list[tuple[Instruction, Access]]:
        """The accesses that take more than `most` times the least, the dearest first."""
        bad = [
            (each, a)
            for (each, where), a in self.accesses.items()
            if where == space and a.taken > most * a.least
        ]
        return sorted(bad, key=lambda pair: pair[1].least - pair[1].taken)


def kind_of(each: Instruction) -> str:
    """What an instruction is counted as: its word, with the kind of memory and the type."""
    word, *how = each.op
    if word in ("ld", "st"):
        return ".".join(each.op[:2])
    if word in ("fma", "mma", "cp", "ldmatrix", "shfl", "bar", "bra"):
        return word
    return f"{word}.{how[-1]}" if how else word


@njit(cache=True)  # type: ignore[misc]
def sectors(addresses, active, words):  # type: ignore[no-untyped-def]
    """Requests, sectors that they take, and the sectors that as many bytes would fill."""
    requests, taken, least = 0, 0, 0
    there, held = np.empty(2 * WARP, np.int64), np.empty(4 * WARP, np.int64)
    for warp in range(0, addresses.size, WARP):
        n, m = 0, 0
        for lane in range(warp, warp + WARP):
            if not active[lane]:
                continue
            for sector in range(
                addresses[lane] // SECTOR, (addresses[lane] + 4 * words - 1) // SECTOR + 1
            ):
                n = _added(there, n, sector)
            for k in range(words):
                m = _added(held, m, addresses[lane] // 4 + k)
        if n:
            requests, taken, least = requests + 1, taken + n, least + (4 * m + SECTOR - 1) // SECTOR
    return requests, taken, least


@njit(cache=True)  # type: ignore[misc]
def turns(addresses, active, words):  # type: ignore[no-untyped-def]
    """Requests, turns that they take, and those that as many words would take of all banks."""
    requests, taken, least = 0, 0, 0
    held, asked = np.empty(WARP, np.int64), np.empty(BANKS, np.int64)
    lanes = WARP // words
    for warp in range(0, addresses.size, WARP):
        any_here = False
        for first in range(warp, warp + WARP, lanes):
            n = 0
            asked[:] = 0
            for lane in range(first, first + lanes):
                for k in range(words if active[lane] else 0):
                    word = addresses[lane] // 4 + k
                    before = n
                    n = _added(held, n, word)
                    asked[word % BANKS] += n - before
            if n:
                any_here = True
                taken, least = taken + asked.max(), least + (n + BANKS - 1) // BANKS
        requests += any_here
    return requests, taken, least


@njit(cache=True)  # type: ignore[misc]
def _added(held, n, value):  # type: ignore[no-untyped-def]
    """How many different values are held with one more."""
    for i in range(n - 1, -1, -1):
        if held[i] == value:
            return n
    held[n] = value
    return n + 1
