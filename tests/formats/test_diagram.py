"""Graphs as text for Graphviz and Mermaid."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from netdsl import resources
from netdsl.find import graph_of, graph_of_text
from netdsl.formats.diagram import dot_text, mermaid_text
from netdsl.formats.diagram.boxes import Diagram, Frame, diagram
from netdsl.graph import Graph

TEXT = """net small
input 3x8x8
def pair(w) = conv3x3p1(w) -> bn -> relu -> conv3x3p1(w)
def one = lrn
pair(4) as first -> aux(weight=0.3) { gap -> flatten -> fc(2) }
[first | pair(4)] -> one -> [id + pair(8)] -> gap -> flatten -> fc(2)
"""

HOSTILE = (
    'a"];b[label="c',
    "\\",
    '\\"',
    "\\N\\G\\L",
    "<b>&lt;</b>",
    "end",
    "#quot;#35;",
    "`*x*`",
    "1. x",
    "---",
    "x\ny\r\t\0z",
    "%%{init: {}}%%",
    "]];click n1 href 'javascript:alert(1)'",
    "é日本\u202e",
    "",
)


def renamed(graph: Graph, name: str) -> Graph:
    """The graph with this name for itself and within every node's and block's name."""
    blocks = {scope: f"{block}{name}" for scope, block in graph.blocks.items()}
    last = graph.nodes[-1].name
    nodes = tuple(replace(n, name=name if n.name == last else n.name) for n in graph.nodes)
    return replace(graph, name=name, blocks=blocks, nodes=nodes, outputs=(name,))


def titles(frame: Frame) -> list[str]:
    return [frame.title, *(title for inner in frame.frames for title in titles(inner))]


def keys(found: Diagram) -> set[str]:
    def inside(frame: Frame) -> list[str]:
        return [b.key for b in frame.boxes] + [k for f in frame.frames for k in inside(f)]

    return set(inside(found.frame))


def test_ops_share_a_box_with_what_follows_and_blocks_have_a_frame() -> None:
    found = diagram(graph_of_text(TEXT))
    assert titles(found.frame) == ["small", "first: pair", "pair1: pair", "pair2: pair"]
    first = found.frame.frames[0].boxes
    assert [box.lines for box in first] == [
        ("conv1", "conv3x3p1(4), bn, relu", "4x8x8"),
        ("conv2", "conv3x3p1(4)", "4x8x8"),
    ]
    heads = [box.lines[0] for box in found.frame.boxes if box.head]
    assert heads == ["gap1", "flatten1", "fc1"]
    assert [box.lines[0] for box in found.frame.boxes if box.output] == ["fc1", "fc2"]


@pytest.mark.parametrize("name", sorted(resources.zoo()))
def test_every_tensor_between_boxes_has_an_arrow(name: str) -> None:
    graph = graph_of(name)
    found = diagram(graph)
    known = keys(found)
    assert {end for arrow in found.arrows for end in (arrow.start, arrow.end)} <= known
    # Every box but the inputs' is reached, and every one but the ends' goes on.
    assert len(known - {arrow.end for arrow in found.arrows}) == len(graph.inputs)
    ends = len(graph.outputs) + len(graph.aux)
    assert len(known - {arrow.start for arrow in found.arrows}) == ends


STRING = r'"(?:[^"\\]|\\.)*"'
SETTINGS = rf"\[(?:\w+=(?:{STRING}|[\w.]+) ?)+\]"
DOT = [
    rf"digraph {STRING} \{{",
    rf"label={STRING} labelloc=t",
    rf"(node|edge|n\d+) {SETTINGS}",
    rf"n\d+ -> n\d+( {SETTINGS})?",
    r"subgraph cluster_f\d+ \{",
    rf"label={STRING}",
    r"\}",
]
TITLE = r'"[^"<>#`*+]*(?:#\d+;[^"<>#`*+]*|<br>[^"<>#`*+]*)*"'
MERMAID = [
    r"---",
    rf"title: {STRING}",
    "flowchart TD",
    rf"n\d+(\[{TITLE}\]|\(\[{TITLE}\]\)|\(\({TITLE}\)\))",
    r"n\d+ (-->|-\.->) n\d+",
    rf"subgraph f\d+\[{TITLE}\]",
    "end",
    r"style n\d+ stroke-(dasharray:4|width:3px)",
]


def check(text: str, grammar: list[str]) -> None:
    for line in text.splitlines():
        assert any(re.fullmatch(rule, line.strip()) for rule in grammar), line


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_is_syntax(name: str) -> None:
    graph = renamed(graph_of_text(TEXT), name)
    dot = dot_text(graph)
    check(dot, DOT)
    check(mermaid_text(graph), MERMAID)
    if shutil.which("dot"):
        done = subprocess.run(["dot", "-Tplain"], input=dot.encode(), capture_output=True)
        assert done.returncode == 0, done.stderr
        nodes = [line for line in done.stdout.splitlines() if line.startswith(b"node ")]
        assert len(nodes) == len(keys(diagram(graph)))


def test_text_of_a_net() -> None:
    graph = graph_of_text("net t; input 1x4x4; [conv1x1(1) + id] -> gap")
    assert mermaid_text(graph) == (
        '---\ntitle: "t"\n---\nflowchart TD\n'
        '  n1(["input<br>1x4x4"])\n'
        '  n2["conv1<br>conv1x1(1)<br>1x4x4"]\n'
        '  n3(("#43;"))\n'
        '  n4["gap1<br>gap<br>1x1x1"]\n'
        "  n1 --> n2\n  n2 --> n3\n  n1 --> n3\n  n3 --> n4\n"
        "  style n4 stroke-width:3px\n"
    )
    assert '  n2 [label="conv1\\nconv1x1(1)\\n1x4x4"]\n' in dot_text(graph)
