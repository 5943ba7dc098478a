"""Direct sums by products of matrices (AMX): sixteen places by sixteen filters at once.

The sum, its table of taps and its walks are those of direct.py. A register takes 16 places that lie
evenly apart, which a row of an image seldom fills. So places are counted along a *line*: a row, or
all rows of a plane with what lies between them in memory, where that fills registers better. Sums
for places between the rows are made and dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from netdsl.cpu.direct import Steps, Sum, View, cached, filter_runs, group, merged
from netdsl.cpu.lanes import (
    load,
    maximum,
    maximum3,
    splat,
    store,
    store_half,
    where_less,
)
from netdsl.cpu.late import njit
from netdsl.cpu.launch import share, worker
from netdsl.cpu.layout import BODY, LANES, Buffer, Call, Floats
from netdsl.cpu.micro import MATRICES, Kind, Tile, configure, past, release, run_matrix
from netdsl.cpu.micro.fields import TILE_FIELDS
from netdsl.cpu.micro.registers import registers
from netdsl.cpu.task import Places
from netdsl.cpu.tiling import starts as evenly
from netdsl.cpu.walks import (
    BIASES,
    BLOCK,
    FILTER_TABLE,
    FILTERS,
    GROUP,
    INPUT,
    OUTPUT,
    RESIDUAL,
    STEPS,
    WEIGHTS,
    row_at,
)

# Up to the walks as walks.py has it, but that a column is a tile's sixteen places. Then: sixteens
# on a line, its places, those of a register, those of a row, and those from row to row; the floats
# from row to row of output and residual; a tile's sixteens and blocks of filters, and its number;
# the registers' sizes in params; the threads' scratch in the arena; whether outputs are bfloat16,
# and the block of 16 of a pair's that the first filters are; the blocks of filters that a residual
# is added to, of which those that only pad the outputs' last pair are none; sixteens from one of a
# tile's to the next, and how many tiles are so; whether squares of 2x2 are pooled, when two lines
# have their outputs in one; the taps of a part of the sums, and the tiles that do it before they do
# the next; then the tile's fields.
ALONG, PLACES, HEIGHT, WIDTH, PITCH, Y_DOWN, R_DOWN = range(STEPS, STEPS + 7)
HIGH, ACROSS, NUMBER, SIZES, SCRATCH, HALVED, SHIFT, ADDED = range(STEPS + 7, STEPS + 15)
BELOW, WHOLE, POOLED, PART, STRIP = range(STEPS + 15, STEPS + 20)
UNITS = BODY + 3
TILE = STEPS + 20

PAIRS = LANES // 2
"""Floats that 16 channels in pairs stand in the place of."""
REGISTER = 256
"""Floats of a register of sums."""
ROOM = 4 * REGISTER
"""Floats of the sums of the largest tile."""
NEAR, MOST = 12, 16
"""The taps of a part of the sums, at most, and the tiles that do it before they do the next: its
weights for two blocks of filters, 24 KB, stay in a core's first cache while their inputs pass."""


@njit(boundscheck=False, error_model="numpy")
def spot(d, sixteen):  # type: ignore[no-untyped-def]
    """The line that a register's places are on, and the first of them. The last on a line overlaps
    those before, rather than to read past its end."""
    line, k = sixteen // d[ALONG], sixteen % d[ALONG]
    return line, min(16 * k, d[PLACES] - d[HEIGHT])


@njit(boundscheck=False, error_model="numpy")
def sixteens_of(d, unit):  # type: ignore[no-untyped-def]
    """The first sixteen of a tile, and how far the next is from it. The last tile overlaps those
    before, too."""
    apart, high = d[BELOW], d[HIGH]
    if unit < d[WHOLE]:
        return unit // apart * apart * high + unit % apart, apart
    last = d[BODY] * d[BODY + 1] * d[BODY + 2] * d[ALONG] - high
    return min(unit * high, last), 1


@njit(boundscheck=False, error_model="numpy")
def start_of(d, sixteen):  # type: ignore[no-untyped-def]
    """Where a register's inputs start."""
    line, place = spot(d, sixteen)
    return row_at(d, line, INPUT) + place * d[TILE + 2]


@njit(forceinline=True)
def clamped(v, low, high):  # type: ignore[no-untyped-def]
    """Between two bounds; NaN stays NaN."""
    v = where_less(v, low, low, v)
    return where_less(high, v, high, v)


@njit(boundscheck=False, error_model="numpy")
def finish(arena, params, d, sums, y, r, bias, block, count):  # type: ignore[no-untyped-def]
    """Stores 16 filters of some places of a row: bias, residual, bounds, rounding."""
    add, low, high = load(params, bias), load(params, d[SIZES] + 16), load(params, d[SIZES] + 32)
    y_step, r_step = d[TILE + 3], d[TILE + 4]
    residual, half = block < d[ADDED], d[HALVED]
    r += block * d[TILE + 7]
    if half:
        block += d[SHIFT]
        y += (block >> 1) * d[TILE + 6] + 8 * (block & 1)
    else:
        y += block * d[TILE + 6]
    if residual:
        for i in range(count):
            v = load(arena, sums + 16 * i) + add + load(arena, r + i * r_step)
            store(arena, sums + 16 * i, v)
        add = splat(np.float32(0.0))
    if half:
        for i in range(count):
            v = clamped(load(arena, sums + 16 * i) + add, low, high)
            store_half(arena, y + i * y_step, v)
    else:
        for i in range(count):
            v = clamped(load(arena, sums + 16 * i) + add, low, high)
            store(arena, y + i * y_step, v)


@njit(boundscheck=False, error_model="numpy")
def finish_tile(arena, params, d, sums, first, apart, block):  # type: ignore[no-untyped-def]
    """Stores a tile's sums, row by row of the places that they are for."""
    high, across = d[HIGH], d[ACROSS]
    width, pitch, height = d[WIDTH], d[PITCH], d[HEIGHT]
    for i in range(high):
        line, place = spot(d, first + i * apart)
        row, column = place // pitch, place % pitch
        y = row_at(d, line, OUTPUT) + row * d[Y_DOWN]
        r = row_at(d, line, RESIDUAL) + row * d[R_DOWN]
        done = 0
        while done < height:
            count = min(width - column, height - done)
            for j in range(across):
                at = sums + REGISTER * (i * across + j) + 16 * done
                y_at, r_at = y + column * d[TILE + 3], r + column * d[TILE + 4]
                bias = d[BIASES] + 16 * (block + j)
                finish(arena, params, d, at, y_at, r_at, bias, block + j, count)
            done += pitch - column
            column = 0
            y += d[Y_DOWN]
            r += d[R_DOWN]


@njit(boundscheck=False, error_model="numpy")
def finish_pooled(arena, params, d, sums, first, block):  # type: ignore[no-untyped-def]
    """Stores the largest of each four sums of a tile, which is two rows of sixteen places."""
    across, (line, place) = d[ACROSS], spot(d, first)
    below = sums + REGISTER * across
    y = row_at(d, line, OUTPUT) + (place >> 1) * d[TILE + 3]
    low, high = load(params, d[SIZES] + 16), load(params, d[SIZES] + 32)
    for j in range(across):
        add = load(params, d[BIASES] + 16 * (block + j))
        if d[HALVED]:
            filters = block + j + d[SHIFT]
            y_at = y + (filters >> 1) * d[TILE + 6] + 8 * (filters & 1)
        else:
            y_at = y + (block + j) * d[TILE + 6]
        for i in range(d[HEIGHT] >> 1):
            top, bottom = sums + REGISTER * j + 32 * i, below + REGISTER * j + 32 * i
            a, b = load(arena, top) + add, load(arena, top + 16) + add
            v = maximum3(a, b, load(arena, bottom) + add)
            v = clamped(maximum(v, load(arena, bottom + 16) + add), low, high)
            if d[HALVED]:
                store_half(arena, y_at + i * d[TILE + 3], v)
            else:
                store(arena, y_at + i * d[TILE + 3], v)


@worker
def matrix(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """Sums over taps for all places and filters, tile by tile."""
    units, filters, together, high = d[UNITS], d[FILTERS], d[GROUP], d[HIGH]
    begin, end = share(units * filters, part, parts), share(units * filters, part + 1, parts)
    if begin == end:
        return
    configure(params, d[SIZES])
    t, scratch, taps = past(d, TILE), d[SCRATCH] + MOST * ROOM * part, d[TILE]
    at = begin
    while at < end:
        group_first = at // (together * filters) * together
        within = at - group_first * filters
        size = min(together, units - group_first)
        pair = d[FILTER_TABLE] + 2 * (within // size)
        block, start = d[pair], d[pair + 1]
        unit = group_first + within % size
        count = min(d[STRIP], size - within % size, end - at)
        w = d[WEIGHTS] + block * d[BLOCK]
        for tap in range(0, taps, d[PART]):
            last = min(taps, tap + d[PART])
            for i in range(count):
                first, apart = sixteens_of(d, unit + i)
                x0 = start_of(d, first) + start
                x1 = x2 = x3 = x0
                if high > 1:
                    x1 = start_of(d, first + apart) + start
                if high > 2:
                    x2 = start_of(d, first + 2 * apart) + start
                if high > 3:
                    x3 = start_of(d, first + 3 * apart) + start
                sums = scratch + ROOM * i
                run_matrix(d[NUMBER], arena, params, t, sums, w, tap, last, x0, x1, x2, x3)
                if last == taps:
                    if d[POOLED]:
                        finish_pooled(arena, params, d, sums, first, block)
                    else:
                        finish_tile(arena, params, d, sums, first, apart, block)
        at += count
    release()


class Lines(NamedTuple):
    """How places are counted: samples, planes and rows of lines; sixteens on a line, its places,
    those of a row, and those from one row to the next."""

    counts: tuple[int, int, int]
    along: int
    places: int
    width: int
    pitch: int

    @property
    def sixteens(self) -> int:
        return prod(self.counts) * self.along

    @property
    def below(self) -> int:
        """Sixteens from one to that which lies a row below it, or nearly so."""
        return max(1, round(self.pitch / 16)) if self.pitch < self.places else self.along


def by_rows(counts: Steps) -> Lines:
    """Places counted row by row."""
    samples, planes, rows, columns = counts
    return Lines((samples, planes, rows), -(-columns // 16), columns, columns, columns)


def lines(counts: Steps, source: View) -> Lines:
    """The way to count places that fills registers better: row by row, or plane by plane."""
    samples, planes, rows, columns = counts
    rowwise = by_rows(counts)
    down, right = source.steps[2:]
    if rows == 1 or down % right or down // right < columns:
        return rowwise
    pitch = down // right
    places = (rows - 1) * pitch + columns
    planewise = Lines((samples, planes, 1), -(-places // 16), places, columns, pitch)
    return min(rowwise, planewise, key=lambda one: one.sixteens)


SUMMED, POOL = 27.0, 1.0
"""Cycles of a tap's product of sixteen places and filters within a layer, where it waits for the
second cache; and of a pool that is a step of its own, for each number that it reads."""


def pool_pays(counts: Steps, source: View, taps: int) -> bool:
    """Whether to pool squares of 2x2 while sums are stored saves more than counting places row by
    row costs."""
    more = by_rows(counts).sixteens - lines(counts, source).sixteens
    return SUMMED * taps * more < POOL * 16 * prod(counts)


PRODUCT, LATENCY, FETCH, FINISH = 16.0, 52.0, 4.0, 60.0
"""Cycles of a product, and until its sum may be added to; what fetching a register adds; and what a
register of sums takes to store."""


def tile_for(
    sixteens: int, across: Sequence[int], taps: int, parts: int, pooled: bool = False
) -> Tile:
    """The tile that takes the fewest cycles. across: blocks of filters that read the same input.
    pooled: it has to be of two sixteens."""

    def cost(tile: Tile) -> float:
        high, wide = tile.shape
        count = -(-sixteens // high) * sum(-(-run // wide) for run in across)
        tap = max(PRODUCT * high * wide, LATENCY) + FETCH * (high + wide)
        return -(-count // parts) * (taps * tap + FINISH * high * wide)

    fitting = [t for t in MATRICES if t.shape.pixels <= sixteens and t.shape.blocks <= min(across)]
    if pooled:
        fitting = [tile for tile in fitting if tile.shape.pixels == 2]
    return min(fitting, key=cost)


def settings(tile: Tile, height: int, clamp: tuple[float, float]) -> Floats:
    """What a call finds in params: the registers' sizes as `configure` reads them, 64 bytes; then
    the bounds of what is stored, 16 times each. height: places of a register."""
    _, weights = registers(tile.shape)
    said = np.zeros(64, np.uint8)
    said[0] = 1
    said[16:32].view(np.uint16)[:] = 64
    said[48:56] = height
    said[[48 + i for i in weights]] = Kind.MATRIX.rows
    bounds = np.repeat(np.array(clamp, np.float32), 16)
    return np.concatenate([said.view(np.float32), bounds])


def whole_blocks(target: Buffer, weights: Floats, starts: list[int]) -> tuple[Floats, list[int]]:
    """Weights (filters, ...) and where blocks of filters read, with filters of zeros for channels
    that only pad the target's last block, so that zeros are written there."""
    if not target.pairs or target.channels // PAIRS <= len(starts):
        return weights, starts
    blocks = target.channels // PAIRS
    zeros = np.zeros((blocks * LANES - len(weights), *weights.shape[1:]), np.float32)
    return np.concatenate([weights, zeros]), starts + starts[-1:] * (blocks - len(starts))


def scratch(threads: int) -> int:
    """Floats of scratch that a layer wants."""
    return MOST * ROOM * threads


def shares(whole: Sum) -> bool:
    """Whether taps read what others have read."""
    return 0 < whole.fresh < len(whole.taps) * whole.kind.rows


def parted(whole: Sum) -> tuple[int, int]:
    """Taps of a part of a sum, and the tiles that each do a part before they do the next: more than
    one where all weights stay in the second cache and a tile's do not stay in the first. Where each
    tap reads inputs of its own, as of 1x1 kernels, these pass through the first cache anyway."""
    taps = max(1, len(whole.taps))
    if taps <= NEAR or not cached(whole) or not shares(whole):
        return taps, 1
    return -(-taps // -(-taps // NEAR)), MOST


def describe(whole: Sum, parts: int, places: Places, pooled: bool = False) -> Call:
    """The call that computes a sum on `parts` threads into a node's output; pooled: the largest of
    each square of 2x2."""
    target_buffer, params = places.output, places.params
    views = [whole.source, whole.target, whole.residual or whole.target]
    counts, walks = (whole.counts, views) if pooled else merged(whole.counts, views)
    source, target, residual = walks
    line, across = by_rows(counts) if pooled else lines(counts, source), filter_runs(whole.starts)
    tile = tile_for(line.sixteens, [n for _, n in across], len(whole.taps), parts, pooled)
    high, wide = tile.shape
    filters = [(first + i, whole.starts[first]) for first, n in across for i in evenly(n, wide)]
    units, height = -(-line.sixteens // high), min(16, line.places)
    # Windows of two rows of places read fewer places than those of a row of twice as many.
    below = line.below if pooled or shares(whole) else 1
    steps = [walk.steps[3] for walk in walks]
    part, strip = parted(whole)
    together = max(strip, group(whole, units, 16 * high, parts))
    filter_table = TILE + TILE_FIELDS + len(whole.taps)
    fields = (
        (0, max(1, min(parts, units * len(filters)))),
        (*line.counts, units, 0, len(filters), filter_table),
        (together, whole.weights, whole.block, whole.biases or 0),
        (source.start, *source.steps[:3]),
        (target.start, *target.steps[:2], target.steps[2] // (2 if pooled else 1)),
        (residual.start, *residual.steps[:3]),
        (line.along, line.places, height, line.width, line.pitch),
        (target.steps[2], residual.steps[2], high, wide, MATRICES.index(tile)),
        (params.add(settings(tile, height, whole.clamp)), places.scratch),
        (int(target_buffer.pairs), target_buffer.shift // PAIRS),
        (places.inputs[1].blocks if whole.residual else 0,),
        (below, line.sixteens // (high * below) * below, int(pooled), part, strip),
        (len(whole.taps), TILE_FIELDS, *steps, whole.block, target.block, residual.block),
        (0, 0, 0),
        whole.taps,
        *filters,
    )
    return Call(matrix, np.array([number for part in fields for number in part], np.int64))
