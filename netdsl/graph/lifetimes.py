"""When the tensors of a graph are alive: from the node that makes them to the last that reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from netdsl.graph.graph import Graph


class Lifetime(NamedTuple):
    """The places in the graph's order of the node that makes a tensor, and of its last reader.

    An input is made before the first node (-1), an output is read after the last.
    """

    born: int
    dies: int

    def overlaps(self, other: Lifetime) -> bool:
        """Whether both must be held at some moment; a reader's result is born before it dies."""
        return self.born <= other.dies and other.born <= self.dies

    def __or__(self, other: object) -> Lifetime:
        """From the first birth to the last death. Raises TypeError for another type."""
        if not isinstance(other, Lifetime):
            return NotImplemented
        return Lifetime(min(self.born, other.born), max(self.dies, other.dies))


def lifetimes(
    graph: Graph,
    together: Iterable[Sequence[str]] = (),
    by_turns: Iterable[Sequence[str]] = (),
) -> dict[str, Lifetime]:
    """The lifetime of every node's result.

    together: nodes that follow each other and are computed at once, bit by bit: what they make and
    read is alive from the first to the last of them. by_turns: the same that are computed several
    times, for other samples each time: what they read of others is alive to the last of them, and
    what others read of theirs from the first.
    """
    born = {node.name: i for i, node in enumerate(graph.nodes)}
    done = dict(born)
    for names in together:
        born.update(dict.fromkeys(names, born[names[0]]))
        done.update(dict.fromkeys(names, done[names[-1]]))
    outputs = {*graph.outputs, *(aux.output for aux in graph.aux)}
    found = {}
    for name, i in born.items():
        dies = max((done[reader] for reader in graph.consumers[name]), default=done[name])
        start = -1 if name in graph.inputs else i
        found[name] = Lifetime(start, len(graph.nodes) if name in outputs else dies)
    place = {node.name: i for i, node in enumerate(graph.nodes)}
    for names in by_turns:
        first, last, inside = place[names[0]], place[names[-1]], inner(graph, names)
        for name in names:
            if name not in inside:
                found[name] |= Lifetime(first, first)
            for source in graph[name].inputs:
                if source not in names:
                    found[source] |= Lifetime(last, last)
    return found


def lowest(taken: Iterable[tuple[int, int]], size: int, start: int) -> int:
    """The lowest place from `start` on where so much lies outside of all stretches that are taken,
    each given by its start and end."""
    for low, high in sorted(taken):
        if start + size <= low:
            break
        start = max(start, high)
    return start


def inner(graph: Graph, names: Sequence[str]) -> frozenset[str]:
    """Those of some nodes whose results none but these nodes read."""
    outputs = {*graph.outputs, *(aux.output for aux in graph.aux)}
    own = set(names)
    return frozenset(n for n in names if n not in outputs and own.issuperset(graph.consumers[n]))
