"""Fusing: what follows a layer on its output becomes part of the layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

from netdsl.frozen import dataclass
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
    fusing = _Fusing(graph)
    for node in graph.nodes:
        if isinstance(node.op, Add):
            fusing.take_sum(fusing.nodes[node.name], takes)
        if isinstance(node.op, Activation):
            fusing.take_activation(fusing.nodes[node.name], takes)
    return fusing.done()


Pools = Callable[[Graph, Node, MaxPool], bool]
"""Whether a device's kernel of this layer takes over the pool that follows it."""


def fuse_pools(graph: Graph, pools: Pools) -> Graph:
    """Every max pool that a device's kernel can take over from the node after it."""
    fusing = _Fusing(graph)
    for node in graph.nodes:
        if not isinstance(node.op, MaxPool):
            continue
        layer = fusing.nodes[node.inputs[0]]
        if isinstance(layer.op, Input) or parts(layer).pool or not sole(graph, layer):
            continue
        if pools(graph, layer, node.op):
            whole = parts(layer)
            op = replace(whole, pool=node.op, members=(*whole.members, node.name))
            fusing.absorb(layer, replace(node, op=op, inputs=layer.inputs))
    return fusing.done()


def parts(node: Node) -> Fused:
    """The node's op as a Fused one, of itself alone where it is not fused yet."""
    if isinstance(node.op, Fused):
        return node.op
    return Fused(node.op, node.name, (node.name,))


class _Fusing:
    """A graph while its nodes are fused: those that are left, by name, in order.

    A fused node keeps the name, shape and place of the last that it stands for, and reads what the
    first read. So who is read how often stays as it was, and so does what stands before what.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes = {node.name: node for node in graph.nodes}
        self.order = {name: i for i, name in enumerate(self.nodes)}

    def take_activation(self, node: Node, takes: Takes) -> None:
        """Lets the layer before an activation apply it."""
        layer = self.nodes[node.inputs[0]]
        whole = parts(layer)
        assert isinstance(node.op, Activation)
        if whole.activation or not sole(self.graph, layer):
            return
        if takes(whole.base, whole.residual, node.op):
            op = replace(whole, activation=node.op, members=(*whole.members, node.name))
            self.absorb(layer, replace(node, op=op, inputs=layer.inputs))

    def take_sum(self, node: Node, takes: Takes) -> None:
        """Lets the later of a sum's two layers add the other's result to its own."""
        if len(node.inputs) != 2 or node.inputs[0] == node.inputs[1]:
            return
        for name in sorted(node.inputs, key=lambda name: -self.order[name]):
            layer = self.nodes[name]
            whole = parts(layer)
            if whole.residual or whole.activation or not sole(self.graph, layer):
                continue
            if not takes(whole.base, True, None):
                continue
            other = node.inputs[1 - node.inputs.index(name)]
            op = replace(whole, residual=True, members=(*whole.members, node.name))
            return self.absorb(layer, replace(node, op=op, inputs=(*layer.inputs, other)))

    def absorb(self, layer: Node, whole: Node) -> None:
        """Puts `whole` in the place of the node of its name; the layer before it goes."""
        self.nodes[whole.name] = whole
        del self.nodes[layer.name]

    def done(self) -> Graph:
        """The graph of the nodes that are left."""
        names = {label: name for label, name in self.graph.names.items() if name in self.nodes}
        return replace(self.graph, nodes=tuple(self.nodes.values()), names=names)
