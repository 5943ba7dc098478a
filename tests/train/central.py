"""Gradients by central differences of the float64 interpreter: slow, plain, and independent."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from netdsl.graph import Graph
from netdsl.ops import BatchNorm, Input
from netdsl.reference.interpret import TABLE

Arrays = Mapping[str, np.ndarray]
STEP = 1e-6


def outputs(graph: Graph, weights: Arrays, inputs: Arrays) -> dict[str, np.ndarray]:
    """Every output in float64, auxiliary heads' too, with batch norms by their batch."""
    values: dict[str, np.ndarray] = {}
    for node in graph:
        if isinstance(node.op, Input):
            values[node.name] = np.asarray(inputs[node.name], np.float64)
            continue
        own = {
            p.name: np.asarray(weights[f"{node.name}.{p.name}"], np.float64)
            for p in graph.parameters(node)
        }
        x = [values[name] for name in node.inputs]
        if isinstance(node.op, BatchNorm):
            axes = (0, *range(2, x[0].ndim))
            own |= {"mean": x[0].mean(axes), "var": x[0].var(axes)}
        values[node.name] = TABLE[type(node.op)](node.op, own, *x)
    return {name: values[name] for name in ends(graph)}


def ends(graph: Graph) -> list[str]:
    """The nodes whose values leave the graph."""
    return [*graph.outputs, *(aux.output for aux in graph.aux)]


def slope(
    graph: Graph, weights: Arrays, inputs: Arrays, pulls: Arrays, name: str, way: np.ndarray
) -> float:
    """How fast the sum of outputs times pulls grows as a parameter moves along `way`."""

    def value(step: float) -> float:
        moved = np.asarray(weights[name], np.float64) + step * way
        found = outputs(graph, {**weights, name: moved}, inputs)
        return float(sum((found[end] * pulls[end]).sum() for end in pulls))

    return (value(STEP) - value(-STEP)) / (2 * STEP)
