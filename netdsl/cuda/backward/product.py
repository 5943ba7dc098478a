"""The tiled product of the ways back, in float32: sums over the positions of a batch.

For every row and column it sums k products of a value of A and one of B. k runs over samples and
positions. A's value is that of the row's channel at the position; B's that of the cell of the
position's window which a table gives for the column, zero outside. So it makes the gradients of
weights: rows are filters, columns a filter's weights. A fully connected layer's products are the
same with windows of one cell, on either way; A then lies in params.

As in gemm.py a block holds a tile of sums in registers, slices of both operands lie in shared
memory twice, and whether a cell lies outside is a test of bits: of the edges that a position's
window crosses, and those that a column's cell may lie beyond. Neighbouring threads load
neighbouring positions. k is cut into parts where there are too few tiles for the card; the parts
are added up in their order, so results never depend on time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda, float32, int32, uint32, uint64

from netdsl.cuda.arith import quotient, remainder
from netdsl.cuda.gemm import multiplied
from netdsl.cuda.sizes import LIMITED, SQUARE, TALL, Tile
from netdsl.cuda.sums import OUTSIDE
from netdsl.cuda.warp import load4, load_if

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
    LEFT_BATCH,
    LEFT_ROW,
    LEFT_GROUP,
    SOURCE,
    SOURCE_BATCH,
    SOURCE_GROUP,
    WINDOWS,
    TABLE,
    TARGET,
    TARGET_GROUP,
    TARGET_ROW,
    TARGET_COLUMN,
    BIAS,
    PARTIAL,
    FIELDS,
) = range(25)
"""What the descriptor holds. ROWS and COLUMNS of each of GROUPS, PRODUCTS of each sum, PART of them
in each of SPLITS. PLANE positions of a sample, and a slice's step in samples and positions. Of A:
where it begins, how far apart samples, rows and groups lie; positions are neighbours. Of B: where
it begins, how far apart samples and groups lie. WINDOWS: for each position how far its window's
start lies from the sample's, and two words of the edges that it crosses. TABLE: for each column how
far its cell lies from the window's start, and two words of the edges that it may lie beyond. Where
results go, and in params a bias for each row, or -1. PARTIAL: with SPLITS above 1, the parts' sums,
(splits, groups, rows, columns)."""

ZERO = np.float32(0)
ALIGNED = 16
"""Bytes: four floats are then read at once."""


def tiled(tile: Tile, weighted: bool) -> Any:
    """The kernel for one size of tile; weighted: A lies in params."""
    TM, TN, TK, RM, RN, VECTOR = tile
    IN_PARAMS = weighted
    THREADS = tile.threads
    VM, VN = min(VECTOR, RM), min(VECTOR, RN)
    ACROSS = TN // RN
    MS, NS = VM * (TM // RM), VN * ACROSS
    # Rows a little apart, so that neighbours in k lie in different banks.
    A_LINE, B_LINE = TM + VECTOR, TN + VECTOR
    A_SLICE, B_SLICE, SUMS = TK * A_LINE, TK * B_LINE, RM * RN
    # Both slices of A, then of B, in one array.
    B_START = 2 * A_SLICE
    SHARED = B_START + 2 * B_SLICE
    STEP = THREADS // TK
    A_LOADS, B_LOADS = TM // STEP, TN // STEP
    assert A_LOADS * STEP == TM
    assert B_LOADS * STEP == TN
    assert TK <= 8
    multiply = multiplied(tile)

    @cuda.jit(**LIMITED)
    def product_tile(arena, params, ints, at):  # type: ignore[no-untyped-def]
        """A tile of sums: grid (tiles of columns, tiles of rows, groups x splits)."""
        held = cuda.shared.array(SHARED, float32, ALIGNED)
        sums = cuda.local.array(SUMS, float32)
        a_next = cuda.local.array(A_LOADS, float32)
        b_next = cuda.local.array(B_LOADS, float32)
        a_row = cuda.local.array(RM, float32)
        b_row = cuda.local.array(RN, float32)
        tap_at = cuda.local.array(B_LOADS, int32)
        tap_edges = cuda.local.array(B_LOADS, int32)
        tap_more = cuda.local.array(B_LOADS, int32)
        t = int32(cuda.threadIdx.x)
        rows = ints[uint32(at + ROWS)]
        columns = ints[uint32(at + COLUMNS)]
        splits = ints[uint32(at + SPLITS)]
        group = quotient(int32(cuda.blockIdx.z), splits)
        split = int32(cuda.blockIdx.z - group * splits)

        # What this thread loads: at one k of each slice several rows and several columns.
        lane = remainder(t, int32(TK))
        line = quotient(t, int32(TK))
        k = int32(split * ints[uint32(at + PART)] + lane)
        end = int32((split + 1) * ints[uint32(at + PART)])
        if end > ints[uint32(at + PRODUCTS)]:
            end = ints[uint32(at + PRODUCTS)]
        slices = quotient(int32(end - k + lane + TK - 1), int32(TK))
        plane = ints[uint32(at + PLANE)]
        n = quotient(k, plane)
        p = int32(k - n * plane)
        windows = ints[uint32(at + WINDOWS)]
        first_row = int32(cuda.blockIdx.y * TM + line)
        first_column = int32(cuda.blockIdx.x * TN + line)
        left = int32(
            ints[uint32(at + LEFT)]
            + group * ints[uint32(at + LEFT_GROUP)]
            + first_row * ints[uint32(at + LEFT_ROW)]
        )
        source = int32(ints[uint32(at + SOURCE)] + group * ints[uint32(at + SOURCE_GROUP)])
        for i in range(B_LOADS):
            j = int32(first_column + STEP * i)
            if j >= columns:  # what it adds up is not written
                j = int32(0)
            entry = int32(ints[uint32(at + TABLE)] + 4 * j)
            tap_at[i], tap_edges[i], tap_more[i], _ = load4(ints, uint64(entry))

        for i in range(SUMS):
            sums[i] = ZERO
        across = remainder(t, int32(ACROSS))
        down = quotient(t, int32(ACROSS))
        a_read = int32(down * VM)
        b_read = int32(B_START + across * VN)
        a_write = int32(lane * A_LINE + line)
        b_write = int32(B_START + lane * B_LINE + line)
        s = int32(-1)
        while s < slices:
            # The next slice's values are asked for before this slice is multiplied.
            more = int32(s + 1) < slices
            if more:
                valid = k < end
                far, crossed, crossed_more, _ = load4(ints, uint64(windows + 4 * p))
                if not valid:
                    crossed = int32(OUTSIDE)
                a_at = int32(left + n * ints[uint32(at + LEFT_BATCH)] + p)
                for i in range(A_LOADS):
                    there = valid and first_row + STEP * i < rows
                    a = uint32(a_at + STEP * i * ints[uint32(at + LEFT_ROW)])
                    if IN_PARAMS:
                        a_next[i] = load_if(params, a, there)
                    else:
                        a_next[i] = load_if(arena, a, there)
                b_at = int32(source + n * ints[uint32(at + SOURCE_BATCH)] + far)
                for i in range(B_LOADS):
                    there = (crossed & tap_edges[i]) | (crossed_more & tap_more[i]) == 0
                    b_next[i] = load_if(arena, uint32(b_at + tap_at[i]), there)
                # This thread's k in the slice after it.
                k = int32(k + TK)
                p = int32(p + ints[uint32(at + JUMP)])
                n = int32(n + ints[uint32(at + JUMP_N)])
                if p >= plane:
                    p = int32(p - plane)
                    n = int32(n + 1)
            if s >= 0:
                half = int32(s & 1)
                a, b = int32(a_read + half * A_SLICE), int32(b_read + half * B_SLICE)
                # Written out, because the compiler unrolls no loop as long as this.
                multiply(held, a_row, b_row, sums, a, b)
                multiply(held, a_row, b_row, sums, a + A_LINE, b + B_LINE)
                if TK > 2:
                    multiply(held, a_row, b_row, sums, a + 2 * A_LINE, b + 2 * B_LINE)
                    multiply(held, a_row, b_row, sums, a + 3 * A_LINE, b + 3 * B_LINE)
                if TK > 4:
                    multiply(held, a_row, b_row, sums, a + 4 * A_LINE, b + 4 * B_LINE)
                    multiply(held, a_row, b_row, sums, a + 5 * A_LINE, b + 5 * B_LINE)
                    multiply(held, a_row, b_row, sums, a + 6 * A_LINE, b + 6 * B_LINE)
                    multiply(held, a_row, b_row, sums, a + 7 * A_LINE, b + 7 * B_LINE)
            if more:
                other = int32((s + 1) & 1)
                for i in range(A_LOADS):
                    held[uint64(other * A_SLICE + a_write + STEP * i)] = a_next[i]
                for i in range(B_LOADS):
                    held[uint64(other * B_SLICE + b_write + STEP * i)] = b_next[i]
            cuda.syncthreads()
            s = int32(s + 1)

        bias = ints[uint32(at + BIAS)]
        for i in range(RM):
            row = int32(cuda.blockIdx.y * TM + (i // VM) * MS + a_read + i % VM)
            for j in range(RN):
                column = int32(cuda.blockIdx.x * TN + (j // VN) * NS + b_read - B_START + j % VN)
                if row < rows and column < columns:
                    total = sums[i * RN + j]
                    if splits > 1:
                        whole = int32((split * ints[uint32(at + GROUPS)] + group) * rows + row)
                        to = int32(ints[uint32(at + PARTIAL)] + whole * columns + column)
                    else:
                        if bias >= 0:
                            total = total + params[uint32(bias + row)]
                        to = int32(
                            ints[uint32(at + TARGET)]
                            + group * ints[uint32(at + TARGET_GROUP)]
                            + row * ints[uint32(at + TARGET_ROW)]
                            + column * ints[uint32(at + TARGET_COLUMN)]
                        )
                    arena[uint32(to)] = total

    return product_tile


TILES = (TALL, SQUARE)
KERNELS: dict[tuple[Tile, bool], Any] = {
    (tile, weighted): tiled(tile, weighted) for tile in TILES for weighted in (False, True)
}


@cuda.jit
def product_finish(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Adds up the parts of sums, a thread a sum: grid (groups x rows x columns / threads)."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    rows = ints[uint32(at + ROWS)]
    columns = ints[uint32(at + COLUMNS)]
    count = int32(ints[uint32(at + GROUPS)] * rows * columns)
    if i >= count:
        return
    total = ZERO
    partial = int32(ints[uint32(at + PARTIAL)] + i)
    for _ in range(ints[uint32(at + SPLITS)]):
        total += arena[uint32(partial)]
        partial = int32(partial + count)
    every_row = quotient(i, columns)
    column = int32(i - every_row * columns)
    group = quotient(every_row, rows)
    row = int32(every_row - group * rows)
    bias = ints[uint32(at + BIAS)]
    if bias >= 0:
        total = total + params[uint32(bias + row)]
    to = int32(
        ints[uint32(at + TARGET)]
        + group * ints[uint32(at + TARGET_GROUP)]
        + row * ints[uint32(at + TARGET_ROW)]
        + column * ints[uint32(at + TARGET_COLUMN)]
    )
    arena[uint32(to)] = total
