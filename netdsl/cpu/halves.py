"""Tensors that are made in bfloat16, where all that reads them wants them so.

A step that rounds a tensor moves up the graph. Max pools and concatenations choose and move numbers
but make none, so it passes through them, and they read and write half the bytes. Where it reaches
the layer that makes the tensor, and that can write bfloat16, the layer does it. Each number is
rounded once all the same, and as it was.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from netdsl.cpu.layout import LANES
from netdsl.cpu.rounding import Rounded, rounded_name
from netdsl.graph import Graph, Node
from netdsl.graph.taps import axis_windows
from netdsl.ops import Concat, MaxPool

BLOCK = 2 * LANES
"""Channels of a block of a tensor in bfloat16 that products of matrices read."""


class Writers(NamedTuple):
    """The nodes that can write such a tensor; `parts`: those that can start within a block."""

    whole: frozenset[str]
    parts: frozenset[str]


def moved_up(graph: Graph, writers: Writers) -> tuple[Graph, frozenset[str]]:
    """The graph with its steps of rounding moved up as far as they go, and the nodes besides them
    whose tensors are in bfloat16, in blocks of 32 channels."""
    mover = Mover(graph, writers)
    while mover.step():
        pass
    return replace(graph, nodes=tuple(mover.ordered())), frozenset(mover.halves)


class Mover:
    """A graph while its steps of rounding are moved."""

    def __init__(self, graph: Graph, writers: Writers) -> None:
        self.writers = writers
        self.held = {*graph.inputs, *graph.outputs, *(aux.output for aux in graph.aux)}
        self.order = [node.name for node in graph.nodes]
        self.nodes = {node.name: node for node in graph.nodes}
        self.halves: set[str] = set()

    def ordered(self) -> list[Node]:
        """The nodes, each after those that it reads."""
        return [self.nodes[name] for name in self.order if name in self.nodes]

    def step(self) -> bool:
        """Moves one step of rounding; whether there was one to move."""
        readers = self.readers()
        for name, node in self.nodes.items():
            if not isinstance(node.op, Rounded) or node.op.lanes != LANES:
                continue
            source = node.inputs[0]
            if source in self.held or readers[source] != [name]:
                continue
            maker = self.nodes[source]
            if source in self.writers.whole:
                inputs = maker.inputs
            elif chooses(maker, self.nodes) or self.joins(maker, readers):
                inputs = tuple(self.rounded(one) for one in maker.inputs)
            else:
                continue
            self.nodes[source] = replace(maker, inputs=inputs)
            self.halves.add(source)
            self.remove(name, source)
            return True
        return False

    def readers(self) -> dict[str, list[str]]:
        """For each node, the nodes that read it, once for each use."""
        found: dict[str, list[str]] = {name: [] for name in self.nodes}
        for node in self.nodes.values():
            for name in node.inputs:
                found[name].append(node.name)
        return found

    def rounded(self, source: str) -> str:
        """What holds a tensor in bfloat16: itself, or a step behind it, made if need be. The step
        stands right behind the tensor, for what reads it now may come before those that did."""
        if source in self.halves:
            return source
        name = rounded_name(source)
        if name in self.nodes:
            self.order.remove(name)
        else:
            self.nodes[name] = Node(name, Rounded(LANES), (source,), self.nodes[source].shape)
        self.order.insert(self.order.index(source) + 1, name)
        return name

    def remove(self, name: str, instead: str) -> None:
        """Lets what reads a step of rounding read what is rounded now."""
        del self.nodes[name]
        for node in list(self.nodes.values()):
            if name in node.inputs:
                inputs = tuple(instead if one == name else one for one in node.inputs)
                self.nodes[node.name] = replace(node, inputs=inputs)

    def joins(self, node: Node, readers: dict[str, list[str]]) -> bool:
        """Whether a node is a concatenation whose parts are all written in place: they start
        blocks and fill them, or their layers can do without."""
        if not isinstance(node.op, Concat) or len(set(node.inputs)) < len(node.inputs):
            return False
        start = 0
        for i, name in enumerate(node.inputs):
            end = start + self.nodes[name].shape[0]
            last = i == len(node.inputs) - 1
            alone = readers[name] == [node.name] and name not in self.held
            by_parts = alone and name in self.writers.parts
            size = LANES if by_parts else BLOCK
            once = [self.is_joined(r) for r in readers[name] + self.reads(name, readers)].count(
                True
            )
            if start % size or (end % size and not last) or once > 1:
                return False
            start = end
        return True

    def reads(self, name: str, readers: dict[str, list[str]]) -> list[str]:
        """What reads a tensor's rounded numbers."""
        return readers.get(rounded_name(name), [])

    def is_joined(self, name: str) -> bool:
        return isinstance(self.nodes[name].op, Concat)


def chooses(node: Node, nodes: dict[str, Node]) -> bool:
    """Whether a node is a max pool of windows that all have something in them."""
    if not isinstance(node.op, MaxPool):
        return False
    sizes = zip(nodes[node.inputs[0]].shape[1:], node.shape[1:], strict=True)
    axes = [axis_windows(node.op.window, i, n, m, False) for i, (n, m) in enumerate(sizes)]
    return all(first < end for axis in axes for first, end, _ in axis)
