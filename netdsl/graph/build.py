"""Building a graph in code, op by op: for importers, which have no text to expand.

builder = GraphBuilder("tiny")
x = builder.input((3, 8, 8))
x = builder.add(Conv(4, window), x)
graph = builder.finish([x])
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from netdsl.faults import NetError, OpFault
from netdsl.graph.graph import Aux, Graph, Node
from netdsl.ops import Input, Op, Picture, Shape


class GraphBuilder:
    """A graph while it grows. Nodes come in topological order, since each names its inputs.

    A node without a name gets its op's head and a number, as in a .net text: conv1, conv2, add1.
    `scope` puts such names into a block: with scope="stem", stem.conv1.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._nodes: dict[str, Node] = {}
        self._inputs: list[str] = []
        self._aux: list[Aux] = []
        self._counts: Counter[tuple[str, str]] = Counter()

    def input(self, shape: Shape, name: str = "input", picture: Picture | None = None) -> str:
        """Adds an input of this shape (C, *spatial), without the batch. Returns its name.

        Raises ValueError when the name is taken.
        """
        self._inputs.append(name)
        return self._put(Node(name, Input(shape, picture or Picture()), (), shape))

    def add(self, op: Op, *inputs: str, name: str | None = None, scope: str = "") -> str:
        """Adds a resolved op on the nodes of these names. Returns the new node's name.

        Raises NetError where the op does not fit its inputs, ValueError when the name is taken,
        KeyError for an input that is no node.
        """
        name = name or self._numbered(op.head, scope)
        try:
            shape = op.output(tuple(self._nodes[n].shape for n in inputs))
        except OpFault as fault:
            found = fault.at(None)
            raise NetError(
                type(found)(found.code, f"{name}: {found.message}", help=found.help)
            ) from None
        return self._put(Node(name, op, inputs, shape))

    def aux(self, output: str, weight: float, name: str) -> None:
        """Makes a node the output of an auxiliary head."""
        self._aux.append(Aux(name, weight, output))

    def shape(self, name: str) -> Shape:
        """The shape of a node's output, without the batch."""
        return self._nodes[name].shape

    def __contains__(self, name: object) -> bool:
        return name in self._nodes

    def finish(self, outputs: Sequence[str], file: str | None = None) -> Graph:
        """The graph that gives these nodes' outputs."""
        for name in outputs:
            self._nodes[name]
        return Graph(
            self.name,
            tuple(self._nodes.values()),
            tuple(self._inputs),
            tuple(outputs),
            tuple(self._aux),
            file=file,
        )

    def _numbered(self, head: str, scope: str) -> str:
        while True:
            self._counts[scope, head] += 1
            own = f"{head}{self._counts[scope, head]}"
            name = f"{scope}.{own}" if scope else own
            if name not in self._nodes:
                return name

    def _put(self, node: Node) -> str:
        if node.name in self._nodes:
            raise ValueError(f"two nodes called {node.name}")
        self._nodes[node.name] = node
        return node.name
