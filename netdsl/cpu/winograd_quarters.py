"""Winograd's steps with products by Strassen's algorithm, as compiled code.

A product's quarters are halves of the filters, every other block of channels (the first half may be
another layer's than the second, and much larger, which would cost digits), and one of each pair of
neighbouring tiles: of an image, so that a NaN or a large number never gets into another image. By
tiles, each product is
written where the inputs of the one before lay, which nobody needs any more: so all of a chunk stays
in a core's own cache. `micro/quarters.py` says how seven products make eight, `winograd.py` plans.
"""

from __future__ import annotations

import numpy as np

from netdsl.cpu.late import njit
from netdsl.cpu.launch import BODY, share, worker
from netdsl.cpu.layout import LANES
from netdsl.cpu.micro import (
    form_quarters,
    past,
    run_quarters,
    transform_cut_input,
    transform_cut_output,
    transform_filter,
)
from netdsl.cpu.micro.fields import FURTHER, LINES
from netdsl.cpu.winograd_kernel import (
    BIASES,
    BLOCK,
    BLOCKS,
    BY_TILES,
    CHUNK,
    CHUNKS,
    COLUMN_TABLE,
    COLUMNS,
    COUNT,
    EACH,
    FILTER_BLOCKS,
    FILTERS,
    FORM,
    FORMED,
    HEIGHT,
    HIGH,
    INNER,
    INPUT,
    LOW,
    MADE,
    MADE_EACH,
    MODE,
    NUMBER,
    OUTPUT,
    PAIRS,
    PRODUCTS,
    QUARTER,
    RESIDUAL,
    SIZE,
    TILE,
    TILE_BLOCKS,
    TILE_COLUMNS,
    TILE_ROWS,
    TILES,
    WEIGHTS,
    WIDTH,
    place,
    transform,
)


@njit(boundscheck=False, error_model="numpy")
def find(d, pair):  # type: ignore[no-untyped-def]
    """Image, row and column of a pair's first tile."""
    tile = 2 * (pair % d[PAIRS])
    return pair // d[PAIRS], tile // d[TILE_COLUMNS], tile % d[TILE_COLUMNS]


@njit(boundscheck=False, error_model="numpy")
def step_on(d, side, n, y, x):  # type: ignore[no-untyped-def]
    """The tile after tile (y, x), which is the first or the second of a pair, and whether it is the
    same once more: the last of an image that has an odd number."""
    x += 1
    if x == d[TILE_COLUMNS]:
        x, y = 0, y + 1
        if y == d[TILE_ROWS] and side == 0:
            return n, y - 1, d[TILE_COLUMNS] - 1, True
        if y == d[TILE_ROWS]:
            y, n = 0, n + 1
    return n, y, x, False


@njit(boundscheck=False, error_model="numpy")
def transform_pairs(arena, d, first, block, start, end, inner):  # type: ignore[no-untyped-def]
    """Pairs start to end of the chunk at `first`, in one block of channels. Where an image has an
    odd number of tiles, its last one stands for both of a pair."""
    target = inner + 2 * (block % 2) * d[QUARTER] + 16 * (block // 2) * d[CHUNK]
    n, y, x = find(d, first + start)
    for i in range(start, end):
        for side in range(2):
            source = place(d, INPUT, d[EACH], n, y, x) + d[d[INPUT + 2] + block]
            made = target + side * d[QUARTER] + 16 * i
            transform_cut_input(
                d[SIZE], arena, source, d[INPUT + 3], d[INPUT + 4], made, d[INNER + 2]
            )
            n, y, x, _ = step_on(d, side, n, y, x)


@njit(boundscheck=False, error_model="numpy")
def weights_of(d, k, f):  # type: ignore[no-untyped-def]
    """Where the weights of product k for a tile of filter blocks start."""
    block = min(f * d[TILE_BLOCKS], d[FILTER_BLOCKS] - d[TILE_BLOCKS])
    return d[WEIGHTS] + (k * d[FILTER_BLOCKS] + block) * d[BLOCK]


@njit(boundscheck=False, error_model="numpy")
def multiply(arena, params, d, k, f, inner, made, formed):  # type: ignore[no-untyped-def]
    """Product k of a whole chunk with weights of a tile of filter blocks. Tiles ask for the weights
    that follow as those of `winograd_kernel.multiply` do; a single tile asks for all of them."""
    step = LANES * LINES
    half = 7 * d[TILE] * step
    weights = weights_of(d, k, f)
    following = weights_of(d, k, f + 1)
    if f + 1 == d[FILTERS]:
        following = weights_of(d, (k + 1) % d[COUNT], 0)
    block = min(f * d[TILE_BLOCKS], d[FILTER_BLOCKS] - d[TILE_BLOCKS])
    target = made + k * d[MADE + 2] + 32 * block * d[CHUNK]
    for i in range(d[COLUMNS]):
        at = 16 * d[d[COLUMN_TABLE] + i]
        x, z = inner + k * d[INNER + 2] + at, formed + at
        ahead = following + min(i, 2) * half
        each = step + d[TILE + FURTHER] if i < 2 else 0
        run_quarters(
            d[NUMBER], arena, params, past(d, TILE), x, weights, target + at, ahead, each, z
        )


@njit(boundscheck=False, error_model="numpy")
def transform_outputs(  # type: ignore[no-untyped-def]
    arena, params, d, first, block, start, end, made
):
    """Pairs start to end of the chunk at `first`, for one block of filters."""
    each, again = d[MADE_EACH], False
    n, y, x = find(d, first + start)
    for i in range(start, end):
        for side in range(2):
            if not again:
                residual = d[RESIDUAL]
                if residual >= 0:
                    residual = place(d, RESIDUAL, each, n, y, x) + block * d[RESIDUAL + 2]
                transform_cut_output(
                    d[FORM],
                    arena,
                    made + 16 * (i + side * d[CHUNK]),
                    d[MADE + 2],
                    place(d, OUTPUT, each, n, y, x) + block * d[OUTPUT + 2],
                    d[OUTPUT + 3],
                    d[HEIGHT] - each * y,
                    d[WIDTH] - each * x,
                    params,
                    d[BIASES] + 16 * block,
                    residual,
                    d[RESIDUAL + 3],
                    d[LOW],
                    d[HIGH],
                )
            n, y, x, again = step_on(d, side, n, y, x)


@njit(boundscheck=False, error_model="numpy")
def chunk_by_chunk(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """All steps of this thread's chunks; the last chunk overlaps the one before."""
    chunk = d[CHUNK]
    inner, made = d[INNER] + part * d[INNER + 1], d[MADE] + part * d[MADE + 1]
    formed = d[FORMED] + part * d[FORMED + 1]
    for c in range(share(d[CHUNKS], part, parts), share(d[CHUNKS], part + 1, parts)):
        first = min(c * chunk, d[TILES] - chunk)
        for b in range(d[BLOCKS]):
            transform_pairs(arena, d, first, b, 0, chunk, inner)
        for k in range(d[COUNT]):
            form_quarters(arena, inner + k * d[INNER + 2], formed, d[QUARTER])
            for f in range(d[FILTERS]):
                multiply(arena, params, d, k, f, inner, made, formed)
        for b in range(2 * d[FILTER_BLOCKS]):
            transform_outputs(arena, params, d, first, b, 0, chunk, made + 32 * b * chunk)


@njit(boundscheck=False, error_model="numpy")
def some_products(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """This thread's share of all products of a chunk."""
    work, known = d[COUNT] * d[FILTERS], -1
    formed = d[FORMED] + part * d[FORMED + 1]
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        k, f = item // d[FILTERS], item % d[FILTERS]
        if k != known:
            form_quarters(arena, d[INNER] + k * d[INNER + 2], formed, d[QUARTER])
            known = k
        multiply(arena, params, d, k, f, d[INNER], d[MADE], formed)


@worker
def winograd_quarters(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """One of the calls, by MODE, as `winograd` makes them."""
    if d[MODE] == BY_TILES:
        chunk_by_chunk(arena, params, d, part, parts)
    elif d[MODE] == PRODUCTS:
        some_products(arena, params, d, part, parts)
    else:
        transform(arena, params, d, part, parts, 2, transform_pairs, transform_outputs)


@worker
def transform_quarters(packed, weights, d, part, parts):  # type: ignore[no-untyped-def]
    """What `transform_filters` makes, in quarters and their sums: [product][block of a half of the
    filters][A11, S2, S1, S4, S3, A22, A12][channel block of a half][16][16]. A sum is made in
    double precision and rounded once."""
    size, taps, blocks, step = d[BODY], d[BODY + 1], d[BODY + 2] // 2, d[BODY + 3]
    work, block, packed_block = d[BODY + 4], d[BODY + 5], d[BODY + 6]
    count, panel = d[BODY + 7], 256 * blocks
    for f in range(share(work, part, parts), share(work, part + 1, parts)):
        for b in range(blocks):
            first = f * block + b * 256
            for quarter in range(4):
                lower, right = quarter // 2, quarter % 2
                # A11, A12, A22 and, where S1 will be, A21.
                target = first + panel * (2 + 3 * right if lower else 6 * right)
                source = (f + lower * work) * packed_block + (2 * b + right) * taps * 256
                for at in range(0, 256, 16):
                    transform_filter(size, packed, source + at, 256, weights, target + at, step)
            for k in range(count):
                for i in range(first + k * step, first + k * step + 256):
                    a11, a12 = np.float64(weights[i]), np.float64(weights[i + 6 * panel])
                    a21 = np.float64(weights[i + 2 * panel])
                    s1 = a21 + np.float64(weights[i + 5 * panel])
                    s2 = s1 - a11
                    weights[i + panel] = np.float32(s2)
                    weights[i + 2 * panel] = np.float32(s1)
                    weights[i + 3 * panel] = np.float32(a12 - s2)
                    weights[i + 4 * panel] = np.float32(a11 - a21)
