"""From a graph to Caffe's files: a deploy .prototxt and, with weights, a .caffemodel beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.faults import error
from netdsl.formats.atomic import replacing
from netdsl.formats.caffe.message import Message
from netdsl.formats.caffe.prototxt import EnumName, write_text
from netdsl.formats.caffe.schema import NET
from netdsl.formats.caffe.wire import encode
from netdsl.formats.imported import Trouble, Unsupported
from netdsl.graph import Graph, Node
from netdsl.ops import (
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Dropout,
    Elu,
    Flatten,
    GlobalAverage,
    GlobalMax,
    Leaky,
    Linear,
    LocalResponseNorm,
    MaxPool,
    Multiply,
    Op,
    PRelu,
    Relu,
    Shape,
    Sigmoid,
    Silu,
    Softmax,
    Tanh,
    Window,
)

Weights = Mapping[str, NDArray[np.float32]]

LARGEST = (1 << 31) - 1
"""Bytes of a protobuf message."""

Written = tuple[str, dict[str, Message]]
"""A layer's type and its settings by their field."""


def write_caffe(graph: Graph, weights: Weights | None, path: Path) -> list[Path]:
    """Writes the net as a .prototxt, and weights into a .caffemodel beside it.

    Auxiliary heads are left out. Returns the files written. Raises NetError: one that lists every
    op that Caffe lacks, weights beyond 2 GiB, or where a file cannot be written.
    """
    graph = graph.without_aux()
    text, model = path.with_suffix(".prototxt"), path.with_suffix(".caffemodel")
    net = _net(graph, None)
    with replacing(text) as file:
        file.write(write_text(net).encode())
    if weights is None:
        return [text]
    pieces = list(encode(_net(graph, weights), NET))
    size = sum(map(len, pieces))
    if size > LARGEST:
        raise error("too-large", f"a .caffemodel holds {LARGEST:,} bytes, the net takes {size:,}")
    with replacing(model) as file:
        for piece in pieces:
            file.write(piece)
    return [text, model]


def _net(graph: Graph, weights: Weights | None) -> Message:
    trouble = Trouble()
    found: list[Message] = []
    for node in graph:
        if node.name in graph.inputs:
            shape = Message(shape=Message(dim=[1, *node.shape]))
            found.append(Message(name=node.name, type="Input", top=node.name, input_param=shape))
            continue
        try:
            found += _layers(graph, node, weights)
        except Unsupported as why:
            trouble.add(node.op.word(), node.name, str(why))
    trouble.check("caffe-ops", graph.name, "Caffe")
    return Message(name=graph.name, layer=found)


def _called(name: str) -> str:
    """A node's name as Caffe's layers are called: inception3a/conv1."""
    return name.replace(".", "/")


def _layers(graph: Graph, node: Node, weights: Weights | None) -> list[Message]:
    if type(node.op) not in TABLE:
        raise Unsupported("Caffe has no such layer")
    kind, settings = TABLE[type(node.op)](node.op, graph.input_shapes(node))
    name = _called(node.name)
    if isinstance(node.op, BatchNorm) and node.op.affine:
        return _norm_and_scale(node, name, settings, weights)
    layer = Message(name=name, type=kind, bottom=[_called(i) for i in node.inputs], top=name)
    layer.fields.update({field: [part] for field, part in settings.items()})
    names = [f"{node.name}.{p.name}" for p in graph.parameters(node)]
    _blobs(layer, names, weights, statistics=isinstance(node.op, BatchNorm))
    return [layer]


def _norm_and_scale(
    node: Node, name: str, settings: dict[str, Message], weights: Weights | None
) -> list[Message]:
    """Caffe's norm does not scale and shift; a layer after it does."""
    norm = Message(name=f"{name}/norm", type="BatchNorm", bottom=_called(node.inputs[0]), top=name)
    norm.fields.update({field: [part] for field, part in settings.items()})
    _blobs(norm, [f"{node.name}.mean", f"{node.name}.var"], weights, statistics=True)
    scale = Message(name=name, type="Scale", bottom=name, top=name)
    scale.add("scale_param", Message(bias_term=True))
    _blobs(scale, [f"{node.name}.weight", f"{node.name}.bias"], weights)
    return [norm, scale]


def _blobs(
    layer: Message, names: list[str], weights: Weights | None, *, statistics: bool = False
) -> None:
    if weights is None or not names:
        return
    arrays = [weights[name] for name in names]
    if statistics:
        # The sums' divisor: the statistics are kept as they are.
        arrays.append(np.ones(1, np.float32))
    for array in arrays:
        layer.add("blobs", Message(shape=Message(dim=list(array.shape)), data=[array]))


# Ops ----------------------------------------------------------------------------------------------


def _axes(message: Message, name: str, stem: str, values: tuple[int, ...], default: int) -> None:
    """A size per axis, as short as the format allows."""
    if all(v == default for v in values):
        return
    if len(set(values)) == 1:
        message.add(name, values[0])
    elif len(values) == 2 and stem != "dilation":
        message.add(f"{stem}_h", values[0])
        message.add(f"{stem}_w", values[1])
    else:
        message.fields[name] = list(values)


def _window(message: Message, window: Window) -> None:
    if any(lo != hi for lo, hi in window.padding):
        raise Unsupported("Caffe pads both sides alike")
    _axes(message, "kernel_size", "kernel", window.kernel, 0)
    _axes(message, "pad", "pad", tuple(lo for lo, _ in window.padding), 0)
    _axes(message, "stride", "stride", window.stride, 1)
    _axes(message, "dilation", "dilation", window.dilation, 1)


def _conv(op: Op, inputs: tuple[Shape, ...]) -> Written:
    assert isinstance(op, Conv | ConvTranspose)
    if isinstance(op, ConvTranspose) and any(op.out_pad):
        raise Unsupported("Caffe has no out_pad")
    settings = Message(num_output=op.filters)
    if not op.bias:
        settings.add("bias_term", False)
    _window(settings, op.window)
    if op.groups != 1:
        settings.add("group", op.groups)
    kind = "Convolution" if isinstance(op, Conv) else "Deconvolution"
    return kind, {"convolution_param": settings}


def _pool(op: Op, inputs: tuple[Shape, ...]) -> Written:
    assert isinstance(op, MaxPool | AveragePool)
    method, w = ("MAX" if isinstance(op, MaxPool) else "AVE"), op.window
    if any(d != 1 for d in w.dilation) or len(w.kernel) != 2:
        raise Unsupported("Caffe pools pictures, without dilation")
    if isinstance(op, AveragePool) and not op.count_pad and any(map(any, w.padding)):
        raise Unsupported("Caffe counts padding in an average")
    settings = Message(pool=EnumName(method))
    _window(settings, w)
    _round(settings, w, inputs[0][1:])
    return "Pooling", {"pooling_param": settings}


def _round(settings: Message, w: Window, spatial: Shape) -> None:
    """Caffe rounds up unless told otherwise; it drops a last window only where it pads."""
    padded = any(map(any, w.padding))
    steps = [
        -(-(size + sum(pad) - k) // s)
        for size, pad, k, s in zip(spatial, w.padding, w.kernel, w.stride, strict=True)
    ]
    caffes = [
        n + 1 - (padded and n * s >= size + pad[0])
        for n, s, size, pad in zip(steps, w.stride, spatial, w.padding, strict=True)
    ]
    if tuple(caffes) == w.output(spatial):
        return
    if w.ceil:
        raise Unsupported("Caffe's last window would lie beyond the data")
    settings.add("round_mode", EnumName("FLOOR"))


def _global(op: Op, inputs: tuple[Shape, ...]) -> Written:
    method = EnumName("MAX" if isinstance(op, GlobalMax) else "AVE")
    if len(inputs[0]) != 3:
        raise Unsupported("Caffe pools pictures")
    return "Pooling", {"pooling_param": Message(pool=method, global_pooling=True)}


def _linear(op: Op, inputs: tuple[Shape, ...]) -> Written:
    assert isinstance(op, Linear)
    settings = Message(num_output=op.filters)
    if not op.bias:
        settings.add("bias_term", False)
    return "InnerProduct", {"inner_product_param": settings}


def _norm(op: Op, inputs: tuple[Shape, ...]) -> Written:
    assert isinstance(op, BatchNorm)
    return "BatchNorm", {"batch_norm_param": Message(use_global_stats=True, eps=op.eps)}


def _response(op: Op, inputs: tuple[Shape, ...]) -> Written:
    assert isinstance(op, LocalResponseNorm)
    if op.size % 2 == 0:
        raise Unsupported("Caffe's windows are odd")
    settings = Message(local_size=op.size, alpha=op.alpha, beta=op.beta, k=op.k)
    return "LRN", {"lrn_param": settings}


def _relu(op: Op, inputs: tuple[Shape, ...]) -> Written:
    if isinstance(op, Leaky):
        return "ReLU", {"relu_param": Message(negative_slope=op.slope)}
    return "ReLU", {}


def _elu(op: Op, inputs: tuple[Shape, ...]) -> Written:
    assert isinstance(op, Elu)
    return "ELU", {"elu_param": Message(alpha=op.alpha)}


def _dropout(op: Op, inputs: tuple[Shape, ...]) -> Written:
    assert isinstance(op, Dropout)
    return "Dropout", {"dropout_param": Message(dropout_ratio=op.rate)}


def _sum(op: Op, inputs: tuple[Shape, ...]) -> Written:
    if len(set(inputs)) > 1:
        raise Unsupported("Caffe stretches no axis")
    operation = EnumName("SUM" if isinstance(op, Add) else "PROD")
    return "Eltwise", {"eltwise_param": Message(operation=operation)}


def _plain(kind: str) -> Callable[[Op, tuple[Shape, ...]], Written]:
    return lambda op, inputs: (kind, {})


TABLE: dict[type[Any], Callable[[Op, tuple[Shape, ...]], Written]] = {
    Conv: _conv,
    ConvTranspose: _conv,
    Linear: _linear,
    MaxPool: _pool,
    AveragePool: _pool,
    GlobalAverage: _global,
    GlobalMax: _global,
    BatchNorm: _norm,
    LocalResponseNorm: _response,
    Relu: _relu,
    Leaky: _relu,
    PRelu: _plain("PReLU"),
    Elu: _elu,
    Silu: _plain("Swish"),
    Sigmoid: _plain("Sigmoid"),
    Tanh: _plain("TanH"),
    Softmax: _plain("Softmax"),
    Dropout: _dropout,
    Flatten: _plain("Flatten"),
    Concat: _plain("Concat"),
    Add: _sum,
    Multiply: _sum,
}
