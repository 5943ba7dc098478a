"""How each op of the language is written as ONNX nodes, a function a class.

A node keeps its name and its result has that name too; what it needs beside is called `NAME/…`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper

from netdsl.formats.onnx.take.arrange import equation, means
from netdsl.graph import Graph, Node
from netdsl.ops import (
    AdaptiveAveragePool,
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Dropout,
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
    Norm,
    Op,
    Pad,
    PRelu,
    Relu,
    Relu6,
    Shape,
    Shuffle,
    Sigmoid,
    Silu,
    Softmax,
    Tanh,
    Upsample,
    Window,
)

Array = npt.NDArray[Any]
OPSET = 21
"""The first in which a group norm has a scale a channel."""


class Emitter:
    """Nodes and tensors of an ONNX graph while they are made."""

    def __init__(self, graph: Graph, weights: Mapping[str, Array]) -> None:
        self.graph, self.weights = graph, weights
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []

    def add(self, node: Node) -> None:
        """Writes a node of the graph."""
        EMIT[type(node.op)](self, node, node.op)

    def node(
        self, kind: str, inputs: tuple[str, ...], output: str, attributes: Mapping[str, Any]
    ) -> str:
        """A node that is called as its result is."""
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def constant(self, name: str, values: Array) -> str:
        self.tensors.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def parameter(self, node: Node, name: str) -> str:
        """A parameter of the node, by its full name."""
        full = f"{node.name}.{name}"
        values = self.weights[full].astype(np.float32, copy=False)
        return self.constant(full, values)

    def parameters(self, node: Node, *names: str) -> tuple[str, ...]:
        return tuple(self.parameter(node, name) for name in names)

    def input_shape(self, node: Node) -> Shape:
        return self.graph[node.inputs[0]].shape


def window(w: Window) -> dict[str, Any]:
    """The attributes of a window."""
    pads = [lo for lo, _ in w.padding] + [hi for _, hi in w.padding]
    return {
        "kernel_shape": w.kernel,
        "strides": w.stride,
        "dilations": w.dilation,
        "pads": pads,
    }


def simple(kind: str, settings: Callable[[Any], dict[str, Any]] = lambda op: {}) -> Emit:
    """An op that is one ONNX node of the same inputs."""

    def emit(out: Emitter, node: Node, op: Any) -> None:
        out.node(kind, node.inputs, node.name, settings(op))

    return emit


def conv(out: Emitter, node: Node, op: Conv | ConvTranspose) -> None:
    params = out.parameters(node, "weight", *(("bias",) if op.bias else ()))
    attributes = {**window(op.window), "group": op.groups}
    if isinstance(op, ConvTranspose):
        attributes["output_padding"] = op.out_pad
    kind = "ConvTranspose" if isinstance(op, ConvTranspose) else "Conv"
    out.node(kind, (*node.inputs, *params), node.name, attributes)


def linear(out: Emitter, node: Node, op: Linear) -> None:
    x = node.inputs[0]
    if len(out.input_shape(node)) > 1:
        x = out.node("Flatten", (x,), f"{node.name}/flatten", {})
    params = out.parameters(node, "weight", *(("bias",) if op.bias else ()))
    out.node("Gemm", (x, *params), node.name, {"transB": 1})


def average_pool(out: Emitter, node: Node, op: AveragePool) -> None:
    attributes = {**pool(op), "count_include_pad": int(op.count_pad)}
    out.node("AveragePool", node.inputs, node.name, attributes)


def pool(op: MaxPool | AveragePool) -> dict[str, Any]:
    return {**window(op.window), "ceil_mode": int(op.window.ceil)}


def adaptive_average_pool(out: Emitter, node: Node, op: AdaptiveAveragePool) -> None:
    """ONNX has no such pool: a matrix of means for each spatial axis."""
    spatial = out.input_shape(node)[1:]
    matrices = tuple(
        out.constant(f"{node.name}/means{i}", matrix) for i, matrix in enumerate(means(op, spatial))
    )
    attributes = {"equation": equation(len(spatial))}
    out.node("Einsum", (*node.inputs, *matrices), node.name, attributes)


def scale_and_shift(out: Emitter, node: Node, op: Norm) -> tuple[str, str]:
    """A normalisation's parameters, or ones and zeros where it has none."""
    if op.affine:
        return out.parameter(node, "weight"), out.parameter(node, "bias")
    channels = out.input_shape(node)[0]
    ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    return out.constant(f"{node.name}/ones", ones), out.constant(f"{node.name}/zeros", zeros)


def batch_norm(out: Emitter, node: Node, op: BatchNorm) -> None:
    params = (*scale_and_shift(out, node, op), *out.parameters(node, "mean", "var"))
    attributes = {"epsilon": op.eps, "momentum": 1 - op.momentum}
    out.node("BatchNormalization", (*node.inputs, *params), node.name, attributes)


def instance_norm(out: Emitter, node: Node, op: InstanceNorm) -> None:
    params = scale_and_shift(out, node, op)
    out.node("InstanceNormalization", (*node.inputs, *params), node.name, {"epsilon": op.eps})


def group_norm(out: Emitter, node: Node, op: GroupNorm | LayerNorm) -> None:
    """A layer norm over channels and space is a group norm of one group."""
    groups = op.groups if isinstance(op, GroupNorm) else 1
    params = scale_and_shift(out, node, op)
    if len(out.input_shape(node)) == 1 and groups == 1:
        attributes: dict[str, Any] = {"axis": 1, "epsilon": op.eps}
        out.node("LayerNormalization", (*node.inputs, *params), node.name, attributes)
        return
    attributes = {"num_groups": groups, "epsilon": op.eps}
    out.node("GroupNormalization", (*node.inputs, *params), node.name, attributes)


def local_response_norm(out: Emitter, node: Node, op: LocalResponseNorm) -> None:
    """onnxruntime takes images alone, so other data are written as an image."""
    attributes = {"size": op.size, "alpha": op.alpha, "beta": op.beta, "bias": op.k}
    channels, *spatial = node.shape
    if len(spatial) == 2:
        out.node("LRN", node.inputs, node.name, attributes)
        return
    image = np.array([0, channels, 1, prod(spatial)], np.int64)
    shape = out.constant(f"{node.name}/image_shape", image)
    x = out.node("Reshape", (*node.inputs, shape), f"{node.name}/image", {})
    x = out.node("LRN", (x,), f"{node.name}/lrn", attributes)
    shape = out.constant(f"{node.name}/shape", np.array([0, *node.shape], np.int64))
    out.node("Reshape", (x, shape), node.name, {})


def prelu(out: Emitter, node: Node, op: PRelu) -> None:
    shape = out.input_shape(node)
    slope = out.weights[f"{node.name}.weight"].astype(np.float32, copy=False)
    slope = slope.reshape(shape[0], *(1 for _ in shape[1:]))
    name = out.constant(f"{node.name}.weight", slope)
    out.node("PRelu", (*node.inputs, name), node.name, {})


def relu6(out: Emitter, node: Node, op: Relu6) -> None:
    low = out.constant(f"{node.name}/min", np.array(0, np.float32))
    high = out.constant(f"{node.name}/max", np.array(6, np.float32))
    out.node("Clip", (*node.inputs, low, high), node.name, {})


def silu(out: Emitter, node: Node, op: Silu) -> None:
    gate = out.node("Sigmoid", node.inputs, f"{node.name}/sigmoid", {})
    out.node("Mul", (*node.inputs, gate), node.name, {})


def dropout(out: Emitter, node: Node, op: Dropout) -> None:
    rate = out.constant(f"{node.name}/ratio", np.array(op.rate, np.float32))
    out.node("Dropout", (*node.inputs, rate), node.name, {})


def upsample(out: Emitter, node: Node, op: Upsample) -> None:
    scales = out.constant(f"{node.name}/scales", np.array([1, 1, *op.factor], np.float32))
    if op.mode == "nearest":
        attributes = {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        }
    else:
        attributes = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    out.node("Resize", (*node.inputs, "", scales), node.name, attributes)


def pad(out: Emitter, node: Node, op: Pad) -> None:
    before, after = ([pair[i] for pair in op.amount] for i in (0, 1))
    amounts = np.array([0, 0, *before, 0, 0, *after], np.int64)
    inputs = [*node.inputs, out.constant(f"{node.name}/pads", amounts)]
    if op.value != 0:
        inputs.append(out.constant(f"{node.name}/value", np.array(op.value, np.float32)))
    out.node("Pad", tuple(inputs), node.name, {"mode": op.mode})


def shuffle(out: Emitter, node: Node, op: Shuffle) -> None:
    """The channels as a table, transposed."""
    channels, *spatial = node.shape
    split = np.array([0, op.groups, channels // op.groups, prod(spatial)], np.int64)
    whole = np.array([0, channels, *spatial], np.int64)
    shape = out.constant(f"{node.name}/split_shape", split)
    x = out.node("Reshape", (*node.inputs, shape), f"{node.name}/split", {})
    x = out.node("Transpose", (x,), f"{node.name}/swap", {"perm": [0, 2, 1, 3]})
    shape = out.constant(f"{node.name}/shape", whole)
    out.node("Reshape", (x, shape), node.name, {})


def multiply(out: Emitter, node: Node, op: Multiply) -> None:
    x, *others = node.inputs
    for i, other in enumerate(others, 1):
        last = i == len(others)
        x = out.node("Mul", (x, other), node.name if last else f"{node.name}/{i}", {})


def gelu(op: Gelu) -> dict[str, Any]:
    return {"approximate": "tanh" if op.form == "tanh" else "none"}


Emit = Callable[[Emitter, Node, Any], None]

EMIT: dict[type[Op], Emit] = {
    AdaptiveAveragePool: adaptive_average_pool,
    Add: simple("Sum"),
    AveragePool: average_pool,
    BatchNorm: batch_norm,
    Concat: simple("Concat", lambda op: {"axis": 1}),
    Conv: conv,
    ConvTranspose: conv,
    Dropout: dropout,
    Elu: simple("Elu", lambda op: {"alpha": op.alpha}),
    Flatten: simple("Flatten"),
    Gelu: simple("Gelu", gelu),
    GlobalAverage: simple("GlobalAveragePool"),
    GlobalMax: simple("GlobalMaxPool"),
    GroupNorm: group_norm,
    HardSigmoid: simple("HardSigmoid", lambda op: {"alpha": op.slope, "beta": op.offset}),
    HardSwish: simple("HardSwish"),
    InstanceNorm: instance_norm,
    LayerNorm: group_norm,
    Leaky: simple("LeakyRelu", lambda op: {"alpha": op.slope}),
    Linear: linear,
    LocalResponseNorm: local_response_norm,
    LogSoftmax: simple("LogSoftmax", lambda op: {"axis": 1}),
    MaxPool: simple("MaxPool", pool),
    Multiply: multiply,
    PRelu: prelu,
    Pad: pad,
    Relu: simple("Relu"),
    Relu6: relu6,
    Shuffle: shuffle,
    Sigmoid: simple("Sigmoid"),
    Silu: silu,
    Softmax: simple("Softmax", lambda op: {"axis": 1}),
    Tanh: simple("Tanh"),
    Upsample: upsample,
}
"""For each class of op, what writes it."""
