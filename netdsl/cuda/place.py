"""Where every tensor of a plan lies in the arena.

Tensors that share memory by design form a *family* under one root: a concatenation's branches are
parts of its samples, a flattened tensor is the tensor, and a pass over the elements writes over
what it read. Families are laid out by their lifetimes, the largest first.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from netdsl.cuda.layout import ALIGN, Buffer, fresh
from netdsl.graph import Graph, Node
from netdsl.graph.families import Families
from netdsl.graph.lifetimes import Lifetime, lifetimes, lowest
from netdsl.ops import Concat, Flatten


class FloatFamilies(Families):
    """Families whose parts start at a float of their parent's samples."""

    def join_branches(self, node: Node, apart: frozenset[str]) -> None:
        """Puts a concatenation's branches into its samples. A branch that is part of another
        tensor already, or comes twice, or is kept apart, is left to be copied."""
        start = 0
        for name in node.inputs:
            if name not in self.parent and name not in apart:
                self.link(name, node.name, start)
            start += prod(self.graph[name].shape)

    def write_over(self, node: Node, choices: tuple[int, ...], now: int) -> None:
        """Lets a node write over one of its inputs, if nothing of that one's family is read again.

        choices: the inputs that its kernel may write over.
        """
        for i in choices:
            if self.spent(node, i, now) and node.name not in self.parent:
                self.link(node.name, node.inputs[i])
                return


def place(
    graph: Graph, batch: int, over: Mapping[str, tuple[int, ...]], apart: frozenset[str]
) -> tuple[dict[str, Buffer], int]:
    """The buffer of every tensor, and the floats that all take.

    over: the inputs that a node's kernel may write over. apart: tensors that are handed in or
    out, whose samples must lie together.
    """
    families = FloatFamilies(graph, lifetimes(graph))
    for node in graph:
        if isinstance(node.op, Concat):
            families.join_branches(node, apart)
    for now, node in enumerate(graph.nodes):
        if node.name in apart:
            continue
        if isinstance(node.op, Flatten):
            if node.name not in families.parent:
                families.link(node.name, node.inputs[0])
        else:
            families.write_over(node, over.get(node.name, ()), now)
    placed: dict[str, Buffer] = {}
    floats = _pack(families, batch, placed)
    for node in graph:
        _settle(node.name, families, placed)
    return placed, floats


def _settle(name: str, families: Families, placed: dict[str, Buffer]) -> None:
    """Gives a tensor its part of its parent's buffer, the parent first."""
    if name in placed:
        return
    parent, start = families.parent[name]
    _settle(parent, families, placed)
    placed[name] = placed[parent].part(start, families.graph[name].shape)


def _pack(families: Families, batch: int, placed: dict[str, Buffer]) -> int:
    """Places the roots."""
    nodes = [node for node in families.graph if node.name not in families.parent]
    return pack({n.name: fresh(batch, n.shape) for n in nodes}, families.life, placed)


def pack(
    buffers: Mapping[str, Buffer],
    life: Mapping[str, Lifetime],
    placed: dict[str, Buffer],
    start: int = 0,
) -> int:
    """Places buffers from `start` on, the largest first, each as low as it fits; where all end."""
    end = start
    for name, buffer in sorted(buffers.items(), key=lambda each: -each[1].floats):
        size = rounded(buffer.floats)
        taken = (
            (other.offset, other.offset + rounded(other.floats))
            for known, other in placed.items()
            if life[known].overlaps(life[name])
        )
        offset = lowest(taken, size, start)
        placed[name] = buffer.part(offset - buffer.offset, buffer.shape)
        end = max(end, offset + size)
    return end


def rounded(floats: int) -> int:
    """So many floats and what is left until the next tensor may begin."""
    return -(-floats // ALIGN) * ALIGN
