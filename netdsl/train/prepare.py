"""Passes that make a graph one that the way back can take."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from netdsl.cpu.table import takes as taken
from netdsl.faults import error
from netdsl.graph import Graph, Node
from netdsl.graph.fused import Takes, fuse
from netdsl.graph.passes import bypass
from netdsl.ops import (
    Activation,
    BatchNorm,
    Conv,
    ConvTranspose,
    Flatten,
    Linear,
    LogSoftmax,
    Multiply,
    Op,
    Relu,
    Softmax,
    show,
)


def prepared(graph: Graph, takes: Takes | None = None) -> Graph:
    """The graph that training runs: only what its outputs need, products two at a time, vectors
    before fully connected layers, relu fused into what `takes` it (the CPU's kernels)."""
    wanted = graph.needed((*graph.outputs, *(aux.output for aux in graph.aux)))
    keep = wanted | set(graph.inputs)
    graph = replace(graph, nodes=tuple(node for node in graph if node.name in keep))
    nodes: list[Node] = []
    for node in graph:
        nodes += _spelled(graph, node)
    return fuse(replace(graph, nodes=tuple(nodes)), takes or fused_in_training)


def fused_in_training(base: Op, residual: bool, act: Activation | None) -> bool:
    """What a layer's kernel on the CPU may take over: a relu, whose slope its own output tells."""
    layer = isinstance(base, Conv | ConvTranspose)
    return layer and not residual and isinstance(act, Relu) and taken(base, residual, act)


def _spelled(graph: Graph, node: Node) -> list[Node]:
    """A node as one or several that the way back knows."""
    shapes = graph.input_shapes(node)
    if isinstance(node.op, Linear) and len(shapes[0]) > 1:
        flat = Node(f"{node.name}.flat", Flatten(), node.inputs, (prod(shapes[0]),))
        return [flat, replace(node, inputs=(flat.name,))]
    if not isinstance(node.op, Multiply) or len(node.inputs) == 2:
        return [node]
    found, product = [], node.inputs[0]
    shape = shapes[0]
    for i, (name, more) in enumerate(zip(node.inputs[1:], shapes[1:], strict=True), 2):
        shape = node.op.output((shape, more))
        last = i == len(node.inputs)
        made = Node(node.name if last else f"{node.name}.of{i}", node.op, (product, name), shape)
        found.append(made)
        product = made.name
    return found


def scores(graph: Graph) -> Graph:
    """The graph without a softmax at its ends: losses take what comes before it."""
    ends = (*graph.outputs, *(aux.output for aux in graph.aux))
    idle = {
        name: graph[name].inputs[0]
        for name in ends
        if isinstance(graph[name].op, Softmax | LogSoftmax) and not graph.consumers[name]
    }
    return bypass(graph, idle)


def check_norms(graph: Graph, batch: int) -> None:
    """A batch norm needs more than one value a channel. Raises NetError."""
    for node in graph:
        if isinstance(node.op, BatchNorm) and batch * prod(node.shape[1:]) == 1:
            raise error(
                "one-value",
                f"{node.name} normalises over the batch, and a batch of 1 gives it one value "
                f"a channel (its input is {show(node.shape)})",
                help="a batch of 2 or more",
            )
