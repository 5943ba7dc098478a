"""Tensors in bfloat16, for sums of products of pairs (AVX512-BF16).

Two neighbouring channels stand in the place of a float, so a block of 16 channels takes the place
of 8 floats, and all that walks through buffers goes on counting floats. A tensor is rounded once
for all that read it so (`with_rounding`), by a node that stands in the graph for that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from netdsl.cpu.lanes import load, paired, splat, store, store_half
from netdsl.cpu.launch import share, worker
from netdsl.cpu.layout import CHANNELS, LANES, Buffer, Call, Halo, fresh
from netdsl.cpu.task import Needs, Places, Task
from netdsl.cpu.views import SOURCE, TARGET, call, row_at, row_count, row_place, row_width
from netdsl.graph import Graph, Node
from netdsl.ops import Op, Shape
from netdsl.ops.base import Bound


@dataclass(frozen=True)
class Rounded(Op):
    """Its input in bfloat16. planar: in planes of pairs of channels, else in blocks of pairs."""

    planar: bool

    heads: ClassVar = ("rounded",)

    @classmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> Op:
        raise AssertionError("no word means a rounded tensor")

    def output(self, inputs: tuple[Shape, ...]) -> Shape:
        return inputs[0]

    def word(self) -> str:
        return "to bf16"


def with_rounding(graph: Graph, planar: frozenset[str], wanted: frozenset[str]) -> Graph:
    """The graph in which the nodes of these names read their first input in bfloat16.

    planar: the inputs that lie in planes.
    """
    nodes: list[Node] = []
    made: dict[str, str] = {}
    for node in graph:
        if node.name not in wanted:
            nodes.append(node)
            continue
        source, *others = node.inputs
        if source not in made:
            made[source] = f"{source} in bf16"  # no node of a text has a name with spaces
            shape = graph[source].shape
            nodes.append(Node(made[source], Rounded(source in planar), (source,), shape))
        nodes.append(replace(node, inputs=(made[source], *others)))
    return replace(graph, nodes=tuple(nodes))


def buffer_of(node: Node, batch: int, halo: Halo) -> Buffer:
    """The buffer of a rounded tensor."""
    assert isinstance(node.op, Rounded)
    channels, *size = node.shape
    lanes = 1 if node.op.planar else LANES // 2
    count = -(-channels // 2) if node.op.planar else -(-channels // LANES) * lanes
    return replace(fresh(batch, (count, *size), halo, lanes=lanes), pairs=True)


def rounded_needs(task: Task) -> Needs:
    """Planes of a tensor that lies so."""
    op = task.node.op
    assert isinstance(op, Rounded)
    return Needs(planar=op.planar)


def plan_rounded(task: Task, places: Places) -> list[Call]:
    """The call that rounds a tensor."""
    op = task.node.op
    assert isinstance(op, Rounded)
    work = round_planes if op.planar else round_blocks
    return [call(work, task.parts, places.output, places.inputs[0])]


@worker
def round_blocks(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """Blocks of 16 floats to blocks of 8 pairs."""
    columns, work = row_width(d), row_count(d)
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b, z, y = row_place(d, item)
        source, out = row_at(d, SOURCE, n, b, z, y), row_at(d, TARGET, n, b, z, y)
        for x in range(columns):
            store_half(arena, out + 8 * x, load(arena, source + 16 * x))


@worker
def round_planes(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """Two planes of floats to one of pairs; the last may be alone."""
    columns, work, channels = row_width(d), row_count(d), d[SOURCE + CHANNELS]
    whole = columns // 16 * 16
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b, z, y = row_place(d, item)
        out = row_at(d, TARGET, n, b, z, y)
        first, second = row_at(d, SOURCE, n, 2 * b, z, y), row_at(d, SOURCE, n, 2 * b + 1, z, y)
        alone = 2 * b + 1 == channels
        for x in range(0, whole, 16):
            other = splat(np.float32(0.0)) if alone else load(arena, second + x)
            store(arena, out + x, paired(load(arena, first + x), other))
        for x in range(whole, columns):
            last = np.float32(0.0) if alone else arena[second + x]
            arena[out + x] = paired(arena[first + x], last)
