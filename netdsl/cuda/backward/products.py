"""How the products of the ways back are planned, for the kernels of product.py."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from netdsl.cuda.backward.direct import product_direct
from netdsl.cuda.backward.product import FIELDS, KERNELS, product_finish
from netdsl.cuda.backward.task import Calls
from netdsl.cuda.conv import Axes
from netdsl.cuda.layout import Call, spread
from netdsl.cuda.sizes import SQUARE, TALL, THREADS
from netdsl.cuda.sums import EDGE_BITS, MOST_EDGES, OUTSIDE
from netdsl.cuda.task import Ints, Task

DEEP = 16
"""Slices that each part of a sum should have at least."""

FEW = 8
"""Rows or columns of a group below which a tile would be mostly empty."""

MOST_PARTS = 1024


@dataclass(frozen=True)
class Product:
    """A product's arithmetic, see product.py: what its descriptor says.

    out: positions along each axis, in each of `samples`. left: where A begins, and how far apart
    its samples, rows and groups lie. source: where B begins, and how far apart its samples and
    groups lie; size: its axes. table: a row a column (columns, 4), those of weights channel by
    channel, so many `channels` of a group. target: where the results go,
    and how far apart groups, rows and columns lie there. bias: in params, or -1. weighted: A lies
    in params.
    """

    rows: int
    groups: int
    samples: int
    out: Axes
    left: tuple[int, int, int, int]
    source: tuple[int, int, int]
    size: Axes
    stride: Axes
    start: Axes
    table: Ints
    target: tuple[int, int, int, int]
    bias: int = -1
    weighted: bool = False
    channels: int = 1

    @property
    def columns(self) -> int:
        return len(self.table)

    @property
    def products(self) -> int:
        """Of each sum."""
        return self.samples * prod(self.out)

    def windows(self) -> Ints:
        """For each position how far its window's start lies from the sample's, in memory and along
        each axis (positions, 4)."""
        at = np.meshgrid(
            *(
                start + step * np.arange(count)
                for start, step, count in zip(self.start, self.stride, self.out, strict=True)
            ),
            indexing="ij",
        )
        z, y, x = (axis.reshape(-1) for axis in at)
        _, height, width = self.size
        return np.stack([(z * height + y) * width + x, z, y, x], 1).astype(np.int32)

    def edges(self) -> list[tuple[int, int]]:
        """An axis and a distance along it: of the cells that lie outside for some window."""
        return [
            (axis, int(far))
            for axis in range(3)
            for far in np.unique(self.table[:, axis + 1])
            if not self._always_inside(axis, int(far))
        ]

    def _always_inside(self, axis: int, far: int) -> bool:
        first = self.start[axis] + far
        return first >= 0 and first + (self.out[axis] - 1) * self.stride[axis] < self.size[axis]


def plan_product(task: Task, product: Product) -> Calls:
    """The calls of a product."""
    rows, columns, groups = product.rows, product.columns, product.groups
    edges = product.edges()
    few = groups > 1 and min(rows, columns) < FEW
    if (few or len(edges) > MOST_EDGES) and not product.weighted:
        return _plan_direct(task, product)
    tile = SQUARE if rows <= SQUARE.m else TALL
    across, down = -(-columns // tile.n), -(-rows // tile.m)
    blocks = across * down * groups
    splits = 1
    if blocks < task.processors:
        slices = -(-product.products // tile.k)
        splits = max(min(2 * task.processors // blocks, slices // DEEP), 1)
    d, splits = _describe(task, product, splits, tile.k, *bits(product, edges))
    at = task.ints.add(d)
    kernel = KERNELS[tile, product.weighted]
    calls = [Call(kernel, (across, down, groups * splits), tile.threads, at)]
    return [*calls, *_finish(product, splits, at)]


def _plan_direct(task: Task, product: Product) -> Calls:
    """The calls of a product of few rows or columns."""
    blocks = product.groups * product.rows * product.columns
    splits = 1
    if blocks < 2 * task.processors:
        deep = -(-product.products // (DEEP * THREADS))
        splits = max(min(-(-2 * task.processors // blocks), deep, MOST_PARTS), 1)
    d, splits = _describe(task, product, splits, 1, product.windows(), product.table)
    at = task.ints.add([*d, task.ints.add(product.size)])
    calls = [Call(product_direct, (blocks, splits, 1), THREADS, at)]
    return [*calls, *_finish(product, splits, at)]


def _finish(product: Product, splits: int, at: int) -> Calls:
    count = product.groups * product.rows * product.columns
    return [spread(product_finish, count, at)] if splits > 1 else []


def _describe(
    task: Task, product: Product, splits: int, deep: int, windows: Ints, table: Ints
) -> tuple[list[int], int]:
    """The descriptor, and into how many parts the sums are cut. deep: products of a slice."""
    slices = max(-(-product.products // deep), 1)
    part = -(-slices // splits) * deep
    splits = -(-slices * deep // part)
    partial = 0
    if splits > 1:
        partial = task.scratch(splits * product.groups * product.rows * product.columns)
    plane = prod(product.out)
    d = [product.rows, product.columns, product.products, part, splits, product.groups]
    d += [plane, *divmod(deep, plane), *product.left, *product.source]
    d += [task.ints.add(windows, align=4), task.ints.add(table, align=4)]
    d += [*product.target, product.bias, partial]
    assert len(d) == FIELDS
    return d, splits


def bits(product: Product, edges: list[tuple[int, int]]) -> tuple[Ints, Ints]:
    """The tables of the tiled kernel: of windows and of columns, with two words of edges each."""
    found = product.windows(), product.table
    tables = tuple(np.zeros_like(table) for table in found)
    for table, told in zip(tables, found, strict=True):
        table[:, 0] = told[:, 0]
    windows, columns = tables
    columns[:, 1] = OUTSIDE
    for i, (axis, far) in enumerate(edges):
        word, bit = divmod(i, EDGE_BITS)
        place = found[0][:, axis + 1] + far
        beyond = (place < 0) | (place >= product.size[axis])
        windows[:, 1 + word] |= np.where(beyond, 1 << bit, 0)
        columns[:, 1 + word] |= np.where(found[1][:, axis + 1] == far, 1 << bit, 0)
    return windows, columns
