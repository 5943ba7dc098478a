"""Shortcuts between unequal shapes.

Darknet adds them one position in so many, and of the channels those that both have. The language
says that by a 1x1 convolution without bias, whose weights are ones and zeros and in no file. No
layer of Darknet's own has neither bias nor norm, so that such a convolution is known again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from netdsl.graph import Graph, Node
from netdsl.graph.passes import sole
from netdsl.ops import Add, Conv, Shape, Window


def fitting(source: Shape, wanted: Shape) -> Conv | None:
    """The convolution that brings one shape (C, H, W) to another, where strides alone can."""
    if 0 in wanted or len(source) != len(wanted):
        return None
    stride = tuple(max(have // want, 1) for have, want in zip(source[1:], wanted[1:], strict=True))
    window = Window((1, 1), stride, ((0, 0), (0, 0)), (1, 1))
    if window.output(source[1:]) != wanted[1:]:
        return None
    return Conv(wanted[0], window, bias=False)


def is_fitting(graph: Graph, node: Node) -> bool:
    """Whether a node is such a convolution, on its way to a sum."""
    if not isinstance(node.op, Conv) or node.op.bias or len(node.shape) != 3:
        return False
    (source,) = graph.input_shapes(node)
    added = sole(graph, node) and isinstance(graph[graph.consumers[node.name][0]].op, Add)
    return added and source != node.shape and node.op == fitting(source, node.shape)


def ones(op: Conv, channels: int) -> NDArray[np.float32]:
    """Its weights (filters, channels, 1, 1): what both have is passed on as it is."""
    return np.eye(op.filters, channels, dtype=np.float32).reshape(op.filters, channels, 1, 1)
