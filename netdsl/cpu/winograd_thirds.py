"""Winograd's products in AMX's registers, each float as three of bfloat16, as compiled code.

A *sixteen* is 16 tiles of a chunk that follow each other. A group of them has the three parts of a
product's inputs formed side by side in the core's own cache, and is then multiplied by all filters,
while those of the next group are formed: of this product, or of the next. What a group makes is
written where its inputs lay. `micro/thirds.py` says how six products make up one of floats,
`winograd_groups.py` plans groups; by products, inputs and outputs are transformed as
`winograd_kernel.py` does.
"""

from __future__ import annotations

import numpy as np

from netdsl.cpu.lanes import load, splat
from netdsl.cpu.late import njit
from netdsl.cpu.launch import share, worker
from netdsl.cpu.micro import configure, release, run_thirds, run_thirds_forming, store_places
from netdsl.cpu.thirds_kernel import ALL
from netdsl.cpu.winograd_kernel import (
    BLOCK,
    BLOCKS,
    BY_TILES,
    CHUNK,
    CHUNKS,
    COUNT,
    FILTER_BLOCKS,
    FORMED,
    INNER,
    MADE,
    MODE,
    ROOM,
    TILE,
    TILES,
    WEIGHTS,
    transform_inputs,
    transform_outputs,
)

# Turns of 32 channels; floats from one product's weights to the next's; sixteens of a group; turns
# that are done for all of these before the next; where in params the sizes of registers are; floats
# from the parts of a group to those of the next, 0 where these are not formed meanwhile; else by
# which tiles they are, and how many turns of a sixteen by each.
TURNS, PRODUCT, TOGETHER, SPAN, SETTINGS, AHEAD, FORMING, TURNS_EACH = range(TILE, TILE + 8)
FURTHER = TILE + 8


@njit(boundscheck=False, error_model="numpy")
def group_at(d, item, end):  # type: ignore[no-untyped-def]
    """How many sixteens are done at a time from one on, all of a product. They are counted through
    all products, one after the other; end: where a thread's share ends."""
    sixteens = d[ROOM] // 16
    return min(d[TOGETHER], min(sixteens - item % sixteens, end - item))


@njit(boundscheck=False, error_model="numpy")
def form(arena, d, item, begin, end, inner, formed):  # type: ignore[no-untyped-def]
    """Writes some of the parts of a group of sixteens, counted by turns, one sixteen's after the
    other's. What is left of a last one's from before gives sums that nobody reads."""
    step, nothing, sixteens = 16 * d[ROOM], splat(np.float32(0.0)), d[ROOM] // 16
    k, first = item // sixteens, item % sixteens
    for each in range(begin, end):
        i, turn = first + each // d[TURNS], each % d[TURNS]
        stop = 16 * min(16, d[CHUNK] - 16 * i)
        target = formed + ALL * each
        low = inner + k * d[INNER + 2] + 256 * i + 2 * turn * step
        if 2 * turn + 1 < d[BLOCKS]:
            for at in range(0, stop, 16):
                a, b = load(arena, low + at), load(arena, low + step + at)
                store_places(arena, target + at, a, b)
        else:
            for at in range(0, stop, 16):
                store_places(arena, target + at, load(arena, low + at), nothing)


@njit(boundscheck=False, error_model="numpy")
def products(arena, params, d, item, end, inner, made, formed):  # type: ignore[no-untyped-def]
    """Some sixteens of all products, counted through, a group after the other."""
    count, other, ready = group_at(d, item, end), formed + d[AHEAD], False
    while item < end:
        following = item + count
        more = group_at(d, following, end)
        if not ready:
            form(arena, d, item, 0, count * d[TURNS], inner, formed)
        ready = d[AHEAD] > 0
        wanted = more * d[TURNS] if ready else 0
        multiply(arena, params, d, item, count, formed, made, following, wanted, inner, other)
        item, count, formed, other = following, more, other, formed


@njit(boundscheck=False, error_model="numpy")
def multiply(  # type: ignore[no-untyped-def]
    arena, params, d, item, count, formed, made, following, wanted, inner, other
):
    """A group of sixteens with all filters, some turns for all of them before the next. Meanwhile
    so many turns of the group that follows are formed."""
    step, down, sixteens, done = ALL * d[TURNS], 16 * d[ROOM], d[ROOM] // 16, 0
    weights = d[WEIGHTS] + item // sixteens * d[PRODUCT]
    target = made + item // sixteens * d[MADE + 2] + 256 * (item % sixteens)
    source = inner + following // sixteens * d[INNER + 2] + 256 * (following % sixteens)
    for f in range(0, d[FILTER_BLOCKS], 2):
        across = min(2, d[FILTER_BLOCKS] - f)
        for turn in range(0, d[TURNS], d[SPAN]):
            span, w = min(d[SPAN], d[TURNS] - turn), weights + f * d[BLOCK] + ALL * turn
            for i in range(0, count, 2):
                high, x = min(2, count - i), formed + i * step + ALL * turn
                y = target + f * down + 256 * i
                if done < wanted and high + across == 4:
                    low = source + 256 * (done // d[TURNS]) + 2 * down * (done % d[TURNS])
                    run_thirds_forming(
                        *(d[FORMING], arena, params, d, x, step, w, d[BLOCK], span),
                        *(y, 256, down, turn, low, down, other + ALL * done),
                    )
                    done += d[TURNS_EACH]
                else:
                    run_thirds(
                        *(high, across, arena, params, d, x, step, w, d[BLOCK], span),
                        *(y, 256, down, turn),
                    )
    form(arena, d, following, done, wanted, inner, other)


@worker
def winograd_thirds(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """All steps of a thread's chunks, by tiles, or its share of all products of a chunk."""
    formed, work = d[FORMED] + part * d[FORMED + 1], d[COUNT] * (d[ROOM] // 16)
    inner, made = d[INNER] + part * d[INNER + 1], d[MADE] + part * d[MADE + 1]
    configure(params, d[SETTINGS])
    if d[MODE] == BY_TILES:
        for c in range(share(d[CHUNKS], part, parts), share(d[CHUNKS], part + 1, parts)):
            first = min(c * d[CHUNK], d[TILES] - d[CHUNK])
            for b in range(d[BLOCKS]):
                transform_inputs(arena, d, first, b, 0, d[CHUNK], inner)
            products(arena, params, d, 0, work, inner, made, formed)
            for b in range(d[FILTER_BLOCKS]):
                to = made + 16 * b * d[ROOM]
                transform_outputs(arena, params, d, first, b, 0, d[CHUNK], to)
    else:
        begin, end = share(work, part, parts), share(work, part + 1, parts)
        products(arena, params, d, begin, end, d[INNER], d[MADE], formed)
    release()
