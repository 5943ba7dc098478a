"""A convolution's arithmetic, and what its kernels are told of it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

from netdsl.cuda.layout import Buffer, Floats
from netdsl.cuda.rounding import PER_WORD
from netdsl.cuda.sizes import Tile
from netdsl.cuda.sums import EDGE_BITS, FIELDS, OUTSIDE
from netdsl.cuda.task import Ints, Task

Axes = tuple[int, int, int]
Edges = list[tuple[int, int]]


@dataclass(frozen=True)
class Sum:
    """A convolution's arithmetic: for each output position and filter a sum of products.

    size: the input's axes. out: output positions along each axis; the first window starts at
    `start`, the next `stride` further. taps: for each product how far its input value lies from
    the window's start, in memory and along each axis (K, 4). weights: (groups, K, filters).
    origin, steps: where in a sample of the output the first position goes, and how far apart
    positions lie along each axis. channels: of a group's input; taps come channel by channel, each
    with the same cells.
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
    channels: int

    @property
    def positions(self) -> int:
        """Output positions of a sample."""
        return prod(self.out)

    @property
    def cells(self) -> Ints:
        """Of a window, how far from its start along each axis (cells, 3)."""
        return self.taps[: len(self.taps) // self.channels, 1:]

    def edges(self) -> Edges:
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


class Operands(NamedTuple):
    """How the operands of a sum lie: of the input where it begins, how far apart samples, groups
    and cells lie, and its edges; the table, in ints, of so many products; of the weights where they
    begin, how far apart groups and rows lie."""

    source: tuple[int, int, int, int]
    edges: Edges
    table: int
    products: int
    weights: tuple[int, int, int]


class Ending(NamedTuple):
    """What becomes of sums: where in params their bias lies, the activation, its numbers."""

    bias: int
    kind: int
    numbers: int


class Cut(NamedTuple):
    """How a sum is shared out: the tile, into how many parts, how many slices each."""

    tile: Tile
    splits: int
    slices: int


class Parts(NamedTuple):
    """How a sum is cut: into how many parts, of so many slices each, which are kept where."""

    splits: int = 1
    slices: int = 1
    partial: int = 0


def describe(task: Task, whole: Sum, operands: Operands, ending: Ending, parts: Parts) -> int:
    """Where in ints the descriptor of a sum lies, see sums.py."""
    groups, _, filters = whole.weights.shape
    target = task.output
    begin, batch, group, cell = operands.source
    edges = task.ints.add(np.array(operands.edges, np.int32))
    d = [task.batch * whole.positions, *whole.out, operands.products, filters]
    d += [begin, batch, group, *whole.size, *whole.stride, *whole.start]
    d += [len(operands.edges), edges, operands.table, *operands.weights]
    d += [target.offset + whole.origin, target.batch_stride, target.plane, *whole.steps]
    d += [ending.bias, *_residual(task, whole), ending.kind, ending.numbers]
    d += [*parts, groups, cell, *_packed(task, whole)]
    assert len(d) == FIELDS
    return task.ints.add(d)


def _residual(task: Task, whole: Sum) -> tuple[int, int]:
    if not task.whole.residual:
        return -1, 0
    other: Buffer = task.inputs[1]
    return other.offset + whole.origin, other.batch_stride


def _packed(task: Task, whole: Sum) -> tuple[int, int, int, int]:
    target = task.packed_output
    if target is None:
        return -1, 0, 0, 1
    start = target.offset + whole.origin * target.cell
    return start, target.batch_stride, target.cell, PER_WORD[task.precision]


def splitting(blocks: int, slices: int, processors: int, deep: int) -> tuple[int, int]:
    """Into how many parts sums are cut, and the slices of each, where there are so few blocks that
    processors would idle; a part has `deep` slices at least."""
    splits = 1
    if blocks < processors:
        splits = max(min(2 * processors // blocks, slices // deep), 1)
    each = -(-slices // splits)
    return -(-slices // each), each


def bits(far: Ints, cells: Ints, edges: Edges, rows: int) -> Ints:
    """A table (rows, 4) of the tiled kernels, see gemm.py: of each product how far its value lies,
    and two words of the edges that its cell may lie beyond. Rows past the last lie outside."""
    table = np.zeros((rows, 4), np.int32)
    products = len(far)
    table[:products, 0] = far
    table[:, 1] = OUTSIDE
    table[products:, 2] = OUTSIDE
    for e, (axis, distance) in enumerate(edges):
        word, bit = divmod(e, EDGE_BITS)
        table[:products, 1 + word] |= np.where(cells[:, axis] == distance, 1 << bit, 0)
    return table


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
