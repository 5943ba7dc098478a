"""Fusing: what follows a layer on its output becomes part of the layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from netdsl.graph.graph import Graph, Node
from netdsl.graph.passes import sole
from netdsl.ops import Activation, Add, Input, MaxPool, Op, Parameter, Shape
from netdsl.ops.base import Bound, Counts


@dataclass(frozen=True)
class Fused(Op):
    """pool(activation(base(x) + residual)): a layer with what follows it, one node of a lowered
    graph.

    Its inputs are the base's, then the residual where there is one. `source` is the base's node,
    whose name its parameters keep; `members` are the names of the nodes it stands for.
    """

    base: Op
    source: str
    members: tuple[str, ...]
    residual: bool = False
    activation: Activation | None = None
    pool: MaxPool | None = None

    heads: ClassVar = ("fused",)

    @classmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> Op:
        raise AssertionError("no word means a fused layer")

    def _own(self, inputs: tuple[Shape, ...]) -> tuple[Shape, ...]:
        return inputs[:-1] if self.residual else inputs

    def made(self, inputs: tuple[Shape, ...]) -> Shape:
        """The shape of what the base gives, before it is pooled."""
        return self.base.output(self._own(inputs))

    def output(self, inputs: tuple[Shape, ...]) -> Shape:
        made = self.made(inputs)
        return self.pool.output((made,)) if self.pool else made

    def parameters(self, inputs: tuple[Shape, ...]) -> tuple[Parameter, ...]:
        return self.base.parameters(self._own(inputs))

    def counts(self, inputs: tuple[Shape, ...]) -> Counts:
        return self.base.counts(self._own(inputs))

    def word(self) -> str:
        parts = [self.base.word()]
        parts += ["+"] if self.residual else []
        parts += [op.word() for op in (self.activation, self.pool) if op]
        return " -> ".join(parts)


Takes = Callable[[Op, bool, Activation | None], bool]
"""Whether a device's kernel of this base takes this residual and activation."""


def fuse(graph: Graph, takes: Takes) -> Graph:
    """Every sum and activation that a device's kernel can take over from the node after it."""
    for node in graph.nodes:
        if isinstance(node.op, Add):
            graph = _fuse_sum(graph, graph[node.name], takes)
        if isinstance(node.op, Activation):
            graph = _fuse_activation(graph, graph[node.name], takes)
    return graph


Pools = Callable[[Graph, Node, MaxPool], bool]
"""Whether a device's kernel of this layer takes over the pool that follows it."""


def fuse_pools(graph: Graph, pools: Pools) -> Graph:
    """Every max pool that a device's kernel can take over from the node after it."""
    for node in graph.nodes:
        if not isinstance(node.op, MaxPool):
            continue
        layer = graph[node.inputs[0]]
        if isinstance(layer.op, Input) or parts(layer).pool or not sole(graph, layer):
            continue
        if pools(graph, layer, node.op):
            whole = parts(layer)
            op = replace(whole, pool=node.op, members=(*whole.members, node.name))
            graph = _absorb(graph, layer, replace(node, op=op, inputs=layer.inputs))
    return graph


def parts(node: Node) -> Fused:
    """The node's op as a Fused one, of itself alone where it is not fused yet."""
    if isinstance(node.op, Fused):
        return node.op
    return Fused(node.op, node.name, (node.name,))


def _fuse_activation(graph: Graph, node: Node, takes: Takes) -> Graph:
    layer = graph[node.inputs[0]]
    whole = parts(layer)
    assert isinstance(node.op, Activation)
    if whole.activation or not sole(graph, layer):
        return graph
    if not takes(whole.base, whole.residual, node.op):
        return graph
    op = replace(whole, activation=node.op, members=(*whole.members, node.name))
    return _absorb(graph, layer, replace(node, op=op, inputs=layer.inputs))


def _fuse_sum(graph: Graph, node: Node, takes: Takes) -> Graph:
    """The later of a sum's two layers adds the other's result to its own."""
    if len(node.inputs) != 2 or node.inputs[0] == node.inputs[1]:
        return graph
    order = {n.name: i for i, n in enumerate(graph.nodes)}
    for name in sorted(node.inputs, key=lambda name: -order[name]):
        layer = graph[name]
        whole = parts(layer)
        if whole.residual or whole.activation or not sole(graph, layer):
            continue
        if not takes(whole.base, True, None):
            continue
        other = node.inputs[1 - node.inputs.index(name)]
        op = replace(whole, residual=True, members=(*whole.members, node.name))
        return _absorb(graph, layer, replace(node, op=op, inputs=(*layer.inputs, other)))
    return graph


def _absorb(graph: Graph, layer: Node, whole: Node) -> Graph:
    """The graph with `whole` in place of the node of its name, and without the layer before it."""
    nodes = (whole if n.name == whole.name else n for n in graph.nodes if n.name != layer.name)
    names = {label: name for label, name in graph.names.items() if name != layer.name}
    return replace(graph, nodes=tuple(nodes), names=names)
