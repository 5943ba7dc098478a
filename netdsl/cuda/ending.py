"""How the sums of a tile on tensor cores are ended: straight from the registers of their fragments.

Lane 4 g + t holds rows (positions) g and g + 8 of 16 by 8 sums, columns (filters) 2 t and 2 t + 1.
So a store of a warp writes eight neighbouring positions of four filters as floats, whole sectors of
32 bytes in a plane; packed, four lanes write 32 bytes of a position: TF32 two words each,
bfloat16 too, since lanes of two neighbouring units exchange a word first. Where positions begin
takes divisions to know, so it is found once and lies in shared memory.
"""

from __future__ import annotations

from typing import Any

from numba import cuda, int32, uint32

from netdsl.cuda.arith import quotient
from netdsl.cuda.functions import CLIP, NONE, RELU, bend, clip
from netdsl.cuda.layout import NOWHERE
from netdsl.cuda.rounding import PER_WORD
from netdsl.cuda.sizes import SIMULATED
from netdsl.cuda.sums import (
    BIAS,
    FILTERS,
    GROUPS,
    KIND,
    NUMBERS,
    PACKED,
    PARTIAL,
    POSITIONS,
    RESIDUAL,
    SPLITS,
    TARGET,
    TARGET_BATCH,
    TARGET_FILTER,
    ZERO,
    packed_of,
    residual_of,
    target_of,
)
from netdsl.cuda.warp import (
    as_bf16,
    as_tf32,
    bits_of,
    float_of,
    larger,
    load_if,
    shuffle_xor,
    store2,
)

PART = 16 if SIMULATED else 64
"""Sums of a thread that have room in shared memory at once, for activations of many branches."""

BASE, OTHER, BEGIN = range(3)
"""Tables of a block's positions in shared memory, TM words each: where a position's first output
goes, or the first of a part's sums; where its first residual lies; where its words begin."""


def found(tile_m: int, threads: int) -> Any:
    """The device function that puts the tables of a block's positions into shared memory."""
    TM, THREADS = tile_m, threads

    @cuda.jit(device=True)
    def find(ints, at, tile, t):  # type: ignore[no-untyped-def]
        positions, splits = ints[uint32(at + POSITIONS)], ints[uint32(at + SPLITS)]
        i = t
        while i < TM:
            m = int32(cuda.blockIdx.x * TM + i)
            base, other, begin = int32(NOWHERE), int32(-1), int32(-1)
            if m < positions:
                if splits > 1:
                    base = int32(ints[uint32(at + PARTIAL)] + m)
                else:
                    n, step = target_of(ints, at, m)
                    base = int32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)])
                    base = int32(base + step)
                    other = residual_of(ints, at, n, step)
                    begin = packed_of(ints, at, m)
            tile[uint32(BASE * TM + i)] = float_of(uint32(base))
            tile[uint32(OTHER * TM + i)] = float_of(uint32(other))
            tile[uint32(BEGIN * TM + i)] = float_of(uint32(begin))
            i = int32(i + THREADS)

    return find


def bent(sums_of: int, threads: int, first: int, count: int) -> Any:
    """The device function that bends `count` of a lane's sums from `first` on, in a loop by way of
    shared memory from `start` on: unrolled so many branches would be most of the kernel."""
    FIRST, COUNT, THREADS = first, min(count, sums_of - first), threads

    @cuda.jit(device=True)
    def bend_part(tile, start, sums, kind, one, two):  # type: ignore[no-untyped-def]
        place = int32(start + cuda.threadIdx.x)
        for k in range(COUNT):
            tile[uint32(place + k * THREADS)] = sums[FIRST + k]
        end = int32(place + COUNT * THREADS)
        at = place
        while at < end:
            tile[uint32(at)] = bend(kind, tile[uint32(at)], one, two)
            at = int32(at + THREADS)
        for k in range(COUNT):
            sums[FIRST + k] = tile[uint32(place + k * THREADS)]

    return bend_part


def finished(size: Any) -> Any:
    """The device function that gives a lane's sums their biases, residuals and activation. row: the
    first of its positions in the tile; f: the first of its filters in the group."""
    DOWN, ACROSS, TM = size.wm // 16, size.wn // 8, size.m
    SUMS = 4 * DOWN * ACROSS
    TWICE = SUMS > PART
    assert SUMS <= 2 * PART
    assert PART * size.threads + 3 * TM <= size.stages * (TM + size.n) * 16
    first_bent = bent(SUMS, size.threads, 0, PART)
    last_bent = bent(SUMS, size.threads, min(PART, SUMS - 1), PART)

    @cuda.jit(device=True)
    def add_residuals(arena, tile, sums, row, f, filters, earlier, apart, i):  # type: ignore[no-untyped-def]
        for h in range(2):
            other = int32(bits_of(tile[uint32(OTHER * TM + row + 16 * i + 8 * h)]))
            first = int32(other + (earlier + f) * apart)
            for j in range(ACROSS):
                for e in range(2):
                    there = other >= 0 and f + 8 * j + e < filters
                    place = uint32(first + (8 * j + e) * apart)
                    sums[4 * (i * ACROSS + j) + 2 * h + e] += load_if(arena, place, there)

    @cuda.jit(device=True)
    def finish(arena, params, ints, at, tile, sums, row, f, filters, earlier):  # type: ignore[no-untyped-def]
        bias = int32(ints[uint32(at + BIAS)] + earlier)
        for j in range(ACROSS):
            for e in range(2):
                own = int32(f + 8 * j + e)
                added = load_if(params, uint32(bias + own), own < filters)
                for i in range(DOWN):
                    k = 4 * (i * ACROSS + j) + e
                    sums[k] += added
                    sums[k + 2] += added
        if ints[uint32(at + RESIDUAL)] >= 0:
            apart = ints[uint32(at + TARGET_FILTER)]
            # Written out, because the compiler unrolls no loop as long as this.
            add_residuals(arena, tile, sums, row, f, filters, earlier, apart, 0)
            if DOWN > 1:
                add_residuals(arena, tile, sums, row, f, filters, earlier, apart, 1)
            if DOWN > 2:
                add_residuals(arena, tile, sums, row, f, filters, earlier, apart, 2)
                add_residuals(arena, tile, sums, row, f, filters, earlier, apart, 3)
        kind, numbers = ints[uint32(at + KIND)], ints[uint32(at + NUMBERS)]
        one, two = params[uint32(numbers)], params[uint32(numbers + 1)]
        if kind == RELU:
            for k in range(SUMS):
                sums[k] = larger(sums[k], ZERO)
        elif kind == CLIP:
            for k in range(SUMS):
                sums[k] = clip(sums[k], one)
        elif kind != NONE:
            first_bent(tile, int32(3 * TM), sums, kind, one, two)
            if TWICE:
                last_bent(tile, int32(3 * TM), sums, kind, one, two)

    return finish


def packed(down: int, across: int, tile_m: int, precision: str) -> Any:
    """The device function that writes a lane's sums packed. See `finished`."""
    DOWN, ACROSS, TM, HALVES = down, across, tile_m, precision == "bf16"
    EACH = PER_WORD[precision]

    @cuda.jit(device=True)
    def word(sums, k, own, filters):  # type: ignore[no-untyped-def]
        """Two channels in a word, zeros for those past the last."""
        low = sums[k] if own < filters else ZERO
        return as_bf16(low, sums[k + 1] if own + 1 < filters else ZERO)

    @cuda.jit(device=True)
    def pack(arena, tile, sums, row, f, filters, earlier):  # type: ignore[no-untyped-def]
        t = int32(cuda.threadIdx.x & 3)
        odd = int32(t & 1)
        # The first channel of this lane's unit, and its words there.
        unit = int32(f - 2 * t + 8 * odd) if HALVES else int32(f - 2 * odd)
        if HALVES:
            first = int32(quotient(int32(earlier + unit), EACH) + t - odd)
        else:
            first = int32(earlier + f)
        for i in range(DOWN):
            for h in range(2):
                begin = int32(bits_of(tile[uint32(BEGIN * TM + row + 16 * i + 8 * h)]))
                for j in range(ACROSS):
                    k = 4 * (i * ACROSS + j) + 2 * h
                    there = begin >= 0 and unit + 8 * j < filters
                    to = uint32(begin + first + 8 // EACH * j)
                    own = int32(f + 8 * j)
                    if HALVES:
                        if j % 2 == 0:
                            a = word(sums, k, own, filters)
                            b = word(sums, k + 4, int32(own + 8), filters)
                            came = shuffle_xor(a if odd != 0 else b, 1)
                            if there:
                                store2(arena, to, came if odd else a, b if odd else came)
                    else:
                        low = as_tf32(sums[k]) if own < filters else ZERO
                        high = as_tf32(sums[k + 1]) if own + 1 < filters else ZERO
                        if there:
                            store2(arena, to, low, high)

    return pack


def ended(size: Any, precision: str) -> Any:
    """The device function that ends a block's sums and writes them. row, f: of a lane's first sum,
    the position in the tile and the filter in its group."""
    DOWN, ACROSS, TM = size.wm // 16, size.wn // 8, size.m
    assert ACROSS % 2 == 0
    find = found(size.m, size.threads)
    finish = finished(size)
    pack = packed(DOWN, ACROSS, size.m, precision)

    @cuda.jit(device=True)
    def write(arena, tile, sums, row, f, filters, before, apart):  # type: ignore[no-untyped-def]
        """As floats, a filter `apart` from the one before it."""
        for i in range(DOWN):
            for h in range(2):
                base = int32(bits_of(tile[uint32(BASE * TM + row + 16 * i + 8 * h)]))
                first = int32(base + (before + f) * apart)
                for j in range(ACROSS):
                    for e in range(2):
                        if base >= 0 and f + 8 * j + e < filters:
                            k = 4 * (i * ACROSS + j) + 2 * h + e
                            arena[uint32(first + (8 * j + e) * apart)] = sums[k]

    @cuda.jit(device=True)
    def end(arena, params, ints, at, tile, sums, group, split, row, f):  # type: ignore[no-untyped-def]
        filters, splits = ints[uint32(at + FILTERS)], ints[uint32(at + SPLITS)]
        earlier = int32(group * filters)
        find(ints, at, tile, int32(cuda.threadIdx.x))
        cuda.syncthreads()
        if splits > 1:
            before = int32((split * ints[uint32(at + GROUPS)] + group) * filters)
            write(arena, tile, sums, row, f, filters, before, ints[uint32(at + POSITIONS)])
        else:
            finish(arena, params, ints, at, tile, sums, row, f, filters, earlier)
            if ints[uint32(at + TARGET)] >= 0:
                apart = ints[uint32(at + TARGET_FILTER)]
                write(arena, tile, sums, row, f, filters, earlier, apart)
            if ints[uint32(at + PACKED)] >= 0:
                pack(arena, tile, sums, row, f, filters, earlier)

    return end
