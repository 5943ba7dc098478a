"""How the rows of a layer's outputs are cut into tiles."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from math import inf
from typing import NamedTuple

from netdsl.cpu import costs
from netdsl.cpu.micro import Kind, Shape, Tile, quartered, tiles

OVERHEAD = 2.0
"""Cycles of a turn beside its arithmetic, where what it reads is cached."""


class Row(NamedTuple):
    """A row of tiles: so many of one, then others as wide as the rest; what all cost in cycles of
    a turn. Where there are no others, the last one overlaps the one before if need be.

    All go across as many blocks of filters.
    """

    tile: Tile
    whole: int
    rest: tuple[Tile, ...]
    columns: int
    turns: float

    @property
    def shape(self) -> Shape:
        """That of most tiles."""
        return self.tile.shape

    @property
    def length(self) -> int:
        """How many tiles there are."""
        return self.whole + len(self.rest)

    @property
    def starts(self) -> list[int]:
        """Where each tile starts."""
        rest = accumulate((tile.shape.pixels for tile in self.rest), initial=0)
        pixels, (*ends, _) = self.shape.pixels, rest
        along = [min(i * pixels, self.columns - pixels) for i in range(self.whole)]
        return along + [self.whole * pixels + at for at in ends]


def starts(size: int, tile: int) -> list[int]:
    """Where tiles start that cover `size`; the last overlaps the one before if need be."""
    return [min(i, size - tile) for i in range(0, size, tile)]


def choose(
    kind: Kind,
    columns: int,
    rows: int,
    runs: Sequence[int],
    parts: int,
    overlap: bool = True,
    shape: Shape | None = None,
    terms: float = inf,
) -> Row:
    """The row with tiles of this shape, if it fits, else the one that takes the fewest cycles."""
    found = by_cost(kind, columns, rows, runs, parts, overlap, terms)
    return next((row for row in found if row.shape == shape), found[0])


def by_cost(
    kind: Kind,
    columns: int,
    rows: int,
    runs: Sequence[int],
    parts: int,
    overlap: bool = True,
    terms: float = inf,
) -> list[Row]:
    """The ways to cut rows of so many columns, those first that take the fewest cycles.

    runs: how many blocks of filters in a row read the same input; a tile stays within a run.
    overlap: whether the last tile of a row or run may overlap the one before, maybe another
    thread's. terms: of each sum; the fewer they are, the more a tile's end counts.
    """

    def cost(row: Row) -> float:
        across = sum(-(-run // row.shape.blocks) for run in runs)
        count = rows * across * row.length
        # A thread takes whole tiles.
        return -(-count // parts) / count * rows * across * row.turns

    found = []
    for tile in of_kind(kind):
        blocks = tile.shape.blocks
        if blocks <= min(runs) and (overlap or not any(run % blocks for run in runs)):
            row = cut(tile, columns, overlap, terms)
            found += [row] if row else []
    return sorted(found, key=cost)


@cache
def of_kind(kind: Kind) -> tuple[Tile, ...]:
    """The tiles of a kind."""
    return tuple(tile for tile in tiles() if tile.kind is kind)


@cache
def cut(tile: Tile, columns: int, overlap: bool, terms: float = inf) -> Row | None:
    """A row mostly of this tile, its end of others as wide or of one that overlaps; None where
    the tile does not fit."""
    pixels, blocks = tile.shape
    if pixels > columns:
        return None
    each, most = turn(tile, terms), columns // pixels
    known = _known(tile.kind, blocks, columns - max(most - 2, 1) * pixels, terms)
    rows = [
        (known[columns - count * pixels][0] + count * each, count)
        for count in range(most, max(most - 3, 0), -1)
    ]
    cycles, whole = min(rows, key=lambda row: row[0])
    count = -(-columns // pixels)
    if overlap and count * each <= cycles:
        return Row(tile, count, (), columns, count * each)
    if cycles == inf:
        return None
    _, rest = ending(tile.kind, blocks, columns - whole * pixels, terms)
    return Row(tile, whole, rest, columns, cycles)


def ending(
    kind: Kind, blocks: int, columns: int, terms: float = inf
) -> tuple[float, tuple[Tile, ...]]:
    """The cheapest tiles across so many blocks that cover so many columns exactly, the widest
    first, and their cycles of a turn: infinitely many where none do."""
    known = _known(kind, blocks, columns, terms)
    cycles, tile = known[columns]
    found = []
    while tile is not None:
        found.append(tile)
        columns -= tile.shape.pixels
        _, tile = known[columns]
    return cycles, tuple(sorted(found, key=lambda tile: -tile.shape.pixels))


Ending = tuple[float, Tile | None]
"""The least cycles for a number of columns, and one of its tiles."""


def _known(kind: Kind, blocks: int, columns: int, terms: float) -> dict[int, Ending]:
    """The endings of up to so many columns."""
    widths, known = _endings(kind, blocks, terms)
    for more in range(len(known), columns + 1):
        known[more] = _next(widths, known, more)
    return known


@cache
def _endings(
    kind: Kind, blocks: int, terms: float
) -> tuple[list[tuple[int, float, Tile]], dict[int, Ending]]:
    """The pixels and cycles of tiles across so many blocks, and the endings of no columns, of one,
    and so on: a table that grows as it is asked, for a plan asks for most of them many times."""
    across = [tile for tile in of_kind(kind) if tile.shape.blocks == blocks]
    return [(tile.shape.pixels, turn(tile, terms), tile) for tile in across], {0: (0.0, None)}


def _next(widths: list[tuple[int, float, Tile]], known: dict[int, Ending], columns: int) -> Ending:
    """The ending of so many columns, those of fewer being known."""
    best: Ending = (inf, None)
    for pixels, cycles, tile in widths:
        if pixels <= columns and known[columns - pixels][0] + cycles < best[0]:
            best = known[columns - pixels][0] + cycles, tile
    return best


@cache
def turn(tile: Tile, terms: float = inf) -> float:
    """Cycles of a turn of its loop within a layer, its share of the tile's end with it."""
    cycles = tile.shape.cycles(tile.kind)
    if tile.kind not in (Kind.BLOCKED, Kind.POINTS):
        return cycles + OVERHEAD
    return cycles * tile.shape.pace + tile.shape.end / terms


@cache
def product_tile(
    columns: int, filter_blocks: int, products: int, parts: int, quarters: bool = False
) -> Tile:
    """The tile for so many products of matrices of a size, each of them one thread's. quarters: of
    quarters of them."""
    best, least = None, inf
    for tile, pixels, share, cycles in _paces(filter_blocks, products, parts, quarters):
        if pixels <= columns:
            cost = share * -(-columns // pixels) * cycles
            if cost < least:
                best, least = tile, cost
    assert best is not None
    return best


@cache
def _paces(
    filter_blocks: int, products: int, parts: int, quarters: bool
) -> tuple[tuple[Tile, int, int, float], ...]:
    """Blocked tiles, their pixels, how many of them a thread takes across all filters, and the
    cycles of a turn. A plan asks for a product's tile for hundreds of numbers of columns."""
    return tuple(
        (
            tile,
            tile.shape.pixels,
            -(-products * -(-filter_blocks // tile.shape.blocks) // parts),
            costs.turn(tile.shape, costs.rates().chosen),
        )
        for tile in (quartered() if quarters else of_kind(Kind.BLOCKED))
        if tile.shape.blocks <= filter_blocks
    )
