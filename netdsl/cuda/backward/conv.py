"""How convolutions and transposed ones go back.

The gradient of a convolution's input is the transposed convolution of its output's gradient with
the same window and weights, and the other way round, so both are planned as the ways forward are.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
from numba import cuda, int32, uint32

from netdsl.cuda.activation import ends
from netdsl.cuda.backward.products import Product, plan_direct, plan_product
from netdsl.cuda.backward.task import BackPlaces, Calls, TrainedParams
from netdsl.cuda.conv import plan_conv, taps
from netdsl.cuda.layout import Buffer, axes, spread
from netdsl.cuda.task import Task
from netdsl.cuda.transposed import plan_transposed
from netdsl.graph import Node
from netdsl.ops import Conv, ConvTranspose

ZERO = np.float32(0)

SOURCE, SOURCE_BATCH, TARGET, TARGET_BATCH, COUNT = range(5)


@cuda.jit
def relu_back(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Zeroes the target where the source, a relu's output, is zero: grid (elements of a sample /
    threads, samples)."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    if i < ints[uint32(at + COUNT)]:
        y = arena[uint32(ints[uint32(at + SOURCE)] + n * ints[uint32(at + SOURCE_BATCH)] + i)]
        if y <= ZERO:
            to = int32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)] + i)
            arena[uint32(to)] = ZERO


def conv_back(task: Task, places: BackPlaces) -> Calls:
    """The calls of a convolution's way back; a relu may be fused into it."""
    op, x, g = task.whole.base, places.inputs[0], places.gradient
    assert isinstance(op, Conv)
    calls = bent(task, places)
    calls += bias_back(task, places)
    calls += weights_back(task, op, g, x, places.into["weight"])
    window = ConvTranspose(x.channels, op.window, (0,) * len(op.window.kernel), op.groups, False)
    return calls + _input_back(task, places, window)


def transposed_back(task: Task, places: BackPlaces) -> Calls:
    """The calls of a transposed convolution's way back."""
    op, x, g = task.whole.base, places.inputs[0], places.gradient
    assert isinstance(op, ConvTranspose)
    calls = bent(task, places)
    calls += bias_back(task, places)
    calls += weights_back(task, op, x, g, places.into["weight"])
    return calls + _input_back(task, places, Conv(x.channels, op.window, op.groups, False))


def bent(task: Task, places: BackPlaces) -> Calls:
    """What a relu in the layer makes of its gradient."""
    if task.whole.activation is None:
        return []
    g = places.gradient
    d = [*ends(places.output, g), g.sample]
    return [spread(relu_back, g.sample, task.ints.add(d), g.batch)]


def bias_back(task: Task, places: BackPlaces) -> Calls:
    """The bias's gradient: the sums of each filter's."""
    if "bias" not in places.into:
        return []
    g = places.gradient
    sums = Product(
        rows=g.channels,
        groups=1,
        samples=g.batch,
        out=g.size,
        left=(g.offset, g.batch_stride, g.plane, 0),
        source=(0, 0, 0),
        size=(0, 0, 0),
        stride=(0, 0, 0),
        start=(0, 0, 0),
        table=np.zeros((1, 4), np.int32),
        target=(places.into["bias"], 0, 1, 0),
    )
    return plan_direct(task, sums)


def weights_back(
    task: Task, op: Conv | ConvTranspose, centres: Buffer, cells: Buffer, into: int
) -> Calls:
    """The weights' gradient: for each filter and cell of the window the sum over all positions.

    centres: the tensor that has a value a window, cells: the one that the windows slide over.
    """
    w, groups = op.window, op.groups
    dilation = axes(w.dilation, 1)
    zs, ys, xs = (range(0, k * d, d) for k, d in zip(axes(w.kernel, 1), dilation, strict=True))
    z, y, x = axes((lo for lo, _ in w.padding), 0)
    rows, inside = centres.channels // groups, cells.channels // groups
    table = taps(cells.size, inside, list(product(zs, ys, xs)))
    columns = len(table)
    whole = Product(
        rows=rows,
        groups=groups,
        samples=centres.batch,
        out=centres.size,
        left=(centres.offset, centres.batch_stride, centres.plane, rows * centres.plane),
        source=(cells.offset, cells.batch_stride, inside * cells.plane),
        size=cells.size,
        stride=axes(w.stride, 1),
        start=(-z, -y, -x),
        table=table,
        target=(into, rows * columns, columns, 1),
    )
    return plan_product(task, whole)


def _input_back(task: Task, places: BackPlaces, op: Conv | ConvTranspose) -> Calls:
    """The input's gradient, by the convolution `op` of the output's."""
    target, g = places.gradients[0], places.gradient
    if target is None:
        return []
    node = Node(task.node.name, op, task.node.inputs, target.shape)
    weights = {"weight": task.weights["weight"]}
    back = replace(task, node=node, shapes=(g.shape,), inputs=(g,), output=target, weights=weights)
    plan = plan_conv if isinstance(op, Conv) else plan_transposed
    assert isinstance(task.params, TrainedParams)
    return task.params.record(back, places.weights, plan)
