"""Tensors that share memory by design, on whatever device."""

from __future__ import annotations

from netdsl.graph.graph import Graph, Node
from netdsl.graph.lifetimes import Lifetime


class Families:
    """Which tensors are parts of which: each links to a parent and to where it starts there.

    What a start counts is the device's own: channels, or floats of a sample.
    """

    def __init__(self, graph: Graph, life: dict[str, Lifetime]) -> None:
        self.graph, self.life = graph, life
        self.parent: dict[str, tuple[str, int]] = {}

    def root(self, name: str) -> str:
        """The tensor that owns the memory."""
        while name in self.parent:
            name = self.parent[name][0]
        return name

    def link(self, child: str, parent: str, start: int = 0) -> None:
        """Makes the child's memory part of the parent's."""
        life = self.life[self.root(parent)] | self.life[child]
        self.parent[child] = (parent, start)
        self.life[self.root(parent)] = life

    def spent(self, node: Node, i: int, now: int) -> bool:
        """Whether a node may write over its input i: of one shape, and nobody in that one's
        family is read again."""
        name = node.inputs[i]
        alone = node.inputs.count(name) == 1 and self.graph[name].shape == node.shape
        return alone and self.life[self.root(name)].dies == now
