"""A graph in Mermaid's language, which GitHub and GitLab draw in Markdown."""

from __future__ import annotations

import json

from netdsl.formats.diagram.boxes import Box, Frame, diagram
from netdsl.graph import Graph

SIDES = {"input": ("([", "])"), "join": ("((", "))"), "op": ("[", "]")}
"""The brackets of each shape: an input's are round, a join is a circle."""


def mermaid_text(graph: Graph) -> str:
    """The graph as a flowchart: a subgraph for each block, a head's lines dashed."""
    found = diagram(graph)
    boxes = _all(found.frame)
    lines = [
        "---",
        f"title: {json.dumps(graph.name)}",
        "---",
        "flowchart TD",
        *_frame(found.frame, "  "),
        *(
            f"  {arrow.start} {'-.->' if arrow.head else '-->'} {arrow.end}"
            for arrow in found.arrows
        ),
    ]
    lines += [f"  style {box.key} stroke-dasharray:4" for box in boxes if box.head]
    lines += [f"  style {box.key} stroke-width:3px" for box in boxes if box.output]
    return "\n".join(lines) + "\n"


def _all(frame: Frame) -> list[Box]:
    return frame.boxes + [box for inner in frame.frames for box in _all(inner)]


def _frame(frame: Frame, indent: str) -> list[str]:
    lines = [indent + _box(box) for box in frame.boxes]
    for inner in frame.frames:
        lines += [
            f"{indent}subgraph {inner.key}[{quoted(inner.title)}]",
            *_frame(inner, indent + "  "),
            f"{indent}end",
        ]
    return lines


def _box(box: Box) -> str:
    before, after = SIDES[box.kind]
    return f"{box.key}{before}{quoted(*box.lines)}{after}"


PLAIN = frozenset(" .,:;()[]{}=/'|")
"""Signs besides letters and digits that mean nothing within Mermaid's quotes, or in Markdown,
which it reads there."""


def quoted(*lines: str) -> str:
    """Lines as one string, every sign that may mean something by its number: `#35;`."""
    return '"' + "<br>".join(_line(line) for line in lines) + '"'


def _line(text: str) -> str:
    around = f" {text} "
    return "".join(
        sign if sign == "_" and (before + after).isalnum() else _sign(sign)
        for before, sign, after in zip(around, text, around[2:], strict=False)
    )


def _sign(sign: str) -> str:
    if sign.isalnum() or sign in PLAIN:
        return sign
    return f"#{ord(sign)};" if sign.isprintable() else " "
