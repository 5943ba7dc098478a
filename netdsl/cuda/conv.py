"""How convolutions are planned: tables and packed weights for the kernels of gemm.py, or by `mixed`
for those of tensor.py, or by `winograd`."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from netdsl.cuda.activation import numbers
from netdsl.cuda.choice import Pace, Way, quickest
from netdsl.cuda.depthwise import plan_strip, strip_for
from netdsl.cuda.describe import (
    Axes,
    Cut,
    Ending,
    Operands,
    Parts,
    Sum,
    bits,
    describe,
    taps,
)
from netdsl.cuda.direct import conv_direct, plan_adding
from netdsl.cuda.gemm import KERNELS
from netdsl.cuda.layout import Call, Floats, axes, spread
from netdsl.cuda.mixed import packs, plan_mixed, suit
from netdsl.cuda.packing import Packs
from netdsl.cuda.sizes import CUBE, MEDIUM, NARROW, WIDE, Tile
from netdsl.cuda.sums import MOST_EDGES
from netdsl.cuda.task import Task
from netdsl.cuda.winograd import Chunks, layer_of, plan_winograd, quicker, suits, takes_pool
from netdsl.cuda.winograd_costs import Card
from netdsl.ops import Conv, MaxPool

__all__ = ["Axes", "Sum", "choose", "plan_conv", "plan_sums", "taps"]

FEW = 16
"""Filters of a group below which a tile would be mostly empty."""

DEEP = 8
"""Slices that each block of a split sum should have at least."""

PACES = {
    WIDE: Pace(each=1220, alone=1400, ends=6000, held=2),
    MEDIUM: Pace(each=650, alone=800, ends=8000, held=4),
    NARROW: Pace(each=374, alone=700, ends=5000, held=4),
    CUBE: Pace(each=696, alone=900, ends=3500, held=2),
}


def plan_conv(task: Task) -> list[Call]:
    """A convolution with what is fused into it."""
    return plan_sums(task, [_sum_of(task)])


def conv_packs(task: Task) -> Packs:
    """What its kernels do with packed tensors."""
    return packs(task, [_sum_of(task)])


def pools(task: Task, pool: MaxPool) -> bool:
    """Whether a convolution takes over the max pool after it: by Winograd's algorithm alone."""
    if task.exact or task.whole.residual or not isinstance(task.whole.base, Conv):
        return False
    whole = _sum_of(task)
    return takes_pool(whole, pool) and not suit(task, [whole]) and _quick(task, whole) is not None


def _sum_of(task: Task) -> Sum:
    op, source, out = task.whole.base, task.inputs[0], task.made
    assert isinstance(op, Conv)
    w, size = op.window, source.size
    inside = source.channels // op.groups
    dilation = axes(w.dilation, 1)
    reach = (range(0, k * d, d) for k, d in zip(axes(w.kernel, 1), dilation, strict=True))
    zs, ys, xs = reach
    weights = task.weights["weight"].reshape(op.groups, op.filters // op.groups, -1)
    _, height, width = out
    return Sum(
        size=size,
        out=out,
        stride=axes(w.stride, 1),
        start=_negative(axes((lo for lo, _ in w.padding), 0)),
        taps=taps(size, inside, list(product(zs, ys, xs))),
        weights=weights.transpose(0, 2, 1),
        origin=0,
        steps=(height * width, width, 1),
        group_floats=inside * source.plane,
        channels=inside,
    )


def _negative(values: Axes) -> Axes:
    z, y, x = values
    return -z, -y, -x


def plan_sums(task: Task, sums: list[Sum]) -> list[Call]:
    """The calls of sums that make up one output, each with bias, residual and activation."""
    ending = plan_ending(task, sums[0].weights.shape[0] * sums[0].weights.shape[2])
    if suit(task, sums):
        return plan_mixed(task, sums, ending)
    return [call for each in sums for call in _plan_sum(task, each, ending)]


def plan_ending(task: Task, filters: int) -> Ending:
    """What becomes of the sums of so many filters of all groups."""
    kind, values = numbers(task.whole.activation)
    bias = task.weights.get("bias", np.zeros(filters, np.float32))
    return Ending(task.params.add(bias), kind, task.params.add(values))


def _plan_sum(task: Task, whole: Sum, ending: Ending) -> list[Call]:
    groups, _, filters = whole.weights.shape
    positions = task.batch * whole.positions
    outputs = positions * groups * filters
    few = groups > 1 and filters < FEW
    strip = strip_for(whole) if few else None
    if strip is not None:
        return [plan_strip(task, whole, strip, ending)]
    if few or len(whole.edges()) > MOST_EDGES:
        at = describe(task, whole, _operands(task, whole, None), ending, Parts())
        return [spread(conv_direct, outputs, at)]
    way = _quick(task, whole)
    if way is not None:
        return plan_winograd(task, whole, ending, way)
    tile, splits, slices = _cut(task, whole)
    partial = task.scratch(splits * outputs) if splits > 1 else 0
    parts = Parts(splits, slices, partial)
    at = describe(task, whole, _operands(task, whole, tile), ending, parts)
    grid = (-(-positions // tile.m), -(-filters // tile.n), groups * splits)
    calls = [Call(KERNELS[tile], grid, tile.threads, at)]
    return [*calls, plan_adding(task, whole, partial, at)] if splits > 1 else calls


def _cut(task: Task, whole: Sum) -> Cut:
    groups, products, filters = whole.weights.shape
    return choose(task.batch * whole.positions, filters, groups, products, task.processors)


def _quick(task: Task, whole: Sum) -> Chunks | None:
    """How Winograd's algorithm does it, where it may and is reckoned to take less time."""
    if task.exact or not suits(whole):
        return None
    card = Card(task.processors, task.bandwidth)
    return quicker(layer_of(task, whole), _cut(task, whole), card)


def choose(positions: int, filters: int, groups: int, products: int, processors: int) -> Cut:
    """The tile and the cut that are reckoned to take least."""
    ways = {
        tile: Way(
            -(-positions // tile.m) * -(-filters // tile.n) * groups,
            max(-(-products // tile.k), 1),
        )
        for tile in PACES
    }
    return Cut(*quickest(ways, PACES, positions * filters * groups, processors, DEEP))


def _operands(task: Task, whole: Sum, tile: Tile | None) -> Operands:
    """For a tile, or for `conv_direct`."""
    source, row, edges, table = task.inputs[0], whole.weights.shape[2], whole.edges(), whole.taps
    if tile is None:
        edges = []
    else:
        row = -(-row // tile.n) * tile.n
        rows = max(-(-len(table) // tile.k), 1) * tile.k
        table = bits(table[:, 0], table[:, 1:], edges, rows)
    deep = len(table)
    return Operands(
        (source.offset, source.batch_stride, whole.group_floats, 1),
        edges,
        task.ints.add(table, align=4),
        deep,
        (task.params.add(_packed(whole.weights, deep, row)), deep * row, row),
    )


def _packed(weights: Floats, deep: int, row: int) -> NDArray[np.float32]:
    """The matrices with zeros up to full tiles."""
    groups, products, filters = weights.shape
    packed = np.zeros((groups, deep, row), np.float32)
    packed[:, :products, :filters] = weights
    return packed
