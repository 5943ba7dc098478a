"""The graph while it grows: its nodes, and the totals that have limits."""

from __future__ import annotations

from math import prod

from netdsl.faults import Call, Span
from netdsl.graph import Aux, Node
from netdsl.lang.report import Full, Report
from netdsl.lang.scope import Tensor
from netdsl.limits import Limits
from netdsl.ops import Op, Shape, show

FLOAT = 4
"""Bytes of a number in single precision."""

LONGEST_NAME = 1000
"""Characters of a node's name with its scopes."""


class Nodes:
    """Nodes in topological order, side classifiers, and which scope is a call of which block."""

    def __init__(self, report: Report, limits: Limits) -> None:
        self.report = report
        self.limits = limits
        self.nodes: list[Node] = []
        self.aux: list[Aux] = []
        self.blocks: dict[str, str] = {}
        self._bytes = 0
        self._parameters = 0

    def add(
        self,
        name: str,
        op: Op,
        inputs: tuple[Tensor, ...],
        span: Span,
        trail: tuple[Call, ...] = (),
    ) -> Tensor:
        """Adds an op that fits its inputs. Raises OpFault; Full when a limit is passed."""
        shapes = tuple(tensor.shape or () for tensor in inputs)
        shape = op.output(shapes)
        self._limit(name, op, shape, shapes, span, trail)
        names = tuple(tensor.node for tensor in inputs)
        self.nodes.append(Node(name, op, names, shape, span, trail))
        return Tensor(name, shape)

    def _limit(
        self,
        name: str,
        op: Op,
        shape: Shape,
        inputs: tuple[Shape, ...],
        span: Span,
        trail: tuple[Call, ...],
    ) -> None:
        elements = prod(shape)
        self._bytes += elements * FLOAT
        self._parameters += sum(parameter.size for parameter in op.parameters(inputs))
        most = self.limits
        problem = None
        if elements > most.elements:
            problem = f"a tensor of {shown(shape)} has more than {most.elements:,} elements"
        elif self._bytes > most.activations:
            problem = f"the net's tensors take more than {most.activations >> 30} GiB for one input"
        elif self._parameters > most.parameters:
            problem = f"the net has more than {most.parameters:,} parameters"
        elif len(self.nodes) > most.nodes:
            problem = f"the net has more than {most.nodes:,} ops"
        elif len(name) > LONGEST_NAME:
            problem = f"the name of an op has more than {LONGEST_NAME} characters with its blocks'"
        if problem is not None:
            hint = None if len(name) > LONGEST_NAME else "--no-limits lifts this limit"
            self.report.error("too-large", problem, span, hint, trail)
            raise Full


def shown(shape: Shape) -> str:
    """A shape, its numbers shortened where they are absurd."""
    return show(shape) if max(shape, default=0) < 10**15 else "absurd size"
