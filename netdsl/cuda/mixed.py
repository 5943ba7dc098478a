"""How sums are planned for tensor cores: a call packs the input, the kernels of tensor.py follow.

Grouped convolutions stay with float32, and fully connected layers of a few samples, where reading
the weights is the work.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np

from netdsl.cuda.describe import Ending, Operands, Parts, Sum, bits, describe, splitting
from netdsl.cuda.direct import conv_finish
from netdsl.cuda.layout import Call, Floats, spread
from netdsl.cuda.pack import plan_pack
from netdsl.cuda.place import rounded
from netdsl.cuda.rounding import PER_WORD, words_of
from netdsl.cuda.sums import MOST_EDGES
from netdsl.cuda.task import Task
from netdsl.cuda.tensor import DEEP, MEDIUM, SMALL, TENSOR_KERNELS, UNITS, WIDE, WarpTile

LONG = 8
"""Slices that each block of a split sum should have at least."""


class Cut(NamedTuple):
    """How a sum is shared out: the tile, into how many parts, how many slices each."""

    tile: WarpTile
    splits: int
    slices: int


def suits(whole: Sum) -> bool:
    """Whether tensor cores can have this sum."""
    return len(whole.weights) == 1 and len(whole.edges()) <= MOST_EDGES


def plan_mixed(task: Task, sums: list[Sum], ending: Ending) -> list[Call]:
    """The calls of sums that make up one output, in the task's precision."""
    first, filters = sums[0], sums[0].weights.shape[2]
    words = words_of(first.channels, task.precision)
    packed = rounded(task.batch * prod(first.size) * words)
    cuts = []
    for whole in sums:
        units = len(whole.cells) * words // 4
        slices = max(-(-units // UNITS), 1)
        cuts.append(share_out(task.batch * whole.positions, filters, slices, task.processors))
    outputs = [task.batch * whole.positions * filters for whole in sums]
    parts = [c.splits * n for c, n in zip(cuts, outputs, strict=True) if c.splits > 1]
    scratch = task.scratch(packed + max(parts, default=0))
    shape = (first.channels, *first.size)
    calls = [plan_pack(task, task.inputs[0], shape, scratch)]
    for whole, cut, count in zip(sums, cuts, outputs, strict=True):
        operands = _operands(task, whole, cut.tile, words, scratch)
        partial = Parts(cut.splits, cut.slices, scratch + packed)
        at = describe(task, whole, operands, ending, partial)
        positions = task.batch * whole.positions
        grid = (-(-positions // cut.tile.m), -(-filters // cut.tile.n), cut.splits)
        kernel = TENSOR_KERNELS[cut.tile, task.precision]
        calls.append(Call(kernel, grid, cut.tile.threads, at))
        if cut.splits > 1:
            calls.append(spread(conv_finish, count, at))
    return calls


def share_out(positions: int, filters: int, slices: int, processors: int) -> Cut:
    """The tile that fits the filters, a smaller one where there would be too few blocks, and the
    sum cut where there still are."""

    def count(tile: WarpTile) -> int:
        return -(-positions // tile.m) * -(-filters // tile.n)

    tile = MEDIUM if filters <= MEDIUM.n else WIDE
    if count(tile) < processors:
        tile = SMALL
    return Cut(tile, *splitting(count(tile), slices, processors, LONG))


def _operands(task: Task, whole: Sum, tile: WarpTile, words: int, packed: int) -> Operands:
    """The operands as they lie for tensor.py: products are units of 16 bytes, cell by cell."""
    _, height, width = whole.size
    cells, each = whole.cells, words // 4
    far = ((cells[:, 0] * height + cells[:, 1]) * width + cells[:, 2]) * words
    far = (far[:, None] + 4 * np.arange(each)).reshape(-1).astype(np.int32)
    units = max(-(-len(far) // UNITS), 1) * UNITS
    edges = whole.edges()
    # A slice more, because a thread reads an entry before it knows whether it wants it.
    table = bits(far, np.repeat(cells, each, axis=0), edges, units + UNITS)
    row = units // UNITS * DEEP
    filters = -(-whole.weights.shape[2] // tile.n) * tile.n
    weights = _packed(whole, filters, row, words, task.precision)
    batch = prod(whole.size) * words
    return Operands(
        (packed, batch, 0, words),
        edges,
        task.ints.add(table, align=4),
        units,
        (task.params.add_words(weights, task.precision), 0, row),
    )


def _packed(whole: Sum, filters: int, row: int, words: int, precision: str) -> Floats:
    """The weights as they are before they are rounded to words (filters, row): a filter's cells in
    turn, each with all channels."""
    each = PER_WORD[precision]
    channels, cells, given = whole.channels, len(whole.cells), whole.weights.shape[2]
    packed = np.zeros((filters, row * each), np.float32)
    spread_out = np.zeros((given, cells, words * each), np.float32)
    spread_out[..., :channels] = whole.weights[0].reshape(channels, cells, given).transpose(2, 1, 0)
    packed[:given, : cells * words * each] = spread_out.reshape(given, -1)
    return packed
