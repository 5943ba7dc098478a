"""Strassen's algorithm for 1x1 convolutions, as compiled code: sums of a group's inputs, and tiles
that make all four quarters of their outputs (`micro/points.py`).

The quarters are those of `strassen.py`: a place of the group stands for itself in the first half of
the places and for its like in the second, a block of channels for itself and the one behind it, a
filter for itself and its like in the second half.
"""

from __future__ import annotations

from netdsl.cpu.direct_kernel import group_end, portion
from netdsl.cpu.lanes import load, store
from netdsl.cpu.late import njit
from netdsl.cpu.launch import worker
from netdsl.cpu.micro import past, run_points
from netdsl.cpu.micro.fields import (
    ASKS,
    LINES,
    R_BLOCK,
    R_STEP,
    TURNS,
    X_STEP,
    Y_BLOCK,
    Y_STEP,
)
from netdsl.cpu.walks import (
    AGAIN,
    AHEAD,
    BIASES,
    BLOCK,
    COLUMN_TABLE,
    COLUMNS,
    FILTER_TABLE,
    FILTERS,
    FROM,
    HALVES,
    INPUT,
    OUTPUT,
    RESIDUAL,
    STEP,
    STEP_TABLE,
    STEPS,
    TILE,
    WEIGHT,
    WEIGHTS,
    group_of,
    row_at,
    row_width,
    segment,
    strip,
)

# Strassen's own fields: blocks of channels of a half; scratch for sums of inputs, a thread's, and
# the floats to the next thread's, the next sum and the next block of channels; stretches of inputs
# to ask for, and how far apart they are; the floats to the input of a place's like, of the block
# beside it, of the next block of its half and the next place.
CHANNELS, MADE, MADE_EACH, MADE_NEXT, MADE_BLOCK, STRETCHES, STRETCH = range(7)
APART, BELOW, NEXT_BLOCK, NEXT_PLACE = range(7, 11)


@worker
def strassen(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """A part's share of the tiles: of a group first the sums of inputs, then for some filters at a
    time all tiles, part of the sum by part."""
    begin, right = portion(d, part, parts)
    h = d[HALVES]
    while begin < right:
        stop = group_end(d, begin, right)
        first, _ = group_of(d, begin)
        row, x, _, _ = segment(d, first, first + 1)
        # Where the sums of inputs for the first place of the first row would lie.
        made = d[h + MADE] + part * d[h + MADE_EACH] - 16 * (row * row_width(d) + x)
        form(arena, d, begin, made)
        asked, following = 0, stop if stop < right else begin
        while begin < stop:
            _, count, _ = strip(d, begin, stop)
            for s in range(d[STEPS]):
                asked = tiles(arena, params, d, begin, stop, s, made, following, asked)
            begin += count


@njit(boundscheck=False, error_model="numpy")
def weights_at(d, pair, s):  # type: ignore[no-untyped-def]
    """Where the weights of a step start, for the filters that an entry of their table says."""
    return d[WEIGHTS] + d[pair] * d[BLOCK] + d[d[STEP_TABLE] + s * STEP + WEIGHT]


@njit(boundscheck=False, error_model="numpy")
def asked_at(d, following, asked):  # type: ignore[no-untyped-def]
    """Of the inputs of the group that follows the one after those that were asked for: where it
    lies, the places left of its stretch and those of all; 0 places where all were asked for."""
    h = d[HALVES]
    i, size = group_of(d, following)
    end = i + size
    while i < end:
        row, left, count, i = segment(d, i, end)
        if asked < count * d[h + STRETCHES]:
            stretch, place = asked // count, asked % count
            x = row_at(d, row, INPUT) + (left + place) * d[h + NEXT_PLACE]
            return x + stretch * d[h + STRETCH], count - place, count
        asked -= count * d[h + STRETCHES]
    return d[INPUT], 0, 0


@njit(boundscheck=False, error_model="numpy")
def tiles(arena, params, d, at, stop, s, made, following, asked):  # type: ignore[no-untyped-def]
    """One step of the tiles from `at` on that share their filters. Tiles ask for the weights that
    follow as those of Winograd's products do, and for the inputs of the group that follows; asked:
    how many of these were asked for. Gives how many then are."""
    i, count, pair = strip(d, at, stop)
    step = d[STEP_TABLE] + s * STEP
    fields, again, block = d[step + TILE], d[step + AGAIN], d[pair]
    t, columns, table = past(d, fields), d[COLUMNS], d[COLUMN_TABLE]
    x_step, y_step, r_step = d[fields + X_STEP], d[fields + Y_STEP], d[fields + R_STEP]
    weights, biases = weights_at(d, pair, s), d[BIASES] + 16 * block
    if s + 1 < d[STEPS]:
        ahead = weights_at(d, pair, s + 1)
    elif pair + 2 < d[FILTER_TABLE] + 2 * d[FILTERS]:
        ahead = weights_at(d, pair + 2, 0)
    else:
        ahead = weights_at(d, d[FILTER_TABLE], 0)
    lines = 16 * LINES
    half = 7 * d[fields + TURNS] * lines
    y_more, r_more = block * d[fields + Y_BLOCK], block * d[fields + R_BLOCK]
    for nth in range(count):
        row, cell = (i + nth) // columns, (i + nth) % columns
        x, number = d[table + 2 * cell], d[table + 2 * cell + 1]
        inputs = row_at(d, row, INPUT) + x * x_step + d[step + FROM]
        outputs = row_at(d, row, OUTPUT) + x * y_step + y_more
        residual = outputs if again else row_at(d, row, RESIDUAL) + x * r_step + r_more
        formed = made + 16 * (row * row_width(d) + x)
        place, left, run = asked_at(d, following, asked)
        run_points(
            number,
            arena,
            params,
            t,
            inputs,
            weights,
            outputs,
            ahead + min(nth, 2) * half,
            lines if nth < 2 and d[step + AHEAD] else 0,
            formed,
            biases,
            residual,
            place,
            left,
            run,
        )
        asked += 7 * d[fields + TURNS] * ASKS
    return asked


@njit(boundscheck=False, error_model="numpy")
def form(arena, d, at, made):  # type: ignore[no-untyped-def]
    """Sums of a group's inputs, of all channels."""
    h = d[HALVES]
    i, size = group_of(d, at)
    end = i + size
    while i < end:
        row, left, count, i = segment(d, i, end)
        x = row_at(d, row, INPUT) + left * d[h + NEXT_PLACE]
        y = made + 16 * (row * row_width(d) + left)
        for _ in range(d[h + CHANNELS]):
            form_block(arena, d, x, y, count)
            x += d[h + NEXT_BLOCK]
            y += d[h + MADE_BLOCK]


@njit(boundscheck=False, error_model="numpy")
def form_block(arena, d, x, y, count):  # type: ignore[no-untyped-def]
    """Those of some places in one block of channels."""
    h = d[HALVES]
    apart, below, hop = d[h + APART], d[h + BELOW], d[h + NEXT_PLACE]
    second, third = d[h + MADE_NEXT], 2 * d[h + MADE_NEXT]
    for _ in range(count):
        here, under = load(arena, x), load(arena, x + below)
        there, across = load(arena, x + apart), load(arena, x + apart + below)
        more = there - here
        most = across - more
        store(arena, y, more)
        store(arena, y + second, most)
        store(arena, y + third, across - there)
        store(arena, y + second + third, under - most)
        x += hop
        y += 16
