"""New weights."""

from __future__ import annotations

import numpy as np
import pytest

import netdsl
from netdsl.graph import weights
from netdsl.graph.weights import initialise

TEXT = "input 8x9x9; conv3(64, bias=yes) -> bn -> prelu -> conv3g2(32) -> fc({n})"


def test_by_fan_in_and_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = netdsl.load(text=TEXT.format(n=10)).graph
    first = initialise(graph, 7)
    assert list(first) == list(graph.all_parameters())
    for name, parameter in graph.all_parameters().items():
        assert first[name].shape == parameter.shape
        assert first[name].dtype == np.float32
        if parameter.init == "he":
            spread = 6 / (2 * parameter.size) ** 0.5
            assert first[name].std() ** 2 * parameter.fan_in == pytest.approx(2, rel=spread)
            assert abs(first[name].mean()) < 5 * (2 / parameter.fan_in / parameter.size) ** 0.5
        else:
            assert (first[name] == np.float32(parameter.init)).all()


def test_a_change_to_one_layer_leaves_the_others() -> None:
    first, second = (initialise(netdsl.load(text=TEXT.format(n=n)).graph, 7) for n in (10, 11))
    assert all((first[n] == second[n]).all() for n in first if not n.startswith("fc"))
    assert not (first["conv1.weight"].flat[:10] == first["conv2.weight"].flat[:10]).any()


def test_seeds_differ_and_pieces_join(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = netdsl.load(text=TEXT.format(n=10)).graph
    monkeypatch.setattr(weights, "PIECE", 100)
    first, again, other = initialise(graph, 1), initialise(graph, 1), initialise(graph, 2)
    assert all((first[n] == again[n]).all() for n in first)
    drawn = first["fc1.weight"].ravel()
    assert not (drawn == other["fc1.weight"].ravel()).any()
    assert len(np.unique(drawn)) > 0.99 * drawn.size
