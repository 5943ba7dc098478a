"""How convolutions and transposed ones go back.

The gradient of a convolution's input is the transposed convolution of its output's gradient with
the same window and weights, and the other way round, so both are planned as the ways forward are.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from netdsl.cuda.backward.activation import relu_back
from netdsl.cuda.backward.depthwise import plan_strips, strip_for
from netdsl.cuda.backward.mixed import plan_rounded, suits
from netdsl.cuda.backward.products import Product, plan_product
from netdsl.cuda.backward.sums import bias_sums
from netdsl.cuda.backward.task import BackPlaces, Calls, TrainedParams
from netdsl.cuda.conv import plan_conv, taps
from netdsl.cuda.layout import Buffer, axes
from netdsl.cuda.task import Task
from netdsl.cuda.transposed import plan_transposed
from netdsl.graph import Node
from netdsl.ops import Conv, ConvTranspose


def conv_back(task: Task, places: BackPlaces) -> Calls:
    """The calls of a convolution's way back; a relu may be fused into it."""
    op, x, g = task.whole.base, places.inputs[0], places.gradient
    assert isinstance(op, Conv)
    calls = bias_back(task, places)
    calls += weights_back(task, op, g, x, places.into["weight"])
    window = ConvTranspose(x.channels, op.window, (0,) * len(op.window.kernel), op.groups, False)
    return calls + _input_back(task, places, window)


def transposed_back(task: Task, places: BackPlaces) -> Calls:
    """The calls of a transposed convolution's way back."""
    op, x, g = task.whole.base, places.inputs[0], places.gradient
    assert isinstance(op, ConvTranspose)
    calls = bias_back(task, places)
    calls += weights_back(task, op, x, g, places.into["weight"])
    return calls + _input_back(task, places, Conv(x.channels, op.window, op.groups, False))


def bias_back(task: Task, places: BackPlaces) -> Calls:
    """The bias's gradient, the sums of each filter's; before it what a relu in the layer makes of
    its own."""
    g, y = places.gradient, places.output
    relu = None if task.whole.activation is None else y
    if "bias" in places.into:
        return bias_sums(task, g, places.into["bias"], relu)
    return [] if relu is None else [relu_back(task, g, y, g)]


def weights_back(
    task: Task, op: Conv | ConvTranspose, centres: Buffer, cells: Buffer, into: int
) -> Calls:
    """The weights' gradient: for each filter and cell of the window the sum over all positions.

    centres: the tensor that has a value a window, cells: the one that the windows slide over.
    """
    strip = strip_for(op, centres)
    if strip is not None:
        return plan_strips(task, op, strip, centres, cells, into)
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
        channels=inside,
    )
    if suits(task, whole):
        left, right = (centres.channels, *centres.size), (cells.channels, *cells.size)
        return plan_rounded(task, whole, (centres, left), (cells, right))
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
