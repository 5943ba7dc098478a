"""What is not wrong but likely not meant: told only of a text without errors."""

from __future__ import annotations

from netdsl.graph import Graph
from netdsl.lang.expand import Expander
from netdsl.lang.program import Program
from netdsl.lang.report import Report


def warn(graph: Graph, program: Program, expander: Expander, report: Report) -> None:
    """Reports doubles that nothing heeds, and what nothing uses."""
    for start, (word, span) in expander.passed.items():
        if start not in expander.heeded:
            message = f"no op heeds this `{word}`"
            hint = "it sets the filters of the next op that does not give its own"
            report.warning("unheeded-double", message, span, hint)
    for name, block in program.blocks.items():
        if block is not None and name not in expander.reached:
            report.warning("unused", f"no line uses the block `{name}`", block.name.span)
    for head, every in program.every.items():
        if head not in expander.used_every:
            report.warning("unused", f"`every {head}` meets no {head}", every.span)
    _unread(graph, report)


def _unread(graph: Graph, report: Report) -> None:
    """Nodes whose result goes nowhere."""
    ends = {*graph.outputs, *(aux.output for aux in graph.aux)}
    for name, readers in graph.consumers.items():
        if not readers and name not in ends:
            node = graph[name]
            what = "input" if name in graph.inputs else "result"
            message = f"nothing reads this {what}, `{name}`"
            report.warning("unused", message, node.span)
