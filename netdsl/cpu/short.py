"""Weights of fully connected layers in fewer bits: bfloat16 in pairs, or int8 with scales.

A byte stands for its number times a scale, which each filter has anew for every 128 inputs that are
summed one after the other (`SCALED`): the largest of their weights becomes 127. With one
scale a filter, a large weight would cost all others of its row their digits.

Weights are first packed as floats, some blocks of filters at a time, so that rounding goes by whole
vectors, and little is in memory twice.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from netdsl.cpu.lanes import (
    halved,
    load,
    magnitude,
    maximum,
    muladd,
    nearest,
    paired,
    splat,
    store,
    store_bytes,
    store_wide,
    where_less,
    wide_splat,
    widen,
)
from netdsl.cpu.late import njit
from netdsl.cpu.launch import BODY, WORKER, launch, share, worker
from netdsl.cpu.layout import LANES, Floats, aligned
from netdsl.cpu.memory import let_go
from netdsl.cpu.micro import SCALED, Kind
from netdsl.cpu.pack import packed_weights

# Blocks of filters; of each the vectors of weights; floats from block to block, before and after.
BLOCKS, ROWS, FROM, INTO = range(BODY, BODY + 4)

AT_ONCE = 8
"""Blocks of filters that are packed as floats at once."""

LARGEST = 127.0
LEAST = 2.0**-126
"""The least scale: smaller floats lack digits, and of 0 there is no share."""


def shortened(weights: Floats, kind: Kind, block: int, parts: int) -> tuple[Floats, float]:
    """(filters, channels, taps) weights packed for a kind that has fewer bits (`pack.py`), and the
    error of that: of all weights, the root of the mean square, relative to the weights' own."""
    filters, channels, taps = weights.shape
    rows = -(-channels // LANES) * LANES * taps
    packed = aligned(-(-filters // LANES) * block)
    work = to_bytes if kind is Kind.BYTES else to_halves
    off = whole = 0.0
    for first in range(0, filters, AT_ONCE * LANES):
        some = weights[first : first + AT_ONCE * LANES]
        floats = packed_weights(some, Kind.BLOCKED, rows * LANES, parts)
        here = -(-len(some) // LANES)
        d = np.array((work.address, parts, here, rows, rows * LANES, block), np.int64)
        assert WORKER == 0
        launch(floats, packed[first // LANES * block :], d)
        left = floats.reshape(here, rows * LANES)[:, : 4 * LANES].view(np.float64)
        off, whole = off + float(left[:, :LANES].sum()), whole + float(left[:, LANES:].sum())
        let_go(weights)
    return packed, sqrt(off / whole) if whole else 0.0


@worker
def to_bytes(floats, packed, d, part, parts):  # type: ignore[no-untyped-def]
    """Each part of a filter's weights to its scale and bytes."""
    for block in range(share(d[BLOCKS], part, parts), share(d[BLOCKS], part + 1, parts)):
        source, target = block * d[FROM], block * d[INTO]
        off, whole = wide_splat(0.0), wide_splat(0.0)
        for first in range(0, d[ROWS], SCALED):
            start, end = source + 16 * first, source + 16 * min(first + SCALED, d[ROWS])
            largest = splat(np.float32(0.0))
            for at in range(start, end, 16):
                largest = maximum(largest, magnitude(load(floats, at)))
            scale = maximum(largest / np.float32(LARGEST), splat(np.float32(LEAST)))
            store(packed, target, scale)
            target += 16
            for at in range(start, end, 16):
                weight = load(floats, at)
                number = nearest(weight / scale)
                # Of what is not finite the scale is not either, so that the filter gives NaN.
                number = where_less(magnitude(number), np.float32(128.0), number, np.float32(0.0))
                store_bytes(packed, target, number)
                target += 4
                off = add_square(weight - number * scale, off)
                whole = add_square(weight, whole)
        leave(floats, source, off, whole)


@worker
def to_halves(floats, packed, d, part, parts):  # type: ignore[no-untyped-def]
    """Two neighbouring channels' weights to pairs of bfloat16."""
    for block in range(share(d[BLOCKS], part, parts), share(d[BLOCKS], part + 1, parts)):
        source, target = block * d[FROM], block * d[INTO]
        off, whole = wide_splat(0.0), wide_splat(0.0)
        for row in range(0, d[ROWS], 2):
            at = source + 16 * row
            first, second = load(floats, at), load(floats, at + 16)
            store(packed, target + 8 * row, paired(first, second))
            off = add_square(first - halved(first), off)
            off = add_square(second - halved(second), off)
            whole = add_square(second, add_square(first, whole))
        leave(floats, source, off, whole)


@njit(forceinline=True)
def add_square(v, total):  # type: ignore[no-untyped-def]
    """total + v v, in double precision."""
    double = widen(v)
    return muladd(double, double, total)


@njit(forceinline=True)
def leave(floats, at, off, whole):  # type: ignore[no-untyped-def]
    """Leaves a block's sums of squares where its floats were, which are done with."""
    store_wide(floats, at, off)
    store_wide(floats, at + 32, whole)
