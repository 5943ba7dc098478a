"""How the ways back are planned for tensor cores: the gradients of weights by the kernels of
tensor.py, fully connected layers by those of weighted.py. What these read lies packed."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from netdsl.cuda.backward import weighted
from netdsl.cuda.backward.products import Product, bits
from netdsl.cuda.backward.task import Calls
from netdsl.cuda.backward.tensor import FIELDS, KERNELS, positions_of, tensor_finish
from netdsl.cuda.backward.weighted import dense_finish, products_of
from netdsl.cuda.describe import splitting
from netdsl.cuda.layout import Buffer, Call, fresh, spread
from netdsl.cuda.pack import plan_pack
from netdsl.cuda.place import rounded
from netdsl.cuda.rounding import PER_WORD, packed_shape, words_of
from netdsl.cuda.rows import place
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


def room_here(task: Task, shape: Shape) -> tuple[Buffer, Task]:
    """A place in scratch for a packed tensor, and the task with what scratch comes after it. shape:
    what it is taken for, channels and axes."""
    found = fresh(task.batch, packed_shape(shape, task.precision))
    floats = rounded(found.floats)
    after = replace(task, scratch=lambda more: task.scratch(floats + more) + floats)
    return found.part(task.scratch(floats), found.shape), after


def packed_here(task: Task, tensor: Buffer, shape: Shape) -> tuple[Calls, Buffer, Task]:
    """The call that packs a tensor into such a place, the place, and the task."""
    found, after = room_here(task, shape)
    return [plan_pack(task, tensor, shape, found.offset)], found, after


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


def plan_rounded(task: Task, product: Product, left: Buffer, right: Buffer) -> Calls:
    """The calls of a product over positions of `left`, a row a channel, and windows of `right`,
    a column a channel and cell, its table's columns channel by channel. Both lie packed."""
    precision, rows, groups = task.precision, product.rows, product.groups
    channels, width = product.channels, 4 * PER_WORD[precision]
    words = words_of(channels, precision)
    cells = product.columns // channels
    columns = cells * words * PER_WORD[precision]
    tile = _tile(rows, columns, groups, task.processors)
    deep = positions_of(precision)
    across, down = -(-columns // tile.n), -(-rows // tile.m)
    slices = -(-product.products // deep)
    splits, part = splitting(across * down * groups, slices, task.processors, LONG)
    sums = groups * rows * columns
    windows, table = _tables(product, cells, words, right.cell, across * tile.n // width)
    into, _, row, _ = product.target
    plane = prod(product.out)
    d = [rows, columns, product.products, part * deep, splits, groups]
    d += [plane, *divmod(deep, plane)]
    d += [left.offset, left.cell, words_of(rows, precision), *place(right), words]
    d += [task.ints.add(windows, align=4), task.ints.add(table, align=4), into, row]
    d += [task.ints.add(_places(channels, cells, words * PER_WORD[precision]))]
    d += [task.scratch(splits * sums) if splits > 1 else 0]
    assert len(d) == FIELDS
    at = task.ints.add(d)
    grid = (across, down, groups * splits)
    calls = [Call(KERNELS[tile, precision], grid, tile.threads, at)]
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


def reads_weights(task: Task) -> bool:
    """Whether tensor cores are asked to have a fully connected layer, and can: its weights come 16
    bytes at a time."""
    return task.precision != "fp32" and task.batch >= FEW and task.inputs[0].sample % 4 == 0


def plan_weighted(
    task: Task, left: Buffer, weight: int, target: Buffer, *, bias: int = -1, back: bool = False
) -> Calls:
    """The calls of a fully connected layer's samples times its weights, which begin at `weight` in
    params; or, back, times the matrix turned. left: the samples, packed."""
    inputs, outputs = task.inputs[0].sample, task.output.sample
    columns, products = (inputs, outputs) if back else (outputs, inputs)
    tile = SMALL if task.batch <= SMALL.m else MEDIUM
    down, across = -(-task.batch // tile.m), -(-columns // tile.n)
    deep = products_of(task.precision)
    splits, part = splitting(down * across, -(-products // deep), task.processors, LONG)
    sums = task.batch * columns
    d = [task.batch, columns, products, part * deep, splits, *place(left)]
    d += [words_of(products, task.precision), weight, inputs, *place(target), bias]
    d += [task.scratch(splits * sums) if splits > 1 else 0]
    assert len(d) == weighted.FIELDS
    at = task.ints.add(d)
    kernel = weighted.KERNELS[tile, task.precision, back]
    calls = [Call(kernel, (down, across, splits), tile.threads, at)]
    return [*calls, spread(dense_finish, sums, at)] if splits > 1 else calls
