"""Which tile sums go by, and into how many parts they are cut: what is reckoned to take least.

The ticks are counts of instructions and of what they wait for, on a card of compute capability 9.0;
none was measured. benchmarks/gpu_reckon.py prints whole nets by the same reckoning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from netdsl.cuda.sizes import SIMULATED

Tile = TypeVar("Tile")

FINISH = 0 if SIMULATED else 3500
"""Ticks of a launch that adds up parts."""
FLOATS, ADDED = 600, 200
"""That memory moves in a tick, and sums that a launch ends in a tick by its instructions."""
MOST_SPLITS = 64


class Pace(NamedTuple):
    """How long blocks of a tile take. each: ticks of a slice for every block that shares a
    multiprocessor; alone: ticks of a slice at least, until what it reads has come; ends: ticks
    before and after all slices; held: blocks that a multiprocessor has room for."""

    each: int
    alone: int
    ends: int
    held: int

    def ticks(self, blocks: int, slices: int) -> int:
        """Of the multiprocessor that has so many blocks, `slices` long."""
        rounds, rest = divmod(blocks, self.held)
        return rounds * self._together(self.held, slices) + self._together(rest, slices)

    def _together(self, blocks: int, slices: int) -> int:
        return max(blocks * self.each, self.alone) * slices + self.ends if blocks else 0


class Way(NamedTuple):
    """What there is to do by tiles of one size: how many there are, and slices of a sum."""

    blocks: int
    slices: int


def quickest(
    ways: Mapping[Tile, Way],
    paces: Mapping[Tile, Pace],
    outputs: int,
    processors: int,
    deep: int,
) -> tuple[Tile, int, int]:
    """The tile, into how many parts sums are cut, and the slices of each, `deep` or more."""
    found = (
        (_ticks(paces[tile], way, splits, outputs, processors), splits, i, tile)
        for i, (tile, way) in enumerate(ways.items())
        for splits in range(1, min(max(way.slices // deep, 1), MOST_SPLITS) + 1)
    )
    _, splits, _, tile = min(found, key=lambda each: each[:3])
    slices = ways[tile].slices
    each = -(-slices // splits)
    return tile, -(-slices // each), each


def _ticks(pace: Pace, way: Way, splits: int, outputs: int, processors: int) -> int:
    busiest = -(-way.blocks * splits // processors)
    taken = pace.ticks(busiest, -(-way.slices // splits))
    if splits == 1:
        return taken
    return taken + FINISH + max(2 * splits * outputs // FLOATS, outputs // ADDED)
