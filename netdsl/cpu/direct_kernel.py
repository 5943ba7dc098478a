"""Direct sums as compiled code; `direct.py` says what they are for and plans them."""

from __future__ import annotations

from netdsl.cpu.late import njit
from netdsl.cpu.launch import share, worker
from netdsl.cpu.micro import past, prefetch, run_short, run_tight, run_tile
from netdsl.cpu.micro.fields import R_BLOCK, R_STEP, X_STEP, Y_BLOCK, Y_STEP
from netdsl.cpu.walks import (
    ACROSS,
    AGAIN,
    AHEAD,
    BESIDE,
    BIASES,
    BLOCK,
    COLUMN_TABLE,
    COLUMNS,
    FILTERS,
    FROM,
    GROUP,
    INPUT,
    LINES,
    OUTPUT,
    PLANES,
    RESIDUAL,
    ROWS,
    SAMPLES,
    STEP,
    STEP_TABLE,
    STEPS,
    TILE,
    TO,
    WEIGHT,
    WEIGHTS,
    row_at,
    strip,
)

ONCE = 3
"""Tiles of places up to which all parts of a sum are done for some filters before the next: weights
are read in the order in which they lie, as memory likes it."""


@njit(boundscheck=False, error_model="numpy")
def portion(d, part, parts):  # type: ignore[no-untyped-def]
    """The first of a part's tiles, counted group by group, and their end."""
    work = d[SAMPLES] * d[PLANES] * d[ROWS] * d[COLUMNS] * d[FILTERS]
    return share(work, part, parts), share(work, part + 1, parts)


@njit(boundscheck=False, error_model="numpy")
def fetch(params, d, step, w, nth, count, least):  # type: ignore[no-untyped-def]
    """Asks for a tile's share of the weights that the next part of the sum, or the next filters,
    will read, that the first tile there need not wait for all of them; by `least` tiles or more."""
    if count >= least:
        lines = d[step + LINES] // count
        ahead = w + d[step + AHEAD] + 16 * lines * nth
        for line in range(lines):
            for block in range(d[ACROSS]):
                prefetch(params, ahead + 16 * line + block * d[BLOCK])


@njit(boundscheck=False, error_model="numpy")
def group_end(d, at, right):  # type: ignore[no-untyped-def]
    """Where the tiles of a group end that are a thread's."""
    whole = d[GROUP] * d[FILTERS]
    return min(right, (at // whole + 1) * whole)


@njit(boundscheck=False, error_model="numpy")
def sums(arena, params, d, at, stop, step, run):  # type: ignore[no-untyped-def]
    """One step's sums for a thread's share of a group. run: runs a tile."""
    fields, again = d[step + TILE], d[step + AGAIN]
    t, columns, table = past(d, fields), d[COLUMNS], d[COLUMN_TABLE]
    x_step, y_step, r_step = d[fields + X_STEP], d[fields + Y_STEP], d[fields + R_STEP]
    while at < stop:
        i, count, pair = strip(d, at, stop)
        at += count
        block, first, end = d[pair], i, i + count
        x_more, y_more = d[step + FROM] + d[pair + 1], d[step + TO] + block * d[fields + Y_BLOCK]
        r_more = d[step + BESIDE] + block * d[fields + R_BLOCK]
        w = d[WEIGHTS] + block * d[BLOCK] + d[step + WEIGHT]
        while i < end:
            row, left = i // columns, i % columns
            x_at = row_at(d, row, INPUT) + x_more
            y_at, r_at = row_at(d, row, OUTPUT) + y_more, row_at(d, row, RESIDUAL) + r_more
            for cell in range(left, min(columns, left + end - i)):
                x, number = d[table + 2 * cell], d[table + 2 * cell + 1]
                inputs, outputs = x_at + x * x_step, y_at + x * y_step
                added = outputs if again else r_at + x * r_step
                nth = i - first + cell - left
                run(
                    arena,
                    params,
                    d,
                    step,
                    t,
                    number,
                    inputs,
                    w,
                    outputs,
                    added,
                    block,
                    nth,
                    count,
                )
            i += columns - left


@njit(boundscheck=False, error_model="numpy")
def sum_up(arena, params, d, part, parts, run):  # type: ignore[no-untyped-def]
    """A part's share of all sums, `run` being what runs a tile."""
    begin, right = portion(d, part, parts)
    tiles = d[SAMPLES] * d[PLANES] * d[ROWS] * d[COLUMNS]
    while begin < right:
        stop = group_end(d, begin, right)
        if tiles <= ONCE:
            stop = min(stop, (begin // tiles + 1) * tiles)
        for s in range(d[STEPS]):
            sums(arena, params, d, begin, stop, d[STEP_TABLE] + s * STEP, run)
        begin = stop


@njit(forceinline=True)
def floats_tile(  # type: ignore[no-untyped-def]
    arena, params, d, step, t, number, x, w, y, added, block, nth, count
):
    """Runs a tile with weights in single precision."""
    run_tile(number, arena, params, t, x, w, y, d[BIASES] + 16 * block, added)
    fetch(params, d, step, w, nth, count, 3)


@njit(forceinline=True)
def short_tile(  # type: ignore[no-untyped-def]
    arena, params, d, step, t, number, x, w, y, added, block, nth, count
):
    """Runs a tile with weights of fewer bits."""
    run_short(number, arena, params, t, x, w, y, d[BIASES] + 16 * block, added)
    fetch(params, d, step, w, nth, count, 3)


@njit(forceinline=True)
def tight_tile(  # type: ignore[no-untyped-def]
    arena, params, d, step, t, number, x, w, y, added, block, nth, count
):
    """Runs a tile with tight weights, which finds their scale in the place of biases."""
    run_tight(number, arena, params, t, x, w, y, d[BIASES], added)
    fetch(params, d, step, w, nth, count, 3)


@worker
def direct(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """Sums over taps for all places of a grid and all filters."""
    sum_up(arena, params, d, part, parts, floats_tile)


@worker
def direct_short(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """The same with weights of fewer bits, a worker of its own since few ever want its tiles."""
    sum_up(arena, params, d, part, parts, short_tile)


@worker
def direct_tight(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """The same with tight weights (tight.py)."""
    sum_up(arena, params, d, part, parts, tight_tile)
