"""Tensors in bfloat16, for sums of products of pairs (AVX512-BF16) or of matrices (AMX).

Two neighbouring channels stand in the place of a float, so a block of 16 channels takes the place
of 8 floats, and all that walks through buffers goes on counting floats. A tensor is rounded once
for all that read it so (`with_rounding`), by a node that stands in the graph for that. Products of
matrices (AMX) take 32 channels at once, so these are a block; of images of few channels they take
those of several neighbouring pixels, so a pixel's stand together.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from netdsl.cpu.lanes import load, paired, splat, store, store_half, store_woven
from netdsl.cpu.late import njit
from netdsl.cpu.launch import share, worker
from netdsl.cpu.layout import (
    BLOCK_STRIDE,
    BLOCKS,
    CHANNELS,
    LANE_COUNT,
    LANES,
    Buffer,
    Call,
    Halo,
    fresh,
)
from netdsl.cpu.task import Needs, Places, Task
from netdsl.cpu.views import SOURCE, TARGET, call, row_at, row_count, row_place, row_width
from netdsl.frozen import dataclass
from netdsl.graph import Graph, Node
from netdsl.ops import Op, Shape
from netdsl.ops.base import Bound


@dataclass(frozen=True)
class Rounded(Op):
    """Its input in bfloat16. lanes: pairs of channels in a block, 8 or 16; of an image in planes 1,
    for planes of pairs, or 2 or 4, for all pairs of a pixel."""

    lanes: int

    heads: ClassVar = ("rounded",)

    @classmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> Op:
        raise AssertionError("no word means a rounded tensor")

    def output(self, inputs: tuple[Shape, ...]) -> Shape:
        return inputs[0]

    def word(self) -> str:
        return "to bf16"

    @property
    def planar(self) -> bool:
        """Whether it reads planes."""
        return self.lanes < LANES // 2


def rounded_name(source: str) -> str:
    """The name of the step that rounds a tensor; no node of a text has a name with spaces."""
    return f"{source} in bf16"


def pixel_pairs(channels: int) -> int:
    """Pairs of channels that a pixel takes where all of them stand together."""
    return 2 if channels <= 4 else 4


def with_rounding(
    graph: Graph, planar: frozenset[str], wanted: frozenset[str], wide: bool
) -> Graph:
    """The graph in which the nodes of these names read their first input in bfloat16.

    planar: the inputs that lie in planes. wide: whether they read it for products of matrices.
    """

    def lanes(source: str) -> int:
        if source in planar:
            return pixel_pairs(graph[source].shape[0]) if wide else 1
        return LANES if wide else LANES // 2

    nodes: list[Node] = []
    made: dict[str, str] = {}
    for node in graph:
        if node.name not in wanted:
            nodes.append(node)
            continue
        source, *others = node.inputs
        if source not in made:
            made[source] = rounded_name(source)
            shape = graph[source].shape
            nodes.append(Node(made[source], Rounded(lanes(source)), (source,), shape))
        nodes.append(replace(node, inputs=(made[source], *others)))
    return replace(graph, nodes=tuple(nodes))


def buffer_of(shape: Shape, lanes: int, batch: int, halo: Halo) -> Buffer:
    """The buffer of a tensor in bfloat16 of this shape, without the batch."""
    channels, *size = shape
    count = -(-channels // (2 * lanes)) * lanes
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
    works = {1: round_planes, LANES // 2: round_blocks, LANES: round_wide}
    work = works.get(op.lanes, round_pixels)
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
def round_wide(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """Two blocks of 16 floats to one of 16 pairs; the last may be alone."""
    columns, work, blocks = row_width(d), row_count(d), d[SOURCE + BLOCKS]
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b, z, y = row_place(d, item)
        out, first = row_at(d, TARGET, n, b, z, y), row_at(d, SOURCE, n, 2 * b, z, y)
        if 2 * b + 1 < blocks:
            second = first + d[SOURCE + BLOCK_STRIDE]
            for x in range(0, 16 * columns, 16):
                store_half(arena, out + x, load(arena, first + x))
                store_half(arena, out + x + 8, load(arena, second + x))
        else:
            for x in range(0, 16 * columns, 16):
                store_half(arena, out + x, load(arena, first + x))
                store_half(arena, out + x + 8, splat(np.float32(0.0)))


@njit(forceinline=True)
def row_of_plane(d, n, c, z, y):  # type: ignore[no-untyped-def]
    """Where a row of a channel starts, and whether there is such a channel; else of another."""
    there = c < d[SOURCE + CHANNELS]
    return row_at(d, SOURCE, n, c if there else 0, z, y), there


@njit(forceinline=True)
def sixteen_pairs(arena, first, second, both):  # type: ignore[no-untyped-def]
    """16 pairs of two planes, or of one and zeros."""
    other = load(arena, second) if both else splat(np.float32(0.0))
    return paired(load(arena, first), other)


@worker
def round_pixels(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """Planes of floats to pixels of two or four pairs."""
    columns, work = row_width(d), row_count(d)
    lanes = d[TARGET + LANE_COUNT]
    whole = columns // 16 * 16 if lanes == 2 else 0
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, _, z, y = row_place(d, item)
        out = row_at(d, TARGET, n, 0, z, y)
        if whole > 0:
            r0, _ = row_of_plane(d, n, 0, z, y)
            r1, second = row_of_plane(d, n, 1, z, y)
            r2, third = row_of_plane(d, n, 2, z, y)
            r3, fourth = row_of_plane(d, n, 3, z, y)
            zeros = splat(np.float32(0.0))
            for x in range(0, whole, 16):
                last = sixteen_pairs(arena, r2 + x, r3 + x, fourth) if third else zeros
                store_woven(arena, out + 2 * x, sixteen_pairs(arena, r0 + x, r1 + x, second), last)
        for b in range(lanes):
            first, one = row_of_plane(d, n, 2 * b, z, y)
            second, two = row_of_plane(d, n, 2 * b + 1, z, y)
            for x in range(whole, columns):
                low = arena[first + x] if one else np.float32(0.0)
                high = arena[second + x] if two else np.float32(0.0)
                arena[out + lanes * x + b] = paired(low, high)


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
