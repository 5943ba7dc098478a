"""The direct convolution: every tile of outputs is one sum over a table of taps.

One worker serves convolutions of any rank, kernel, stride, dilation and grouping, depthwise ones,
the phases of transposed ones and fully connected layers; they differ in the table and the strides
(`Sum`). A fully connected layer's pixels are the samples of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, prod
from typing import NamedTuple

import numpy as np
from numba import njit

from netdsl.cpu.launch import BODY, share, worker
from netdsl.cpu.layout import LANES, Buffer, Call, Triple
from netdsl.cpu.micro import HALF, Kind, Shape, Tile, code, run_half, run_tile, tiles, turns
from netdsl.cpu.micro.tile import ADD_RESIDUAL, FROM_BIAS, TILE_FIELDS, past

Steps = tuple[int, int, int, int]

# The tile's number; rows done for all filters before the next rows; samples, planes and rows;
# tiles along a row and across the filters, and where their tables start; how many tiles along a
# row a thread does at least; where the weights of the first block start and how far the next is;
# the biases; then input, output and residual: the first row, and the floats to the next sample,
# plane and row; the parts of a long sum, and the floats of weights to the next; then the tile's
# own fields, for each part of the sum.
NUMBER, GROUP, SAMPLES, PLANES, ROWS = range(BODY, BODY + 5)
COLUMNS, COLUMN_TABLE, FILTERS, FILTER_TABLE, GRAIN = range(BODY + 5, BODY + 10)
WEIGHTS, BLOCK, BIASES = range(BODY + 10, BODY + 13)
INPUT, OUTPUT, RESIDUAL = BODY + 13, BODY + 17, BODY + 21
SUMS, ONWARD = BODY + 25, BODY + 26
TILE = BODY + 27


@njit(boundscheck=False, error_model="numpy")
def places(d, item):  # type: ignore[no-untyped-def]
    """Where a row's inputs, outputs and residual lie for a tile of filters, and their weights and
    biases."""
    filters, group = d[FILTERS], d[GROUP]
    first = item // (group * filters) * group
    within = item - first * filters
    size = min(group, d[SAMPLES] * d[PLANES] * d[ROWS] - first)
    pair = d[FILTER_TABLE] + 2 * (within // size)
    block, start = d[pair], d[pair + 1]
    row = first + within % size
    plane, y = row // d[ROWS], row % d[ROWS]
    n, z = plane // d[PLANES], plane % d[PLANES]
    x_at = d[INPUT] + n * d[INPUT + 1] + z * d[INPUT + 2] + y * d[INPUT + 3] + start
    y_at = d[OUTPUT] + n * d[OUTPUT + 1] + z * d[OUTPUT + 2] + y * d[OUTPUT + 3]
    r_at = d[RESIDUAL] + n * d[RESIDUAL + 1] + z * d[RESIDUAL + 2] + y * d[RESIDUAL + 3]
    # Names of a tile's fields are not known here; its steps are, by their order.
    y_at += block * d[TILE + 6]
    r_at += block * d[TILE + 7]
    return x_at, y_at, r_at, d[WEIGHTS] + block * d[BLOCK], d[BIASES] + 16 * block


@njit(boundscheck=False, error_model="numpy")
def portion(d, part, parts):  # type: ignore[no-untyped-def]
    """The first of a part's tiles, counted along one row after the other, and their end."""
    work = d[SAMPLES] * d[PLANES] * d[ROWS] * d[FILTERS] * (d[COLUMNS] // d[GRAIN])
    return d[GRAIN] * share(work, part, parts), d[GRAIN] * share(work, part + 1, parts)


@worker
def direct(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """Sums over taps for all places of a grid and all filters."""
    x_step, y_step, r_step = d[TILE + 2], d[TILE + 3], d[TILE + 4]
    left, right = portion(d, part, parts)
    columns = d[COLUMNS]
    for item in range(left // columns, (right + columns - 1) // columns):
        x_at, y_at, r_at, weights, bias = places(d, item)
        done = item * columns
        for i in range(max(0, left - done), min(columns, right - done)):
            x = d[d[COLUMN_TABLE] + i]
            inputs, outputs, added = x_at + x * x_step, y_at + x * y_step, r_at + x * r_step
            for s in range(d[SUMS]):
                t, w = past(d, TILE + s * TILE_FIELDS), weights + s * d[ONWARD]
                run_tile(d[NUMBER], arena, params, t, inputs, w, outputs, bias, added)
                added = outputs


@worker
def direct_half(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """The same with weights in bfloat16, a worker of its own since few ever want its tiles."""
    x_step, y_step, r_step = d[TILE + 2], d[TILE + 3], d[TILE + 4]
    left, right = portion(d, part, parts)
    columns = d[COLUMNS]
    for item in range(left // columns, (right + columns - 1) // columns):
        x_at, y_at, r_at, weights, bias = places(d, item)
        done = item * columns
        for i in range(max(0, left - done), min(columns, right - done)):
            x = d[d[COLUMN_TABLE] + i]
            inputs, outputs, added = x_at + x * x_step, y_at + x * y_step, r_at + x * r_step
            for s in range(d[SUMS]):
                t, w = past(d, TILE + s * TILE_FIELDS), weights + s * d[ONWARD]
                run_half(d[NUMBER], arena, params, t, inputs, w, outputs, bias, added)
                added = outputs


class View(NamedTuple):
    """How a sum walks through a buffer: where it starts, the floats to the next place along each
    of four axes (samples, depth, height, width), and to the next block of channels."""

    start: int
    steps: Steps
    block: int


def view(buffer: Buffer, first: Triple = (0, 0, 0), step: Triple = (1, 1, 1)) -> View:
    """The walk over a buffer from place `first` (which may lie in its halo) by `step`."""
    axes = (buffer.plane_stride, buffer.row_stride, buffer.lanes)
    d, h, w = (stride * by for stride, by in zip(axes, step, strict=True))
    start = buffer.origin + sum(a * b for a, b in zip(axes, first, strict=True))
    return View(start, (buffer.batch_stride, d, h, w), buffer.block_stride)


LONGEST, LONGEST_HALF = 1024, 16384
"""Terms that are summed one after the other; more of those that were rounded to bfloat16, beside
which errors of the sums are small."""


def longest(kind: Kind) -> int:
    """Taps of a kind that are summed one after the other."""
    return (LONGEST_HALF if kind in HALF else LONGEST) // kind.lanes


@dataclass(frozen=True)
class Sum:
    """What the direct worker computes: output = clamp(bias + taps . weights + residual).

    counts: samples, planes, rows and columns of outputs. taps: where each tap lies from the first,
    in floats. starts: for each block of filters, where its first channels lie from the input's
    start. weights: where they start in params, block: the floats from one block of filters to the
    next; biases: None for none. spare: lanes of the last tap
    that hold no channel. clamp: the least and the largest output.
    """

    kind: Kind
    counts: Steps
    source: View
    target: View
    taps: Sequence[int]
    starts: Sequence[int]
    weights: int
    block: int
    biases: int | None = None
    residual: View | None = None
    spare: int = 0
    clamp: tuple[float, float] = (-inf, inf)


def merged(counts: Steps, views: Sequence[View]) -> tuple[Steps, list[View]]:
    """The same walk with fewer, longer rows, where all views go on from row to row evenly."""
    axes = [(counts[3], [v.steps[3] for v in views])]
    for axis in (2, 1, 0):
        count, steps = counts[axis], [v.steps[axis] for v in views]
        size, inner = axes[-1]
        if steps == [size * step for step in inner]:
            axes[-1] = (size * count, inner)
        elif size == 1:
            axes[-1] = (count, steps)
        elif count > 1:
            axes.append((count, steps))
    axes += [(1, [0] * len(views))] * (4 - len(axes))
    (x, along), (y, down), (z, back), (n, apart) = axes
    walks = [v._replace(steps=(apart[i], back[i], down[i], along[i])) for i, v in enumerate(views)]
    return (n, z, y, x), walks


OVERHEAD = 2.0
"""Cycles of a turn beside its arithmetic, where what it reads is cached."""


def choose(
    kind: Kind,
    columns: int,
    rows: int,
    runs: Sequence[int],
    parts: int,
    overlap: bool = True,
    cut: bool = True,
    shape: Shape | None = None,
) -> Tile:
    """The tile of this shape, if it fits, else the one that takes the fewest cycles."""
    found = by_cost(kind, columns, rows, runs, parts, overlap, cut)
    return next((tile for tile in found if tile.shape == shape), found[0])


def by_cost(
    kind: Kind,
    columns: int,
    rows: int,
    runs: Sequence[int],
    parts: int,
    overlap: bool = True,
    cut: bool = True,
) -> list[Tile]:
    """The tiles that fit, those first that take the fewest cycles, by shape alone.

    runs: how many blocks of filters in a row read the same input; a tile stays within a run.
    overlap: whether the last tile of a run may overlap the one before, maybe another thread's.
    cut: whether threads may share a row.
    """
    paced = cut and kind is Kind.BLOCKED

    def cost(tile: Tile) -> float:
        shape = tile.shape
        turn = shape.cycles(kind) * shape.pace if paced else shape.cycles(kind) + OVERHEAD
        across = sum(-(-run // shape.blocks) for run in runs)
        along = -(-columns // shape.pixels)
        most = -(-rows * across * along // parts) if cut else -(-rows * across // parts) * along
        return most * turn

    def fits(tile: Tile) -> bool:
        pixels, blocks = tile.shape
        whole = not any(run % blocks for run in runs)
        return (
            tile.kind is kind and pixels <= columns and blocks <= min(runs) and (overlap or whole)
        )

    return sorted(filter(fits, tiles()), key=cost)


CACHED = 96 * 1024
"""Floats of weights or input that stay in a core's second-level cache while others pass."""


def rows_at_once(whole: Sum, rows: int) -> int:
    """Rows to do for all filters before the next: one where all weights stay cached, else as many
    as keep their input cached."""
    if len(whole.starts) * whole.block <= CACHED:
        return 1
    row = whole.counts[3] * len(whole.taps) * whole.kind.rows
    # Neighbouring rows share most of what a kernel reads.
    return min(rows, max(4, 3 * CACHED // max(row, 1)))


def describe(whole: Sum, parts: int, shape: Shape | None = None) -> Call:
    """The call that computes a sum on `parts` threads, by tiles of a shape where it fits."""
    views = [whole.source, whole.target, whole.residual or whole.target]
    counts, walks = merged(whole.counts, views)
    source, target, residual = walks
    rows, columns = prod(counts[:3]), counts[3]
    runs = _runs(whole.starts)
    # A sum in parts passes through the output, where no other thread may meet it.
    overlap = len(whole.taps) <= longest(whole.kind)
    counted = [count for _, count in runs]
    tile = choose(whole.kind, columns, rows, counted, parts, overlap, overlap, shape)
    pixels, blocks = tile.shape
    filter_tiles = [
        (first + i, whole.starts[first]) for first, count in runs for i in _cuts(count, blocks)
    ]
    column_tiles = _cuts(columns, pixels)
    kind = whole.kind
    onward = longest(kind) * kind.rows * LANES
    sums = _sums(whole, [walk.steps[3] for walk in walks], target.block, residual.block)
    grain = 1 if overlap else len(column_tiles)
    pieces = rows * len(filter_tiles) * (len(column_tiles) // grain)
    column_table = TILE + TILE_FIELDS * len(sums) + len(whole.taps)
    filter_table = column_table + len(column_tiles)
    fields = (
        (0, max(1, min(parts, pieces))),
        (code(tile), rows_at_once(whole, rows), *counts[:3]),
        (len(column_tiles), column_table, len(filter_tiles), filter_table, grain),
        (whole.weights, whole.block, whole.biases or 0),
        (source.start, *source.steps[:3]),
        (target.start, *target.steps[:3]),
        (residual.start, *residual.steps[:3]),
        (len(sums), onward),
        *sums,
        whole.taps,
        column_tiles,
        *filter_tiles,
    )
    work = direct_half if kind in HALF else direct
    return Call(work, np.array([number for part in fields for number in part], np.int64))


def _sums(whole: Sum, steps: Sequence[int], block: int, more: int) -> list[tuple[int, ...]]:
    """A tile's fields for each part of the sum, `longest` taps at most, so that rounding errors
    do not grow with its length. The first part takes bias and residual, each later one adds what
    is in the output already, the last one clamps.

    block, more: floats to the next block of filters of the output and the residual.
    """
    taps, each = len(whole.taps), longest(whole.kind)
    count = max(1, -(-taps // each))
    x_step, y_step, r_step = steps
    start = FROM_BIAS if whole.biases is not None else 0
    start |= ADD_RESIDUAL if whole.residual is not None else 0
    found = []
    for i in range(count):
        table = (count - i) * TILE_FIELDS + i * each
        clamp = whole.clamp if i == count - 1 else (-inf, inf)
        steps = (x_step, y_step, r_step)
        blocks = (whole.block, block, more)
        spare = whole.spare if i == count - 1 else 0
        here = turns(whole.kind, min(each, taps - i * each), spare)
        found.append((here, table, *steps, *blocks, start, *map(bits, clamp)))
        start, r_step, more = ADD_RESIDUAL, y_step, block
    return found


def bits(value: float) -> int:
    """A number's bits in single precision, as a descriptor holds it."""
    return int(np.float32(value).view(np.int32))


def _runs(starts: Sequence[int]) -> list[tuple[int, int]]:
    """Blocks of filters that read the same input: the first of each run, and how many."""
    runs: list[tuple[int, int]] = []
    for i, start in enumerate(starts):
        if i and start == starts[i - 1]:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((i, 1))
    return runs


def _cuts(size: int, tile: int) -> list[int]:
    """Where tiles start that cover `size`; the last overlaps the one before if need be."""
    return [min(i, size - tile) for i in range(0, size, tile)]


def block_floats(taps: int, kind: Kind) -> int:
    """Floats of one block of filters' packed weights, an odd number of cache lines apart from
    multiples of 4096 bytes, so that blocks read side by side do not meet in the same cache set."""
    floats = taps * LANES * kind.rows
    return floats + 3 * LANES if floats % 1024 == 0 else floats
