"""The gradients of weights on tensor cores: factors in TF32 or bfloat16, sums in float32.

The sums of product.py: for every row (a filter) and column (a cell of the window and a channel)
over the positions of the batch. Both operands lie packed (`netdsl.cuda.pack`), a position's
channels next to each other: a *unit* is 16 bytes, 4 or 8 channels of one position. A row of A in
shared memory is a position with the units of the tile's rows, one of B the same position with the
units of the tile's columns, each from the cell of the position's window that the column's table
names; what lies outside is filled with zeros. As in tensor.py three stages take turns, two of them
under way.

So the products' index, the position, is the slow one in shared memory, across what a fragment
wants. Halves come out turned by `matrices_across`; single words are read one by one. Unit u of
position k lies at place u ^ 2 (k % 4) or, for halves, u ^ (k % 8) of its line, so that lanes meet
no bank twice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda, float32, int32, uint32, uint64

from netdsl.cuda.arith import quotient, remainder
from netdsl.cuda.rounding import PER_WORD
from netdsl.cuda.sizes import LIMITED
from netdsl.cuda.sums import OUTSIDE
from netdsl.cuda.tensor import (
    AHEAD,
    ALIGNED,
    DEEP,
    LANES,
    STAGES,
    TILES,
    WarpTile,
    accumulated,
    all_arrived,
    next_arrived,
)
from netdsl.cuda.warp import bits_of, commit, copy16, load4, matrices_across

(
    ROWS,
    COLUMNS,
    PRODUCTS,
    PART,
    SPLITS,
    GROUPS,
    PLANE,
    JUMP_N,
    JUMP,
    LEFT,
    LEFT_CELL,
    LEFT_WORDS,
    SOURCE,
    SOURCE_BATCH,
    SOURCE_WORDS,
    WINDOWS,
    TABLE,
    TARGET,
    TARGET_ROW,
    PLACES,
    PARTIAL,
    FIELDS,
) = range(22)
"""What the descriptor holds. ROWS and COLUMNS of each of GROUPS, PRODUCTS of each sum, PART of them
in each of SPLITS. PLANE positions of a sample, and a slice's step in samples and positions. Where A
begins, how far apart its positions lie, and how many words a group has of each; where B begins, how
far apart its samples lie, and how many words a group has of each position. WINDOWS: for each
position of a sample how far its window's start lies, in words, and two words of the edges that it
crosses. TABLE: for each unit of columns how far it lies from the window's start, and two words of
the edges that it may lie beyond, up to whole tiles. Where results go, a group's rows after the last
one's, how far apart rows lie there, and PLACES: of each column in its row, -1 for one that only
fills a unit. PARTIAL: with SPLITS above 1, the parts' sums, (splits, groups, rows, columns)."""

ZERO = np.float32(0)


def positions_of(precision: str) -> int:
    """Positions of a slice: two steps of a fragment's depth."""
    return DEEP * PER_WORD[precision]


def fragments(size: WarpTile, precision: str) -> Any:
    """The device function that loads a warp's fragments of one step and adds their products. It is
    given where in shared memory this lane's first words of A and of B lie."""
    HALVES = precision == "bf16"
    DOWN, ACROSS = size.wm // 16, size.wn // 8
    PAIRS = ACROSS // 2
    # Four positions further.
    A_FAR, B_FAR = 4 * size.m, 4 * size.n
    accumulate = accumulated(size, precision)

    @cuda.jit(device=True)
    def multiply(tile, left, right, sums, a, b):  # type: ignore[no-untyped-def]
        if HALVES:
            for i in range(DOWN):
                r0, r1, r2, r3 = matrices_across(tile, uint64(a ^ (8 * i)))
                left[4 * i], left[4 * i + 1], left[4 * i + 2], left[4 * i + 3] = r0, r1, r2, r3
            for j in range(PAIRS):
                r0, r1, r2, r3 = matrices_across(tile, uint64(b ^ (8 * j)))
                right[4 * j], right[4 * j + 1] = r0, r1
                right[4 * j + 2], right[4 * j + 3] = r2, r3
        else:
            for i in range(DOWN):
                left[4 * i] = bits_of(tile[uint64(a ^ (16 * i))])
                left[4 * i + 1] = bits_of(tile[uint64(a ^ (16 * i + 8))])
                left[4 * i + 2] = bits_of(tile[uint64((a ^ (16 * i)) + A_FAR)])
                left[4 * i + 3] = bits_of(tile[uint64((a ^ (16 * i + 8)) + A_FAR)])
            for j in range(ACROSS):
                right[2 * j] = bits_of(tile[uint64(b ^ (8 * j))])
                right[2 * j + 1] = bits_of(tile[uint64((b ^ (8 * j)) + B_FAR)])
        accumulate(left, right, sums)

    return multiply


def tiled(size: WarpTile, precision: str) -> Any:
    """The kernel for one size of tile and one precision."""
    TM, TN, WM, WN = size
    HALVES = precision == "bf16"
    THREADS = size.threads
    DOWN, ACROSS = WM // 16, WN // 8
    WARPS_DOWN = TM // WM
    LEFT_FRAGMENTS, RIGHT_FRAGMENTS, SUMS = 4 * DOWN, 2 * ACROSS, 4 * DOWN * ACROSS
    EACH = PER_WORD[precision]
    POSITIONS = positions_of(precision)
    A_UNITS, B_UNITS = TM // (4 * EACH), TN // (4 * EACH)
    A_LINE, B_LINE = 4 * A_UNITS, 4 * B_UNITS
    A_STAGE = POSITIONS * A_LINE
    STAGE = A_STAGE + POSITIONS * B_LINE
    SHARED = STAGES * STAGE
    # Of a step, half a slice.
    A_STEP, B_STEP = A_STAGE // 2, POSITIONS * B_LINE // 2
    NEXT = THREADS // POSITIONS
    A_LOADS, B_LOADS = A_UNITS // NEXT, B_UNITS // NEXT
    assert NEXT * POSITIONS == THREADS
    assert A_LOADS * NEXT == A_UNITS
    assert B_LOADS * NEXT == B_UNITS
    assert SHARED <= 48 * 1024 // 4
    multiply = fragments(size, precision)

    @cuda.jit(device=True)
    def mixed(k, units):  # type: ignore[no-untyped-def]
        """What position k's units are exchanged by, on a line of so many."""
        if HALVES:
            return int32((k & 7) & (units - 1))
        return int32(2 * (k & 3) & (units - 1))

    @cuda.jit(**LIMITED)
    def product_tensor(arena, params, ints, at):  # type: ignore[no-untyped-def]
        """A tile of sums: grid (tiles of columns, tiles of rows, groups x splits)."""
        tile = cuda.shared.array(SHARED, float32, ALIGNED)
        sums = cuda.local.array(SUMS, float32)
        left = cuda.local.array(LEFT_FRAGMENTS, uint32)
        right = cuda.local.array(RIGHT_FRAGMENTS, uint32)
        tap_at = cuda.local.array(B_LOADS, int32)
        tap_edges = cuda.local.array(B_LOADS, int32)
        tap_more = cuda.local.array(B_LOADS, int32)
        t = int32(cuda.threadIdx.x)
        splits = ints[uint32(at + SPLITS)]
        group = quotient(int32(cuda.blockIdx.z), splits)
        split = int32(cuda.blockIdx.z - group * splits)

        # What this thread copies: of one position of each slice several units of rows and columns.
        line = remainder(t, int32(NEXT))
        own = quotient(t, int32(NEXT))
        start = int32(split * ints[uint32(at + PART)])
        end = int32(start + ints[uint32(at + PART)])
        if end > ints[uint32(at + PRODUCTS)]:
            end = ints[uint32(at + PRODUCTS)]
        slices = quotient(int32(end - start + POSITIONS - 1), int32(POSITIONS))
        k = int32(start + own)
        plane = ints[uint32(at + PLANE)]
        n = quotient(k, plane)
        p = int32(k - n * plane)
        windows = ints[uint32(at + WINDOWS)]
        words = ints[uint32(at + LEFT_WORDS)]
        a_word = int32(4 * (cuda.blockIdx.y * A_UNITS + line))
        a_at = int32(ints[uint32(at + LEFT)] + k * ints[uint32(at + LEFT_CELL)])
        a_at = int32(a_at + group * words + a_word)
        source = int32(group * ints[uint32(at + SOURCE_WORDS)])
        entry = int32(ints[uint32(at + TABLE)] + 4 * (cuda.blockIdx.x * B_UNITS + line))
        for i in range(B_LOADS):
            far, edges, more, _ = load4(ints, uint32(entry + 4 * NEXT * i))
            tap_at[i], tap_edges[i], tap_more[i] = int32(source + far), edges, more
        a_to = int32(own * A_LINE + 4 * (line ^ mixed(own, int32(A_UNITS))))
        b_to = int32(A_STAGE + own * B_LINE + 4 * (line ^ mixed(own, int32(B_UNITS))))

        for i in range(SUMS):
            sums[i] = ZERO
        # Where this lane's words of a warp's first fragments lie, in a stage.
        warp = quotient(t, int32(LANES))
        lane = remainder(t, int32(LANES))
        row = int32(remainder(warp, int32(WARPS_DOWN)) * WM)
        column = int32(quotient(warp, int32(WARPS_DOWN)) * WN)
        if HALVES:
            q = int32((lane & 7) + 8 * (lane >> 4))
            unit = int32((row >> 3) + ((lane >> 3) & 1))
            a_read = int32(q * A_LINE + 4 * (unit ^ mixed(q, int32(A_UNITS))))
            q = int32(lane & 15)
            unit = int32((column >> 3) + (lane >> 4))
            b_read = int32(A_STAGE + q * B_LINE + 4 * (unit ^ mixed(q, int32(B_UNITS))))
        else:
            q, g = int32(lane & 3), int32(lane >> 2)
            a_read = int32(q * A_LINE + ((row + g) ^ (4 * mixed(q, int32(A_UNITS)))))
            b_read = int32(A_STAGE + q * B_LINE + ((column + g) ^ (4 * mixed(q, int32(B_UNITS)))))
        # Stages take turns: the one that is filled, and the one that is multiplied.
        fill, stage = int32(0), int32(0)
        s = int32(-AHEAD)
        while s < slices:
            if s >= 0:
                # All but the newest slice have come, to every thread, and the stage that is filled
                # next is done with.
                next_arrived()
                cuda.syncthreads()
            if int32(s + AHEAD) < slices:
                valid = k < end
                far, crossed, crossed_more, _ = load4(ints, uint32(windows + 4 * p))
                if not valid:
                    crossed = int32(OUTSIDE)
                for i in range(A_LOADS):
                    there = valid and int32(a_word + 4 * NEXT * i) < words
                    to = uint64(a_to ^ (4 * NEXT * i))
                    copy16(tile, to, arena, uint32(a_at + 4 * NEXT * i), there)
                b_at = int32(ints[uint32(at + SOURCE)] + n * ints[uint32(at + SOURCE_BATCH)] + far)
                for i in range(B_LOADS):
                    there = (crossed & tap_edges[i]) | (crossed_more & tap_more[i]) == 0
                    to = uint64(b_to ^ (4 * NEXT * i))
                    copy16(tile, to, arena, uint32(b_at + tap_at[i]), there)
                # This thread's position in the slice after it.
                k = int32(k + POSITIONS)
                a_at = int32(a_at + POSITIONS * ints[uint32(at + LEFT_CELL)])
                p = int32(p + ints[uint32(at + JUMP)])
                n = int32(n + ints[uint32(at + JUMP_N)])
                if p >= plane:
                    p = int32(p - plane)
                    n = int32(n + 1)
            commit()
            step = int32(STAGE) if fill < AHEAD else int32(-AHEAD * STAGE)
            fill = int32(fill + 1) if fill < AHEAD else int32(0)
            a_to, b_to = int32(a_to + step), int32(b_to + step)
            if s >= 0:
                multiply(tile, left, right, sums, a_read, b_read)
                multiply(tile, left, right, sums, a_read + A_STEP, b_read + B_STEP)
                step = int32(STAGE) if stage < AHEAD else int32(-AHEAD * STAGE)
                stage = int32(stage + 1) if stage < AHEAD else int32(0)
                a_read, b_read = int32(a_read + step), int32(b_read + step)
            s = int32(s + 1)
        all_arrived()

        rows = ints[uint32(at + ROWS)]
        columns = ints[uint32(at + COLUMNS)]
        splits = ints[uint32(at + SPLITS)]
        row = int32(cuda.blockIdx.y * TM + row + (lane >> 2))
        group = quotient(int32(cuda.blockIdx.z), splits)
        split = int32(cuda.blockIdx.z - group * splits)
        earlier = int32(group * rows)
        if splits > 1:
            earlier = int32((split * ints[uint32(at + GROUPS)] + group) * rows)
        column = int32(cuda.blockIdx.x * TN + column + 2 * (lane & 3))
        for j in range(ACROSS):
            for e in range(2):
                c = int32(column + 8 * j + e)
                if c < columns:
                    if splits > 1:
                        apart = columns
                        to = int32(ints[uint32(at + PARTIAL)] + c)
                    else:
                        apart = ints[uint32(at + TARGET_ROW)]
                        place = ints[uint32(ints[uint32(at + PLACES)] + c)]
                        to = int32(ints[uint32(at + TARGET)] + place) if place >= 0 else int32(-1)
                    for i in range(DOWN):
                        for h in range(2):
                            r = int32(row + 16 * i + 8 * h)
                            if to >= 0 and r < rows:
                                total = sums[4 * (i * ACROSS + j) + 2 * h + e]
                                arena[uint32(to + (earlier + r) * apart)] = total

    return product_tensor


KERNELS: dict[tuple[WarpTile, str], Any] = {
    (tile, precision): tiled(tile, precision) for tile in TILES for precision in ("tf32", "bf16")
}


@cuda.jit
def tensor_finish(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Adds up the parts of sums, a thread a sum: grid (groups x rows x columns / threads)."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    columns = ints[uint32(at + COLUMNS)]
    count = int32(ints[uint32(at + GROUPS)] * ints[uint32(at + ROWS)] * columns)
    if i >= count:
        return
    row = quotient(i, columns)
    place = ints[uint32(ints[uint32(at + PLACES)] + int32(i - row * columns))]
    if place < 0:
        return
    total = ZERO
    partial = int32(ints[uint32(at + PARTIAL)] + i)
    for _ in range(ints[uint32(at + SPLITS)]):
        total += arena[uint32(partial)]
        partial = int32(partial + count)
    to = int32(ints[uint32(at + TARGET)] + row * ints[uint32(at + TARGET_ROW)] + place)
    arena[uint32(to)] = total
