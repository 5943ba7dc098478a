"""Writes a graph as ncnn's two files: layers as text (.param), weights as they lie (.bin).

The formats are described in ncnn's wiki (param-and-model-file-structure, operators). Norms are
folded and activations fused, as ncnn's own optimiser does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netdsl.bench.engine import Unfit
from netdsl.formats.atomic import called
from netdsl.graph import Graph, Node
from netdsl.graph.fused import Fused, fuse, parts
from netdsl.graph.passes import lowered, own_weights
from netdsl.ops import (
    Activation,
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Elu,
    Flatten,
    GlobalAverage,
    GlobalMax,
    Input,
    Leaky,
    Linear,
    LocalResponseNorm,
    MaxPool,
    Multiply,
    Op,
    Relu,
    Relu6,
    Sigmoid,
    Silu,
    Softmax,
    Tanh,
    Upsample,
    Window,
)

MAGIC = 7767517
Array = NDArray[np.float32]
Settings = dict[int, Any]


class Layer(NamedTuple):
    """ncnn's name of a layer, its numbered settings, and its weights' bytes."""

    kind: str
    settings: Settings
    data: bytes = b""


@dataclass(frozen=True)
class Written:
    """The files, and the blob that holds each input and output."""

    param: Path
    model: Path
    blobs: dict[str, str]


def write(graph: Graph, weights: Mapping[str, Array], folder: Path) -> Written:
    """Writes both files into a folder. Raises Unfit for what ncnn has no layer for."""
    low, folded = lowered(graph, weights, lambda g: fuse(g, _takes))
    lines: list[str] = []
    blobs: dict[str, str] = {}
    data: list[bytes] = []
    unread = {node.name: _uses(low, node) for node in low}
    count = 0
    for node in low:
        given = [unread[name].pop(0) for name in node.inputs]
        layer = _layer(low, node, folded)
        lines.append(_line(layer, node.name, given, [node.name]))
        data.append(layer.data)
        count += 1
        copies = unread[node.name]
        if len(copies) > 1:
            lines.append(_line(Layer("Split", {}), f"{node.name}/split", [node.name], copies))
            count += len(copies)
    for asked, held in zip(graph.outputs, low.outputs, strict=True):
        blobs[asked] = unread[held].pop(0)
    blobs |= {name: name for name in low.inputs}
    param, model = (folder / called(graph.name, ending) for ending in (".param", ".bin"))
    param.write_text("\n".join([str(MAGIC), f"{len(lines)} {count}", *lines]) + "\n")
    model.write_bytes(b"".join(data))
    return Written(param, model, blobs)


def _takes(op: Op, residual: bool, activation: Activation | None) -> bool:
    layers = isinstance(op, Conv | ConvTranspose | Linear)
    return layers and not residual and isinstance(activation, Relu | Relu6 | Leaky)


def _uses(graph: Graph, node: Node) -> list[str]:
    """A blob for each reader: ncnn wants copies where there are several."""
    readers = len(graph.consumers[node.name]) + graph.outputs.count(node.name)
    if readers < 2:
        return [node.name]
    return [f"{node.name}/{i}" for i in range(readers)]


def _line(layer: Layer, name: str, given: list[str], made: list[str]) -> str:
    numbers = [f"{key}={_value(value)}" for key, value in layer.settings.items()]
    sizes = [str(len(given)), str(len(made))]
    return " ".join([layer.kind, name, *sizes, *given, *made, *numbers])


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ",".join([str(len(value)), *map(_value, value)])
    return f"{value:.9e}" if isinstance(value, float) else str(value)


def _layer(graph: Graph, node: Node, weights: Mapping[str, Array]) -> Layer:
    """What computes a node. Raises Unfit."""
    if isinstance(node.op, Input):
        return Layer("Input", {})
    whole = parts(node)
    own = own_weights(graph, node, whole.source, weights)
    op = whole.base
    shapes = graph.input_shapes(node)
    if any(len(shape) not in (1, 3) for shape in shapes):
        raise Unfit("it is written for ncnn in two dimensions only")
    if isinstance(op, Conv):
        return _conv(op, whole, own)
    if isinstance(op, ConvTranspose):
        return _conv_transpose(op, whole, own)
    if isinstance(op, Linear):
        settings = {0: op.filters, 1: int(op.bias), 2: own["weight"].size, **_activation(whole)}
        return Layer("InnerProduct", settings, _tagged(own["weight"]) + _bias(own))
    if isinstance(op, MaxPool | AveragePool):
        return _pool(op, shapes[0][1:])
    if isinstance(op, BatchNorm):
        return _batch_norm(op, own)
    simple = _simple(op)
    if simple is None:
        raise Unfit(f"it is not written for ncnn with {op.word()}")
    return simple


def _window(w: Window) -> Settings:
    """Kernel, dilation, stride, padding of a convolution: ncnn has the width first."""
    (top, bottom), (left, right) = w.padding
    (kh, kw), (dh, dw), (sh, sw) = w.kernel, w.dilation, w.stride
    sizes = {1: kw, 11: kh, 2: dw, 12: dh, 3: sw, 13: sh}
    return sizes | {4: left, 15: right, 14: top, 16: bottom}


def _conv(op: Conv, whole: Fused, own: Mapping[str, Array]) -> Layer:
    settings = {0: op.filters, **_window(op.window), 5: int(op.bias), 6: own["weight"].size}
    if op.groups > 1:
        settings[7] = op.groups
    kind = "ConvolutionDepthWise" if op.groups > 1 else "Convolution"
    return Layer(kind, settings | _activation(whole), _tagged(own["weight"]) + _bias(own))


def _conv_transpose(op: ConvTranspose, whole: Fused, own: Mapping[str, Array]) -> Layer:
    weight = own["weight"]
    inside, each, *kernel = weight.shape
    grouped = weight.reshape(op.groups, inside // op.groups, each, *kernel)
    settings = {0: op.filters, **_window(op.window), 5: int(op.bias), 6: weight.size}
    settings |= {18: op.out_pad[1], 19: op.out_pad[0]}
    if op.groups > 1:
        settings[7] = op.groups
    kind = "DeconvolutionDepthWise" if op.groups > 1 else "Deconvolution"
    data = _tagged(np.ascontiguousarray(np.swapaxes(grouped, 1, 2))) + _bias(own)
    return Layer(kind, settings | _activation(whole), data)


def _pool(op: MaxPool | AveragePool, spatial: tuple[int, ...]) -> Layer:
    w = op.window
    room = [n + sum(p) - k for n, p, k in zip(spatial, w.padding, w.kernel, strict=True)]
    full = tuple(-(-r // s) + 1 for r, s in zip(room, w.stride, strict=True))
    even = w.ceil and w.output(spatial) != full
    if even or any(d != 1 for d in w.dilation):
        raise Unfit(f"ncnn has no pool like {op.word()}")
    (top, bottom), (left, right) = w.padding
    settings = {0: int(isinstance(op, AveragePool)), 1: w.kernel[1], 11: w.kernel[0]}
    settings |= {2: w.stride[1], 12: w.stride[0], 3: left, 14: right, 13: top, 15: bottom}
    settings |= {5: 0 if w.ceil else 1}
    if isinstance(op, AveragePool):
        settings[6] = int(op.count_pad)
    return Layer("Pooling", settings)


def _batch_norm(op: BatchNorm, own: Mapping[str, Array]) -> Layer:
    mean, var = own["mean"], own["var"]
    slope, bias = own.get("weight", np.ones_like(mean)), own.get("bias", np.zeros_like(mean))
    data = b"".join(x.astype("<f4").tobytes() for x in (slope, mean, var, bias))
    return Layer("BatchNorm", {0: mean.size, 1: op.eps}, data)


def _simple(op: Op) -> Layer | None:
    """A layer without weights; None where there is none."""
    match op:
        case GlobalMax():
            return Layer("Pooling", {0: 0, 4: 1})
        case GlobalAverage():
            return Layer("Pooling", {0: 1, 4: 1})
        case LocalResponseNorm() if op.size % 2:
            return Layer("LRN", {0: 0, 1: op.size, 2: op.alpha, 3: op.beta, 4: op.k})
        case Upsample():
            height, width = map(float, op.factor)
            return Layer("Interp", {0: 1 if op.mode == "nearest" else 2, 1: height, 2: width})
        case Relu():
            return Layer("ReLU", {})
        case Leaky():
            return Layer("ReLU", {0: op.slope})
        case Relu6():
            return Layer("Clip", {0: 0.0, 1: 6.0})
        case Elu():
            return Layer("ELU", {0: op.alpha})
        case Softmax():
            return Layer("Softmax", {0: 0, 1: 1})
        case Multiply():
            return Layer("BinaryOp", {0: 2})
    kinds: dict[type[Op], Layer] = {
        Flatten: Layer("Flatten", {}),
        Sigmoid: Layer("Sigmoid", {}),
        Silu: Layer("Swish", {}),
        Tanh: Layer("TanH", {}),
        Concat: Layer("Concat", {0: 0}),
        Add: Layer("Eltwise", {0: 1}),
    }
    return kinds.get(type(op))


def _activation(whole: Fused) -> Settings:
    """What a layer does to its sums at the end."""
    match whole.activation:
        case Relu():
            return {9: 1}
        case Leaky(slope=slope):
            return {9: 2, -23310: [slope]}
        case Relu6():
            return {9: 3, -23310: [0.0, 6.0]}
    return {}


def _tagged(weight: Array) -> bytes:
    """Weights after the four bytes that say they are float32."""
    return bytes(4) + weight.astype("<f4").tobytes()


def _bias(own: Mapping[str, Array]) -> bytes:
    return own["bias"].astype("<f4").tobytes() if "bias" in own else b""
