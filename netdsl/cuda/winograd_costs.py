"""What a 3 x 3 convolution takes by its sums and by Winograd's algorithm, reckoned.

Time is in ticks of a multiprocessor's clock. A step takes its multiply-adds or its bytes, whichever
takes longer, and a launch. The numbers are an H200's; a card with less memory bandwidth to its
arithmetic would gain less by Winograd's algorithm, which moves more.
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
BYTES, CACHE = 18.0, 24.0
"""That a multiprocessor's share of memory, and of the second cache, gives or takes in a tick."""
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


def product(blocks: int, tile: Tile, terms: int, moved: float, processors: int) -> float:
    """Ticks of a launch of tiles that sum so many terms each, and move so many floats in all."""
    rounds, sums = -(-blocks // processors), tile.rm * tile.rn
    share = sums / (sums + (tile.rm + tile.rn) / 4 + BESIDE)
    busy = REACHED * min(1.0, rounds * tile.threads / 32 / WARPS)
    multiplied = rounds * tile.m * tile.n * terms / (MULTIPLY_ADDS * share * busy)
    staged = rounds * 4 * (tile.m + tile.n) * terms / CACHE
    return max(multiplied, staged, passing(moved, processors)) + LAUNCH


def passing(floats: float, processors: int) -> float:
    """Ticks in which so many floats pass to or from memory."""
    return 4 * floats / (BYTES * processors)


def direct(layer: Layer, cut: Cut, processors: int) -> float:
    """Ticks of the sums as gemm.py makes them."""
    tile, splits, slices = cut
    blocks = -(-layer.positions // tile.m) * -(-layer.filters // tile.n) * splits
    moved = layer.read + layer.written + 9 * layer.channels * layer.filters
    ticks = product(blocks, tile, slices * tile.k, moved, processors)
    if splits > 1:
        ticks += passing(2 * splits * layer.written, processors) + LAUNCH
    return ticks


def by_tiles(layer: Layer, tile: Tile, chunk: int, processors: int) -> float:
    """Ticks of Winograd's algorithm, so many of its tiles at a time."""
    chunks = -(-layer.tiles // chunk)
    deep, wide = (whole(n, by) for n, by in ((layer.channels, tile.k), (layer.filters, tile.n)))
    blocks = chunk // tile.m * (wide // tile.n) * POINTS
    scratch = chunk * (deep + layer.filters)
    moved = POINTS * (scratch + deep * wide)
    products = chunks * product(blocks, tile, deep, moved, processors)
    scratch = layer.tiles * (deep + layer.filters)
    ends = passing(layer.read + layer.written + POINTS * scratch, processors)
    return products + ends + 2 * chunks * LAUNCH


def whole(count: int, by: int) -> int:
    """The next multiple."""
    return -(-count // by) * by
