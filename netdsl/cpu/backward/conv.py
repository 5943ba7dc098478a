"""The weight gradient of a convolution: for every tap, output gradients times shifted inputs.

    dW[f, c, tap] = sum over samples and positions of g[f, position] x[c, position stride + tap]

A tile is 8 (or 4) input channels by 32 (or 16) filters. Its taps are gone through for a band of
rows at a time, so that the band's inputs and gradients stay in the nearest cache; sums live in
scratch between bands and are then handed to the weights' own layout, (filters, channels, *taps).
A planar input (a net's first) has one channel a tile, and its lanes are the taps along a row.

Grouped convolutions take the tiles in which a group's channels and filters meet, and hand over only
what belongs to one group. Depthwise ones have their own kernel.
"""

from __future__ import annotations

import numpy as np

from netdsl.cpu.backward.outer import ADD, FRESH, outer
from netdsl.cpu.lanes import load, muladd, splat, store
from netdsl.cpu.late import njit
from netdsl.cpu.launch import share, worker
from netdsl.cpu.layout import (
    BLOCK_STRIDE,
    BLOCKS,
    CHANNELS,
    PLANE_STRIDE,
    ROW_STRIDE,
    WIDTH,
)
from netdsl.cpu.views import OTHER, OWN, SOURCE

# The source is the output's gradient, OTHER the input. Then: where the arena takes the gradient;
# scratch of each thread and its size; channels and filters in a group; kernel, dilation, step of
# the input's positions along a row, and where tap 0 of output 0 is, from the input's origin; rows
# in a band, all rows; kernel planes that make a task of their own (1: all in one); the tiles
# (count, then 4 numbers each: first channel, channels 8 or 4, first block of filters, blocks 1 or
# 2); the table of rows (input's and gradient's place).
INTO, SCRATCH, SCRATCH_STEP, GROUP_CHANNELS, GROUP_FILTERS = range(OWN, OWN + 5)
KERNEL, DILATION, STEP, FIRST, BAND, ALL, SPLIT, TABLE, TILES = (
    OWN + 5,
    OWN + 8,
    OWN + 11,
    OWN + 12,
    OWN + 13,
    OWN + 14,
    OWN + 15,
    OWN + 16,
    OWN + 17,
)
TILE = 4
"""Numbers that describe a tile."""

outer_blocked = outer((8, 2), (8, 1), (4, 2), (4, 1))


@worker
def weight_gradient(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """The gradient from a blocked input."""
    depth, height, width = d[KERNEL], d[KERNEL + 1], d[KERNEL + 2]
    step, plane, row = d[STEP], d[OTHER + PLANE_STRIDE], d[OTHER + ROW_STRIDE]
    taps, split, columns = depth * height * width, d[SPLIT], d[SOURCE + WIDTH]
    sheets = depth * height
    scratch = d[SCRATCH] + part * d[SCRATCH_STEP]
    apart, all_rows, band = d[SOURCE + BLOCK_STRIDE], d[ALL], d[BAND]
    channels, filters = d[OTHER + CHANNELS], d[SOURCE + CHANNELS]
    of_group, to_group = d[GROUP_CHANNELS], d[GROUP_FILTERS]
    work = d[TILES] * split
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        tile = TILES + 1 + TILE * (item // split)
        c, size, block, blocks = d[tile], d[tile + 1], d[tile + 2], d[tile + 3]
        number = 2 * (size == 4) + (blocks == 1)
        low, high = share(sheets, item % split, split), share(sheets, item % split + 1, split)
        corner = d[FIRST] + c // 16 * d[OTHER + BLOCK_STRIDE] + c % 16
        g = block * apart
        for start in range(0, all_rows, band):
            rows, table = min(band, all_rows - start), d[TABLE] + 2 * start
            mode = FRESH if start == 0 else ADD
            for sheet in range(low, high):
                z, y = sheet // height, sheet % height
                line = corner + z * d[DILATION] * plane + y * d[DILATION + 1] * row
                for x in range(width):
                    a, into = line + x * d[DILATION + 2] * 16, scratch + (sheet * width + x) * 256
                    outer_blocked(
                        *(number, arena, a, 1, step, arena, g, apart, 16, arena, into, 32, 16),
                        *(d, table, rows, columns, mode),
                    )
        for f in range(16 * block, min(16 * (block + blocks), filters)):
            group = f // to_group
            first, end = max(c, group * of_group), min(c + size, (group + 1) * of_group, channels)
            for i in range(first, end):
                into = d[INTO] + (f * of_group + i - group * of_group) * taps
                held = scratch + 32 * (i - c) + f - 16 * block
                for tap in range(low * width, high * width):
                    arena[into + tap] = arena[held + 256 * tap]


WIDTHS = (3, 5, 7, 11)
"""Taps along a row of which a tile takes all."""

outer_planar = outer((1, 2), *((width, 2) for width in WIDTHS))


@njit(forceinline=True)
def _planar_shape(width):  # type: ignore[no-untyped-def]
    """The number of the tile that takes a row of taps, 0 where it goes tap by tap."""
    for i in range(len(WIDTHS)):
        if width == WIDTHS[i]:
            return i + 1
    return 0


@worker
def planar_weight_gradient(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """The gradient from a planar input: a task is a channel, a row of taps, two filter blocks."""
    depth, height, width = d[KERNEL], d[KERNEL + 1], d[KERNEL + 2]
    step, plane, row = d[STEP], d[OTHER + PLANE_STRIDE], d[OTHER + ROW_STRIDE]
    sheets, columns, along = depth * height, d[SOURCE + WIDTH], d[DILATION + 2]
    scratch = d[SCRATCH] + part * d[SCRATCH_STEP]
    channels, filters = d[OTHER + CHANNELS], d[SOURCE + CHANNELS]
    all_rows, table = d[ALL], d[TABLE]
    pairs = (d[SOURCE + BLOCKS] + 1) // 2
    work, number = pairs * channels * sheets, _planar_shape(width)
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        block, c, sheet = item // (channels * sheets) * 2, item // sheets % channels, item % sheets
        z, y = sheet // height, sheet % height
        a = d[FIRST] + c * d[OTHER + BLOCK_STRIDE]
        a += z * d[DILATION] * plane + y * d[DILATION + 1] * row
        g = block * d[SOURCE + BLOCK_STRIDE]
        # The last of an odd number of blocks is taken twice; what the second gives is passed over.
        apart = d[SOURCE + BLOCK_STRIDE] if block + 1 < d[SOURCE + BLOCKS] else 0
        for x in range(1 if number else width):
            outer_planar(
                *(number, arena, a + x * along, along, step, arena, g, apart, 16),
                *(arena, scratch + 32 * x, 32, 16, d, table, all_rows, columns, FRESH),
            )
        for f in range(16 * block, min(16 * block + 32, filters)):
            into = d[INTO] + ((f * channels + c) * sheets + sheet) * width
            for x in range(width):
                arena[into + x] = arena[scratch + 32 * x + f - 16 * block]


@worker
def depthwise_weight_gradient(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """One filter a channel: lane by lane, a tap at a time."""
    depth, height, width = d[KERNEL], d[KERNEL + 1], d[KERNEL + 2]
    step, plane, row = d[STEP], d[OTHER + PLANE_STRIDE], d[OTHER + ROW_STRIDE]
    taps, channels = depth * height * width, d[SOURCE + CHANNELS]
    scratch = d[SCRATCH] + part * d[SCRATCH_STEP]
    work = d[SOURCE + BLOCKS] * taps
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        b, tap = item // taps, item % taps
        z, y, x = tap // (height * width), tap // width % height, tap % width
        corner = d[FIRST] + b * d[OTHER + BLOCK_STRIDE] + x * d[DILATION + 2] * 16
        corner += z * d[DILATION] * plane + y * d[DILATION + 1] * row
        sums = splat(np.float32(0.0))
        for t in range(d[ALL]):
            a = corner + d[d[TABLE] + 2 * t]
            g = b * d[SOURCE + BLOCK_STRIDE] + d[d[TABLE] + 2 * t + 1]
            along = splat(np.float32(0.0))
            for i in range(d[SOURCE + WIDTH]):
                along = muladd(load(arena, a + i * step), load(arena, g + 16 * i), along)
            sums += along
        store(arena, scratch, sums)
        for lane in range(min(16, channels - 16 * b)):
            arena[d[INTO] + (16 * b + lane) * taps + tap] = arena[scratch + lane]
