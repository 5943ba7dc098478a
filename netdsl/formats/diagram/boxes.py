"""What a diagram shows: boxes, arrows between them, and frames around the boxes of a block."""

from __future__ import annotations

from dataclasses import dataclass, field

from netdsl.graph import Graph, Node
from netdsl.ops import Activation, Dropout, Input, Join, LocalResponseNorm, Norm, show

FOLLOWERS = (Activation, Norm, LocalResponseNorm, Dropout)
"""Ops that share the box of what they follow."""


@dataclass(frozen=True)
class Box:
    """A box: what it is called in the text, its lines, and how it looks.

    kind: "input", "join", or "op". head: whether it belongs to an auxiliary head alone.
    """

    key: str
    lines: tuple[str, ...]
    kind: str
    head: bool = False
    output: bool = False


@dataclass
class Frame:
    """The boxes of a block's call, and the frames within. The outermost is the net."""

    key: str
    title: str
    boxes: list[Box] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)


@dataclass(frozen=True)
class Arrow:
    """From a box to a box by their keys; head: towards an auxiliary head."""

    start: str
    end: str
    head: bool


@dataclass(frozen=True)
class Diagram:
    """A net: its outermost frame, and arrows."""

    frame: Frame
    arrows: tuple[Arrow, ...]


def diagram(graph: Graph) -> Diagram:
    """The boxes of a graph: an op each, with the activation or normalisation that follows it.

    Boxes and frames are called n1, n2, …, so that no name of the net is part of the syntax.
    """
    leads = _leads(graph)
    members: dict[str, list[Node]] = {}
    for node in graph:
        members.setdefault(leads[node.name], []).append(node)
    keys = {lead: f"n{i}" for i, lead in enumerate(members, 1)}
    outer = Frame("net", graph.name)
    frames = {"": outer}
    for lead, nodes in members.items():
        frame = _frame(graph, _scope(graph, graph[lead]), frames)
        frame.boxes.append(_box(graph, keys[lead], nodes))
    arrows = dict.fromkeys(
        Arrow(keys[leads[name]], keys[leads[node.name]], node.name not in graph.main)
        for node in graph
        for name in node.inputs
        if leads[name] != leads[node.name]
    )
    _unwrap(outer)
    return Diagram(outer, tuple(arrows))


def _leads(graph: Graph) -> dict[str, str]:
    """For each node the one whose box it is in."""
    found: dict[str, str] = {}
    for node in graph:
        found[node.name] = node.name
        if not isinstance(node.op, FOLLOWERS):
            continue
        before = graph[node.inputs[0]]
        alone = len(graph.consumers[before.name]) == 1 and before.name not in _ends(graph)
        same = before.scope == node.scope and not isinstance(before.op, Input | Join)
        if alone and same:
            found[node.name] = found[before.name]
    return found


def _ends(graph: Graph) -> tuple[str, ...]:
    return (*graph.outputs, *(aux.output for aux in graph.aux))


def _scope(graph: Graph, node: Node) -> str:
    """The innermost block call that the node stands in."""
    scope = node.scope
    while scope and scope not in graph.blocks:
        scope = scope.rpartition(".")[0]
    return scope


def _frame(graph: Graph, scope: str, frames: dict[str, Frame]) -> Frame:
    """The frame of a block's call, made with those around it where it is new."""
    if scope not in frames:
        outside = scope.rpartition(".")[0]
        while outside and outside not in graph.blocks:
            outside = outside.rpartition(".")[0]
        around = _frame(graph, outside, frames)
        name = scope.removeprefix(f"{outside}.")
        made = Frame(f"f{len(frames)}", f"{name}: {graph.blocks[scope]}")
        around.frames.append(made)
        frames[scope] = made
    return frames[scope]


def _unwrap(frame: Frame) -> None:
    """Takes away frames around a single box, which would say less than the box."""
    for inner in list(frame.frames):
        _unwrap(inner)
        if len(inner.boxes) == 1 and not inner.frames:
            frame.boxes += inner.boxes
            frame.frames.remove(inner)
    frame.boxes.sort(key=lambda box: int(box.key[1:]))


def _box(graph: Graph, key: str, nodes: list[Node]) -> Box:
    first, last = nodes[0], nodes[-1]
    head = first.name not in graph.main
    output = last.name in _ends(graph)
    if isinstance(first.op, Join):
        return Box(key, (first.op.sign,), "join", head, output)
    name = first.name.rpartition(".")[2]
    if isinstance(first.op, Input):
        return Box(key, (name, show(first.shape)), "input", head, output)
    words = ", ".join(node.op.word() for node in nodes)
    return Box(key, (name, words, show(last.shape)), "op", head, output)
