"""Direct sums of floats as three bfloat16 each, as compiled code; `thirds.py` plans them.

A *sixteen* is 16 output places that follow each other in the order of samples, planes, rows and
columns, whatever lies between them in memory. For some sixteens at a time a thread writes the three
parts of all that their sums read side by side, tap by tap; then tiles multiply them by all filters.
"""

from __future__ import annotations

import numpy as np

from netdsl.cpu.lanes import load, splat, store
from netdsl.cpu.late import njit
from netdsl.cpu.launch import BODY, share, worker
from netdsl.cpu.matrix import clamped
from netdsl.cpu.micro import configure, release, run_thirds, store_filters, store_places
from netdsl.cpu.walks import INPUT, OUTPUT, RESIDUAL, row_at

# Samples, planes and rows as walks.py has them, and where those start; between them: places of a
# row and of all, sixteens of a group, and parts that filters are cut in; turns of 32 channels,
# where their taps are listed, turns to do for a group before the next, and blocks of filters.
WIDTH, PLACES, TOGETHER, CUT = range(BODY + 3, BODY + 7)
TURNS, TABLE, SPAN, BLOCKS = range(BODY + 7, BODY + 11)
# After the walks: floats to the next place of input, output and residual; where it is listed how
# far the latter two's blocks of filters are from the first; whether there is a residual; where
# registers' sizes are in params, and behind them the bounds; each thread's scratch, and the floats
# of it; where weights start, with floats to the next block's, and biases; whether the last turn has
# one block alone; where the parts of all inputs are, if they are made before.
X_STEP, Y_STEP, R_STEP, Y_TABLE, R_TABLE = range(BODY + 23, BODY + 28)
ADDED, SIZES, SCRATCH, EACH, WEIGHTS, BLOCK, BIASES = range(BODY + 28, BODY + 35)
SINGLE, MADE = BODY + 35, BODY + 36
TAPS = BODY + 37

PART, ALL = 256, 768
"""Floats of a register, and of the three parts."""
SUMS = 4 * PART
"""Floats of the sums of a tile."""


@worker
def form_thirds(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """A part's share of the sixteens' parts of inputs."""
    sixteens = (d[PLACES] + 15) // 16
    first, last = share(sixteens, part, parts), share(sixteens, part + 1, parts)
    for turn in range(0, d[TURNS], d[SPAN]):
        span = min(d[SPAN], d[TURNS] - turn)
        made = d[MADE] + ALL * (turn * sixteens + span * first)
        form(arena, d, first, last - first, made, turn, span)


@worker
def thirds(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """A part's share of the sums: of a group of sixteens some turns for all filters, then more."""
    cut = d[CUT]
    sixteens, tiles = (d[PLACES] + 15) // 16, (d[BLOCKS] + 1) // 2
    first = share(sixteens, part // cut, parts // cut)
    last = share(sixteens, part // cut + 1, parts // cut)
    begin, end = share(tiles, part % cut, cut), share(tiles, part % cut + 1, cut)
    own = d[SCRATCH] + part * d[EACH]
    configure(params, d[SIZES])
    while first < last:
        count = min(d[TOGETHER], last - first)
        for turn in range(0, d[TURNS], d[SPAN]):
            span = min(d[SPAN], d[TURNS] - turn)
            made, sums = d[MADE] + ALL * (turn * sixteens + span * first), own
            if d[MADE] < 0:
                made, sums = own, own + d[TOGETHER] * ALL * d[SPAN]
                form(arena, d, first, count, made, turn, span)
            multiply(arena, params, d, first, count, begin, end, made, sums, turn, span)
        first += count
    release()


@njit(boundscheck=False, error_model="numpy")
def multiply(arena, params, d, first, count, begin, end, made, sums, turn, span):  # type: ignore[no-untyped-def]
    """Some turns of a group's sums, whose inputs' parts lie at `made`. After the last they are
    stored; before that they stay in scratch, each tile's for itself. A tile is stored after the
    next is summed, for what a register stores can be loaded only when all that was stored before
    it, outputs that come from memory among them, has reached the first cache."""
    step, last = ALL * span, turn + span == d[TURNS]
    tiles = (end - begin) * ((count + 1) // 2)
    for tile in range(tiles + last):
        if tile < tiles:
            i, high, block, across, at = tile_at(d, tile, count, begin, sums)
            x, w = made + i * step, d[WEIGHTS] + block * d[BLOCK] + ALL * turn
            run_thirds(
                *(high, across, arena, params, d, x, step, w, d[BLOCK], span),
                *(at, across * PART, PART, turn),
            )
        if last and tile > 0:
            i, high, block, across, at = tile_at(d, tile - 1, count, begin, sums)
            finish(arena, params, d, at, first + i, high, block, across)


@njit(boundscheck=False, error_model="numpy")
def tile_at(d, tile, count, begin, sums):  # type: ignore[no-untyped-def]
    """Of a group's tile by its number: its first sixteen and how many it has, its first block of
    filters and how many, and where its sums are: each tile's by themselves where they stay from
    span to span, else with those of the one before beside them."""
    pairs = (count + 1) // 2
    i, block = 2 * (tile % pairs), 2 * (begin + tile // pairs)
    at = sums + SUMS * (tile if d[SPAN] < d[TURNS] else tile & 1)
    return i, min(2, count - i), block, min(2, d[BLOCKS] - block), at


@njit(boundscheck=False, error_model="numpy")
def form(arena, d, first, count, made, turn, span):  # type: ignore[no-untyped-def]
    """Writes the parts of what some sixteens read in some turns."""
    start = place = 16 * first
    end, width = min(d[PLACES], start + 16 * count), d[WIDTH]
    while place < end:
        row, x = place // width, place % width
        run = min(width - x, end - place)
        source = row_at(d, row, INPUT) + x * d[X_STEP]
        for i in range(span):
            form_turn(arena, d, source, made + ALL * i, place - start, run, turn + i, span)
        place += run


@njit(boundscheck=False, error_model="numpy")
def form_turn(arena, d, source, made, place, run, turn, span):  # type: ignore[no-untyped-def]
    """Those of 32 channels of some places of a row, the place-th of a group and those behind it."""
    low = source + d[d[TABLE] + 2 * turn]
    high = source + d[d[TABLE] + 2 * turn + 1]
    hop, each = d[X_STEP], ALL * span
    if d[SINGLE] and turn == d[TURNS] - 1:
        nothing = splat(np.float32(0.0))
        for i in range(place, place + run):
            target = made + (i >> 4) * each + 16 * (i & 15)
            store_places(arena, target, load(arena, low), nothing)
            low += hop
        return
    for i in range(place, place + run):
        target = made + (i >> 4) * each + 16 * (i & 15)
        store_places(arena, target, load(arena, low), load(arena, high))
        low += hop
        high += hop


@njit(boundscheck=False, error_model="numpy")
def finish(arena, params, d, sums, sixteen, high, block, across):  # type: ignore[no-untyped-def]
    """Stores a tile's sums."""
    width = d[WIDTH]
    place, end = 16 * sixteen, min(d[PLACES], 16 * (sixteen + high))
    while place < end:
        row, x = place // width, place % width
        within = place - 16 * sixteen
        run = min(min(width - x, end - place), 16 - within % 16)
        y = row_at(d, row, OUTPUT) + x * d[Y_STEP]
        r = row_at(d, row, RESIDUAL) + x * d[R_STEP]
        at = sums + PART * across * (within // 16) + 16 * (within % 16)
        for j in range(across):
            b = block + j
            y_at, r_at = y + d[d[Y_TABLE] + b], r + d[d[R_TABLE] + b]
            finish_run(arena, params, d, at + PART * j, y_at, r_at, d[BIASES] + 16 * b, run)
        place += run


@njit(boundscheck=False, error_model="numpy")
def finish_run(arena, params, d, sums, y, r, bias, count):  # type: ignore[no-untyped-def]
    """Stores 16 filters of some places of a row: bias, residual, bounds."""
    low, high = load(params, d[SIZES] + 16), load(params, d[SIZES] + 32)
    add, y_step, r_step = load(params, bias), d[Y_STEP], d[R_STEP]
    if d[ADDED]:
        for _ in range(count):
            v = load(arena, sums) + add + load(arena, r)
            store(arena, y, clamped(v, low, high))
            sums += 16
            y += y_step
            r += r_step
        return
    for _ in range(count):
        store(arena, y, clamped(load(arena, sums) + add, low, high))
        sums += 16
        y += y_step


# Of the call that makes the parts of weights: blocks of filters, rows of 16 weights of each, and
# the floats from one block to the next before and after.
FILTER_BLOCKS, ROWS, BEFORE, AFTER = range(BODY, BODY + 4)


@worker
def pack_thirds(packed, made, d, part, parts):  # type: ignore[no-untyped-def]
    """The parts of packed weights, which are rows of 16 filters, an even number for each block."""
    for f in range(share(d[FILTER_BLOCKS], part, parts), share(d[FILTER_BLOCKS], part + 1, parts)):
        for pair in range(d[ROWS] // 2):
            source = f * d[BEFORE] + 32 * pair
            target = f * d[AFTER] + ALL * (pair // 16) + 16 * (pair % 16)
            store_filters(made, target, load(packed, source), load(packed, source + 16))
