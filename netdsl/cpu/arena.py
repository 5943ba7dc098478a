"""What a plan would be: planned without weights, and nothing is compiled."""

from __future__ import annotations

import numpy as np

from netdsl.cpu import threads
from netdsl.cpu.launch import Worker
from netdsl.cpu.plan import Making
from netdsl.cpu.table import takes
from netdsl.graph import Graph
from netdsl.graph.fused import fuse
from netdsl.graph.passes import lowered

FLOAT = 4


def arena_bytes(graph: Graph, batch: int) -> int:
    """Bytes of all tensors and the scratch of a plan of this graph and batch, as `compile` makes
    it with all threads that there are, auxiliary heads left out."""
    making = _making(graph.without_aux(), batch)
    return FLOAT * making.place(frozenset(making.graph.outputs)).floats


def kernels(graph: Graph, precision: str = "fp32", fc_weights: str | None = None) -> list[Worker]:
    """The kernels that plans of this graph may take, auxiliary heads left out."""
    return list(dict.fromkeys(_making(graph.without_aux(), 1, precision, fc_weights).kernels()))


def _making(
    graph: Graph, batch: int, precision: str = "fp32", fc_weights: str | None = None
) -> Making:
    # One zero that stands for every weight: where tensors lie does not hang on their values.
    weights = {
        name: np.broadcast_to(np.float32(0.0), parameter.shape)
        for name, parameter in graph.all_parameters().items()
    }
    low, packed = lowered(graph, weights, lambda g: fuse(g, takes))
    how = (threads.count(None), False, precision, None, fc_weights)
    return Making(low, packed, max(batch, 1), *how)
