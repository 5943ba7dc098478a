"""Pools."""

from __future__ import annotations

from itertools import pairwise
from math import inf, prod

import numpy as np
from numpy.typing import NDArray

from netdsl.formats.imported import Unsupported
from netdsl.formats.tflite import schema
from netdsl.formats.tflite.emit import Emitter
from netdsl.formats.tflite.schema import Kind
from netdsl.formats.tflite.windows import framed, plane, strides
from netdsl.graph import Graph, Node
from netdsl.graph.fused import parts
from netdsl.ops import (
    AdaptiveAveragePool,
    AveragePool,
    GlobalMax,
    HardSigmoid,
    LocalResponseNorm,
    MaxPool,
    Relu,
    Relu6,
    Sigmoid,
    Window,
)


def max_pool(out: Emitter, node: Node, op: MaxPool) -> None:
    """XNNPACK pads with zeros alone, which win over nothing after a ReLU."""
    w = _undilated(op.window)
    fill = 0.0 if _never_negative(out.graph, node.inputs[0]) else -inf
    x, padding = framed(out, node, w, fill)
    _pool(out, node, schema.MAX_POOL_2D, x, node.name, w, padding)


def _never_negative(graph: Graph, name: str) -> bool:
    """Whether a node's result is known to be 0 or more."""
    while isinstance(graph[name].op, MaxPool | AveragePool | LocalResponseNorm):
        name = graph[name].inputs[0]
    whole = parts(graph[name])
    return isinstance(whole.activation or whole.base, Relu | Relu6 | Sigmoid | HardSigmoid)


def average_pool(out: Emitter, node: Node, op: AveragePool) -> None:
    """Over the cells that are there, as SAME does it, or over the whole window, then put right."""
    w = _undilated(op.window)
    x, padding = framed(out, node, w)
    spatial = out.shapes[node.inputs[0]][:2]
    counts = _counts(w, spatial, padded=op.count_pad)
    whole_window = prod(w.kernel)
    ours = _counts(w, spatial, padded=False) if padding == schema.SAME else whole_window
    share = ours / counts
    if np.all(share == 1):
        _pool(out, node, schema.AVERAGE_POOL_2D, x, node.name, w, padding)
        return
    mean = _pool(out, node, schema.AVERAGE_POOL_2D, x, f"{node.name}/mean", w, padding)
    shares = out.constant(f"{node.name}/share", share[None, :, :, None])
    out.op(schema.MUL, [mean, shares], node.name, out.shapes[mean])


def _undilated(window: Window) -> Window:
    if any(d != 1 for d in window.dilation):
        raise Unsupported("TensorFlow Lite pools without dilation")
    return plane(window)


def _counts(w: Window, spatial: tuple[int, ...], *, padded: bool) -> NDArray[np.int64]:
    """How many cells of each window count, as the reference counts them: (height, width)."""
    axes: list[NDArray[np.int64]] = []
    for i, (n, count) in enumerate(zip(spatial, w.output(spatial), strict=True)):
        lo, hi = w.padding[i]
        begin, end = (0, lo + n + hi) if padded else (lo, lo + n)
        starts = np.arange(count) * w.stride[i]
        axes.append(np.minimum(starts + w.kernel[i], end) - np.maximum(starts, begin))
    return np.outer(*axes)


def _pool(
    out: Emitter, node: Node, kind: Kind, x: str, output: str, w: Window, padding: int
) -> str:
    *spatial, channels = out.shapes[node.inputs[0]]
    options = {"padding": padding, **strides(w)}
    options |= {"filter_height": w.kernel[0], "filter_width": w.kernel[1]}
    return out.op(kind, [x], output, (*w.output(tuple(spatial)), channels), **options)


def adaptive_average_pool(out: Emitter, node: Node, op: AdaptiveAveragePool) -> None:
    """An ordinary pool where the windows are of one size and a stride apart."""
    spatial = out.shape(node.inputs[0])[1:]
    kernel, stride = [], []
    for axis in op.windows(spatial):
        sizes = {hi - lo for lo, hi in axis}
        steps = {b[0] - a[0] for a, b in pairwise(axis)} or {1}
        if len(sizes) > 1 or len(steps) > 1 or steps == {0}:
            raise Unsupported("TensorFlow Lite pools windows of one size, a stride apart")
        kernel.append(sizes.pop())
        stride.append(steps.pop())
    none = ((0, 0),) * len(kernel)
    w = plane(Window(tuple(kernel), tuple(stride), none, (1,) * len(kernel)))
    _pool(out, node, schema.AVERAGE_POOL_2D, node.inputs[0], node.name, w, schema.VALID)


def global_average(out: Emitter, node: Node, op: object) -> None:
    axes = out.constant(f"{node.name}/axes", np.array([1, 2]))
    x = node.inputs[0]
    out.op(schema.MEAN, [x, axes], node.name, (1, 1, out.shapes[x][-1]), keep_dims=True)


def global_max(out: Emitter, node: Node, op: GlobalMax) -> None:
    height, width, _ = out.shapes[node.inputs[0]]
    w = Window((height, width), (1, 1), ((0, 0),) * 2, (1, 1))
    _pool(out, node, schema.MAX_POOL_2D, node.inputs[0], node.name, w, schema.VALID)
