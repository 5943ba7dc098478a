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
    packed. reads: the nodes that read their first input packed."""

    floats: Mapping[str, Lifetime]
    packed: Mapping[str, Lifetime]
    reads: frozenset[str]


def decide(
    graph: Graph, held: frozenset[str], precision: str, packs: Callable[[Node], Packs]
) -> Packing:
    """How every tensor is written. held: tensors that are handed out. packs: of every node that
    computes something."""
    able = {node.name: packs(node) for node in graph if node.inputs}
    writers = frozenset(_writers(graph, precision, able))
    reads = frozenset(n for n, can in able.items() if can.reads and graph[n].inputs[0] in writers)
    # Of each tensor the place of the last node that reads it, which is the first one met.
    floats, packed = dict.fromkeys(held, len(graph)), dict[str, int]()
    for now, node in reversed(list(enumerate(graph))):
        if node.name not in packed:
            floats.setdefault(node.name, now)
        passes = node.name in writers and able[node.name].passes
        for i, name in enumerate(node.inputs):
            wants_packed = node.name in packed if passes else i == 0 and node.name in reads
            if wants_packed:
                packed.setdefault(name, now)
            if node.name in floats if passes else not wants_packed:
                floats.setdefault(name, now)
    born = {node.name: -1 if node.name in graph.inputs else i for i, node in enumerate(graph)}

    def lives(ends: Mapping[str, int]) -> dict[str, Lifetime]:
        return {name: Lifetime(at, ends[name]) for name, at in born.items() if name in ends}

    return Packing(lives(floats), lives(packed), reads)


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
