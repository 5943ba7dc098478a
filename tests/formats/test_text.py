"""A graph written as text again: the text means the same graph, and folds what repeats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netdsl import NetError, lang, resources
from netdsl.find import graph_of
from netdsl.formats.text import write_net
from netdsl.graph import Graph
from netdsl.graph.build import GraphBuilder
from netdsl.graph.same import correspondence
from netdsl.graph.weights import initialise
from netdsl.ops import (
    Add,
    BatchNorm,
    Concat,
    Conv,
    Dropout,
    Join,
    MaxPool,
    Multiply,
    Op,
    Relu,
    Window,
)
from netdsl.reference import interpret


def of(text: str) -> Graph:
    return lang.load(text.replace("; ", "\n"))


def again(graph: Graph) -> Graph:
    """The graph of its text, found to be the same."""
    found = lang.load(write_net(graph))
    needed = graph.needed([*graph.outputs, *(head.output for head in graph.aux)])
    assert set(correspondence(graph, found)) == needed
    assert len(found) == len(needed | set(graph.inputs))
    weights = {head.name: head.weight for head in graph.aux}
    assert {head.name: head.weight for head in found.aux} == weights
    assert found.meta == graph.meta
    assert found.labels == graph.labels
    return found


def bare(graph: Graph) -> str:
    """The text without what is said beside the ops."""
    lines = write_net(replace(graph, labels=None, meta={})).splitlines()
    return "\n".join(line for line in lines[1:] if line and not line.startswith("input"))


@pytest.mark.parametrize("name", resources.zoo())
def test_the_text_means_the_same_graph(name: str) -> None:
    graph = graph_of(name)
    found = again(graph)
    assert found.nodes[0].op == graph.nodes[0].op
    assert len(write_net(graph).splitlines()) < 45


def test_repeats_are_folded() -> None:
    assert bare(graph_of("vgg16")) == (
        "every conv -> relu\n"
        "conv3x3p1(64) x2 -> maxpool2\n"
        "conv3x3p1(128) x2 -> maxpool2\n"
        "conv3x3p1(256) x3 -> maxpool2\n"
        "(conv3x3p1(512) x3 -> maxpool2) x2\n"
        "flatten -> (fc(4096) -> relu -> dropout) x2 -> fc(1000)"
    )


def test_repeated_subgraphs_become_blocks() -> None:
    text = bare(graph_of("googlenet"))
    assert (
        "def inception(a, b, c, d, e, f) = [\n"
        "    conv1x1(a)\n"
        "  | conv1x1(b) -> conv3x3p1(c)\n"
        "  | conv1x1(d) -> conv5x5p2(e)\n"
        "  | maxpool3s1p1 -> conv1x1(f)\n"
        "]"
    ) in text
    assert text.count("inception(") == 10  # a definition, nine calls
    assert "inception(112, 144, 288, 32, 64, 64) -> aux(weight=0.3) { classifier }" in text


def test_residual_blocks_take_what_is_a_multiple_from_one_parameter() -> None:
    text = bare(graph_of("resnet50"))
    assert "every conv(bias=no) -> bn" in text
    assert (
        "def block(w) = [conv1x1(w) -> relu -> conv3x3p1(w) -> relu -> conv1x1(4*w) + id] -> relu\n"
    ) in text
    assert "block(256) x5" in text


def test_a_long_skip_gets_a_name() -> None:
    text = bare(graph_of("unet"))
    assert "conv3x3p1(64) x2 as skip3 -> maxpool2" in text
    assert "[skip3 | id]" in text


def test_every_leaves_the_odd_ones_out() -> None:
    graph = of("input 3x8x8; conv3(4) -> relu -> conv3(5) -> relu -> conv1(6) -> relu -> conv1(2)")
    assert bare(graph) == (
        "every conv -> relu\nconv3x3(4) -> conv3x3(5) -> conv1x1(6) -> bare conv1x1(2)"
    )
    chain = " -> ".join(f"conv1({n}, bias=no)" for n in (2, 3, 4, 5))
    assert bare(of(f"input 3x8x8; {chain} -> conv1(9)")) == (
        "every conv(bias=no)\n"
        "conv1x1(2) -> conv1x1(3) -> conv1x1(4) -> conv1x1(5) -> conv1x1(9, bias=yes)"
    )


@pytest.mark.parametrize(
    "text",
    [
        "input 3x8x8 as a; input 3x8x8 as b; [a + b] -> relu",
        "input 3x8x8 as left; left -> relu",
        "input 3x8x8 as x; conv3p1(3) as y -> relu as z; output z, y",
        "input 3x8x8; relu as a -> tanh as b -> [id + a] -> [id + b] as c; output c, a",
        "input 4; aux(weight=2) { fc(2) } -> fc(3)",
        "input 4; fc(3) -> aux(weight=0.5) { fc(2) } as side -> relu -> aux { fc(1) } -> fc(2)",
        "input 3x8x8; [relu | tanh | id] -> [id * gap -> sigmoid]",
        'input 3x8x8; labels imagenet; meta year=2020 x="a \\"b\\" \\\\" l=[1, 2.5] s=3x4; relu',
        "input 2x4x6x8; conv3x1x2s1x2x1(2, pad_end=1x0x2, bias=no)",
        "input 3x8x8; pad(-1, end=[2, -1]) -> gn3(eps=0.001) -> leaky(0.25)",
    ],
)
def test_one_by_one(text: str) -> None:
    again(of(text))


def test_heads_in_another_order_keep_their_names() -> None:
    builder = GraphBuilder("heads")
    x = builder.input((4,))
    a = builder.add(Relu(), x)
    b = builder.add(Relu(), a)
    builder.aux(builder.add(Dropout(), b), 0.5, "aux1")
    builder.aux(builder.add(BatchNorm(), a), 0.25, "aux2")
    again(builder.finish([builder.add(Relu(), b)]))


def test_what_computes_nothing_cannot_be_written() -> None:
    builder = GraphBuilder("nothing")
    x = builder.input((4,))
    with pytest.raises(NetError, match="computes nothing"):
        write_net(builder.finish([x]))


def test_weights_follow_the_names() -> None:
    graph = of("input 3x9x9; [conv3p1(4) + conv1(4)] -> relu -> gap -> fc(2)")
    found = again(graph)
    names = correspondence(graph, found)
    weights = initialise(graph)
    moved = {}
    for name, values in weights.items():
        node, _, part = name.rpartition(".")
        moved[f"{names[node]}.{part}"] = values
    x = np.random.default_rng(0).standard_normal((2, 3, 9, 9))
    (ours,) = interpret(graph, weights, {"input": x}).values()
    (theirs,) = interpret(found, moved, {"input": x}).values()
    np.testing.assert_array_equal(ours, theirs)


def test_another_graph_is_told_apart() -> None:
    with pytest.raises(ValueError, match="is"):
        correspondence(graph_of("vgg16"), graph_of("vgg19"))
    a, b = of("input 3x8x8; relu -> conv1(4)"), of("input 3x8x8; tanh -> conv1(4)")
    with pytest.raises(ValueError, match="relu1 is relu, tanh1 is tanh"):
        correspondence(a, b)
    with pytest.raises(ValueError, match="different numbers of outputs"):
        correspondence(a, of("input 3x8x8; relu as a -> tanh as b; output a, b"))
    shared = of("input 3x8x8; relu as a -> [id + id]")
    with pytest.raises(ValueError, match="is both"):
        correspondence(shared, of("input 3x8x8; [relu + relu]"))


PLAIN: list[Op] = [
    Relu(),
    BatchNorm(),
    Dropout(),
    MaxPool(Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))),
    Conv(4, Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))),
    Conv(4, Window((1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)), bias=False),
]
JOINS: list[Join] = [Add(), Concat(), Multiply()]


@given(data=st.data())
def test_any_graph(data: st.DataObject) -> None:
    """Graphs of random wiring, with heads and a second input or output."""
    builder = GraphBuilder("any")
    nodes = [builder.input((4, 5, 5))]
    if data.draw(st.booleans()):
        nodes.append(builder.input((4, 5, 5), "other"))
    count = len(nodes)
    narrow = Conv(4, Window((1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)))
    for _ in range(data.draw(st.integers(1, 25))):
        source = nodes[-1 - data.draw(st.integers(0, min(len(nodes) - 1, 4)))]
        if data.draw(st.integers(0, 2)):
            nodes.append(builder.add(data.draw(st.sampled_from(PLAIN)), source))
            continue
        second = data.draw(st.sampled_from(nodes))
        joined = builder.add(data.draw(st.sampled_from(JOINS)), source, second)
        nodes.append(joined if builder.shape(joined)[0] == 4 else builder.add(narrow, joined))
    for i in range(data.draw(st.integers(0, 2))):
        head = builder.add(narrow, data.draw(st.sampled_from(nodes)))
        builder.aux(head, 0.5, f"aux{i + 1}")
    outputs = [nodes[-1], data.draw(st.sampled_from(nodes[count:]))]
    again(builder.finish(list(dict.fromkeys(outputs))))
