"""The graph: what a .net file means, and what every later stage reads.

Nodes are immutable and in topological order. A node's parameters are called `node.parameter`
(`inception3a.conv1.weight`), and weights are a mapping from those names to arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field, replace
from functools import cached_property
from typing import NamedTuple

from netdsl.faults import Call, Span
from netdsl.frozen import dataclass
from netdsl.ops import Input, Op, Parameter, Shape
from netdsl.ops.base import Value


@dataclass(frozen=True)
class Node:
    """One op of the graph: its unique name, its inputs' names, its output's shape (no batch)."""

    name: str
    op: Op
    inputs: tuple[str, ...]
    shape: Shape
    span: Span | None = field(default=None, compare=False, repr=False)
    trail: tuple[Call, ...] = field(default=(), compare=False, repr=False)

    @property
    def scope(self) -> str:
        """The blocks the node stands in, joined by dots; empty at the top."""
        return self.name.rpartition(".")[0]


class Aux(NamedTuple):
    """A side classifier: its name, the weight of its loss, the node that is its output."""

    name: str
    weight: float
    output: str


class Labels(NamedTuple):
    """Class names: of a list that ships with the package, or a file beside the .net file."""

    name: str
    is_file: bool = False


@dataclass(frozen=True)
class Graph:
    """A network: nodes in topological order, its inputs and outputs by node name.

    `blocks` maps each scope to the block it is a call of ("inception3a" -> "inception").
    `names` maps the text's labels, visible at the top, to the node they stand for.
    """

    name: str
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    aux: tuple[Aux, ...] = ()
    labels: Labels | None = None
    meta: Mapping[str, Value] = field(default_factory=dict)
    blocks: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    file: str | None = None

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    def __getitem__(self, name: str) -> Node:
        """The node of this name. Raises KeyError."""
        return self._by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def input_shapes(self, node: Node) -> tuple[Shape, ...]:
        """The shapes of a node's inputs."""
        return tuple(self._by_name[name].shape for name in node.inputs)

    def parameters(self, node: Node) -> tuple[Parameter, ...]:
        """A node's parameters, their names without the node's."""
        return node.op.parameters(self.input_shapes(node))

    def all_parameters(self) -> dict[str, Parameter]:
        """Every parameter of the graph by its full name, in graph order."""
        return dict(self._parameters)

    @cached_property
    def _parameters(self) -> dict[str, Parameter]:
        return {
            f"{node.name}.{parameter.name}": parameter
            for node in self.nodes
            for parameter in self.parameters(node)
        }

    def input_op(self, name: str) -> Input:
        """The Input of this name."""
        op = self._by_name[name].op
        assert isinstance(op, Input)
        return op

    @cached_property
    def consumers(self) -> dict[str, tuple[str, ...]]:
        """For each node, the nodes that read it, in order; once for each use."""
        readers: dict[str, list[str]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in node.inputs:
                readers[name].append(node.name)
        return {name: tuple(found) for name, found in readers.items()}

    def needed(self, outputs: Iterable[str]) -> frozenset[str]:
        """The names of the nodes that these outputs depend on, themselves included."""
        wanted = set(outputs)
        for node in reversed(self.nodes):
            if node.name in wanted:
                wanted.update(node.inputs)
        return frozenset(wanted)

    @cached_property
    def main(self) -> frozenset[str]:
        """The nodes that the outputs need: all but the auxiliary heads."""
        return self.needed(self.outputs)

    def head_nodes(self, aux: Aux) -> tuple[Node, ...]:
        """The nodes of an auxiliary head alone, in order."""
        wanted = self.needed((aux.output,)) - self.main
        return tuple(node for node in self.nodes if node.name in wanted)

    def without_aux(self) -> Graph:
        """The graph that `run` and `cost` take: no auxiliary heads, nothing unneeded.

        Inputs stay even where nothing reads them.
        """
        keep = self.main | set(self.inputs)
        nodes = tuple(node for node in self.nodes if node.name in keep)
        return replace(self, nodes=nodes, aux=())
