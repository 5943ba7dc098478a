"""What each algorithm costs a layer, in rough cycles: the table by which one is chosen.

Nothing is measured at start. The numbers are of AVX-512 at one multiply-add of 16 floats a cycle;
with narrower registers all but memory slows down alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from netdsl.cpu.layout import LANES, Triple

TRANSFORM = 4.0
"""Cycles for each of a tile's inputs, there and back."""

CACHED = 4 << 20
"""Bytes of weights that other layers leave in a cache until the next run."""

SHARED = 16 << 20
"""Bytes of weights that stay in the cache that all cores share, while one layer is done."""

PASSING = 10.0
"""Bytes a cycle from one step of Winograd's algorithm to the next, through that cache."""

FROM_CACHE, FROM_MEMORY = 32.0, 18.0
"""Bytes of weights a cycle for all threads together; half of what memory takes is hidden."""


def read(weights: int, times: int = 1) -> float:
    """Cycles of bringing in so many bytes of weights, so many times in a layer."""
    first = weights / (FROM_CACHE if weights <= CACHED else FROM_MEMORY)
    return first + (times - 1) * weights / (FROM_CACHE if weights <= SHARED else FROM_MEMORY)


@dataclass(frozen=True)
class Work:
    """A convolution by direct sums: its samples, blocks of channels and filters, outputs per axis,
    taps, threads. What Winograd's algorithm costs is in `winograd.cycles`."""

    batch: int
    blocks: int
    filter_blocks: int
    outputs: Triple
    taps: int
    parts: int

    def direct(self, half: bool = False) -> float:
        """Cycles of the direct sum. half: of pairs of bfloat16, in half the room and time."""
        terms = self.taps * self.blocks * LANES * self.filter_blocks
        weights = 4 * self.taps * self.blocks * self.filter_blocks * LANES**2
        whole = self.batch * prod(self.outputs) * terms / self.parts + read(weights)
        return whole / 2 if half else whole
