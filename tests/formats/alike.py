"""Whether two graphs are the same network, and which node of one is which of the other."""

from __future__ import annotations

from dataclasses import replace

from netdsl.graph import Graph, Node
from netdsl.ops import AveragePool, Conv, Input, MaxPool, Op


def pair(one: Graph, other: Graph) -> dict[str, str] | None:
    """For each node of `one` that its outputs need the node of `other` that computes the same.

    Names, blocks and pictures' settings do not matter; ops, shapes, and the order of inputs,
    outputs and auxiliary heads do. None where the networks differ.
    """
    ends = list(zip(_ends(one), _ends(other), strict=False))
    if len(_ends(one)) != len(_ends(other)) or len(one.inputs) != len(other.inputs):
        return None
    found: dict[str, str] = {}
    todo = [*zip(one.inputs, other.inputs, strict=True), *ends]
    while todo:
        ours, theirs = todo.pop()
        if ours in found:
            if found[ours] != theirs:
                return None
            continue
        if not _alike(one[ours], other[theirs]):
            return None
        found[ours] = theirs
        todo += zip(one[ours].inputs, other[theirs].inputs, strict=True)
    return found if len(set(found.values())) == len(found) else None


def _ends(graph: Graph) -> list[str]:
    return [*graph.outputs, *(aux.output for aux in graph.aux)]


def _alike(one: Node, other: Node) -> bool:
    return (
        _op(one.op) == _op(other.op)
        and one.shape == other.shape
        and len(one.inputs) == len(other.inputs)
    )


def _op(op: Op) -> Op:
    """The op without what is only spelling; what rounding up does shows in the shape."""
    if isinstance(op, Conv):
        return replace(op, depthwise=False)
    if isinstance(op, MaxPool | AveragePool):
        return replace(op, window=op.window._replace(ceil=False))
    return Input(op.shape) if isinstance(op, Input) else op
