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

from netdsl.cpu.direct import Steps, Sum, View, filter_runs, group, merged
from netdsl.cpu.lanes import load, splat, store, store_half, where_less
from netdsl.cpu.late import njit
from netdsl.cpu.launch import share, worker
from netdsl.cpu.layout import BODY, LANES, Buffer, Call, Floats
from netdsl.cpu.micro import MATRICES, Kind, Tile, configure, past, release, run_matrix
from netdsl.cpu.micro.fields import ADD_RESIDUAL, TILE_FIELDS
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
# and the block of 16 of a pair's that the first filters are; then the tile's fields.
ALONG, PLACES, HEIGHT, WIDTH, PITCH, Y_DOWN, R_DOWN = range(STEPS, STEPS + 7)
HIGH, ACROSS, NUMBER, SIZES, SCRATCH, HALVED, SHIFT = range(STEPS + 7, STEPS + 14)
UNITS = BODY + 3
TILE = STEPS + 14

PAIRS = LANES // 2
"""Floats that 16 channels in pairs stand in the place of."""
REGISTER = 256
"""Floats of a register of sums."""
ROOM = 4 * REGISTER
"""Floats of scratch that each thread has: the sums of the largest tile."""


@njit(boundscheck=False, error_model="numpy")
def spot(d, sixteen):  # type: ignore[no-untyped-def]
    """The line that a register's places are on, and the first of them. The last on a line overlaps
    those before, rather than to read past its end."""
    line, k = sixteen // d[ALONG], sixteen % d[ALONG]
    return line, min(16 * k, d[PLACES] - d[HEIGHT])


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
    residual, half = d[TILE + 8] & ADD_RESIDUAL, d[HALVED]
    if half:
        block += d[SHIFT]
        y += (block >> 1) * d[TILE + 6] + 8 * (block & 1)
    else:
        y += block * d[TILE + 6]
    if residual:
        r += block * d[TILE + 7]
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
def finish_tile(arena, params, d, sums, first, block):  # type: ignore[no-untyped-def]
    """Stores a tile's sums, row by row of the places that they are for."""
    high, across = d[HIGH], d[ACROSS]
    width, pitch, height = d[WIDTH], d[PITCH], d[HEIGHT]
    for i in range(high):
        line, place = spot(d, first + i)
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


@worker
def matrix(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """Sums over taps for all places and filters, tile by tile."""
    units, filters, together, high = d[UNITS], d[FILTERS], d[GROUP], d[HIGH]
    begin, end = share(units * filters, part, parts), share(units * filters, part + 1, parts)
    if begin == end:
        return
    configure(params, d[SIZES])
    t, scratch = past(d, TILE), d[SCRATCH] + ROOM * part
    last = d[BODY] * d[BODY + 1] * d[BODY + 2] * d[ALONG] - high
    for at in range(begin, end):
        group_first = at // (together * filters) * together
        within = at - group_first * filters
        size = min(together, units - group_first)
        pair = d[FILTER_TABLE] + 2 * (within // size)
        block, start = d[pair], d[pair + 1]
        first = min((group_first + within % size) * high, last)
        x0 = start_of(d, first) + start
        x1 = x2 = x3 = x0
        if high > 1:
            x1 = start_of(d, first + 1) + start
        if high > 2:
            x2 = start_of(d, first + 2) + start
        if high > 3:
            x3 = start_of(d, first + 3) + start
        w = d[WEIGHTS] + block * d[BLOCK]
        run_matrix(d[NUMBER], arena, params, t, scratch, w, x0, x1, x2, x3)
        finish_tile(arena, params, d, scratch, first, block)
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


def lines(counts: Steps, source: View) -> Lines:
    """The way to count places that fills registers better: row by row, or plane by plane."""
    samples, planes, rows, columns = counts
    by_rows = Lines((samples, planes, rows), -(-columns // 16), columns, columns, columns)
    down, right = source.steps[2:]
    if rows == 1 or down % right or down // right < columns:
        return by_rows
    pitch = down // right
    places = (rows - 1) * pitch + columns
    by_planes = Lines((samples, planes, 1), -(-places // 16), places, columns, pitch)
    return min(by_rows, by_planes, key=lambda one: one.sixteens)


PRODUCT, LATENCY, FETCH, FINISH = 16.0, 52.0, 4.0, 60.0
"""Cycles of a product, and until its sum may be added to; what fetching a register adds; and what a
register of sums takes to store."""


def tile_for(sixteens: int, across: Sequence[int], taps: int, parts: int) -> Tile:
    """The tile that takes the fewest cycles. across: blocks of filters that read the same input."""

    def cost(tile: Tile) -> float:
        high, wide = tile.shape
        count = -(-sixteens // high) * sum(-(-run // wide) for run in across)
        tap = max(PRODUCT * high * wide, LATENCY) + FETCH * (high + wide)
        return -(-count // parts) * (taps * tap + FINISH * high * wide)

    fitting = [t for t in MATRICES if t.shape.pixels <= sixteens and t.shape.blocks <= min(across)]
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
    return ROOM * threads


def describe(whole: Sum, parts: int, places: Places) -> Call:
    """The call that computes a sum on `parts` threads into a node's output."""
    target_buffer, params = places.output, places.params
    views = [whole.source, whole.target, whole.residual or whole.target]
    counts, walks = merged(whole.counts, views)
    source, target, residual = walks
    line, across = lines(counts, source), filter_runs(whole.starts)
    tile = tile_for(line.sixteens, [n for _, n in across], len(whole.taps), parts)
    high, wide = tile.shape
    filters = [(first + i, whole.starts[first]) for first, n in across for i in evenly(n, wide)]
    units, height = -(-line.sixteens // high), min(16, line.places)
    steps = [walk.steps[3] for walk in walks]
    filter_table = TILE + TILE_FIELDS + len(whole.taps)
    fields = (
        (0, max(1, min(parts, units * len(filters)))),
        (*line.counts, units, 0, len(filters), filter_table),
        (group(whole, units, 16 * high, parts), whole.weights, whole.block, whole.biases or 0),
        (source.start, *source.steps[:3]),
        (target.start, *target.steps[:3]),
        (residual.start, *residual.steps[:3]),
        (line.along, line.places, height, line.width, line.pitch),
        (target.steps[2], residual.steps[2], high, wide, MATRICES.index(tile)),
        (params.add(settings(tile, height, whole.clamp)), places.scratch),
        (int(target_buffer.pairs), target_buffer.shift // PAIRS),
        (len(whole.taps), TILE_FIELDS, *steps, whole.block, target.block, residual.block),
        (ADD_RESIDUAL if whole.residual else 0, 0, 0),
        whole.taps,
        *filters,
    )
    return Call(matrix, np.array([number for part in fields for number in part], np.int64))
