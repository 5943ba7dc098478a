"""A graph in Graphviz's language: `dot -Tsvg net.dot -o net.svg`."""

from __future__ import annotations

from netdsl.formats.diagram.boxes import Box, Frame, diagram
from netdsl.graph import Graph

SHAPES = {"input": "ellipse", "join": "circle", "op": "box"}


def dot_text(graph: Graph) -> str:
    """The graph as text for Graphviz: a cluster for each block, a head's lines dashed."""
    found = diagram(graph)
    lines = [
        f"digraph {quoted(graph.name)} {{",
        f"  label={quoted(graph.name)} labelloc=t",
        '  node [shape=box style=rounded fontname="sans-serif" fontsize=11]',
        "  edge [arrowsize=0.7]",
        *_frame(found.frame, "  "),
        *(
            f"  {arrow.start} -> {arrow.end}" + (" [style=dashed]" if arrow.head else "")
            for arrow in found.arrows
        ),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _frame(frame: Frame, indent: str) -> list[str]:
    lines = [indent + _box(box) for box in frame.boxes]
    for inner in frame.frames:
        lines += [
            f"{indent}subgraph cluster_{inner.key} {{",
            f"{indent}  label={quoted(inner.title)}",
            *_frame(inner, indent + "  "),
            f"{indent}}}",
        ]
    return lines


def _box(box: Box) -> str:
    settings = [f"label={quoted(*box.lines)}"]
    if box.kind != "op":
        settings.append(f"shape={SHAPES[box.kind]}")
    if box.head:
        settings.append('style="rounded,dashed"')
    if box.output:
        settings.append("penwidth=2")
    return f"{box.key} [{' '.join(settings)}]"


def quoted(*lines: str) -> str:
    """Lines as one string: Graphviz takes `\\x` and `&x;` in a label for more than they are."""
    escaped = (
        _printable(line).replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')
        for line in lines
    )
    return '"' + "\\n".join(escaped) + '"'


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in text)
