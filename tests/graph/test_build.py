"""Graphs built in code."""

from __future__ import annotations

import pytest

import netdsl
from netdsl import NetError
from netdsl.graph.build import GraphBuilder
from netdsl.ops import Add, Conv, GlobalAverage, Relu, Window


def conv(filters: int, kernel: int, padding: int = 0) -> Conv:
    pair = ((padding, padding),) * 2
    return Conv(filters, Window((kernel,) * 2, (1, 1), pair, (1, 1)))


def test_equals_the_graph_of_the_text() -> None:
    builder = GraphBuilder("tiny")
    x = builder.input((3, 8, 8))
    a = builder.add(Relu(), builder.add(conv(3, 3, 1), x))
    x = builder.add(Add(), x, a)
    graph = builder.finish([builder.add(GlobalAverage(), x)])
    text = "net tiny; input 3x8x8; [id + conv3x3p1(3) -> relu] -> gap"
    assert graph.nodes == netdsl.load(text=text).graph.nodes
    assert graph.outputs == ("gap1",)


def test_names() -> None:
    builder = GraphBuilder("tiny")
    x = builder.input((3, 8, 8), "picture")
    builder.add(Relu(), x, name="relu1")
    assert builder.add(Relu(), x) == "relu2"
    assert builder.add(Relu(), x, scope="stem") == "stem.relu1"
    assert builder.shape("stem.relu1") == (3, 8, 8)
    assert "relu3" not in builder
    with pytest.raises(ValueError, match="two nodes called relu2"):
        builder.add(Relu(), x, name="relu2")
    with pytest.raises(KeyError):
        builder.add(Relu(), "nowhere")


def test_an_op_that_does_not_fit_is_named() -> None:
    builder = GraphBuilder("tiny")
    x = builder.input((3, 8, 8))
    with pytest.raises(NetError, match="conv1: a kernel of 9 does not fit an input of 8"):
        builder.add(conv(1, 9), x)
