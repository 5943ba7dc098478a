"""Which tensors stay packed from layer to layer where these go by tensor cores (see pack.py).

A tensor is written packed by the kernel that makes it where that one can and another reads it so;
as floats where anything else reads it, or it is handed out; some are written as both. A max pool
and a concatenation want of their inputs what is wanted of them. What cannot be written packed is
packed by each reader for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from netdsl.cuda.rounding import PER_WORD
from netdsl.graph import Graph, Node
from netdsl.graph.lifetimes import Lifetime
from netdsl.ops import Concat


class Packs(NamedTuple):
    """What a node's kernels can do with packed tensors: whether they read their first input so, and
    write their output so; or write it so if they read their inputs so, and not otherwise."""

    reads: bool = False
    writes: bool = False
    passes: bool = False


NEVER, PASSES = Packs(), Packs(passes=True)


@dataclass(frozen=True)
class Packing:
    """The lifetimes of the tensors that are written as floats, and of those that are written
    packed. reads: the nodes that read their first input packed; those that pass it on may read it
    as floats too."""

    floats: Mapping[str, Lifetime]
    packed: Mapping[str, Lifetime]
    reads: frozenset[str]


def decide(
    graph: Graph, held: frozenset[str], precision: str, packs: Callable[[Node], Packs]
) -> Packing:
    """How every tensor is written. held: tensors that are handed out. packs: of every node that
    computes something."""
    able = {node.name: packs(node) for node in graph if node.inputs}
    deciding = _Deciding(graph, held, able, set(_writers(graph, precision, able)))
    for now, node in reversed(list(enumerate(graph))):
        deciding.take(node, now)
    return deciding.done()


class _Deciding:
    """What is wanted of a graph's tensors, found from its end.

    floats, packed: of each tensor that is wanted so the place of the last node that reads it, which
    is the first one met. reads: nodes whose kernels read their first input packed.
    """

    def __init__(
        self, graph: Graph, held: frozenset[str], able: Mapping[str, Packs], writers: set[str]
    ) -> None:
        self.graph, self.able, self.writers = graph, able, writers
        self.floats, self.packed = dict.fromkeys(held, len(graph)), dict[str, int]()
        self.reads = {n for n, can in able.items() if can.reads and graph[n].inputs[0] in writers}

    def take(self, node: Node, now: int) -> None:
        """A node whose readers were all met: what it wants of its inputs."""
        if self.passes(node.name) and not isinstance(node.op, Concat):
            self.choose(node)
        if node.name not in self.packed:
            self.floats.setdefault(node.name, now)
        passes = self.passes(node.name)
        for i, name in enumerate(node.inputs):
            packed = node.name in self.packed if passes else i == 0 and node.name in self.reads
            if packed:
                self.packed.setdefault(name, now)
            if node.name in self.floats if passes else not packed:
                self.floats.setdefault(name, now)

    def passes(self, name: str) -> bool:
        """Whether a node wants of its inputs what is wanted of it."""
        return name in self.writers and self.able[name].passes

    def choose(self, node: Node) -> None:
        """Of a pool that is wanted as both: its input would be written and read as both, and is
        larger. So its readers pack the output for themselves, where they can."""
        name = node.name
        if not (name in self.floats and name in self.packed):
            return
        readers = {r for r in self.graph.consumers[name] if self.graph[r].inputs[0] == name}
        if not any(self.passes(r) and r in self.packed for r in self.graph.consumers[name]):
            self.floats[name] = max(self.floats[name], self.packed.pop(name))
            self.writers.remove(name)
            self.reads -= readers

    def done(self) -> Packing:
        """What was found."""
        born = {n.name: -1 if n.name in self.graph.inputs else i for i, n in enumerate(self.graph)}

        def lives(ends: Mapping[str, int]) -> dict[str, Lifetime]:
            return {name: Lifetime(at, ends[name]) for name, at in born.items() if name in ends}

        passed = {name for name in self.packed if self.able[name].passes}
        return Packing(lives(self.floats), lives(self.packed), frozenset(self.reads | passed))


def _writers(graph: Graph, precision: str, able: Mapping[str, Packs]) -> Iterator[str]:
    """The nodes that can write their output packed. Those of a concatenation do so each to its
    part, which begins at a whole unit; a tensor is part of one other at most."""
    unit = 4 * PER_WORD.get(precision, 1)
    found, joined = set[str](), set[str]()
    for node in graph:
        can, inputs = able.get(node.name, NEVER), set(node.inputs)
        if isinstance(node.op, Concat):
            whole = all(graph[name].shape[0] % unit == 0 for name in node.inputs[:-1])
            apart = len(inputs) == len(node.inputs) and not inputs & joined
            if not (whole and apart and inputs <= found):
                continue
            joined |= inputs
        elif not (can.writes or (can.passes and inputs <= found)):
            continue
        found.add(node.name)
        yield node.name
