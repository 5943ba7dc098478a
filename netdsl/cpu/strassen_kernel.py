"""What Strassen's algorithm does between its products, on a group of tiles of a direct sum.

The quarters are those of `strassen.py`: a place of the group stands for itself in the first half of
the places and for its like in the second, a block of channels for itself and the one behind it, a
filter for itself and its like in the second half.
"""

from __future__ import annotations

from netdsl.cpu.direct_kernel import fetch, group_end, portion, sums
from netdsl.cpu.lanes import load, store, where_less
from netdsl.cpu.late import njit
from netdsl.cpu.launch import worker
from netdsl.cpu.micro import run_asking
from netdsl.cpu.walks import (
    ACROSS,
    BIASES,
    HALVES,
    INPUT,
    OUTPUT,
    RESIDUAL,
    STEP,
    STEP_TABLE,
    STEPS,
    group_of,
    row_at,
    row_width,
    segment,
    strip,
)

# Strassen's own fields: whether places have their like; steps before the quarters are mixed; blocks
# of channels of a half; scratch for sums of inputs, a thread's, and the floats to the next
# thread's, the next sum and the next block of channels; the biases' second half; whether there is a
# residual; the bounds of the result, in params; stretches of inputs to ask for side by side, how
# far apart they are, and how much of each a tile asks for; then of input, output and residual the
# floats to a place's like, to a block's like, to the next block and the next place.
PAIRED, BEFORE, CHANNELS, MADE, MADE_EACH, MADE_NEXT, MADE_BLOCK = range(7)
BIASES_BELOW, ADDED, BOUNDS, STRETCHES, STRETCH, ASKED = range(7, 13)
OF_INPUT, OF_OUTPUT, OF_RESIDUAL = 13, 17, 21
APART, BELOW, NEXT_BLOCK, NEXT_PLACE = range(4)


@njit(boundscheck=False, error_model="numpy")
def first_place(d, at):  # type: ignore[no-untyped-def]
    """The row of the first place of a group, and the place in it."""
    first, _ = group_of(d, at)
    row, x, _, _ = segment(d, first, first + 1)
    return row, x


@njit(boundscheck=False, error_model="numpy")
def asking_tile(  # type: ignore[no-untyped-def]
    arena, params, d, step, t, number, x, w, y, added, block, nth, count, source
):
    """Runs a tile that asks for inputs of the next group, after others of this group that did."""
    h = d[HALVES]
    order = source[1] + nth
    place = source[0] + order % d[h + STRETCHES] * d[h + STRETCH]
    place += order // d[h + STRETCHES] * d[h + ASKED]
    run_asking(number, arena, params, t, x, w, y, place, added)
    fetch(params, d, step, w, nth, count, 2)


@worker
def strassen(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """A part's share of the tiles: of a group first the sums of inputs, then for some filters at a
    time all products."""
    begin, right = portion(d, part, parts)
    h = d[HALVES]
    while begin < right:
        stop = group_end(d, begin, right)
        row, x = first_place(d, begin)
        # Where the sums of inputs for the first place of the first row would lie.
        made = d[h + MADE] + part * d[h + MADE_EACH] - 16 * (row * row_width(d) + x)
        form(arena, d, begin, made)
        if stop < right:
            row, x = first_place(d, stop)
        source = row_at(d, row, INPUT) + x * d[h + OF_INPUT + NEXT_PLACE]
        order = 0
        while begin < stop:
            _, count, _ = strip(d, begin, stop)
            end = begin + count
            for s in range(d[STEPS]):
                if s == d[h + BEFORE]:
                    mix(arena, params, d, begin, end)
                step = d[STEP_TABLE] + s * STEP
                sums(arena, params, d, begin, end, step, made, (source, order), asking_tile)
                order += count
            begin = end


@njit(boundscheck=False, error_model="numpy")
def form(arena, d, at, made):  # type: ignore[no-untyped-def]
    """Sums of a group's inputs, of all channels."""
    h = d[HALVES]
    i, size = group_of(d, at)
    end = i + size
    while i < end:
        row, left, count, i = segment(d, i, end)
        x = row_at(d, row, INPUT) + left * d[h + OF_INPUT + NEXT_PLACE]
        y = made + 16 * (row * row_width(d) + left)
        for _ in range(d[h + CHANNELS]):
            form_block(arena, d, x, y, count)
            x += d[h + OF_INPUT + NEXT_BLOCK]
            y += d[h + MADE_BLOCK]


@njit(boundscheck=False, error_model="numpy")
def form_block(arena, d, x, y, count):  # type: ignore[no-untyped-def]
    """Those of some places in one block of channels: all four, or of places without their like the
    one that they take."""
    h = d[HALVES]
    view = h + OF_INPUT
    apart, below, hop = d[view + APART], d[view + BELOW], d[view + NEXT_PLACE]
    second, third = d[h + MADE_NEXT], 2 * d[h + MADE_NEXT]
    for _ in range(count):
        here, under = load(arena, x), load(arena, x + below)
        if d[h + PAIRED]:
            there, across = load(arena, x + apart), load(arena, x + apart + below)
            more = there - here
            most = across - more
            store(arena, y, more)
            store(arena, y + second, most)
            store(arena, y + third, across - there)
            store(arena, y + second + third, under - most)
        else:
            store(arena, y, under - here)
        x += hop
        y += 16


@njit(boundscheck=False, error_model="numpy")
def mix(arena, params, d, at, stop):  # type: ignore[no-untyped-def]
    """The quarters of a thread's outputs from the first products, which they hold."""
    y_view, r_view = d[HALVES] + OF_OUTPUT, d[HALVES] + OF_RESIDUAL
    while at < stop:
        i, count, pair = strip(d, at, stop)
        at += count
        end = i + count
        while i < end:
            row, left, count, i = segment(d, i, end)
            for block in range(d[pair], d[pair] + d[ACROSS]):
                y = row_at(d, row, OUTPUT) + left * d[y_view + NEXT_PLACE]
                r = row_at(d, row, RESIDUAL) + left * d[r_view + NEXT_PLACE]
                y += block * d[y_view + NEXT_BLOCK]
                r += block * d[r_view + NEXT_BLOCK]
                upper = load(params, d[BIASES] + 16 * block)
                lower = load(params, d[BIASES] + 16 * block + d[d[HALVES] + BIASES_BELOW])
                if d[d[HALVES] + PAIRED]:
                    quarters(arena, params, d, y, r, upper, lower, count)
                else:
                    halves(arena, d, y, r, upper, lower, count)


@njit(boundscheck=False, error_model="numpy")
def quarters(arena, params, d, y, r, upper, lower, count):  # type: ignore[no-untyped-def]
    """The four quarters of some places in one block of filters, the last of them complete."""
    h = d[HALVES]
    low, high = load(params, d[h + BOUNDS]), load(params, d[h + BOUNDS] + 16)
    apart, below, hop = (
        d[h + OF_OUTPUT + APART],
        d[h + OF_OUTPUT + BELOW],
        d[h + OF_OUTPUT + NEXT_PLACE],
    )
    r_apart, r_below, r_hop = (
        d[h + OF_RESIDUAL + APART],
        d[h + OF_RESIDUAL + BELOW],
        d[h + OF_RESIDUAL + NEXT_PLACE],
    )
    for _ in range(count):
        first, last = load(arena, y), load(arena, y + apart + below)
        left, right = load(arena, y + below), load(arena, y + apart)
        both = first + last
        left, last = both + left, both + left + right
        right = both + right
        first, right, left, last = first + upper, right + upper, left + lower, last + lower
        if d[h + ADDED]:
            first += load(arena, r)
            right += load(arena, r + r_apart)
            left += load(arena, r + r_below)
            last += load(arena, r + r_apart + r_below)
        last = where_less(last, low, low, last)
        last = where_less(high, last, high, last)
        store(arena, y, first)
        store(arena, y + apart, right)
        store(arena, y + below, left)
        store(arena, y + apart + below, last)
        y += hop
        r += r_hop


@njit(boundscheck=False, error_model="numpy")
def halves(arena, d, y, r, upper, lower, count):  # type: ignore[no-untyped-def]
    """Both halves of the filters of some places that have no like."""
    h = d[HALVES]
    for _ in range(count):
        above, under = load(arena, y) + upper, load(arena, y + d[h + OF_OUTPUT + BELOW]) + lower
        if d[h + ADDED]:
            above += load(arena, r)
            under += load(arena, r + d[h + OF_RESIDUAL + BELOW])
        store(arena, y, above)
        store(arena, y + d[h + OF_OUTPUT + BELOW], under)
        y += d[h + OF_OUTPUT + NEXT_PLACE]
        r += d[h + OF_RESIDUAL + NEXT_PLACE]
