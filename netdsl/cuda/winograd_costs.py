"""What a 3 x 3 convolution takes by its sums and by Winograd's algorithm, reckoned.

Time is in ticks, in which a multiprocessor makes 128 multiply-adds. A step takes its multiply-adds
or its bytes, whichever takes longer, and a launch. The numbers are an H200's, but for the card's
bandwidth: where that is little for its arithmetic, Winograd's algorithm loses, for it moves more.
"""

from __future__ import annotations

from typing import NamedTuple

from netdsl.cuda.describe import Cut
from netdsl.cuda.sizes import Tile

MULTIPLY_ADDS = 128.0
"""Of a multiprocessor in a tick."""
BESIDE = 6.0
"""Instructions of a tile's loop for each of its terms besides products and loads of operands."""
REACHED = 0.9
"""The share of instructions that are begun without waiting, with enough warps."""
WARPS = 8
"""Of a multiprocessor: with fewer it waits for its own results, in proportion."""
CACHE = 24.0
"""Bytes that a multiprocessor's share of the second cache gives in a tick."""
LAUNCH = 5000.0
"""From a kernel's last product to the next one's first: the ends of both, and what lies between."""

POINTS = 36


class Layer(NamedTuple):
    """A 3 x 3 convolution of a batch: tiles of 4 x 4 outputs, outputs of a filter, channels,
    filters, floats of the input and of all outputs."""

    tiles: int
    positions: int
    channels: int
    filters: int
    read: int
    written: int


class Card(NamedTuple):
    """Its multiprocessors, and bytes that memory passes for each multiply-add, see launch.py."""

    processors: int
    bandwidth: float


def product(blocks: int, tile: Tile, terms: int, moved: float, card: Card) -> float:
    """Ticks of a launch of tiles that sum so many terms each, and move so many floats in all."""
    rounds, sums = -(-blocks // card.processors), tile.rm * tile.rn
    share = sums / (sums + (tile.rm + tile.rn) / 4 + BESIDE)
    busy = REACHED * min(1.0, rounds * tile.threads / 32 / WARPS)
    multiplied = rounds * tile.m * tile.n * terms / (MULTIPLY_ADDS * share * busy)
    staged = rounds * 4 * (tile.m + tile.n) * terms / CACHE
    return max(multiplied, staged, passing(moved, card)) + LAUNCH


def passing(floats: float, card: Card) -> float:
    """Ticks in which so many floats pass to or from memory."""
    return 4 * floats / (MULTIPLY_ADDS * card.bandwidth * card.processors)


def direct(layer: Layer, cut: Cut, card: Card) -> float:
    """Ticks of the sums as gemm.py makes them."""
    tile, splits, slices = cut
    blocks = -(-layer.positions // tile.m) * -(-layer.filters // tile.n) * splits
    moved = layer.read + layer.written + 9 * layer.channels * layer.filters
    ticks = product(blocks, tile, slices * tile.k, moved, card)
    if splits > 1:
        ticks += passing(2 * splits * layer.written, card) + LAUNCH
    return ticks


def by_tiles(layer: Layer, tile: Tile, chunk: int, card: Card) -> float:
    """Ticks of Winograd's algorithm, so many of its tiles at a time."""
    chunks = -(-layer.tiles // chunk)
    deep, wide = (whole(n, by) for n, by in ((layer.channels, tile.k), (layer.filters, tile.n)))
    blocks = chunk // tile.m * (wide // tile.n) * POINTS
    scratch = chunk * (deep + layer.filters)
    moved = POINTS * (scratch + deep * wide)
    products = chunks * product(blocks, tile, deep, moved, card)
    scratch = layer.tiles * (deep + layer.filters)
    ends = passing(layer.read + layer.written + POINTS * scratch, card)
    return products + ends + 2 * chunks * LAUNCH


def whole(count: int, by: int) -> int:
    """The next multiple."""
    return -(-count // by) * by
