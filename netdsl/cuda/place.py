"""Where every tensor of a plan lies in the arena.

Tensors that share memory by design form a *family* under one root: a concatenation's branches are
parts of its samples, a flattened tensor is the tensor, and a pass over the elements writes over
what it read. What is written packed has families of its own. All are laid out by their lifetimes,
the largest first.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import NamedTuple

from netdsl.cuda.layout import ALIGN, Buffer, fresh
from netdsl.cuda.packing import Packing
from netdsl.cuda.rounding import packed_shape
from netdsl.graph import Graph, Node
from netdsl.graph.families import Families
from netdsl.graph.lifetimes import Lifetime, lowest
from netdsl.ops import Concat, Flatten, Shape


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


class Placed(NamedTuple):
    """The buffers of the tensors that are written as floats, and of those that are written packed,
    of shape (*spatial, words); the floats that all take."""

    floats: dict[str, Buffer]
    packed: dict[str, Buffer]
    total: int


def place(
    graph: Graph,
    batch: int,
    over: Mapping[str, tuple[int, ...]],
    apart: frozenset[str],
    packing: Packing,
    precision: str = "fp32",
) -> Placed:
    """Where every tensor lies.

    over: the inputs that a node's kernel may write over. apart: tensors that are handed in or
    out, whose samples must lie together.
    """
    shapes = {node.name: node.shape for node in graph}
    words = {name: packed_shape(shapes[name], precision) for name in packing.packed}
    floats, packed = _of_floats(graph, over, apart, packing), packed_families(graph, packing, words)
    roots = {name: fresh(batch, shapes[name]) for name in packing.floats}
    roots |= {_apart(name): fresh(batch, words[name]) for name in packing.packed}
    for name in (*floats.parent, *map(_apart, packed.parent)):
        del roots[name]
    life = floats.life | {_apart(name): each for name, each in packed.life.items()}
    placed: dict[str, Buffer] = {}
    total = pack(roots, life, placed)
    found = {name: placed[_apart(name)] for name in words if name not in packed.parent}
    for name in packing.floats:
        settle(name, floats, shapes, placed)
    for name in words:
        settle(name, packed, words, found)
    return Placed({name: placed[name] for name in packing.floats}, found, total)


def _apart(name: str) -> str:
    """What a tensor is called where it is packed, beside the nodes' names, which have no blanks."""
    return f"packed {name}"


def _of_floats(
    graph: Graph, over: Mapping[str, tuple[int, ...]], apart: frozenset[str], packing: Packing
) -> Families:
    """The families of the tensors that are written as floats."""
    families = FloatFamilies(graph, dict(packing.floats))
    for node in graph:
        if isinstance(node.op, Concat) and node.name in packing.floats:
            families.join_branches(node, apart)
    for now, node in enumerate(graph.nodes):
        if node.name in apart:
            continue
        if isinstance(node.op, Flatten):
            if node.name not in families.parent:
                families.link(node.name, node.inputs[0])
        else:
            families.write_over(node, over.get(node.name, ()), now)
    return families


def packed_families(graph: Graph, packing: Packing, shapes: Mapping[str, Shape]) -> Families:
    """The families of those that are written packed: parts start at a word of their parent's
    positions."""
    families = Families(graph, dict(packing.packed))
    for node in graph:
        if isinstance(node.op, Concat) and node.name in packing.packed:
            start = 0
            for name in node.inputs:
                families.link(name, node.name, start)
                start += shapes[name][-1]
    return families


def settle(
    name: str, families: Families, shapes: Mapping[str, Shape], placed: dict[str, Buffer]
) -> None:
    """Gives a tensor its part of its parent's buffer, the parent first."""
    if name in placed:
        return
    parent, start = families.parent[name]
    settle(parent, families, shapes, placed)
    placed[name] = placed[parent].part(start, shapes[name])


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
