"""What each algorithm costs a layer, in rough cycles: the table by which one is chosen.

Nothing is measured at start. The numbers are of a Zen 4 with AVX-512 and of a Zen 3 with AVX2, both
at one multiply-add of 16 floats a cycle; with narrower registers all but memory slows down alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from netdsl.cpu.layout import LANES, Triple
from netdsl.cpu.micro.shapes import wide
from netdsl.cpu.processor import second_level

TRANSFORM, NARROW_TRANSFORM = 4.0, 8.0
"""Cycles for each of a tile's inputs, there and back: with AVX-512 and without."""

OWN_CACHE = second_level() // 8
"""Floats that stay in a core's own cache while others pass: half of its second level."""

CACHED = 4 << 20
"""Bytes of weights that other layers leave in a cache until the next run."""

SHARED = 16 << 20
"""Bytes of weights that stay in the cache that all cores share, while one layer is done."""

PASSING = 10.0
"""Bytes a cycle from one step of Winograd's algorithm to the next, through that cache."""

FROM_CACHE, FROM_MEMORY = 32.0, 18.0
"""Bytes of weights a cycle for all threads together; half of what memory takes is hidden."""

NARROW_FROM_CACHE, NARROW_FROM_MEMORY = 16.0, 9.0
"""The same without AVX-512, where nothing is hidden."""

UNHIDDEN = 0.2
"""The part of this that still shows where tiles ask for weights ahead of time."""


def transform() -> float:
    """Cycles for each of a tile's inputs, there and back, on this CPU."""
    return TRANSFORM if wide() else NARROW_TRANSFORM


def read(weights: int, times: int = 1) -> float:
    """Cycles of bringing in so many bytes of weights, so many times in a layer."""
    near, far = (FROM_CACHE, FROM_MEMORY) if wide() else (NARROW_FROM_CACHE, NARROW_FROM_MEMORY)
    first = weights / (near if weights <= CACHED else far)
    return first + (times - 1) * weights / (near if weights <= SHARED else far)


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
