"""Which node of one graph is which of another that computes the same."""

from __future__ import annotations

from netdsl.graph.graph import Graph


def correspondence(a: Graph, b: Graph) -> dict[str, str]:
    """For each node of `a` that its outputs and auxiliary heads need, the node of `b` it is.

    The graphs must be the same but for names and the order of nodes. Raises ValueError, which
    says where they differ.
    """
    if len(a.outputs) != len(b.outputs) or len(a.aux) != len(b.aux):
        raise ValueError("the graphs have different numbers of outputs or auxiliary heads")
    found: dict[str, str] = {}
    taken: set[str] = set()
    todo = list(zip(a.outputs, b.outputs, strict=True))
    heads = {head.name: head.output for head in b.aux}
    if set(heads) != {head.name for head in a.aux}:
        raise ValueError("the graphs' auxiliary heads have different names")
    todo += [(head.output, heads[head.name]) for head in a.aux]
    while todo:
        ours, theirs = todo.pop()
        if ours in found:
            if found[ours] != theirs:
                raise ValueError(f"{ours} is both {found[ours]} and {theirs}")
            continue
        one, other = a[ours], b[theirs]
        if one.op != other.op or one.shape != other.shape or theirs in taken:
            raise ValueError(f"{ours} is {one.op.word()}, {theirs} is {other.op.word()}")
        found[ours] = theirs
        taken.add(theirs)
        todo += zip(one.inputs, other.inputs, strict=True)
    return {node.name: found[node.name] for node in a if node.name in found}
