"""The transforms of Winograd's algorithm: of inputs to factors, and of products to outputs.

F(4x4, 3x3) by the points 0, +-P, +-Q and infinity (cook_toom.py): a tile of 4 x 4 outputs is made
of 6 x 6 inputs by B d B', and of 36 sums of products by A m A'. The rows of a pair of points differ
in the signs of every other entry, so that they share what they sum.

Neighbouring threads take neighbouring tiles: what they read and write in scratch lies next to each
other, and inputs that several of them read come from the multiprocessor's own cache but once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda, float32, int32, uint32

from netdsl.cook_toom import POINTS
from netdsl.cuda.arith import quotient
from netdsl.cuda.functions import NONE, RELU, bend
from netdsl.cuda.sums import (
    BIAS,
    FILTERS,
    HEIGHT,
    KIND,
    NUMBERS,
    OUT_HEIGHT,
    OUT_WIDTH,
    PRODUCTS,
    SOURCE,
    SOURCE_BATCH,
    START_X,
    START_Y,
    TARGET,
    TARGET_BATCH,
    TARGET_FILTER,
    WIDTH,
    residual_of,
)
from netdsl.cuda.warp import larger, load_if, store4
from netdsl.cuda.winograd_product import (
    COUNT,
    FIRST,
    INNER,
    INNER_POINT,
    LAYER,
    LINE,
    MADE,
    MADE_POINT,
)

OUTPUTS, TAPS = 4, 3
INPUTS = OUTPUTS + TAPS - 1
CELLS, MADE_CELLS = INPUTS**2, OUTPUTS**2
"""Points of a tile: of its inputs, and so of its products; and of its outputs."""

_P, _Q = POINTS[INPUTS]
P, Q = np.float32(_P), np.float32(_Q)
PP, QQ = np.float32(_P**2), np.float32(_Q**2)
PPP, QQQ = np.float32(_P**3), np.float32(_Q**3)
SUM, PRODUCT = np.float32(_P**2 + _Q**2), np.float32(_P**2 * _Q**2)
"""All exact in float32."""


@cuda.jit(device=True)
def of_inputs(d0, d1, d2, d3, d4, d5):  # type: ignore[no-untyped-def]
    """B d."""
    even_p, odd_p = d4 - QQ * d2, P * (d3 - QQ * d1)
    even_q, odd_q = d4 - PP * d2, Q * (d3 - PP * d1)
    first = PRODUCT * d0 + (d4 - SUM * d2)
    last = PRODUCT * d1 + (d5 - SUM * d3)
    return first, even_p + odd_p, even_p - odd_p, even_q + odd_q, even_q - odd_q, last


@cuda.jit(device=True)
def of_products(m0, m1, m2, m3, m4, m5):  # type: ignore[no-untyped-def]
    """A m."""
    even_p, odd_p = m1 + m2, m1 - m2
    even_q, odd_q = m3 + m4, m3 - m4
    second, third = P * odd_p + Q * odd_q, PP * even_p + QQ * even_q
    return m0 + even_p + even_q, second, third, PPP * odd_p + (QQQ * odd_q + m5)


@cuda.jit(device=True)
def within(i, size):  # type: ignore[no-untyped-def]
    """1 where 0 <= i < size, else 0, by one comparison and no branch."""
    return int32(uint32(i) < uint32(size))


@cuda.jit(device=True)
def tile_of(ints, at, layer, t):  # type: ignore[no-untyped-def]
    """The sample of tile t of a chunk, and the row and column of its first output."""
    rows = quotient(int32(ints[uint32(layer + OUT_HEIGHT)] + OUTPUTS - 1), int32(OUTPUTS))
    columns = quotient(int32(ints[uint32(layer + OUT_WIDTH)] + OUTPUTS - 1), int32(OUTPUTS))
    tile = int32(ints[uint32(at + FIRST)] + t)
    lines = quotient(tile, columns)
    n = quotient(lines, rows)
    y, x = int32(OUTPUTS * (lines - n * rows)), int32(OUTPUTS * (tile - lines * columns))
    return n, y, x


@cuda.jit
def winograd_inputs(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """B d B' of each channel's tiles, a thread each: grid (tiles x channels / threads). Channels
    past the last, up to whole slices, are zeros."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    count, line = ints[uint32(at + COUNT)], ints[uint32(at + LINE)]
    point = ints[uint32(at + INNER_POINT)]
    c = quotient(i, count)
    t = int32(i - c * count)
    to = int32(c * line + t)
    if to >= point:
        return
    layer = ints[uint32(at + LAYER)]
    height, width = ints[uint32(layer + HEIGHT)], ints[uint32(layer + WIDTH)]
    n, y, x = tile_of(ints, at, layer, t)
    y0, x0 = int32(y + ints[uint32(layer + START_Y)]), int32(x + ints[uint32(layer + START_X)])
    source = int32(
        ints[uint32(layer + SOURCE)]
        + n * ints[uint32(layer + SOURCE_BATCH)]
        + (c * height + y0) * width
        + x0
    )
    there = int32(c < ints[uint32(layer + PRODUCTS)])
    columns = cuda.local.array(INPUTS, int32)
    d = cuda.local.array(CELLS, float32)
    for k in range(INPUTS):
        columns[k] = within(int32(x0 + k), width)
    for r in range(INPUTS):
        row = there & within(int32(y0 + r), height)
        for k in range(INPUTS):
            d[INPUTS * r + k] = load_if(arena, uint32(source + r * width + k), row & columns[k])
    for r in range(INPUTS):
        b0, b1, b2, b3, b4, b5 = of_inputs(
            d[6 * r], d[6 * r + 1], d[6 * r + 2], d[6 * r + 3], d[6 * r + 4], d[6 * r + 5]
        )
        d[6 * r], d[6 * r + 1], d[6 * r + 2] = b0, b1, b2
        d[6 * r + 3], d[6 * r + 4], d[6 * r + 5] = b3, b4, b5
    to = int32(to + ints[uint32(at + INNER)])
    for k in range(INPUTS):
        b0, b1, b2, b3, b4, b5 = of_inputs(
            d[k], d[k + 6], d[k + 12], d[k + 18], d[k + 24], d[k + 30]
        )
        arena[uint32(to + k * point)] = b0
        arena[uint32(to + (k + 6) * point)] = b1
        arena[uint32(to + (k + 12) * point)] = b2
        arena[uint32(to + (k + 18) * point)] = b3
        arena[uint32(to + (k + 24) * point)] = b4
        arena[uint32(to + (k + 30) * point)] = b5


@cuda.jit(device=True)
def bend_tile(y, kind, a, b):  # type: ignore[no-untyped-def]
    """The activation of all outputs of a tile: the most usual one is asked for once."""
    if kind == RELU:
        for k in range(MADE_CELLS):
            y[k] = bend(int32(RELU), y[k], a, b)
    elif kind != NONE:
        for k in range(MADE_CELLS):
            y[k] = bend(kind, y[k], a, b)


FOURS, ONES, POOLED = range(3)
"""How outputs are written: by rows of four, where these begin at multiples of four; one by one; or
the largest of each 2 x 2."""


def outputs(how: int) -> Any:
    """The kernel that makes outputs and writes them so."""
    WIDE, POOL = how == FOURS, how == POOLED
    ACROSS = 2 if POOL else 1

    @cuda.jit
    def winograd_outputs(arena, params, ints, at):  # type: ignore[no-untyped-def]
        """A m A' of each filter's tiles with bias, residual and activation, pooled or not, a thread
        each: grid (tiles x filters / threads)."""
        i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
        count = ints[uint32(at + COUNT)]
        point = ints[uint32(at + MADE_POINT)]
        layer = ints[uint32(at + LAYER)]
        f = quotient(i, count)
        t = int32(i - f * count)
        if f >= ints[uint32(layer + FILTERS)]:
            return
        source = int32(ints[uint32(at + MADE)] + f * ints[uint32(at + LINE)] + t)
        m = cuda.local.array(CELLS, float32)
        for k in range(CELLS):
            m[k] = arena[uint32(source + k * point)]
        n, y0, x0 = tile_of(ints, at, layer, t)
        height, width = ints[uint32(layer + OUT_HEIGHT)], ints[uint32(layer + OUT_WIDTH)]
        line = quotient(width, int32(ACROSS))
        place = int32(f * ints[uint32(layer + TARGET_FILTER)])
        place = int32(place + quotient(y0, int32(ACROSS)) * line + quotient(x0, int32(ACROSS)))
        residual = residual_of(ints, layer, n, place)
        target = int32(
            ints[uint32(layer + TARGET)] + n * ints[uint32(layer + TARGET_BATCH)] + place
        )
        bias = params[uint32(ints[uint32(layer + BIAS)] + f)]
        numbers = ints[uint32(layer + NUMBERS)]
        one, two = params[uint32(numbers)], params[uint32(numbers + 1)]
        for k in range(INPUTS):
            a0, a1, a2, a3 = of_products(m[k], m[k + 6], m[k + 12], m[k + 18], m[k + 24], m[k + 30])
            m[k], m[k + 6], m[k + 12], m[k + 18] = a0, a1, a2, a3
        y = cuda.local.array(MADE_CELLS, float32)
        for r in range(OUTPUTS):
            a0, a1, a2, a3 = of_products(
                m[6 * r], m[6 * r + 1], m[6 * r + 2], m[6 * r + 3], m[6 * r + 4], m[6 * r + 5]
            )
            y[4 * r], y[4 * r + 1], y[4 * r + 2], y[4 * r + 3] = a0, a1, a2, a3
        for k in range(MADE_CELLS):
            y[k] += bias
        if residual >= 0:
            for r in range(OUTPUTS):
                below = int32(y0 + r) < height
                for k in range(OUTPUTS):
                    there = below and (WIDE or int32(x0 + k) < width)
                    y[4 * r + k] += load_if(arena, uint32(residual + r * width + k), there)
        bend_tile(y, ints[uint32(layer + KIND)], one, two)
        if POOL:
            for r in range(OUTPUTS // 2):
                for k in range(OUTPUTS // 2):
                    j = 8 * r + 2 * k
                    best = larger(larger(y[j], y[j + 1]), larger(y[j + 4], y[j + 5]))
                    if int32(y0 + 2 * r + 1) < height and int32(x0 + 2 * k + 1) < width:
                        arena[uint32(target + r * line + k)] = best
            return
        for r in range(OUTPUTS):
            if int32(y0 + r) < height:
                to = int32(target + r * width)
                if WIDE:
                    store4(arena, uint32(to), y[4 * r], y[4 * r + 1], y[4 * r + 2], y[4 * r + 3])
                else:
                    for k in range(OUTPUTS):
                        if int32(x0 + k) < width:
                            arena[uint32(to + k)] = y[4 * r + k]

    return winograd_outputs


ENDS: dict[int, Any] = {how: outputs(how) for how in (FOURS, ONES, POOLED)}
