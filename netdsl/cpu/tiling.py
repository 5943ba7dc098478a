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
) -> Row:
    """The row with tiles of this shape, if it fits, else the one that takes the fewest cycles."""
    found = by_cost(kind, columns, rows, runs, parts, overlap)
    return next((row for row in found if row.shape == shape), found[0])


def by_cost(
    kind: Kind,
    columns: int,
    rows: int,
    runs: Sequence[int],
    parts: int,
    overlap: bool = True,
) -> list[Row]:
    """The ways to cut rows of so many columns, those first that take the fewest cycles.

    runs: how many blocks of filters in a row read the same input; a tile stays within a run.
    overlap: whether the last tile of a row or run may overlap the one before, maybe another
    thread's.
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
            row = cut(tile, columns, overlap)
            found += [row] if row else []
    return sorted(found, key=cost)


@cache
def cut(tile: Tile, columns: int, overlap: bool) -> Row | None:
    """A row mostly of this tile, its end of others as wide or of one that overlaps; None where
    the tile does not fit."""
    pixels, blocks = tile.shape
    if pixels > columns:
        return None
    widths = [t for t in tiles() if t.kind is tile.kind and t.shape.blocks == blocks]
    best: tuple[float, list[Tile]] | None = None
    for fewer in range(min(3, columns // pixels)):
        count = columns // pixels - fewer
        rest = ending(widths, columns - count * pixels)
        if rest is not None:
            whole = count * turn(tile) + sum(map(turn, rest)), [tile] * count + rest
            best = min(best or whole, whole, key=lambda one: one[0])
    along = starts(columns, pixels)
    if overlap and (best is None or len(along) * turn(tile) <= best[0]):
        return Row(tile.shape, tuple((at, tile) for at in along), len(along) * turn(tile))
    if best is None:
        return None
    cuts, at = [], 0
    for each in best[1]:
        cuts.append((at, each))
        at += each.shape.pixels
    return Row(tile.shape, tuple(cuts), best[0])


def ending(widths: Sequence[Tile], columns: int) -> list[Tile] | None:
    """The cheapest tiles that cover so many columns exactly, the widest first."""
    costs: list[tuple[float, list[Tile]]] = [(0.0, [])]
    for n in range(1, columns + 1):
        ways = [
            (costs[n - t.shape.pixels][0] + turn(t), [t, *costs[n - t.shape.pixels][1]])
            for t in widths
            if t.shape.pixels <= n
        ]
        costs.append(min(ways, key=lambda one: one[0], default=(inf, [])))
    cycles, found = costs[columns]
    return None if cycles == inf else sorted(found, key=lambda t: -t.shape.pixels)


@cache
def turn(tile: Tile) -> float:
    """Cycles of a turn of its loop within a layer."""
    cycles = tile.shape.cycles(tile.kind)
    return cycles * tile.shape.pace if tile.kind is Kind.BLOCKED else cycles + OVERHEAD


def product_tile(columns: int, products: int, filter_blocks: int, parts: int) -> Tile:
    """The tile for so many products of matrices, each of them one thread's."""

    def cost(tile: Tile) -> float:
        shape = tile.shape
        across, along = -(-filter_blocks // shape.blocks), -(-columns // shape.pixels)
        each = costs.turn(shape, costs.rates().chosen)
        return -(-products * across // parts) * along * each

    def fits(tile: Tile) -> bool:
        pixels, blocks = tile.shape
        return tile.kind is Kind.BLOCKED and pixels <= columns and blocks <= filter_blocks

    return min(filter(fits, tiles()), key=cost)
