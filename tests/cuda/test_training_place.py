"""Where a training step's tensors and gradients lie on the card."""

from __future__ import annotations

from itertools import combinations

import pytest
from test_place import cells, meet

import netdsl
from netdsl.cuda.backward.place import Layout, ends_of, lay_out, wanted
from netdsl.cuda.backward.table import takes
from netdsl.graph import Graph
from netdsl.ops import Concat, Flatten
from netdsl.train.prepare import prepared

BATCH = 2
NETS = ["googlenet", "resnet18", "unet", "squeezenet1_1"]


@pytest.fixture(scope="module", params=NETS)
def case(request: pytest.FixtureRequest) -> tuple[Graph, Layout]:
    graph = prepared(netdsl.load(request.param).graph, takes)
    return graph, lay_out(graph, BATCH, 64)


def test_what_goes_forward_is_kept(case: tuple[Graph, Layout]) -> None:
    """Tensors share memory only where one is the other's part, or a pass writes over what no way
    back reads."""
    graph, layout = case
    spent = 0
    for one, two in combinations(graph.nodes, 2):
        if not meet(layout.outputs[one.name], layout.outputs[two.name]):
            continue
        if isinstance(two.op, Concat | Flatten) or any(
            isinstance(graph[reader].op, Concat | Flatten) for reader in graph.consumers[one.name]
        ):
            continue
        assert graph.consumers[one.name] == (two.name,), (one.name, two.name)
        spent += 1
    assert spent < len(graph.nodes) / 2
    lowest = min(buffer.offset for buffer in layout.gradients.values())
    assert max(cells(b)[-1].stop for b in layout.outputs.values()) <= lowest


def test_gradients_that_are_alive_together_lie_apart(case: tuple[Graph, Layout]) -> None:
    graph, layout = case
    turn = {node.name: i for i, node in enumerate(reversed(graph.nodes))}
    ends, wants = ends_of(graph), wanted(graph)
    assert set(layout.gradients) == wants
    alive = {}
    for name in wants:
        readers = [turn[reader] for reader in graph.consumers[name]]
        alive[name] = (-1 if name in ends else min(readers), turn[name])
    for one, two in combinations(sorted(wants), 2):
        if not meet(layout.gradients[one], layout.gradients[two]):
            continue
        first, last = max(alive[one][0], alive[two][0]), min(alive[one][1], alive[two][1])
        # A node may write over its own gradient, once: at its turn, for an input it alone reads.
        reads = one in graph[two].inputs or two in graph[one].inputs
        related = reads and first == last
        parts = any(isinstance(graph[name].op, Concat | Flatten) for name in (one, two))
        assert first > last or related or parts, (one, two)


def test_shares_lie_apart_from_all_that_is_alive(case: tuple[Graph, Layout]) -> None:
    graph, layout = case
    turn = {node.name: i for i, node in enumerate(reversed(graph.nodes))}
    ends = ends_of(graph)
    for (node, which), share in layout.shares.items():
        now = turn[node]
        assert share.shape == graph[graph[node].inputs[which]].shape
        for name, gradient in layout.gradients.items():
            readers = [turn[reader] for reader in graph.consumers[name]]
            born = -1 if name in ends else min(readers)
            if born <= now <= turn[name]:
                assert not meet(share, gradient), (node, name)


def test_memory_is_used_again(case: tuple[Graph, Layout]) -> None:
    _, layout = case
    gradients = sum(b.batch * b.sample for b in layout.gradients.values())
    lowest = min(buffer.offset for buffer in layout.gradients.values())
    assert layout.floats - lowest < gradients
