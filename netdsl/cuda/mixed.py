"""How sums are planned for tensor cores: a call packs the input where it does not lie packed, the
kernels of tensor.py follow.

Convolutions of small groups stay with float32, and fully connected layers of a few samples, where
reading the weights is the work.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np

from netdsl.cuda.choice import Pace, Way, quickest
from netdsl.cuda.describe import Ending, Operands, Parts, Sum, bits, describe
from netdsl.cuda.layout import Buffer, Call, Floats, fresh
from netdsl.cuda.pack import plan_finish, plan_pack
from netdsl.cuda.packing import NEVER, Packs
from netdsl.cuda.place import rounded
from netdsl.cuda.rounding import PER_WORD, words_of
from netdsl.cuda.sums import MOST_EDGES
from netdsl.cuda.task import Ints, Task
from netdsl.cuda.tensor import DEEP, HALF, LARGE, SMALL, TENSOR_KERNELS, UNITS, WarpTile

LONG = 8
"""Slices that each block of a split sum should have at least."""

PACES = {
    LARGE: Pace(each=450, alone=600, ends=5000, held=2),
    HALF: Pace(each=240, alone=600, ends=5000, held=4),
    SMALL: Pace(each=195, alone=250, ends=3500, held=4),
}

FEW = 16
"""Channels and filters of a group below which a tile would be mostly empty."""


class Cut(NamedTuple):
    """How a sum is shared out: the tile, into how many parts, how many slices each."""

    tile: WarpTile
    splits: int
    slices: int


def suits(whole: Sum, precision: str) -> bool:
    """Whether tensor cores can have this sum. A group's channels have to be whole units of the
    packed input, which knows of no groups."""
    groups, _, filters = whole.weights.shape
    units = whole.channels % (4 * PER_WORD[precision]) == 0
    large = groups == 1 or (units and min(whole.channels, filters) >= FEW)
    return large and len(whole.edges()) <= MOST_EDGES


def suit(task: Task, sums: list[Sum]) -> bool:
    """Whether tensor cores are asked to have these sums, and can."""
    return task.precision != "fp32" and all(suits(each, task.precision) for each in sums)


def packs(task: Task, sums: list[Sum]) -> Packs:
    """What the kernels of these sums do with packed tensors. Groups write whole units each."""
    if not suit(task, sums):
        return NEVER
    groups, _, filters = sums[0].weights.shape
    units = filters % (4 * PER_WORD[task.precision]) == 0
    return Packs(reads=True, writes=groups == 1 or units)


def plan_mixed(task: Task, sums: list[Sum], ending: Ending) -> list[Call]:
    """The calls of sums that make up one output, in the task's precision."""
    first = sums[0]
    groups, _, filters = first.weights.shape
    own, words = (words_of(n * first.channels, task.precision) for n in (1, groups))
    source = task.packed_input
    packed = 0 if source else rounded(task.batch * prod(first.size) * words)
    cuts = []
    for whole in sums:
        units = len(whole.cells) * own // 4
        slices = max(-(-units // UNITS), 1)
        cuts.append(
            share_out(task.batch * whole.positions, filters, slices, task.processors, groups)
        )
    outputs = [task.batch * whole.positions * groups * filters for whole in sums]
    parts = [c.splits * n for c, n in zip(cuts, outputs, strict=True) if c.splits > 1]
    scratch = task.scratch(packed + max(parts, default=0))
    calls = []
    if source is None:
        shape = (groups * first.channels, *first.size)
        calls.append(plan_pack(task, task.inputs[0], shape, scratch))
        source = fresh(task.batch, (*first.size, words)).part(scratch, (*first.size, words))
    for whole, cut in zip(sums, cuts, strict=True):
        operands = _operands(task, whole, cut.tile, own, source)
        partial = Parts(cut.splits, cut.slices, scratch + packed)
        at = describe(task, whole, operands, ending, partial)
        positions = task.batch * whole.positions
        grid = (-(-positions // cut.tile.m), -(-filters // cut.tile.n), groups * cut.splits)
        kernel = TENSOR_KERNELS[cut.tile, task.precision]
        calls.append(Call(kernel, grid, cut.tile.threads, at))
        if cut.splits > 1:
            calls.append(plan_finish(task, whole, partial.partial, at))
    return calls


def share_out(positions: int, filters: int, slices: int, processors: int, groups: int = 1) -> Cut:
    """The tile and the cut that are reckoned to take least."""
    ways = {
        tile: Way(-(-positions // tile.m) * -(-filters // tile.n) * groups, slices)
        for tile in PACES
    }
    return Cut(*quickest(ways, PACES, positions * filters * groups, processors, LONG))


def _operands(task: Task, whole: Sum, tile: WarpTile, own: int, source: Buffer) -> Operands:
    """The operands as they lie for tensor.py: products are units of 16 bytes, in the order of
    `_order`. own: words of a position's channels in a group. source: the packed input."""
    _, height, width = whole.size
    cells, each = whole.cells, own // 4
    order = _order(len(cells), each)
    far = ((cells[:, 0] * height + cells[:, 1]) * width + cells[:, 2]) * source.cell
    far = (far[:, None] + 4 * np.arange(each)).reshape(-1).astype(np.int32)[order]
    units = max(-(-len(far) // UNITS), 1) * UNITS
    edges = whole.edges()
    # A slice more, because a thread reads an entry before it knows whether it wants it.
    table = bits(far, np.repeat(cells, each, axis=0)[order], edges, units + UNITS)
    row = units // UNITS * DEEP
    filters = -(-whole.weights.shape[2] // tile.n) * tile.n
    weights = [_packed(whole, w, filters, row, order, task.precision) for w in whole.weights]
    return Operands(
        (source.offset, source.batch_stride, own, source.cell),
        edges,
        task.ints.add(table, align=4),
        units,
        (task.params.add_words(np.concatenate(weights), task.precision), filters * row, row),
    )


def _order(cells: int, each: int) -> Ints:
    """In which order units are summed, which count cell by cell, `each` a cell: a slice of units of
    all cells, then the next. So what neighbouring cells share of the input is read again while it
    still lies in the multiprocessor's cache."""
    unit, cell = np.arange(cells * each) % each, np.arange(cells * each) // each
    return np.lexsort((unit, cell, unit // UNITS)).astype(np.int32)


def _packed(
    whole: Sum, weights: Floats, filters: int, row: int, order: Ints, precision: str
) -> Floats:
    """A group's weights as they are before they are rounded to words (filters, row): a filter's
    units in their order."""
    unit = 4 * PER_WORD[precision]
    channels, cells, given = whole.channels, len(whole.cells), weights.shape[1]
    # Of a transposed layer some outputs may have no cells at all.
    width = words_of(channels, precision) * PER_WORD[precision]
    packed = np.zeros((filters, row * PER_WORD[precision]), np.float32)
    spread_out = np.zeros((given, cells, width), np.float32)
    spread_out[..., :channels] = weights.reshape(channels, cells, given).transpose(2, 1, 0)
    units = spread_out.reshape(given, -1, unit)[:, order]
    packed[:given, : cells * width] = units.reshape(given, -1)
    return packed
