"""The net as calls within calls: what each scope holds, in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from netdsl.graph import Graph, Node
from netdsl.ops import Input


@dataclass
class Scope:
    """A call of a block, or the net itself: its nodes and calls, in the order of their inputs.

    takes: the tensors that come in from outside. gives: those that are read outside.
    """

    name: str
    block: str
    items: list[Node | Scope] = field(default_factory=list)
    takes: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()

    def nodes(self) -> Iterator[Node]:
        """All nodes, those of calls within too."""
        for item in self.items:
            if isinstance(item, Scope):
                yield from item.nodes()
            else:
                yield item

    def calls(self) -> Iterator[Scope]:
        """All calls, the inner ones first."""
        for item in self.items:
            if isinstance(item, Scope):
                yield from item.calls()
                yield item


def tree(graph: Graph) -> Scope:
    """The net's scopes. What auxiliary heads alone need comes last.

    A call that is a single op is the op itself. So is one that has parts of an auxiliary head
    among others, or whose nodes do not lie together: its nodes count as the caller's.
    """
    heads = graph.needed(aux.output for aux in graph.aux) - graph.main
    nodes = [n for n in graph if n.name in graph.main]
    nodes += [n for n in graph if n.name in heads]
    whole = _whole(graph, nodes)
    root = Scope("", graph.name)
    scopes = {"": root}
    for node in nodes:
        if not isinstance(node.op, Input):
            _scope(graph, _around(node.name, whole), whole, scopes).items.append(node)
    ends = {*graph.outputs, *(aux.output for aux in graph.aux)}
    for scope in (*root.calls(), root):
        _limits(graph, scope, ends)
    root.takes, root.gives = graph.inputs, graph.outputs
    return root


def _whole(graph: Graph, nodes: list[Node]) -> frozenset[str]:
    """The calls that may be modules of their own."""
    places: dict[str, list[int]] = {}
    for i, node in enumerate(nodes):
        scope = node.scope
        while scope:
            if scope in graph.blocks:
                places.setdefault(scope, []).append(i)
            scope = scope.rpartition(".")[0]
    return frozenset(
        scope
        for scope, at in places.items()
        if len(at) > 1
        and at[-1] - at[0] == len(at) - 1
        and len({nodes[i].name in graph.main for i in at}) == 1
    )


def _around(name: str, whole: frozenset[str]) -> str:
    """The innermost of the calls that a name stands in."""
    scope = name.rpartition(".")[0]
    while scope and scope not in whole:
        scope = scope.rpartition(".")[0]
    return scope


def _scope(graph: Graph, name: str, whole: frozenset[str], scopes: dict[str, Scope]) -> Scope:
    if name not in scopes:
        around = _scope(graph, _around(name, whole), whole, scopes)
        scopes[name] = Scope(name, graph.blocks[name])
        around.items.append(scopes[name])
    return scopes[name]


def _limits(graph: Graph, scope: Scope, ends: set[str]) -> None:
    inside = {node.name for node in scope.nodes()}
    takes = (name for node in scope.nodes() for name in node.inputs if name not in inside)
    scope.takes = tuple(dict.fromkeys(takes))
    scope.gives = tuple(
        name
        for name in inside_order(scope)
        if name in ends or any(reader not in inside for reader in graph.consumers[name])
    )


def inside_order(scope: Scope) -> list[str]:
    """The names of a scope's nodes, in order."""
    return [node.name for node in scope.nodes()]
