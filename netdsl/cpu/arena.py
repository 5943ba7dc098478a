"""How large a plan's arena would be: planned without weights, and nothing is compiled."""

from __future__ import annotations

import numpy as np

from netdsl.cpu import threads
from netdsl.cpu.plan import Making
from netdsl.cpu.table import takes
from netdsl.graph import Graph
from netdsl.graph.fused import fuse
from netdsl.graph.passes import lowered

FLOAT = 4


def arena_bytes(graph: Graph, batch: int) -> int:
    """Bytes of all tensors and the scratch of a plan of this graph and batch, as `compile` makes
    it with all threads that there are, auxiliary heads left out."""
    whole = graph.without_aux()
    # One zero that stands for every weight: where tensors lie does not hang on their values.
    weights = {
        name: np.broadcast_to(np.float32(0.0), parameter.shape)
        for name, parameter in whole.all_parameters().items()
    }
    low, packed = lowered(whole, weights, lambda g: fuse(g, takes))
    making = Making(low, packed, max(batch, 1), threads.count(None), exact=False)
    return FLOAT * making.place(frozenset(low.outputs)).floats
