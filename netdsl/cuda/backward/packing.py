"""Which tensors lie packed in training, for all of a step that read them so (see pack.py).

A tensor that a layer on tensor cores reads is packed once, on the way forward, and kept for the way
back: by the kernel that makes it where that one can, else by a pass before its first reader. What
nobody reads as floats is written packed alone. Floats that have a packed copy, and are not read on
the way back, give their memory to the gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from netdsl.cuda.backward.table import BACKS
from netdsl.cuda.backward.task import Back
from netdsl.cuda.packing import Packing, decide
from netdsl.cuda.plan import bare_task
from netdsl.cuda.task import Task
from netdsl.graph import Graph, Node
from netdsl.graph.fused import parts
from netdsl.graph.lifetimes import Lifetime
from netdsl.ops import Input, Norm


@dataclass(frozen=True)
class Copies:
    """How tensors lie in training.

    written: how their own kernels write them. passes: those that a pass packs. reads: the nodes
    that read their first input packed. spare: the lives of floats that are done with where the way
    back begins.
    """

    written: Packing
    passes: frozenset[str]
    reads: frozenset[str]
    spare: Mapping[str, Lifetime]

    def lies_packed(self, name: str) -> bool:
        """Whether there is a packed copy."""
        return name in self.passes or name in self.written.packed


def copies_of(graph: Graph, ends: frozenset[str], batch: int, precision: str) -> Copies:
    """How tensors lie. ends: those that are handed out."""
    nodes = [node for node in graph if not isinstance(node.op, Input)]
    tasks = {node.name: bare_task(graph, node, batch, precision) for node in nodes}
    able = {node.name: _back(node).packs(tasks[node.name]) for node in nodes}
    held = ends | frozenset(graph.inputs) | frozenset(_read_back(nodes, tasks))
    written = decide(graph, held, precision, lambda node: able[node.name])
    reads = {node.name for node in nodes if able[node.name].reads}
    passes = {graph[name].inputs[0] for name in reads} - set(written.packed)
    spare = {
        name: life
        for name, life in written.floats.items()
        if name not in held and (name in passes or name in written.packed)
    }
    return Copies(written, frozenset(passes), frozenset(reads), spare)


def _back(node: Node) -> Back:
    return BACKS[type(parts(node).base)]


def _read_back(nodes: list[Node], tasks: Mapping[str, Task]) -> Iterator[str]:
    """The tensors whose floats the way back reads."""
    for node in nodes:
        back, whole = _back(node), parts(node)
        # A norm finds out anew what a relu in it took.
        bends = whole.activation is not None and not isinstance(whole.base, Norm)
        if back.reads_output or (bends and not back.relu_packed(tasks[node.name])):
            yield node.name
        if back.reads_input and not back.reads_packed(tasks[node.name]):
            yield from node.inputs
