"""How gradients of weights are planned for tensor cores: two calls pack the operands, the kernels
of tensor.py follow."""

from __future__ import annotations

from math import prod

import numpy as np

from netdsl.cuda.backward.products import Product, bits
from netdsl.cuda.backward.task import Calls
from netdsl.cuda.backward.tensor import FIELDS, KERNELS, positions_of, tensor_finish
from netdsl.cuda.describe import splitting
from netdsl.cuda.layout import Buffer, Call, spread
from netdsl.cuda.pack import plan_pack
from netdsl.cuda.place import rounded
from netdsl.cuda.rounding import PER_WORD, words_of
from netdsl.cuda.sums import MOST_EDGES, OUTSIDE
from netdsl.cuda.task import Ints, Task
from netdsl.cuda.tensor import MEDIUM, SMALL, WIDE, WarpTile
from netdsl.ops import Shape

LONG = 8
"""Slices that each part of a sum should have at least."""

FEW = 16
"""Positions in the batch below which packing would be most of the work."""

LEAST = 16
"""Channels and filters of a group below which a tile would be mostly empty."""

Operand = tuple[Buffer, Shape]
"""A tensor, and the channels and axes that it is taken for."""


def suits(task: Task, product: Product) -> bool:
    """Whether tensor cores are asked to have these sums, and can."""
    if task.precision == "fp32" or product.products < FEW:
        return False
    return _large(task.precision, product) and len(product.edges()) <= MOST_EDGES


def _large(precision: str, product: Product) -> bool:
    """Whether groups are: a tile of a small one would be mostly empty. Their channels have to be
    whole units of the packed tensors, which know of no groups."""
    unit = 4 * PER_WORD[precision]
    widths = product.rows, product.channels
    return product.groups == 1 or (min(widths) >= LEAST and not any(n % unit for n in widths))


def plan_rounded(task: Task, product: Product, left: Operand, right: Operand) -> Calls:
    """The calls of a product over positions of `left`, a row a channel, and windows of `right`,
    a column a channel and cell, its table's columns channel by channel."""
    precision, rows, groups = task.precision, product.rows, product.groups
    channels, width = product.channels, 4 * PER_WORD[precision]
    words, left_words = words_of(channels, precision), words_of(rows, precision)
    left_cell, cell = (words_of(shape[0], precision) for _, shape in (left, right))
    a_floats = rounded(product.samples * prod(left[1][1:]) * left_cell)
    b_floats = rounded(product.samples * prod(right[1][1:]) * cell)
    cells = product.columns // channels
    columns = cells * words * PER_WORD[precision]
    tile = _tile(rows, columns, groups, task.processors)
    deep = positions_of(precision)
    across, down = -(-columns // tile.n), -(-rows // tile.m)
    slices = -(-product.products // deep)
    splits, part = splitting(across * down * groups, slices, task.processors, LONG)
    sums = groups * rows * columns
    scratch = task.scratch(a_floats + b_floats + (splits * sums if splits > 1 else 0))
    calls = [plan_pack(task, *left, scratch), plan_pack(task, *right, scratch + a_floats)]
    windows, table = _tables(product, cells, words, cell, across * tile.n // width)
    plane = prod(product.out)
    into, _, row, _ = product.target
    d = [rows, columns, product.products, part * deep, splits, groups]
    d += [plane, *divmod(deep, plane), scratch, left_cell, left_words]
    d += [scratch + a_floats, prod(right[1][1:]) * cell, words]
    d += [task.ints.add(windows, align=4), task.ints.add(table, align=4), into, row]
    d += [task.ints.add(_places(channels, cells, words * PER_WORD[precision]))]
    d += [scratch + a_floats + b_floats]
    assert len(d) == FIELDS
    at = task.ints.add(d)
    grid = (across, down, groups * splits)
    calls.append(Call(KERNELS[tile, precision], grid, tile.threads, at))
    return [*calls, spread(tensor_finish, sums, at)] if splits > 1 else calls


def _tile(rows: int, columns: int, groups: int, processors: int) -> WarpTile:
    """The tile that fits rows and columns, a smaller one where there would be too few blocks."""
    tile = SMALL if rows <= SMALL.m else MEDIUM if columns <= MEDIUM.n else WIDE
    blocks = -(-rows // tile.m) * -(-columns // tile.n) * groups
    return SMALL if blocks < processors // 2 else tile


def _tables(product: Product, cells: int, words: int, apart: int, units: int) -> tuple[Ints, Ints]:
    """Of windows and of the columns' units, in words, each with two words of edges; the second up
    to so many units, of which those past the last lie outside always. words: of a cell of a group;
    apart: how far apart cells lie."""
    windows, columns = bits(product, product.edges())
    windows[:, 0] *= apart
    windows[:, 2] |= OUTSIDE
    table = np.zeros((units, 4), np.int32)
    table[:, 1:3] = OUTSIDE
    each = words // 4
    of_cells = np.repeat(columns[:cells], each, axis=0)
    of_cells[:, 0] = of_cells[:, 0] * apart + np.tile(4 * np.arange(each), cells)
    table[: len(of_cells)] = of_cells
    return windows, table


def _places(channels: int, cells: int, width: int) -> Ints:
    """Of columns, cell by cell with `width` channels each, where in a row of weights they belong;
    -1 for channels that are not there."""
    channel = np.arange(width)
    found = channel * cells + np.arange(cells)[:, None]
    return np.where(channel < channels, found, -1).reshape(-1).astype(np.int32)
