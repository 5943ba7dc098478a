"""What each algorithm costs a layer, in rough cycles: the table by which one is chosen.

Nothing is measured at start. The numbers are of AVX-512 at one multiply-add of 16 floats a cycle;
with narrower registers all but memory slows down alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from netdsl.cpu.layout import LANES, Triple
from netdsl.cpu.micro.cook_toom import Size

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


@dataclass(frozen=True)
class Work:
    """A convolution: its samples, blocks of channels and filters, outputs per axis, taps.

    depth: the taps along depth, 1 where there is none.
    """

    batch: int
    blocks: int
    filter_blocks: int
    outputs: Triple
    taps: int
    depth: int
    parts: int

    def direct(self, half: bool = False) -> float:
        """Cycles of the direct sum. half: of pairs of bfloat16, in half the room and time."""
        terms = self.taps * self.blocks * LANES * self.filter_blocks
        whole = self.batch * prod(self.outputs) * terms / self.parts + self._read(self.taps)
        return whole / 2 if half else whole

    def winograd(self, size: Size) -> float:
        """Cycles of Winograd's algorithm with tiles of this size."""
        slices, *lengths = self.outputs
        tiles = self.batch * slices * prod(-(-n // size.outputs) for n in lengths)
        products = size.inputs**2
        multiply = self.depth * products * tiles * self.blocks * LANES * self.filter_blocks
        transform = TRANSFORM * products * tiles * (self.blocks + self.filter_blocks)
        return (multiply + transform) / self.parts + self._read(products * self.depth)

    def _read(self, taps: int) -> float:
        """Cycles of bringing in the weights, so many for each channel and filter."""
        weights = 4 * taps * self.blocks * self.filter_blocks * LANES**2
        return weights / (FROM_CACHE if weights <= CACHED else FROM_MEMORY)
