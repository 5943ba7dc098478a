"""How the rows of a layer's outputs are cut into tiles."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import inf
from typing import NamedTuple

from netdsl.cpu import costs
from netdsl.cpu.micro import Kind, Shape, Tile, tiles

OVERHEAD = 2.0
"""Cycles of a turn beside its arithmetic, where what it reads is cached."""

Cut = tuple[int, Tile]
"""Where a tile starts in a row, and which it is."""


class Row(NamedTuple):
    """A row of tiles: the shape of most of them, all of them, what they cost in cycles of a turn.

    All go across as many blocks of filters.
    """

    shape: Shape
    cuts: tuple[Cut, ...]
    turns: float


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
        count = rows * across * len(row.cuts)
        # A thread takes whole tiles.
        return -(-count // parts) / count * rows * across * row.turns

    found = []
    for tile in tiles():
        blocks = tile.shape.blocks
        whole = not any(run % blocks for run in runs)
        if tile.kind is kind and blocks <= min(runs) and (overlap or whole):
            row = cut(tile, columns, overlap, terms)
            found += [row] if row else []
    return sorted(found, key=cost)


@cache
def cut(tile: Tile, columns: int, overlap: bool, terms: float = inf) -> Row | None:
    """A row mostly of this tile, its end of others as wide or of one that overlaps; None where
    the tile does not fit."""
    pixels, blocks = tile.shape
    if pixels > columns:
        return None
    best: tuple[float, list[Tile]] | None = None
    for fewer in range(min(3, columns // pixels)):
        count = columns // pixels - fewer
        cycles, rest = ending(tile.kind, blocks, columns - count * pixels, terms)
        if cycles < inf:
            whole = count * turn(tile, terms) + cycles, [tile] * count + list(rest)
            best = min(best or whole, whole, key=lambda one: one[0])
    along = starts(columns, pixels)
    evenly = len(along) * turn(tile, terms)
    if overlap and (best is None or evenly <= best[0]):
        return Row(tile.shape, tuple((at, tile) for at in along), evenly)
    if best is None:
        return None
    cuts, at = [], 0
    for each in best[1]:
        cuts.append((at, each))
        at += each.shape.pixels
    return Row(tile.shape, tuple(cuts), best[0])


@cache
def ending(
    kind: Kind, blocks: int, columns: int, terms: float = inf
) -> tuple[float, tuple[Tile, ...]]:
    """The cheapest tiles across so many blocks that cover so many columns exactly, the widest
    first, and their cycles of a turn: infinitely many where none do."""
    if columns == 0:
        return 0.0, ()
    best: tuple[float, tuple[Tile, ...]] = (inf, ())
    for tile in tiles():
        pixels = tile.shape.pixels
        if tile.kind is not kind or tile.shape.blocks != blocks or pixels > columns:
            continue
        cycles, rest = ending(kind, blocks, columns - pixels, terms)
        if cycles + turn(tile, terms) < best[0]:
            both = sorted((tile, *rest), key=lambda t: -t.shape.pixels)
            best = cycles + turn(tile, terms), tuple(both)
    return best


@cache
def turn(tile: Tile, terms: float = inf) -> float:
    """Cycles of a turn of its loop within a layer, its share of the tile's end with it."""
    cycles = tile.shape.cycles(tile.kind)
    if tile.kind is not Kind.BLOCKED:
        return cycles + OVERHEAD
    return cycles * tile.shape.pace + tile.shape.end / terms


@cache
def product_tile(columns: int, products: int, filter_blocks: int, parts: int) -> Tile:
    """The tile for so many products of matrices, each of them one thread's."""
    best, least = None, inf
    for tile, pixels, blocks, cycles in _paces():
        if pixels > columns or blocks > filter_blocks:
            continue
        across, along = -(-filter_blocks // blocks), -(-columns // pixels)
        cost = -(-products * across // parts) * along * cycles
        if cost < least:
            best, least = tile, cost
    assert best is not None
    return best


@cache
def _paces() -> tuple[tuple[Tile, int, int, float], ...]:
    """Blocked tiles, their pixels and blocks, and the cycles of a turn. A plan asks for a product's
    tile a thousand times, so they are looked up once."""
    return tuple(
        (tile, *tile.shape, costs.turn(tile.shape, costs.rates().chosen))
        for tile in tiles()
        if tile.kind is Kind.BLOCKED
    )
