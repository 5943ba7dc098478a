"""The interpreter: every node in the graph's order, by the function of its op."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from netdsl.graph import Graph, Node
from netdsl.graph.weights import check_weights
from netdsl.ops import Input
from netdsl.reference import activation, arrange, conv, dense, join, norm, pool
from netdsl.reference.table import Array, Table

TABLE: Table = {
    **conv.FUNCTIONS,
    **dense.FUNCTIONS,
    **pool.FUNCTIONS,
    **norm.FUNCTIONS,
    **activation.FUNCTIONS,
    **arrange.FUNCTIONS,
    **join.FUNCTIONS,
}
"""For each class of op, what computes it."""


def interpret(
    graph: Graph,
    weights: Mapping[str, npt.NDArray[Any]],
    inputs: Mapping[str, npt.NDArray[Any]],
    *,
    aux: bool = False,
    keep: Collection[str] | None = None,
) -> dict[str, Array]:
    """The outputs of a graph by node name, each (N, *shape) in float64.

    inputs: an array (N, *shape) for each input by name, N 0 or more. aux: the auxiliary heads'
    outputs too. keep: names of further nodes whose values are returned.
    Raises NetError for weights that are missing or of the wrong shape, KeyError for a missing
    input.
    """
    heads = tuple(head.output for head in graph.aux) if aux else ()
    wanted = dict.fromkeys((*graph.outputs, *heads, *(keep or ())))
    needed = graph.needed(wanted)
    nodes = tuple(node for node in graph if node.name in needed)
    check_weights(graph if aux else graph.without_aux(), weights)
    last = {name: node.name for node in nodes for name in node.inputs}
    values: dict[str, Array] = {}
    with np.errstate(all="ignore"):  # inf and NaN speak for themselves
        for node in nodes:
            values[node.name] = _value(graph, node, weights, inputs, values)
            for name in set(node.inputs):
                if last[name] == node.name and name not in wanted:
                    del values[name]
    return {name: values[name] for name in wanted}


def _value(
    graph: Graph,
    node: Node,
    weights: Mapping[str, npt.NDArray[Any]],
    inputs: Mapping[str, npt.NDArray[Any]],
    values: Mapping[str, Array],
) -> Array:
    if isinstance(node.op, Input):
        return np.asarray(inputs[node.name], np.float64)
    params = {
        parameter.name: np.asarray(weights[f"{node.name}.{parameter.name}"], np.float64)
        for parameter in graph.parameters(node)
    }
    return TABLE[type(node.op)](node.op, params, *(values[name] for name in node.inputs))
