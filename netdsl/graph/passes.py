"""Passes: functions from Graph to Graph that keep what a network computes.

Outputs keep their places: after any pass `graph.outputs[i]` (and `graph.aux[i].output`) names the
node that holds what the i-th output held before. Its shape may have lost a flatten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import prod

import numpy as np
import numpy.typing as npt

from netdsl.graph.graph import Graph, Node
from netdsl.ops import BatchNorm, Conv, ConvTranspose, Dropout, Flatten, Linear, Op

Weights = Mapping[str, npt.NDArray[np.float32]]
Used = Callable[[npt.NDArray[np.float32]], None]
"""Told of an array of weights that is wanted no more."""


def bypass(graph: Graph, instead: Mapping[str, str]) -> Graph:
    """The graph without the nodes in `instead`; their readers read what each maps to."""

    def found(name: str) -> str:
        while name in instead:
            name = instead[name]
        return name

    def reading(node: Node) -> Node:
        inputs = tuple(map(found, node.inputs))
        return node if inputs == node.inputs else replace(node, inputs=inputs)

    nodes = tuple(reading(node) for node in graph.nodes if node.name not in instead)
    return replace(
        graph,
        nodes=nodes,
        outputs=tuple(map(found, graph.outputs)),
        aux=tuple(aux._replace(output=found(aux.output)) for aux in graph.aux),
        names={label: found(name) for label, name in graph.names.items()},
    )


def without_dropout(graph: Graph) -> Graph:
    """Dropout does nothing outside training."""
    return bypass(graph, {n.name: n.inputs[0] for n in graph if isinstance(n.op, Dropout)})


def without_flatten(graph: Graph) -> Graph:
    """Drops each flatten that moves nothing: of one position, before fc alone, or at the end.

    fc flattens what it takes itself, and an output is given its shape when it is handed over.
    """
    return bypass(graph, {n.name: n.inputs[0] for n in graph if _moves_nothing(graph, n)})


def _moves_nothing(graph: Graph, node: Node) -> bool:
    if not isinstance(node.op, Flatten):
        return False
    positions = prod(graph[node.inputs[0]].shape[1:])
    readers = (graph[name].op for name in graph.consumers[node.name])
    return positions == 1 or all(isinstance(op, Linear) for op in readers)


def fold_batch_norm(
    graph: Graph, weights: Weights, used: Used | None = None
) -> tuple[Graph, Weights]:
    """Batch norms after a conv, tconv or fc that nothing else reads become part of its weights.

    The arithmetic is float64, rounded once. The layer gets a bias where it had none. Its weights
    are made when they are asked for, see `Folded`; `used` is then told of what they are made of.
    """
    folded: dict[str, str] = {}
    scales: dict[str, Scale] = {}
    biases: dict[str, npt.NDArray[np.float32]] = {}
    biased: dict[str, Node] = {}
    for node in graph:
        if not isinstance(node.op, BatchNorm):
            continue
        layer = graph[node.inputs[0]]
        if not isinstance(layer.op, Conv | ConvTranspose | Linear) or not sole(graph, layer):
            continue
        scale, shift = scale_and_shift(node.op, own_weights(graph, node, node.name, weights))
        bias = f"{layer.name}.bias"
        if layer.op.bias:
            shift = shift + weights[bias] * scale
        scales[f"{layer.name}.weight"] = layer.op, scale
        biases[bias] = shift.astype(np.float32)
        folded[node.name] = layer.name
        biased[layer.name] = replace(layer, op=replace(layer.op, bias=True))
    nodes = tuple(biased.get(node.name, node) for node in graph)
    return bypass(replace(graph, nodes=nodes), folded), Folded(weights, scales, biases, used)


Scale = tuple[Op, npt.NDArray[np.float64]]
"""A layer's op, and what a norm multiplies its filters by, (filters,)."""


class Folded(Mapping[str, npt.NDArray[np.float32]]):
    """Weights of which some do a norm's work too. Those are made when they are asked for, each time
    anew, so that whoever packs them one by one needs the memory of one."""

    def __init__(
        self,
        weights: Weights,
        scales: Mapping[str, Scale],
        biases: Weights,
        used: Used | None = None,
    ) -> None:
        self._weights, self._scales, self._biases = weights, scales, biases
        self._used = used

    def __getitem__(self, name: str) -> npt.NDArray[np.float32]:
        if name in self._biases:
            return self._biases[name]
        weight = self._weights[name]
        if name not in self._scales:
            return weight
        scaled = _scaled(weight, *self._scales[name])
        if self._used is not None:
            self._used(weight)
        return scaled

    def __contains__(self, name: object) -> bool:
        return name in self._biases or name in self._weights

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._weights, *self._biases)))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def sole(graph: Graph, node: Node) -> bool:
    """Whether one node alone reads this one, once, and it is no output."""
    held = {*graph.outputs, *(aux.output for aux in graph.aux)}
    return len(graph.consumers[node.name]) == 1 and node.name not in held


def own_weights(
    graph: Graph, node: Node, name: str, weights: Weights
) -> dict[str, npt.NDArray[np.float32]]:
    """A node's weights by their parameters' names; they are kept under the node's `name`."""
    return {p.name: weights[f"{name}.{p.name}"] for p in graph.parameters(node)}


def scale_and_shift(
    norm: BatchNorm, own: Weights
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Batch norm with its running statistics as x scale + shift, a channel each, in float64."""
    mean, var = own["mean"].astype(np.float64), own["var"].astype(np.float64)
    scale = 1.0 / np.sqrt(var + norm.eps)
    if not norm.affine:
        return scale, -mean * scale
    scale = scale * own["weight"]
    return scale, own["bias"] - mean * scale


def _scaled(
    weight: npt.NDArray[np.float32], op: Op, scale: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """A layer's weight whose filters are multiplied by (filters,) numbers."""
    if not isinstance(op, ConvTranspose):
        return _product(weight, scale.reshape(-1, *(1 for _ in weight.shape[1:])))
    grouped = weight.reshape(op.groups, -1, *weight.shape[1:])
    each = scale.reshape(op.groups, 1, -1, *(1 for _ in weight.shape[2:]))
    return _product(grouped, each).reshape(weight.shape)


def _product(
    weight: npt.NDArray[np.float32], scale: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """weight times scale in double precision, rounded once, without a copy in double precision."""
    result = np.empty(weight.shape, np.float32)
    np.multiply(weight, scale, out=result, dtype=np.float64, casting="unsafe")
    return result


def lowered(
    graph: Graph,
    weights: Weights,
    fuse: Callable[[Graph], Graph],
    used: Used | None = None,
) -> tuple[Graph, Weights]:
    """The graph that a device runs: nothing idle, norms folded, layers fused by `fuse`. used: see
    `fold_batch_norm`."""
    graph = without_flatten(without_dropout(graph))
    graph, weights = fold_batch_norm(graph, weights, used)
    return fuse(graph), weights
