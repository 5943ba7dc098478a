"""Where everything of a training step lies in the arena.

Every tensor of the way forward is kept for the way back, but for those that an activation writes
over, and for floats that the way back reads packed. Gradients live only from the first that adds to
them to their own node's turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from math import prod
from operator import or_

from netdsl.cuda.backward.packing import Copies
from netdsl.cuda.backward.table import BACKS
from netdsl.cuda.backward.task import Back
from netdsl.cuda.layout import Buffer, fresh, nowhere
from netdsl.cuda.place import pack, packed_families, rounded, settle
from netdsl.cuda.rounding import packed_shape
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

    outputs: of each node, nowhere if it is written packed alone; packed: of those that lie packed,
    of shape (*spatial, words); gradients: of each node that wants one; shares: where a node's share
    of an input's gradient goes that others have written before; floats in all.
    """

    outputs: Mapping[str, Buffer]
    packed: Mapping[str, Buffer]
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


def lay_out(
    graph: Graph, batch: int, start: int, copies: Copies | None = None, precision: str = "fp32"
) -> Layout:
    """Places from `start` on. copies: what lies packed, if anything does."""
    tree = _tree(graph, batch, copies)
    families = _families(tree, copies)
    spare = _spare(families, copies) if copies else {}
    placed: dict[str, Buffer] = {}
    for root in families:
        if root not in spare:
            placed[root] = tree.fresh(root).part(start, graph[root].shape)
            start += rounded(placed[root].floats)
    packed, start = _packed(graph, batch, start, copies, precision) if copies else ({}, start)
    # What is done with where the way back begins lies where gradients will.
    done: dict[str, Buffer] = {}
    past = pack({root: tree.fresh(root) for root in spare}, spare, done, start)
    placed |= done
    for node in graph:
        if copies and node.name not in copies.written.floats:
            placed[node.name] = nowhere(batch, node.shape)
        tree.settle(node.name, placed)
    gradients, shares, end = _Gradients(graph, batch).lay_out(start)
    return Layout(placed, packed, gradients, shares, max(end, past))


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


def _tree(graph: Graph, batch: int, copies: Copies | None) -> Tree:
    """Which outputs lie in others. What is handed in or out lies by itself."""
    tree, apart = Tree(graph, batch), {*graph.inputs, *ends_of(graph)}
    there = {node.name for node in graph if not copies or node.name in copies.written.floats}
    for node in graph:
        if isinstance(node.op, Concat) and node.name in there:
            tree.join(node, {name: name in there and name not in apart for name in node.inputs})
    for node in graph:
        if isinstance(node.op, Flatten) and node.name not in (*tree.parent, *apart):
            tree.parent[node.name] = (node.inputs[0], 0)
        if not isinstance(node.op, Input) and _may_write_over(graph, node):
            tree.parent.setdefault(node.inputs[0], (node.name, 0))
    return tree


def _families(tree: Tree, copies: Copies | None) -> dict[str, list[str]]:
    """The tensors that are written as floats, by those in whose memory they lie."""
    found: dict[str, list[str]] = {}
    for node in tree.graph:
        if not copies or node.name in copies.written.floats:
            found.setdefault(tree.root(node.name), []).append(node.name)
    order = {node.name: i for i, node in enumerate(tree.graph)}
    return dict(sorted(found.items(), key=lambda each: order[each[0]]))


def _spare(families: Mapping[str, list[str]], copies: Copies) -> dict[str, Lifetime]:
    """The lives of the families of which the way back reads no floats."""
    return {
        root: reduce(or_, (copies.spare[name] for name in names))
        for root, names in families.items()
        if all(name in copies.spare for name in names)
    }


def _packed(
    graph: Graph, batch: int, start: int, copies: Copies, precision: str
) -> tuple[dict[str, Buffer], int]:
    """Where tensors lie packed, and where all end."""
    names = [node.name for node in graph if copies.lies_packed(node.name)]
    shapes = {name: packed_shape(graph[name].shape, precision) for name in names}
    families, placed = packed_families(graph, copies.written, shapes), dict[str, Buffer]()
    for name in names:
        if name not in families.parent:
            placed[name] = fresh(batch, shapes[name]).part(start, shapes[name])
            start += rounded(placed[name].floats)
    for name in names:
        settle(name, families, shapes, placed)
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
