"""How each op of the language is written as operators, a function a class."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from netdsl.formats.tflite import schema
from netdsl.formats.tflite.activations import elu, hard_sigmoid, prelu, silu
from netdsl.formats.tflite.arrange import padding, shuffle, upsample
from netdsl.formats.tflite.emit import Emitter, activated
from netdsl.formats.tflite.norms import batch_norm, group_norm, local_response_norm
from netdsl.formats.tflite.pools import (
    adaptive_average_pool,
    average_pool,
    global_average,
    global_max,
    max_pool,
)
from netdsl.formats.tflite.schema import Kind
from netdsl.formats.tflite.transposed import conv_transpose
from netdsl.formats.tflite.windows import bias, conv
from netdsl.graph import Node
from netdsl.ops import (
    AdaptiveAveragePool,
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Elu,
    Flatten,
    Gelu,
    GlobalAverage,
    GlobalMax,
    GroupNorm,
    HardSigmoid,
    HardSwish,
    InstanceNorm,
    LayerNorm,
    Leaky,
    Linear,
    LocalResponseNorm,
    LogSoftmax,
    MaxPool,
    Multiply,
    Op,
    Pad,
    PRelu,
    Relu,
    Relu6,
    Shuffle,
    Sigmoid,
    Silu,
    Softmax,
    Tanh,
    Upsample,
)

Write = Callable[[Emitter, Node, Any], None]


def simple(kind: Kind, settings: Callable[[Any], dict[str, Any]] = lambda op: {}) -> Write:
    """An op that is one operator of the same input."""

    def write(out: Emitter, node: Node, op: Any) -> None:
        out.op(kind, node.inputs, node.name, out.shapes[node.inputs[0]], **settings(op))

    return write


def linear(out: Emitter, node: Node, op: Linear) -> None:
    """On an image the weights' columns go channels last, as its cells lie."""
    x, weight = node.inputs[0], out.own(node)["weight"]
    shape = out.shapes[x]
    if len(shape) > 1:
        height, width, channels = shape
        by_cell = weight.reshape(op.filters, channels, height, width)
        weight = by_cell.transpose(0, 2, 3, 1).reshape(op.filters, prod(shape))
        x = out.reshape(x, f"{node.name}/flat", (prod(shape),))
    inputs = [x, out.constant(f"{node.name}/weight", weight), bias(out, node, op)]
    out.op(schema.FULLY_CONNECTED, inputs, node.name, (op.filters,), **activated(node))


def join(kind: Kind) -> Write:
    """A sum or product, two tensors at a time."""

    def write(out: Emitter, node: Node, op: Op) -> None:
        x, *others = node.inputs
        for i, other in enumerate(others, 1):
            last = i == len(others)
            options = activated(node) if last else {}
            sides = zip(out.shapes[x], out.shapes[other], strict=True)
            name = node.name if last else f"{node.name}/{i}"
            x = out.op(kind, [x, other], name, tuple(max(pair) for pair in sides), **options)

    return write


def concat(out: Emitter, node: Node, op: Concat) -> None:
    shapes = [out.shapes[name] for name in node.inputs]
    shape = (*shapes[0][:-1], sum(s[-1] for s in shapes))
    out.op(schema.CONCATENATION, node.inputs, node.name, shape, axis=len(shape))


def flatten(out: Emitter, node: Node, op: Flatten) -> None:
    out.flatten(node.inputs[0], node.name)


WRITE: dict[type[Op], Write] = {
    AdaptiveAveragePool: adaptive_average_pool,
    Add: join(schema.ADD),
    AveragePool: average_pool,
    BatchNorm: batch_norm,
    Concat: concat,
    Conv: conv,
    ConvTranspose: conv_transpose,
    Elu: elu,
    Flatten: flatten,
    Gelu: simple(schema.GELU, lambda op: {"approximate": op.form == "tanh"}),
    GlobalAverage: global_average,
    GlobalMax: global_max,
    GroupNorm: group_norm,
    HardSigmoid: hard_sigmoid,
    HardSwish: simple(schema.HARD_SWISH),
    InstanceNorm: group_norm,
    LayerNorm: group_norm,
    Leaky: simple(schema.LEAKY_RELU, lambda op: {"alpha": op.slope}),
    Linear: linear,
    LocalResponseNorm: local_response_norm,
    LogSoftmax: simple(schema.LOG_SOFTMAX),
    MaxPool: max_pool,
    Multiply: join(schema.MUL),
    PRelu: prelu,
    Pad: padding,
    Relu: simple(schema.RELU),
    Relu6: simple(schema.RELU6),
    Shuffle: shuffle,
    Sigmoid: simple(schema.LOGISTIC),
    Silu: silu,
    Softmax: simple(schema.SOFTMAX, lambda op: {"beta": 1.0}),
    Tanh: simple(schema.TANH),
    Upsample: upsample,
}
"""For each class of op of a lowered graph, what writes it."""
