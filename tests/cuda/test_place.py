"""Where the tensors of a CUDA plan lie, and how its convolutions are cut, without running any."""

from __future__ import annotations

from itertools import combinations
from math import prod

import pytest

import netdsl
from netdsl.cuda.conv import choose
from netdsl.cuda.layout import Buffer
from netdsl.cuda.packing import NEVER, decide
from netdsl.cuda.place import place
from netdsl.cuda.sizes import CUBE, MEDIUM, NARROW, WIDE
from netdsl.cuda.table import RECIPES
from netdsl.graph import Graph
from netdsl.graph.fused import parts
from netdsl.graph.lifetimes import lifetimes
from netdsl.graph.passes import without_dropout
from netdsl.ops import Concat, Flatten, Input

BATCH = 2


def placed(graph: Graph) -> tuple[dict[str, Buffer], int]:
    """Where all lies as floats."""
    over = {
        node.name: RECIPES[type(parts(node).base)].over
        for node in graph
        if not isinstance(node.op, Input)
    }
    packing = decide(graph, frozenset(graph.outputs), "fp32", lambda node: NEVER)
    apart = frozenset((*graph.inputs, *graph.outputs))
    found = place(graph, BATCH, over, apart, packing)
    return found.floats, found.total


def graph_of(name: str) -> Graph:
    return without_dropout(netdsl.load(name).graph.without_aux())


def cells(buffer: Buffer) -> list[range]:
    """The floats of each sample."""
    starts = (buffer.offset + n * buffer.batch_stride for n in range(buffer.batch))
    return [range(start, start + buffer.sample) for start in starts]


def meet(a: Buffer, b: Buffer) -> bool:
    return any(x.start < y.stop and y.start < x.stop for x in cells(a) for y in cells(b))


@pytest.mark.parametrize("name", ["googlenet", "resnet18", "unet", "squeezenet1_1"])
def test_tensors_that_are_alive_together_lie_apart(name: str) -> None:
    graph = graph_of(name)
    buffers, floats = placed(graph)
    life = lifetimes(graph)
    for one, two in combinations(graph.nodes, 2):
        if not meet(buffers[one.name], buffers[two.name]):
            continue
        # A node may write over what it reads last, and a joined tensor holds its branches.
        reads = one.name in two.inputs
        assert not life[one.name].overlaps(life[two.name]) or reads, (one.name, two.name)
        if reads and not isinstance(two.op, Concat | Flatten):
            assert life[one.name].dies == graph.nodes.index(two)
    assert max(cells(b)[-1].stop for b in buffers.values()) <= floats
    assert floats < sum(BATCH * prod(node.shape) for node in graph)


def test_branches_are_written_where_they_are_joined() -> None:
    graph = graph_of("googlenet")
    buffers, _ = placed(graph)
    for node in graph:
        if isinstance(node.op, Concat):
            start = 0
            for name in node.inputs:
                assert buffers[name] == buffers[node.name].part(start, graph[name].shape)
                start += buffers[name].sample


@pytest.mark.parametrize(
    ("positions", "filters", "products", "tile"),
    [
        (64 * 224 * 224, 64, 576, MEDIUM),
        (64 * 56 * 56, 256, 2304, WIDE),
        (64 * 28 * 28, 32, 400, NARROW),
        (14 * 14, 512, 4608, CUBE),
    ],
)
def test_tiles_fit_the_filters_and_fill_the_card(
    positions: int, filters: int, products: int, tile: object
) -> None:
    cut = choose(positions, filters, 1, products, 132)
    assert cut.tile == tile
    blocks = -(-positions // cut.tile.m) * -(-filters // cut.tile.n) * cut.splits
    assert blocks >= 132 or cut.slices * cut.tile.k >= products
    assert cut.splits * cut.slices * cut.tile.k >= products
    assert (cut.splits - 1) * cut.slices * cut.tile.k < products
