"""How convolutions are planned: tables and packed weights for the kernels of gemm.py."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from netdsl.cuda.activation import numbers
from netdsl.cuda.direct import conv_direct, conv_finish
from netdsl.cuda.gemm import EDGE_BITS, KERNELS, MOST_EDGES, OUTSIDE
from netdsl.cuda.layout import Buffer, Call, Floats, axes, spread
from netdsl.cuda.sizes import MEDIUM, NARROW, SQUARE, WIDE, Tile
from netdsl.cuda.sums import FIELDS
from netdsl.cuda.task import Ints, Task
from netdsl.ops import Conv

Axes = tuple[int, int, int]

FEW = 16
"""Filters of a group below which a tile would be mostly empty."""

DEEP = 16
"""Slices that each block of a split sum should have at least."""


@dataclass(frozen=True)
class Sum:
    """A convolution's arithmetic: for each output position and filter a sum of products.

    size: the input's axes. out: output positions along each axis; the first window starts at
    `start`, the next `stride` further. taps: for each product how far its input value lies from
    the window's start, in memory and along each axis (K, 4). weights: (groups, K, filters).
    origin, steps: where in a sample of the output the first position goes, and how far apart
    positions lie along each axis.
    """

    size: Axes
    out: Axes
    stride: Axes
    start: Axes
    taps: Ints
    weights: Floats
    origin: int
    steps: Axes
    group_floats: int

    @property
    def positions(self) -> int:
        """Output positions of a sample."""
        return prod(self.out)

    def edges(self) -> list[tuple[int, int]]:
        """An axis and a distance along it: of the cells that lie outside for some window."""
        return [
            (axis, int(far))
            for axis in range(3)
            for far in np.unique(self.taps[:, axis + 1])
            if not self._always_inside(axis, int(far))
        ]

    def _always_inside(self, axis: int, far: int) -> bool:
        first = self.start[axis] + far
        return first >= 0 and first + (self.out[axis] - 1) * self.stride[axis] < self.size[axis]


class Cut(NamedTuple):
    """How a sum is shared out: the tile, into how many parts, how many slices each."""

    tile: Tile
    splits: int
    slices: int


def plan_conv(task: Task) -> list[Call]:
    """A convolution with what is fused into it."""
    op, source, target = task.whole.base, task.inputs[0], task.output
    assert isinstance(op, Conv)
    w, size = op.window, source.size
    inside = source.channels // op.groups
    dilation = axes(w.dilation, 1)
    reach = (range(0, k * d, d) for k, d in zip(axes(w.kernel, 1), dilation, strict=True))
    zs, ys, xs = reach
    weights = task.weights["weight"].reshape(op.groups, op.filters // op.groups, -1)
    _, height, width = target.size
    whole = Sum(
        size=size,
        out=target.size,
        stride=axes(w.stride, 1),
        start=_negative(axes((lo for lo, _ in w.padding), 0)),
        taps=taps(size, inside, list(product(zs, ys, xs))),
        weights=weights.transpose(0, 2, 1),
        origin=0,
        steps=(height * width, width, 1),
        group_floats=inside * source.plane,
    )
    return plan_sums(task, [whole])


def _negative(values: Axes) -> Axes:
    z, y, x = values
    return -z, -y, -x


def taps(size: Axes, channels: int, cells: list[Axes]) -> Ints:
    """The table for these cells of a window in every channel: channels first, as weights lie."""
    _, height, width = size
    at = np.array(cells, np.int64).reshape(-1, 3)
    inside = (at[:, 0] * height + at[:, 1]) * width + at[:, 2]
    offsets = np.arange(channels)[:, None] * prod(size) + inside
    table = np.empty((channels, len(at), 4), np.int32)
    table[..., 0] = offsets
    table[..., 1:] = at
    return table.reshape(-1, 4)


def plan_sums(task: Task, sums: list[Sum]) -> list[Call]:
    """The calls of sums that make up one output, each with bias, residual and activation."""
    kind, values = numbers(task.whole.activation)
    filters = sums[0].weights.shape[0] * sums[0].weights.shape[2]
    bias = task.weights.get("bias", np.zeros(filters, np.float32))
    ending = (task.params.add(bias), kind, task.params.add(values))
    return [call for each in sums for call in _plan_sum(task, each, ending)]


def _plan_sum(task: Task, whole: Sum, ending: tuple[int, int, int]) -> list[Call]:
    groups, products, filters = whole.weights.shape
    positions = task.batch * whole.positions
    if (groups > 1 and filters < FEW) or len(whole.edges()) > MOST_EDGES:
        d = describe(task, whole, ending, None)
        return [spread(conv_direct, positions * groups * filters, task.ints.add(d))]
    cut = choose(positions, filters, groups, products, task.processors)
    tile, splits, _ = cut
    at = task.ints.add(describe(task, whole, ending, cut))
    grid = (-(-positions // tile.m), -(-filters // tile.n), groups * splits)
    calls = [Call(KERNELS[tile], grid, tile.threads, at)]
    if splits > 1:
        calls.append(spread(conv_finish, positions * groups * filters, at))
    return calls


def choose(positions: int, filters: int, groups: int, products: int, processors: int) -> Cut:
    """The tile that fits the filters, a smaller one where there would be too few blocks, and the
    sum cut where there still are."""
    tile = NARROW if filters <= NARROW.n else MEDIUM if filters <= MEDIUM.n else WIDE

    def count(tile: Tile) -> int:
        return -(-positions // tile.m) * -(-filters // tile.n) * groups

    if filters > NARROW.n and count(tile) < 2 * processors:
        tile = SQUARE
    slices = max(-(-products // tile.k), 1)
    splits = 1
    if count(tile) < processors:
        splits = max(min(2 * processors // count(tile), slices // DEEP), 1)
    each = -(-slices // splits)
    return Cut(tile, -(-slices // each), each)


def describe(task: Task, whole: Sum, ending: tuple[int, int, int], cut: Cut | None) -> list[int]:
    """The descriptor of a sum, see gemm.py; without a cut, of one for `conv_direct`."""
    groups, _, filters = whole.weights.shape
    row, splits, slices, edges = filters, 1, 1, list[tuple[int, int]]()
    table = whole.taps
    if cut is not None:
        tile, splits, slices = cut
        row = -(-filters // tile.n) * tile.n
        edges = whole.edges()
        table = bits(whole.taps, edges, tile.k)
    deep = len(table)
    source, target = task.inputs[0], task.output
    positions = task.batch * whole.positions
    scratch = task.scratch(splits * groups * filters * positions) if splits > 1 else 0
    bias, kind, values = ending
    d = [positions, *whole.out, deep, filters]
    d += [source.offset, source.batch_stride, whole.group_floats, *whole.size]
    d += [*whole.stride, *whole.start, len(edges), task.ints.add(np.array(edges, np.int32))]
    d += [task.ints.add(table, align=4)]
    d += [task.params.add(_packed(whole.weights, deep, row)), deep * row, row]
    d += [target.offset + whole.origin, target.batch_stride, target.plane, *whole.steps]
    d += [bias, *_residual(task, whole), kind, values, splits, slices, scratch, groups]
    assert len(d) == FIELDS
    return d


def bits(taps: Ints, edges: list[tuple[int, int]], deep: int) -> Ints:
    """The table of the tiled kernel, see gemm.py, up to full slices: of each product how far its
    value lies, and two words of the edges that it may lie beyond."""
    products = len(taps)
    table = np.zeros((max(-(-products // deep), 1) * deep, 4), np.int32)
    table[:products, 0] = taps[:, 0]
    table[:, 1] = OUTSIDE
    table[products:, 2] = OUTSIDE
    for e, (axis, far) in enumerate(edges):
        word, bit = divmod(e, EDGE_BITS)
        table[:products, 1 + word] |= np.where(taps[:, axis + 1] == far, 1 << bit, 0)
    return table


def _residual(task: Task, whole: Sum) -> tuple[int, int]:
    if not task.whole.residual:
        return -1, 0
    other: Buffer = task.inputs[1]
    return other.offset + whole.origin, other.batch_stride


def _packed(weights: Floats, deep: int, row: int) -> NDArray[np.float32]:
    """The matrices with zeros up to full tiles."""
    groups, products, filters = weights.shape
    packed = np.zeros((groups, deep, row), np.float32)
    packed[:, :products, :filters] = weights
    return packed
