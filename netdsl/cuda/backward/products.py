"""How the products of the ways back are planned, for the kernels of product.py."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from netdsl.cuda.backward.product import (
    FIELDS,
    KERNELS,
    product_direct,
    product_finish,
)
from netdsl.cuda.backward.task import Calls
from netdsl.cuda.conv import Axes
from netdsl.cuda.layout import Call, spread
from netdsl.cuda.sizes import SQUARE, TALL, THREADS, Tile
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
    groups lie; size: its axes. table: a row a column (columns, 4). target: where the results go,
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

    @property
    def columns(self) -> int:
        return len(self.table)

    @property
    def products(self) -> int:
        """Of each sum."""
        return self.samples * prod(self.out)


def plan_product(task: Task, product: Product) -> Calls:
    """The calls of a product."""
    rows, columns, groups = product.rows, product.columns, product.groups
    if groups > 1 and min(rows, columns) < FEW and not product.weighted:
        return plan_direct(task, product)
    tile = SQUARE if rows <= SQUARE.m else TALL
    across, down = -(-columns // tile.n), -(-rows // tile.m)
    blocks = across * down * groups
    splits = 1
    if blocks < task.processors:
        slices = -(-product.products // tile.k)
        splits = max(min(2 * task.processors // blocks, slices // DEEP), 1)
    at, splits = _describe(task, product, splits, tile)
    kernel = KERNELS[tile, product.weighted]
    calls = [Call(kernel, (across, down, groups * splits), tile.threads, at)]
    return [*calls, *_finish(product, splits, at)]


def plan_direct(task: Task, product: Product) -> Calls:
    """The calls of a product of few rows and columns, or of sums of A alone."""
    blocks = product.groups * product.rows * product.columns
    splits = 1
    if blocks < 2 * task.processors:
        deep = -(-product.products // (DEEP * THREADS))
        splits = max(min(-(-2 * task.processors // blocks), deep, MOST_PARTS), 1)
    at, splits = _describe(task, product, splits, None)
    calls = [Call(product_direct, (blocks, splits, 1), THREADS, at)]
    return [*calls, *_finish(product, splits, at)]


def _finish(product: Product, splits: int, at: int) -> Calls:
    count = product.groups * product.rows * product.columns
    return [spread(product_finish, count, at)] if splits > 1 else []


def _describe(task: Task, product: Product, splits: int, tile: Tile | None) -> tuple[int, int]:
    """Where the descriptor is, and into how many parts the sums are cut."""
    deep = 1 if tile is None else tile.k
    slices = max(-(-product.products // deep), 1)
    part = -(-slices // splits) * deep
    splits = -(-slices * deep // part)
    partial = 0
    if splits > 1:
        partial = task.scratch(splits * product.groups * product.rows * product.columns)
    d = [product.rows, product.columns, product.products, part, splits, product.groups]
    d += [*product.out, *_jump(deep, product.out), *product.left, *product.source]
    d += [*product.size, *product.stride, *product.start, task.ints.add(product.table)]
    d += [*product.target, product.bias, partial]
    assert len(d) == FIELDS
    return task.ints.add(d), splits


def _jump(step: int, out: Axes) -> tuple[int, int, int, int]:
    """A step in samples, planes, rows and columns."""
    depth, height, width = out
    lines, x = divmod(step, width)
    planes, y = divmod(lines, height)
    n, z = divmod(planes, depth)
    return n, z, y, x
