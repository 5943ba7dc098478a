"""Winograd's algorithm for 3 x 3 convolutions: F(4x4, 3x3), 36 products for 16 outputs, not 144.

Three kernels, one after the other: inputs are transformed (winograd_transforms.py), tile by tile of
4 x 4 outputs; for each of a tile's 36 points channels are summed, a matrix product
(winograd_product.py); and the products are transformed to outputs. Between them all lies in
scratch, 2.25 times the inputs and 2.25 times the outputs. So that scratch is bounded, tiles are
done in chunks. The weights are transformed when the plan is made, in double precision.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from netdsl.cook_toom import matrices
from netdsl.cuda import winograd_costs as costs
from netdsl.cuda.describe import Cut, Ending, Operands, Parts, Sum, describe
from netdsl.cuda.layout import Call, Floats
from netdsl.cuda.place import rounded
from netdsl.cuda.rows import fits
from netdsl.cuda.sizes import SIMULATED, WINOGRAD_TILES, Tile
from netdsl.cuda.task import Task
from netdsl.cuda.winograd_costs import whole as multiple
from netdsl.cuda.winograd_product import PRODUCTS
from netdsl.cuda.winograd_transforms import (
    CELLS,
    ENDS,
    FOURS,
    ONES,
    OUTPUTS,
    POOLED,
    TAPS,
    winograd_inputs,
)
from netdsl.ops import MaxPool

SCRATCH = 1 << 29
"""Bytes of scratch that a chunk of tiles may take."""

PART = 4 if SIMULATED else 64
"""Channels that are summed up at a time. Of 64 and fewer there are two parts."""

SAVED = 0.1
"""Of the time, for which some digits are given away."""

THREADS = 4 if SIMULATED else 64
"""Of a transform's block: few, so that a few tiles keep many multiprocessors busy."""


KERNELS = [winograd_inputs, *PRODUCTS.values(), *ENDS.values()]
"""All of them."""


class Chunks(NamedTuple):
    """How a layer is done: the tile of its products, and tiles of outputs at a time."""

    tile: Tile
    chunk: int


def suits(whole: Sum) -> bool:
    """Whether it is a convolution of 3 x 3 on two axes, without stride, dilation or groups."""
    cells = [(0, *at) for at in product(range(TAPS), repeat=2)]
    flat = whole.size[0] == whole.out[0] == 1 and whole.stride[1:] == (1, 1)
    return len(whole.weights) == 1 and flat and list(map(tuple, whole.cells.tolist())) == cells


def takes_pool(whole: Sum, pool: MaxPool) -> bool:
    """Whether a max pool's windows are squares of two that fill tiles of outputs."""
    window, (_, height, width) = pool.window, whole.out
    if window.kernel != (2, 2) or window.stride != (2, 2) or window.dilation != (1, 1):
        return False
    filters = whole.weights.shape[2]
    inside = pool.output(((filters, height, width),))[1:] == (height // 2, width // 2)
    return inside and set(sum(window.padding, ())) == {0}


def quicker(layer: costs.Layer, cut: Cut, card: costs.Card) -> Chunks | None:
    """How to do it where that is reckoned to save a share of the time of sums cut so; else None."""

    def ticks(way: Chunks) -> float:
        return costs.by_tiles(layer, way.tile, way.chunk, card)

    best = min((Chunks(tile, _chunk(layer, tile)) for tile in WINOGRAD_TILES), key=ticks)
    return best if ticks(best) < (1 - SAVED) * costs.direct(layer, cut, card) else None


def plan_winograd(task: Task, whole: Sum, ending: Ending, way: Chunks) -> list[Call]:
    """The calls of a convolution by Winograd's algorithm."""
    layer, (tile, chunk) = layer_of(task, whole), way
    packed = _transformed(whole, tile)
    _, deep, row = packed.shape
    source, target = task.inputs[0], task.output
    operands = Operands(
        (source.offset, source.batch_stride, 0, 1),
        [],
        0,
        layer.channels,
        (task.params.add(packed), deep * row, row),
    )
    at = describe(task, whole, operands, ending, Parts())
    inner_point, made_point = deep * chunk, layer.filters * chunk
    inner = rounded(CELLS * inner_point)
    scratch = task.scratch(inner + CELLS * made_point)
    part = min(PART, multiple(-(-layer.channels // 2), tile.k)) // tile.k
    fours = fits(whole.out[2], target.offset, target.batch_stride)
    end = ENDS[POOLED if task.whole.pool else FOURS if fours else ONES]
    calls = []
    for first in range(0, layer.tiles, chunk):
        count = min(chunk, layer.tiles - first)
        d = [at, first, count, chunk, scratch, inner_point, scratch + inner, made_point]
        told = task.ints.add([*d, deep // tile.k, part])
        grid = (-(-count // tile.m), row // tile.n, CELLS)
        calls += [
            _spread(winograd_inputs, count * deep, told),
            Call(PRODUCTS[tile], grid, tile.threads, told),
            _spread(end, count * layer.filters, told),
        ]
    return calls


def _spread(kernel: object, count: int, at: int) -> Call:
    return Call(kernel, (-(-count // THREADS), 1, 1), THREADS, at)


def layer_of(task: Task, whole: Sum) -> costs.Layer:
    """The convolution as its time is reckoned."""
    _, height, width = whole.out
    tiles = task.batch * -(-height // OUTPUTS) * -(-width // OUTPUTS)
    positions, filters = task.batch * height * width, whole.weights.shape[2]
    read = task.batch * task.inputs[0].sample
    written = (1 + task.whole.residual) * positions * filters
    return costs.Layer(tiles, positions, whole.channels, filters, read, written)


def _chunk(layer: costs.Layer, tile: Tile) -> int:
    """Tiles at a time, whole tiles of the product: as few chunks as scratch allows, all alike."""
    each = 4 * CELLS * (multiple(layer.channels, tile.k) + layer.filters)
    most = max(SCRATCH // each // tile.m, 1) * tile.m
    chunks = -(-layer.tiles // most)
    return multiple(-(-layer.tiles // chunks), tile.m)


def _transformed(whole: Sum, tile: Tile) -> NDArray[np.float32]:
    """The weights G g G' as (36, channels, filters), with zeros up to whole slices and tiles."""
    channels, filters = whole.channels, whole.weights.shape[2]
    one = np.array([[float(x) for x in row] for row in matrices(OUTPUTS, TAPS).filter])
    taps: Floats = whole.weights[0].reshape(channels, TAPS**2, filters)
    found = np.kron(one, one) @ taps.transpose(1, 0, 2).reshape(TAPS**2, -1).astype(np.float64)
    shape = CELLS, multiple(channels, tile.k), multiple(filters, tile.n)
    packed = np.zeros(shape, np.float32)
    packed[:, :channels, :filters] = found.reshape(CELLS, channels, filters)
    return packed
