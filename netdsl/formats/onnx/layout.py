"""Inputs with their channels last, that a model scales or pads before it turns them round."""

from __future__ import annotations

from onnx import GraphProto, NodeProto

PASSING = frozenset(("Add", "Cast", "Clip", "Div", "Identity", "Mul", "Neg", "Pad", "Sub"))
"""Operators that come before the turn, as the scaling of pictures does."""


def channels_last(graph: GraphProto, name: str, rank: int) -> bool:
    """Whether a model reads an input of this rank by way of some of those and a transpose that
    brings the channels from the last axis to the second.

    An input that is turned at once is left to the transpose.
    """
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for source in node.input:
            readers.setdefault(source, []).append(node)
    turn = [0, rank - 1, *range(1, rank - 1)]
    if rank < 3 or any(node.op_type not in PASSING for node in readers.get(name, ())):
        return False
    todo, seen = [name], {name}
    while todo:
        for node in readers.get(todo.pop(), ()):
            if node.op_type == "Transpose" and _order(node) == turn:
                return True
            passed = node.output[:1] if node.op_type in PASSING else ()
            todo += [output for output in passed if output not in seen]
            seen.update(passed)
    return False


def _order(node: NodeProto) -> list[int]:
    return next((list(a.ints) for a in node.attribute if a.name == "perm"), [])
