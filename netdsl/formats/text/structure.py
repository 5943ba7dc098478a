"""From a graph to chains and brackets.

A join's branches part at the last node through which every way to the join leads: its immediate
dominator. So the way back from an output, dominator by dominator, is a chain, and between two of
its nodes lie the branches of a bracket. A branch that is longer than a person can hold in mind is
written before the bracket, and what it passes by gets a name (a skip connection).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from netdsl.faults import error
from netdsl.formats.text.parts import Argument, Bracket, Chain, Ref, Side, Step, Word
from netdsl.graph import Aux, Graph, Node
from netdsl.ops import Input, Join

LONG = {"|": 12, "+": 40, "*": 40}
"""Ops of a branch from which on it stands before its bracket, by the bracket's sign."""


class Structure:
    """The chains of a graph. `named` gathers the nodes that some chain calls by name."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.above = _dominators(graph)
        self.before = _ancestors(graph)
        self.named: dict[str, None] = {}
        self.said: set[str] = set(graph.inputs)
        self.sides: dict[str, list[Aux]] = {}
        for aux in graph.aux:
            self.sides.setdefault(self._anchor(aux), []).append(aux)

    def lines(self) -> list[Chain]:
        """A chain for each output that no chain before it has passed."""
        root = self.graph.inputs[0] if len(self.graph.inputs) == 1 else None
        found = self._input_sides()
        flow = False
        try:
            for output in self.graph.outputs:
                if output not in self.said:
                    found.append(self._chain(root, output, afresh=flow))
                    flow = True
        except RecursionError:
            raise error(
                "too-deep", "the net's branches are nested too deep to be written"
            ) from None
        if not flow:
            raise error("no-layers", "a net that computes nothing cannot be written as text")
        return found

    def _input_sides(self) -> list[Chain]:
        """A line for each input that auxiliary heads hang on."""
        names = [name for name in self.graph.inputs if name in self.sides]
        return [(replace(self._ref(name), sides=self._hanging(name)),) for name in names]

    def _hanging(self, node: str) -> tuple[Side, ...]:
        return tuple(
            Side(aux.name, aux.weight, self._chain(node, aux.output))
            for aux in self.sides.get(node, ())
        )

    def _anchor(self, aux: Aux) -> str:
        """The node of the main net that an auxiliary head hangs on."""
        node: str | None = aux.output
        while node is not None and node not in self.graph.main:
            node = self.above[node]
        return node or self.graph.inputs[0]

    def _chain(self, start: str | None, end: str, *, afresh: bool = False) -> Chain:
        """The chain from a node's result to another's. afresh: what flows in is not `start`."""
        spine: list[str] = []
        node: str | None = end
        while node is not None and node != start and node not in self.said:
            spine.append(node)
            node = self.above[node]
        steps: list[Step] = []
        if node is not None and (node != start or afresh):
            steps.append(self._ref(node))
        passed = False
        for name in reversed(spine):
            # A head on a node before may have said this one too, and goes on from there by name.
            if name in self.said:
                passed = True
            else:
                steps += [self._ref(node)] if passed and node is not None else []
                steps += self._steps(node, self.graph[name])
                passed = False
            node = name
        return (*steps, self._ref(end)) if passed else tuple(steps)

    def _ref(self, node: str) -> Step:
        self.named[node] = None
        return Step(Ref(node), node)

    def _steps(self, start: str | None, node: Node) -> list[Step]:
        """A node after `start`, which dominates it."""
        if isinstance(node.op, Join):
            steps = self._bracket(start, node)
        else:
            steps = [Step(_word(node), node.name)]
        self.said.add(node.name)
        steps[-1] = replace(steps[-1], sides=self._hanging(node.name))
        return steps

    def _bracket(self, start: str | None, node: Node) -> list[Step]:
        assert isinstance(node.op, Join)
        sizes = {name: self._size(start, name) for name in node.inputs}
        longest = max(sizes, key=lambda name: sizes[name])
        others = max((sizes[n] for n in sizes if n != longest), default=0)
        steps: list[Step] = []
        if sizes[longest] > LONG[node.op.sign] and others <= LONG[node.op.sign]:
            steps += self._chain(start, longest)
        else:
            longest = ""
        branches = tuple(
            () if name == longest else self._chain(start, name, afresh=bool(longest))
            for name in node.inputs
        )
        steps.append(Step(Bracket(node.op.sign, branches), node.name))
        return steps

    def _size(self, start: str | None, end: str) -> int:
        """The nodes between that are not written yet, roughly."""
        if end in self.said:
            return 0
        known = self.before[start] if start is not None else 0
        return (self.before[end] & ~known).bit_count()


def _word(node: Node) -> Word:
    """The op's word in its parts."""
    text = node.op.word()
    word, _, rest = text.partition("(")
    arguments: list[Argument] = []
    settings: list[tuple[str, str]] = []
    for part in _parts(rest.removesuffix(")")):
        name, sign, value = part.partition("=")
        if sign:
            settings.append((name, value))
        else:
            arguments.append(int(part) if part.isdecimal() else part)
    return Word(node.op.head, word, tuple(arguments), tuple(settings))


def _parts(text: str) -> Iterable[str]:
    """What stands between commas, but not those of a list."""
    found, depth = [""], 0
    for sign in text:
        depth += (sign == "[") - (sign == "]")
        if sign == "," and depth == 0:
            found.append("")
        else:
            found[-1] += sign
    return [part.strip() for part in found if part.strip()]


def _dominators(graph: Graph) -> dict[str, str | None]:
    """For each node the last one before it through which every way to it leads."""
    above: dict[str, str | None] = {}
    depth: dict[str | None, int] = {None: 0}
    for node in graph:
        common: str | None = None
        if not isinstance(node.op, Input):
            common = node.inputs[0]
            for other in node.inputs[1:]:
                common = _common(common, other, above, depth)
        above[node.name] = common
        depth[node.name] = depth[common] + 1
    return above


def _common(
    a: str | None, b: str | None, above: dict[str, str | None], depth: dict[str | None, int]
) -> str | None:
    while a != b:
        if depth[a] >= depth[b]:
            assert a is not None
            a = above[a]
        else:
            assert b is not None
            b = above[b]
    return a


def _ancestors(graph: Graph) -> dict[str, int]:
    """For each node, as bits, the nodes that it needs, itself included."""
    found: dict[str, int] = {}
    for i, node in enumerate(graph):
        bits = 1 << i
        for name in node.inputs:
            bits |= found[name]
        found[node.name] = bits
    return found
