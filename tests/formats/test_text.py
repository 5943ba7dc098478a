"""A graph written as text again: the text means the same graph, and folds what repeats."""

from __future__ import annotations

import pytest

from netdsl import lang, resources
from netdsl.find import graph_of
from netdsl.formats.text import write_net
from netdsl.graph.same import correspondence


@pytest.mark.parametrize("name", resources.zoo())
def test_the_text_means_the_same_graph(name: str) -> None:
    graph = graph_of(name)
    again = lang.load(write_net(graph))
    assert len(correspondence(graph, again)) == len(graph)
    assert again.meta == graph.meta
    assert again.labels == graph.labels


def test_repeats_are_folded() -> None:
    text = write_net(graph_of("vgg16"))
    assert "conv3x3p1(64) x2 -> maxpool2" in text
    assert "conv3x3p1(256) x3 -> maxpool2" in text


def test_repeated_subgraphs_become_blocks() -> None:
    assert write_net(graph_of("googlenet")).count("inception(") == 10  # a definition, nine calls
    assert "block(256) x5" in write_net(graph_of("resnet50"))


def test_another_graph_is_told_apart() -> None:
    graph, other = graph_of("vgg16"), graph_of("vgg19")
    with pytest.raises(ValueError, match="is"):
        correspondence(graph, other)
