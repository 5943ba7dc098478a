"""The direct convolution: every tile of outputs is one sum over a table of taps.

One worker serves convolutions of any rank, kernel, stride, dilation and grouping, depthwise ones,
the phases of transposed ones and fully connected layers; they differ in the table and the strides
(`Sum`). A fully connected layer's pixels are the samples of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod
from typing import NamedTuple

import numpy as np

from netdsl.cpu.costs import OWN_CACHE
from netdsl.cpu.late import njit
from netdsl.cpu.launch import BODY, share, worker
from netdsl.cpu.layout import LANES, Buffer, Call, Triple
from netdsl.cpu.micro import (
    HALF,
    SCALED,
    SHORT,
    Kind,
    Shape,
    code,
    past,
    prefetch,
    run_short,
    run_tile,
    twice,
)
from netdsl.cpu.micro.fields import ADD_RESIDUAL, FROM_BIAS, TILE_FIELDS, turns
from netdsl.cpu.tiling import choose, starts

Steps = tuple[int, int, int, int]

# Samples, planes and rows; tiles along a row and where their table starts, a place and a number
# each; the same across the filters, a block and where it starts to read; tiles along rows to do for
# all filters before the next; where the weights of the first block start and how far the next is;
# the biases; then input, output and residual: the first row, and the floats to the next sample,
# plane and row; the parts of a long sum, and the floats of weights to the next; cache lines of a
# part's weights to ask for ahead of time, and blocks of filters that have as many; then the tile's
# own fields, for each part of the sum.
SAMPLES, PLANES, ROWS = range(BODY, BODY + 3)
COLUMNS, COLUMN_TABLE, FILTERS, FILTER_TABLE, GROUP = range(BODY + 3, BODY + 8)
WEIGHTS, BLOCK, BIASES = range(BODY + 8, BODY + 11)
INPUT, OUTPUT, RESIDUAL = BODY + 11, BODY + 15, BODY + 19
SUMS, ONWARD, LINES, ACROSS = range(BODY + 23, BODY + 27)
TILE = BODY + 27
PLACES = (INPUT, OUTPUT, RESIDUAL)
"""Where a descriptor says where things start."""


@njit(boundscheck=False, error_model="numpy")
def portion(d, part, parts):  # type: ignore[no-untyped-def]
    """The first of a part's tiles, counted group by group, and their end."""
    work = d[SAMPLES] * d[PLANES] * d[ROWS] * d[COLUMNS] * d[FILTERS]
    return share(work, part, parts), share(work, part + 1, parts)


@njit(boundscheck=False, error_model="numpy")
def strip(d, at, right):  # type: ignore[no-untyped-def]
    """The tiles from `at` on that share a group and their filters: the first, counted along the
    rows, and how many; then where their inputs, weights and biases start, and how far from the
    first filters' their outputs and residuals lie."""
    filters, group = d[FILTERS], d[GROUP]
    first = at // (group * filters) * group
    within = at - first * filters
    size = min(group, d[SAMPLES] * d[PLANES] * d[ROWS] * d[COLUMNS] - first)
    count = min(size - within % size, right - at)
    pair = d[FILTER_TABLE] + 2 * (within // size)
    block, start = d[pair], d[pair + 1]
    w, bias = d[WEIGHTS] + block * d[BLOCK], d[BIASES] + 16 * block
    # Names of a tile's fields are not known here; its steps are, by their order.
    return first + within % size, count, start, w, bias, block * d[TILE + 6], block * d[TILE + 7]


@njit(boundscheck=False, error_model="numpy")
def row_at(d, row, end):  # type: ignore[no-untyped-def]
    """Where a row starts in the input, output or residual, whose fields start at `end`."""
    plane, y = row // d[ROWS], row % d[ROWS]
    n, z = plane // d[PLANES], plane % d[PLANES]
    return d[end] + n * d[end + 1] + z * d[end + 2] + y * d[end + 3]


@njit(boundscheck=False, error_model="numpy")
def fetch(params, d, ahead, lines):  # type: ignore[no-untyped-def]
    """Asks for so many cache lines of weights that the next part of the sum, or the next filters,
    will read, that the first tile there need not wait for all of them; where to go on."""
    for line in range(lines):
        for block in range(d[ACROSS]):
            prefetch(params, ahead + 16 * line + block * d[BLOCK])
    return ahead + 16 * lines


@njit(boundscheck=False, error_model="numpy")
def group_end(d, at, right):  # type: ignore[no-untyped-def]
    """Where the tiles of a group end that are a thread's."""
    whole = d[GROUP] * d[FILTERS]
    return min(right, (at // whole + 1) * whole)


@njit(boundscheck=False, error_model="numpy")
def sum_up(arena, params, d, part, parts, run):  # type: ignore[no-untyped-def]
    """A part's share of all sums, `run` being what runs a tile."""
    x_step, y_step, r_step = d[TILE + 2], d[TILE + 3], d[TILE + 4]
    columns, table = d[COLUMNS], d[COLUMN_TABLE]
    begin, right = portion(d, part, parts)
    while begin < right:
        stop = group_end(d, begin, right)
        for s in range(d[SUMS]):
            t = past(d, TILE + s * TILE_FIELDS)
            at = begin
            while at < stop:
                i, count, start, w, bias, y_block, r_block = strip(d, at, stop)
                at += count
                w += s * d[ONWARD]
                end = i + count
                ahead, lines = w + d[ACROSS] * d[BLOCK], d[LINES] // count if count > 2 else 0
                while i < end:
                    row, left = i // columns, i % columns
                    x_at, y_at = row_at(d, row, INPUT) + start, row_at(d, row, OUTPUT) + y_block
                    r_at = row_at(d, row, RESIDUAL) + r_block
                    for cell in range(left, min(columns, left + end - i)):
                        x, number = d[table + 2 * cell], d[table + 2 * cell + 1]
                        inputs, outputs = x_at + x * x_step, y_at + x * y_step
                        added = outputs if s > 0 else r_at + x * r_step
                        run(number, arena, params, t, inputs, w, outputs, bias, added)
                        ahead = fetch(params, d, ahead, lines)
                    i += columns - left
        begin = stop


@njit(forceinline=True)
def floats_tile(number, arena, params, t, x, w, y, bias, residual):  # type: ignore[no-untyped-def]
    """Runs a tile with weights in single precision."""
    run_tile(number, arena, params, t, x, w, y, bias, residual)


@njit(forceinline=True)
def short_tile(number, arena, params, t, x, w, y, bias, residual):  # type: ignore[no-untyped-def]
    """Runs a tile with weights of fewer bits."""
    run_short(number, arena, params, t, x, w, y, bias, residual)


@worker
def direct(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """Sums over taps for all places of a grid and all filters."""
    sum_up(arena, params, d, part, parts, floats_tile)


@worker
def direct_short(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """The same with weights of fewer bits, a worker of its own since few ever want its tiles."""
    sum_up(arena, params, d, part, parts, short_tile)


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


SHORTEST, NEAREST, LONGEST, LONGEST_HALF = 32, 256, 1024, 16384
"""Terms summed one after the other: where that costs nothing, in a small layer of few places; so
many that 16 filters' weights stay in a core's first cache for all tiles that read them; at most;
and of those that were rounded to bfloat16, beside which errors of the sums are small, unless many
places read them again from memory."""

SHARED, PASSING = 128, 64
"""The same where tiles are four blocks wide and another thread may share the first cache; and where
weights come from far away."""

FEW, FAR = 16, 4 << 20
"""Places up to which weights are not read often enough to stay anywhere, and floats of weights that
no cache holds: such come from memory, in longer runs."""


class Sum(NamedTuple):
    """What the direct worker computes: output = clamp(bias + taps . weights + residual).

    counts: samples, planes, rows and columns of outputs. taps: where each tap lies from the first,
    in floats. starts: for each block of filters, where its first channels lie from the input's
    start. weights: where they start in params, block: the floats from one block of filters to the
    next; biases: None for none. spare: lanes of the last tap
    that hold no channel. clamp: the least and the largest output. fresh: floats of input that a
    place reads and its neighbours do not; all its taps' where that is 0.
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
    fresh: int = 0

    @property
    def longest(self) -> int:
        """Taps that are summed one after the other."""
        few, far = prod(self.counts) <= FEW, len(self.starts) * self.block > FAR
        if self.kind is Kind.BYTES:  # whose tiles sum in short parts by themselves
            return max(1, len(self.taps)) if few else LONGEST // self.kind.lanes
        if self.kind is Kind.MATRIX:  # which stays in its registers to the end
            return max(1, len(self.taps))
        if self.kind in HALF:
            again = self.kind is Kind.HALVED and far and not few
            return (LONGEST if again else LONGEST_HALF) // self.kind.lanes
        if few and (far or cached(self)):
            return (LONGEST if far else SHORTEST) // self.kind.lanes
        if self.kind is Kind.BLOCKED and twice():
            return (SHARED if cached(self) else PASSING) // self.kind.lanes
        return NEAREST // self.kind.lanes

    @property
    def sums(self) -> int:
        """Parts of each sum."""
        return max(1, -(-len(self.taps) // self.longest))


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


def describe(whole: Sum, parts: int, shape: Shape | None = None) -> Call:
    """The call that computes a sum on `parts` threads, by tiles of a shape where it fits."""
    views = [whole.source, whole.target, whole.residual or whole.target]
    counts, walks = merged(whole.counts, views)
    source, target, residual = walks
    rows, kind, runs = prod(counts[:3]), whole.kind, filter_runs(whole.starts)
    # A sum in parts passes through the output, so no place may belong to two tiles.
    overlap = len(whole.taps) <= whole.longest
    terms = max(1, len(whole.taps) * kind.lanes)
    row = choose(kind, counts[3], rows, [count for _, count in runs], parts, overlap, shape, terms)
    filter_tiles = [
        (first + i, whole.starts[first])
        for first, count in runs
        for i in starts(count, row.shape.blocks)
    ]
    sums = _sums(whole, [walk.steps[3] for walk in walks], target.block, residual.block)
    tiles = rows * row.length
    onward = packed_floats(whole.longest, kind)
    ahead = 0 if cached(whole) else min(whole.block, onward) // LANES
    column_table = TILE + TILE_FIELDS * len(sums) + len(whole.taps)
    filter_table = column_table + 2 * row.length
    codes = [code(row.tile)] * row.whole + [code(tile) for tile in row.rest]
    fields = (
        (0, max(1, min(parts, tiles * len(filter_tiles)))),
        counts[:3],
        (row.length, column_table, len(filter_tiles), filter_table),
        (group(whole, tiles, row.shape.pixels, parts), whole.weights, whole.block),
        (whole.biases or 0,),
        (source.start, *source.steps[:3]),
        (target.start, *target.steps[:3]),
        (residual.start, *residual.steps[:3]),
        (len(sums), onward, ahead, row.shape.blocks),
        *sums,
        whole.taps,
        *zip(row.starts, codes, strict=True),
        *filter_tiles,
    )
    work = direct_short if kind in SHORT else direct
    return Call(work, np.array([number for part in fields for number in part], np.int64))


NEAR = 4 * 1024
"""Floats that stay in a core's first cache while others pass."""


def cached(whole: Sum) -> bool:
    """Whether all weights stay in a core's second cache."""
    return len(whole.starts) * whole.block <= OWN_CACHE


def group(whole: Sum, tiles: int, pixels: int, parts: int) -> int:
    """Tiles along the rows to do for all filters before the next: as many as keep their input in
    the first cache where the second holds all weights, and in the second where it does not, so
    that weights pass by less often."""
    if len(set(whole.starts)) == len(whole.starts):
        return tiles  # No two blocks of filters read the same.
    room = NEAR if cached(whole) else OWN_CACHE
    fresh = max(1, (whole.fresh or len(whole.taps) * whole.kind.rows) // whole.sums)
    groups = -(-tiles // max(2, room // (fresh * pixels)))
    return -(-tiles // (-(-groups // parts) * parts if groups > 1 else 1))


def _sums(whole: Sum, steps: Sequence[int], block: int, more: int) -> list[tuple[int, ...]]:
    """A tile's fields for each part of the sum, `longest` taps at most, so that rounding errors
    do not grow with its length. The first part takes bias and residual, each later one adds what
    is in the output already, the last one clamps.

    block, more: floats to the next block of filters of the output and the residual.
    """
    taps, each = len(whole.taps), whole.longest
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


def filter_runs(starts: Sequence[int]) -> list[tuple[int, int]]:
    """Blocks of filters that read the same input: the first of each run, and how many."""
    runs: list[tuple[int, int]] = []
    for i, start in enumerate(starts):
        if i and start == starts[i - 1]:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((i, 1))
    return runs


def packed_floats(taps: int, kind: Kind) -> int:
    """Floats of so many taps' weights for 16 filters, their scales with them."""
    return taps * LANES * kind.rows + -(-taps * kind.lanes // SCALED) * kind.scales


def block_floats(taps: int, kind: Kind) -> int:
    """Floats of one block of filters' packed weights, an odd number of cache lines apart from
    multiples of 4096 bytes, so that blocks read side by side do not meet in the same cache set."""
    floats = packed_floats(taps, kind)
    return floats + 3 * LANES if floats % 1024 == 0 else floats
