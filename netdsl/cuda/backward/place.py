"""Where everything of a training step lies in the arena.

Every tensor of the way forward is kept for the way back, but for those that an activation writes
over. Gradients live only from the first that adds to them to their own node's turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from netdsl.cuda.backward.table import BACKS
from netdsl.cuda.backward.task import Back
from netdsl.cuda.layout import Buffer, fresh
from netdsl.cuda.place import pack, rounded
from netdsl.cuda.table import RECIPES
from netdsl.graph import Graph, Node
from netdsl.graph.fused import parts
from netdsl.graph.lifetimes import Lifetime
from netdsl.ops import Concat, Dropout, Flatten, Input

Share = tuple[str, int]
"""A node, and which of its inputs."""


@dataclass(frozen=True)
class Layout:
    """A training step's places.

    outputs: of each node; gradients: of each node that wants one; shares: where a node's share of
    an input's gradient goes that others have written before; floats in all.
    """

    outputs: Mapping[str, Buffer]
    gradients: Mapping[str, Buffer]
    shares: Mapping[Share, Buffer]
    floats: int


def back_of(node: Node) -> Back:
    """How a node goes back."""
    return BACKS[type(parts(node).base)]


def ends_of(graph: Graph) -> list[str]:
    """The nodes whose values leave the graph, each once."""
    return list(dict.fromkeys([*graph.outputs, *(aux.output for aux in graph.aux)]))


def wanted(graph: Graph) -> set[str]:
    """The nodes whose gradient some parameter needs."""
    found: set[str] = set()
    for node in graph:
        learns = any(p.trainable for p in graph.parameters(node))
        if learns or any(name in found for name in node.inputs):
            found.add(node.name)
    return found


def lay_out(graph: Graph, batch: int, start: int) -> Layout:
    """Places from `start` on."""
    outputs, end = _outputs(graph, batch, start)
    gradients, shares, end = _Gradients(graph, batch).lay_out(end)
    return Layout(outputs, gradients, shares, end)


class Tree:
    """Tensors that lie in others: each links to a parent and to a float of its samples."""

    def __init__(self, graph: Graph, batch: int) -> None:
        self.graph, self.batch = graph, batch
        self.parent: dict[str, tuple[str, int]] = {}

    def root(self, name: str) -> str:
        """The tensor in whose memory this one lies."""
        while name in self.parent:
            name = self.parent[name][0]
        return name

    def fresh(self, name: str) -> Buffer:
        """A buffer for a tensor."""
        return fresh(self.batch, self.graph[name].shape)

    def join(self, node: Node, free: Mapping[str, bool]) -> None:
        """Puts those branches of a concatenation that are free into it."""
        start = 0
        for name in node.inputs:
            if free[name] and name not in self.parent and node.inputs.count(name) == 1:
                self.parent[name] = (node.name, start)
            start += prod(self.graph[name].shape)

    def settle(self, name: str, placed: dict[str, Buffer]) -> Buffer:
        """A tensor's part of its parent's buffer; the roots are placed."""
        if name not in placed:
            parent, start = self.parent[name]
            placed[name] = self.settle(parent, placed).part(start, self.graph[name].shape)
        return placed[name]


def uses(graph: Graph, name: str) -> int:
    """How many add to a tensor's gradient."""
    return len(graph.consumers[name]) + (name in ends_of(graph))


def _outputs(graph: Graph, batch: int, start: int) -> tuple[dict[str, Buffer], int]:
    """Every output's buffer. What is handed in or out lies by itself."""
    tree, apart = Tree(graph, batch), {*graph.inputs, *ends_of(graph)}
    for node in graph:
        if isinstance(node.op, Concat):
            tree.join(node, {name: name not in apart for name in node.inputs})
    for node in graph:
        if isinstance(node.op, Flatten) and node.name not in (*tree.parent, *apart):
            tree.parent[node.name] = (node.inputs[0], 0)
        if not isinstance(node.op, Input) and _may_write_over(graph, node):
            tree.parent.setdefault(node.inputs[0], (node.name, 0))
    placed: dict[str, Buffer] = {}
    for node in graph:
        if node.name not in tree.parent:
            placed[node.name] = tree.fresh(node.name).part(start, node.shape)
            start += rounded(placed[node.name].floats)
    for node in graph:
        tree.settle(node.name, placed)
    return placed, start


def _may_write_over(graph: Graph, node: Node) -> bool:
    """Whether a node's kernel may, and nobody reads its input after it, on either way."""
    passes = isinstance(node.op, Dropout) or 0 in RECIPES[type(parts(node).base)].over
    if not passes or len(node.inputs) != 1 or back_of(node).reads_input:
        return False
    source = graph[node.inputs[0]]
    if isinstance(source.op, Input | Concat | Flatten) or uses(graph, source.name) > 1:
        return False
    reads = back_of(source).reads_output or parts(source).activation is not None
    return not reads and source.shape == node.shape


class _Gradients:
    """The places of gradients while they are found. Time runs backwards."""

    def __init__(self, graph: Graph, batch: int) -> None:
        self.graph, self.wants, self.ends = graph, wanted(graph), ends_of(graph)
        self.tree = Tree(graph, batch)
        self.turn = {node.name: i for i, node in enumerate(reversed(graph.nodes))}

    def lay_out(self, start: int) -> tuple[dict[str, Buffer], dict[Share, Buffer], int]:
        self._grow()
        life = self._lives()
        buffers = {name: self.tree.fresh(name) for name in life}
        shares = self._shares()
        for key, (node, which) in shares.items():
            buffers[key] = self.tree.fresh(self.graph[node].inputs[which])
            life[key] = Lifetime(self.turn[node], self.turn[node])
        placed: dict[str, Buffer] = {}
        end = pack(buffers, life, placed, start)
        found = {key: placed.pop(name) for name, key in shares.items()}
        for name in self.wants:
            self.tree.settle(name, placed)
        return placed, found, end

    def _alone(self, name: str) -> bool:
        return name in self.wants and uses(self.graph, name) == 1

    def _grow(self) -> None:
        """What lies in the gradient of the node after it."""
        for node in self.graph:
            if node.name not in self.wants or not node.inputs:
                continue
            if isinstance(node.op, Concat):
                self.tree.join(node, {name: self._alone(name) for name in node.inputs})
                continue
            name = node.inputs[0]
            same = self.graph[name].shape == node.shape and back_of(node).over
            if self._alone(name) and (same or isinstance(node.op, Flatten)):
                self.tree.parent.setdefault(name, (node.name, 0))

    def _lives(self) -> dict[str, Lifetime]:
        """Of every root, from the first that writes to its family to the last that reads."""
        life: dict[str, Lifetime] = {}
        born: dict[str, int] = {}
        for node in reversed(self.graph.nodes):
            now = self.turn[node.name]
            if node.name in self.wants:
                root = self.tree.root(node.name)
                first = -1 if node.name in self.ends else born.get(node.name, now)
                life[root] = life.get(root, Lifetime(first, now)) | Lifetime(first, now)
            for name in node.inputs:
                born.setdefault(name, now)
        return life

    def _shares(self) -> dict[str, Share]:
        """What is written apart before it is added, under a name that no node has."""
        found, written = {}, set(self.ends)
        for node in reversed(self.graph.nodes):
            for i, name in enumerate(node.inputs if node.name in self.wants else ()):
                if name in self.wants and name in written:
                    found[f"{node.name}/{i}"] = (node.name, i)
                written.add(name)
        return found
