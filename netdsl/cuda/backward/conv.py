"""How convolutions and transposed ones go back.

The gradient of a convolution's input is the transposed convolution of its output's gradient with
the same window and weights, and the other way round, so both are planned as the ways forward are.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from netdsl.cuda.backward.activation import relu_back
from netdsl.cuda.backward.depthwise import plan_strips, strip_for
from netdsl.cuda.backward.mixed import packed_here, plan_rounded, room_here, suits
from netdsl.cuda.backward.pack import plan_gradient
from netdsl.cuda.backward.products import Product, plan_product
from netdsl.cuda.backward.sums import bias_sums
from netdsl.cuda.backward.task import BackPlaces, Calls, TrainedParams
from netdsl.cuda.conv import conv_packs, plan_conv, taps
from netdsl.cuda.layout import Buffer, Call, axes, nowhere
from netdsl.cuda.packing import Packs
from netdsl.cuda.task import Task
from netdsl.cuda.transposed import plan_transposed, transposed_packs
from netdsl.graph import Node
from netdsl.ops import Conv, ConvTranspose


def conv_back(task: Task, places: BackPlaces) -> Calls:
    """The calls of the way back of a convolution, or a transposed one; a relu may be fused into
    it. On tensor cores the output's gradient is packed once for all."""
    x, g = places.inputs[0], places.gradient
    weights = _weights(task, g, places.into["weight"])
    back = _input_task(task, g, places.gradients[0])
    reads, rounds = back is not None and _packs(back).reads, suits(task, weights)
    calls, gradient = list[Call](), None
    if rounds and (reads or back is None) and _passes(task, places):
        gradient, task = room_here(task, g.shape)
        calls += plan_gradient(task, places, gradient)
    else:
        calls += bias_back(task, places)
        if reads or rounds:
            packing, gradient, task = packed_here(task, g, g.shape)
            calls += packing
    if back is not None:
        packed = gradient if reads else None
        calls += _input_back(places, replace(back, scratch=task.scratch, packed_input=packed))
    if gradient is None or not rounds:
        return calls + _exactly(task, places, weights)
    source = task.packed_input
    if source is None:
        packing, source, task = packed_here(task, x, x.shape)
        calls += packing
    turned = isinstance(task.whole.base, ConvTranspose)
    left, right = (source, gradient) if turned else (gradient, source)
    return calls + plan_rounded(task, weights, left, right)


def weights_from_packed(task: Task) -> bool:
    """Whether the gradient of weights is of the packed input."""
    return suits(task, _weights(task, task.output, 0))


def relu_from_packed(task: Task) -> bool:
    """Whether what a relu in the layer took is read of its packed output."""
    back = _input_task(task, task.output, nowhere(task.batch, task.shapes[0]))
    assert back is not None
    return weights_from_packed(task) and _packs(back).reads and task.output.plane > 1


def _passes(task: Task, places: BackPlaces) -> bool:
    """Whether packing the gradient goes together with a relu or the sums of a bias."""
    ends = "bias" in places.into or task.whole.activation is not None
    return ends and places.gradient.plane > 1


def bias_back(task: Task, places: BackPlaces) -> Calls:
    """The bias's gradient, the sums of each filter's; before it what a relu in the layer makes of
    its own."""
    g, y = places.gradient, places.output
    relu = None if task.whole.activation is None else y
    if "bias" in places.into:
        return bias_sums(task, g, places.into["bias"], relu)
    return [] if relu is None else [relu_back(task, g, y, g)]


def _weights(task: Task, g: Buffer, into: int) -> Product:
    """The gradient of the weights."""
    op, x = task.whole.base, task.inputs[0]
    if isinstance(op, Conv):
        return weights_product(op, g, x, into)
    assert isinstance(op, ConvTranspose)
    return weights_product(op, x, g, into)


def _exactly(task: Task, places: BackPlaces, weights: Product) -> Calls:
    """The gradient of the weights in float32."""
    op, x, g, into = task.whole.base, places.inputs[0], places.gradient, places.into["weight"]
    assert isinstance(op, Conv | ConvTranspose)
    centres, cells = (g, x) if isinstance(op, Conv) else (x, g)
    strip = strip_for(op, centres)
    if strip is None:
        return plan_product(task, weights)
    return plan_strips(task, op, strip, centres, cells, into)


def weights_product(op: Conv | ConvTranspose, centres: Buffer, cells: Buffer, into: int) -> Product:
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
    return Product(
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


def _input_task(task: Task, g: Buffer, target: Buffer | None) -> Task | None:
    """The convolution of the output's gradient that makes the input's, where that is wanted."""
    op, channels = task.whole.base, task.inputs[0].channels
    if target is None:
        return None
    window: Conv | ConvTranspose
    if isinstance(op, Conv):
        end = (0,) * len(op.window.kernel)
        window = ConvTranspose(channels, op.window, end, op.groups, False)
    else:
        assert isinstance(op, ConvTranspose)
        window = Conv(channels, op.window, op.groups, False)
    return replace(
        task,
        node=Node(task.node.name, window, task.node.inputs, target.shape),
        shapes=(g.shape,),
        inputs=(g,),
        output=target,
        weights={"weight": task.weights["weight"]},
        packed_output=None,
    )


def _packs(task: Task) -> Packs:
    is_conv = isinstance(task.whole.base, Conv)
    return conv_packs(task) if is_conv else transposed_packs(task)


def _input_back(places: BackPlaces, task: Task) -> Calls:
    plan = plan_conv if isinstance(task.whole.base, Conv) else plan_transposed
    assert isinstance(task.params, TrainedParams)
    return task.params.record(task, places.weights, plan)
