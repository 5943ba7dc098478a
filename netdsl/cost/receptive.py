"""Receptive fields: how much of the input one value of a layer has seen.

For L stacked convolutions of K x K and stride 1 it is 1 + L(K-1) (lecture 8). In general, on each
axis, an op whose window spans E positions of its input adds (E - 1) x jump, where the jump is how
many input pixels apart two neighbours of that input stand (Araujo et al. 2019). Where paths join,
the widest counts. The result may exceed the input's size: the rest is padding.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil

from netdsl.frozen import dataclass
from netdsl.graph import Graph, Node


@dataclass(frozen=True)
class Reach:
    """Input pixels seen, and pixels between neighbours, per spatial axis."""

    extent: tuple[Fraction, ...]
    jump: tuple[Fraction, ...]

    @property
    def pixels(self) -> tuple[int, ...]:
        """The extent in whole pixels per axis."""
        return tuple(ceil(e) for e in self.extent)


def receptive_fields(graph: Graph) -> dict[str, Reach | None]:
    """Each node's reach by its name; None where a value has seen the whole input."""
    found: dict[str, Reach | None] = {}
    for node in graph.nodes:
        found[node.name] = _reach(graph, node, found)
    return found


def _reach(graph: Graph, node: Node, found: dict[str, Reach | None]) -> Reach | None:
    if not node.inputs:
        rank = len(node.shape) - 1
        return Reach((Fraction(1),) * rank, (Fraction(1),) * rank)
    field = node.op.field(graph.input_shapes(node))
    before = _widest([found[name] for name in node.inputs])
    if field is None or before is None:
        return None
    extent = tuple(
        size + (window - 1) * jump
        for size, window, jump in zip(before.extent, field.extent, before.jump, strict=True)
    )
    steps = zip(before.jump, field.stride, strict=True)
    return Reach(extent, tuple(jump * stride for jump, stride in steps))


def _widest(reaches: list[Reach | None]) -> Reach | None:
    """The reach of joined paths: on each axis the widest; None as soon as one saw everything."""
    known = [reach for reach in reaches if reach is not None]
    if len(known) < len(reaches):
        return None
    extents = zip(*(reach.extent for reach in known), strict=True)
    jumps = zip(*(reach.jump for reach in known), strict=True)
    return Reach(tuple(map(max, extents)), tuple(map(max, jumps)))
