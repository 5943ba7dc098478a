"""The tiled convolution: an implicit matrix product, in float32.

Rows are output positions of the batch (m), columns filters (n), and each sums K products (k) of
an input value and a weight. A table says for every k how far its input value lies in memory from
that of the window's first cell, and in bits which edges of the input it may lie beyond; a thread
finds once which edges its position's window crosses. So a value costs two tests of bits, and one
kernel serves 1D to 3D, dilation, groups, transposed and fully connected layers.

A block holds a tile of m x n sums in registers. Slices of both operands, TK deep, lie in shared
memory twice: while one is multiplied, the next is on its way, and one barrier a slice suffices.
"""

from __future__ import annotations

from typing import Any

from numba import cuda, float32, int32, uint32, uint64

from netdsl.cuda.arith import inside, quotient, remainder
from netdsl.cuda.sizes import LIMITED, TILES, Tile
from netdsl.cuda.sums import (
    BIAS,
    DEPTH,
    EDGE,
    EDGE_BITS,
    EDGES,
    FILTERS,
    GROUPS,
    HEIGHT,
    KIND,
    NUMBERS,
    OUTSIDE,
    PARTIAL,
    POSITIONS,
    PRODUCTS,
    SLICES,
    SOURCE,
    SOURCE_BATCH,
    SOURCE_GROUP,
    SPLITS,
    TABLE,
    TARGET,
    TARGET_BATCH,
    TARGET_FILTER,
    WEIGHTS,
    WEIGHTS_GROUP,
    WEIGHTS_ROW,
    WIDTH,
    ZERO,
    finished,
    residual_of,
    target_of,
    window_of,
)
from netdsl.cuda.warp import load4, load_if, store4

ALIGNED = 16
"""Bytes: four floats are then read at once."""


@cuda.jit(device=True)
def edges_of(ints, at, z0, y0, x0, valid):  # type: ignore[no-untyped-def]
    """Two words of bits: which edges the window that starts here crosses."""
    first, second = int32(0), int32(OUTSIDE)
    if not valid:
        first = int32(OUTSIDE)
    entry = ints[uint32(at + EDGE)]
    for e in range(ints[uint32(at + EDGES)]):
        axis, far = ints[uint32(entry)], ints[uint32(entry + 1)]
        start, size = x0, ints[uint32(at + WIDTH)]
        if axis == 1:
            start, size = y0, ints[uint32(at + HEIGHT)]
        if axis == 0:
            start, size = z0, ints[uint32(at + DEPTH)]
        if not inside(int32(start + far), size):
            if e < EDGE_BITS:
                first = int32(first | (int32(1) << int32(e)))
            else:
                second = int32(second | (int32(1) << int32(e - EDGE_BITS)))
        entry = int32(entry + 2)
    return first, second


def multiplied(size: Tile) -> Any:
    """The device function that adds one k of two slices to a thread's sums.

    It is given where in shared memory the thread's first vectors of A and B lie; the next lie those
    of all threads further.
    """
    TM, TN, _, RM, RN, VECTOR = size
    VM, VN = min(VECTOR, RM), min(VECTOR, RN)
    MS, NS = VM * (TM // RM), VN * (TN // RN)

    @cuda.jit(device=True)
    def multiply(tile, a_row, b_row, sums, a, b):  # type: ignore[no-untyped-def]
        if VECTOR == 4:
            for i in range(RM // 4):
                v0, v1, v2, v3 = load4(tile, uint64(a + i * MS))
                a_row[4 * i], a_row[4 * i + 1], a_row[4 * i + 2], a_row[4 * i + 3] = v0, v1, v2, v3
            for j in range(RN // 4):
                v0, v1, v2, v3 = load4(tile, uint64(b + j * NS))
                b_row[4 * j], b_row[4 * j + 1], b_row[4 * j + 2], b_row[4 * j + 3] = v0, v1, v2, v3
        else:
            for i in range(RM):
                a_row[i] = tile[uint64(a + (i // VM) * MS + i % VM)]
            for j in range(RN):
                b_row[j] = tile[uint64(b + (j // VN) * NS + j % VN)]
        for i in range(RM):
            for j in range(RN):
                sums[i * RN + j] += a_row[i] * b_row[j]

    return multiply


def tiled(size: Tile) -> Any:
    """The kernel for one size of tile. Its rm and rn divide m and n."""
    TM, TN, TK, RM, RN, VECTOR = size
    THREADS = size.threads
    ACROSS = TM // RM
    VM, VN = min(VECTOR, RM), min(VECTOR, RN)
    MS, NS = VM * ACROSS, VN * (TN // RN)
    A_SLICE, B_SLICE = TK * TM, TK * TN
    SUMS = RM * RN
    # Both slices of A, then of B, in one array, from where a bit tells the second slice.
    B_START = 2 * max(A_SLICE, B_SLICE)
    SHARED = B_START + 2 * B_SLICE
    A_LOADS, A_STEP = A_SLICE // THREADS, THREADS // TM
    B_FOURS = B_SLICE // 4
    B_LOADS, B_STEP = -(-B_FOURS // THREADS), 4 * THREADS // TN
    B_HELD = 4 * B_LOADS
    ALL_LOAD = B_FOURS % THREADS == 0
    ROWS = TN // RN
    assert ROWS * TM <= SHARED
    assert A_SLICE & (A_SLICE - 1) == B_SLICE & (B_SLICE - 1) == 0
    assert ROWS % A_STEP == 0
    assert A_STEP * TM == THREADS
    assert VECTOR != 4 or RM % 4 == RN % 4 == 0
    assert A_LOADS * A_STEP == TK
    assert B_FOURS % min(THREADS, B_FOURS) == 0
    multiply = multiplied(size)

    @cuda.jit(**LIMITED)
    def conv_tile(arena, params, ints, at):  # type: ignore[no-untyped-def]
        """A tile of sums: grid (tiles of positions, tiles of filters, groups x splits)."""
        tile = cuda.shared.array(SHARED, float32, ALIGNED)
        sums = cuda.local.array(SUMS, float32)
        a_next = cuda.local.array(A_LOADS, float32)
        b_next = cuda.local.array(B_HELD, float32)
        a_row = cuda.local.array(RM, float32)
        b_row = cuda.local.array(RN, float32)
        t = int32(cuda.threadIdx.x)
        positions = ints[uint32(at + POSITIONS)]
        filters = ints[uint32(at + FILTERS)]
        splits = ints[uint32(at + SPLITS)]
        group = quotient(int32(cuda.blockIdx.z), splits)
        split = int32(cuda.blockIdx.z - group * splits)
        slices = ints[uint32(at + SLICES)]
        first = int32(split * slices * TK)
        left = quotient(int32(ints[uint32(at + PRODUCTS)] - first), int32(TK))
        if left < slices:
            slices = left

        # What this thread loads: one position at several k, and four filters at one k.
        a_m = remainder(t, int32(TM))
        a_k = quotient(t, int32(TM))
        b_n = int32(4 * remainder(t, int32(TN // 4)))
        b_k = quotient(t, int32(TN // 4))
        m = int32(cuda.blockIdx.x * TM + a_m)
        valid = m < positions
        n, z0, y0, x0 = window_of(ints, at, m)
        a_at = int32(
            ints[uint32(at + SOURCE)]
            + n * ints[uint32(at + SOURCE_BATCH)]
            + group * ints[uint32(at + SOURCE_GROUP)]
            + (z0 * ints[uint32(at + HEIGHT)] + y0) * ints[uint32(at + WIDTH)]
            + x0
        )
        crossed, crossed_more = edges_of(ints, at, z0, y0, x0, valid)
        row = ints[uint32(at + WEIGHTS_ROW)]
        b_at = int32(
            ints[uint32(at + WEIGHTS)]
            + group * ints[uint32(at + WEIGHTS_GROUP)]
            + (first + b_k) * row
            + cuda.blockIdx.y * TN
            + b_n
        )
        entry = int32(ints[uint32(at + TABLE)] + 4 * (first + a_k))

        for i in range(SUMS):
            sums[i] = ZERO
        across = remainder(t, int32(ACROSS))
        down = quotient(t, int32(ACROSS))
        a_read = int32(across * VM)
        b_read = int32(down * VN)
        # The slice to multiply and the next take turns: one at 0, one behind it.
        a_read, b_read = int32(a_read + A_SLICE), int32(b_read + B_START + B_SLICE)
        a_write, b_write = int32(a_k * TM + a_m), int32(B_START + b_k * TN + b_n)
        s = int32(-1)
        while s < slices:
            # The next slice's values are asked for before this slice is multiplied.
            more = int32(s + 1) < slices
            if more:
                for i in range(A_LOADS):
                    far, bits, bits_more, _ = load4(ints, uint64(entry + 4 * A_STEP * i))
                    there = (bits & crossed) | (bits_more & crossed_more) == 0
                    a_next[i] = load_if(arena, uint32(a_at + far), there)
                if ALL_LOAD or t < B_FOURS:
                    for i in range(B_LOADS):
                        w0, w1, w2, w3 = load4(params, uint32(b_at + B_STEP * i * row))
                        b_next[4 * i], b_next[4 * i + 1] = w0, w1
                        b_next[4 * i + 2], b_next[4 * i + 3] = w2, w3
                entry = int32(entry + 4 * TK)
                b_at = int32(b_at + TK * row)
            if s >= 0:
                a, b = a_read, b_read
                # Written out, because the compiler unrolls no loop as long as this.
                multiply(tile, a_row, b_row, sums, a, b)
                multiply(tile, a_row, b_row, sums, a + TM, b + TN)
                if TK > 2:
                    multiply(tile, a_row, b_row, sums, a + 2 * TM, b + 2 * TN)
                    multiply(tile, a_row, b_row, sums, a + 3 * TM, b + 3 * TN)
                if TK > 4:
                    multiply(tile, a_row, b_row, sums, a + 4 * TM, b + 4 * TN)
                    multiply(tile, a_row, b_row, sums, a + 5 * TM, b + 5 * TN)
                    multiply(tile, a_row, b_row, sums, a + 6 * TM, b + 6 * TN)
                    multiply(tile, a_row, b_row, sums, a + 7 * TM, b + 7 * TN)
                if TK > 8:
                    multiply(tile, a_row, b_row, sums, a + 8 * TM, b + 8 * TN)
                    multiply(tile, a_row, b_row, sums, a + 9 * TM, b + 9 * TN)
                    multiply(tile, a_row, b_row, sums, a + 10 * TM, b + 10 * TN)
                    multiply(tile, a_row, b_row, sums, a + 11 * TM, b + 11 * TN)
                    multiply(tile, a_row, b_row, sums, a + 12 * TM, b + 12 * TN)
                    multiply(tile, a_row, b_row, sums, a + 13 * TM, b + 13 * TN)
                    multiply(tile, a_row, b_row, sums, a + 14 * TM, b + 14 * TN)
                    multiply(tile, a_row, b_row, sums, a + 15 * TM, b + 15 * TN)
            if more:
                for i in range(A_LOADS):
                    tile[uint64(a_write + A_STEP * i * TM)] = a_next[i]
                if ALL_LOAD or t < B_FOURS:
                    for i in range(B_LOADS):
                        store4(
                            tile,
                            uint64(b_write + B_STEP * i * TN),
                            b_next[4 * i],
                            b_next[4 * i + 1],
                            b_next[4 * i + 2],
                            b_next[4 * i + 3],
                        )
            cuda.syncthreads()
            a_read, b_read = int32(a_read ^ A_SLICE), int32(b_read ^ B_SLICE)
            a_write, b_write = int32(a_write ^ A_SLICE), int32(b_write ^ B_SLICE)
            s = int32(s + 1)

        # The sums go out by way of shared memory, a column of each thread at a time, so that
        # neighbouring threads write neighbouring positions.
        base = int32(ints[uint32(at + TARGET)])
        line = int32(ints[uint32(at + TARGET_FILTER)])
        bias = int32(ints[uint32(at + BIAS)] + group * filters)
        kind = ints[uint32(at + KIND)]
        numbers = ints[uint32(at + NUMBERS)]
        one, two = params[uint32(numbers)], params[uint32(numbers + 1)]
        m = int32(cuda.blockIdx.x * TM + a_m)
        n, step = target_of(ints, at, m)
        residual = residual_of(ints, at, n, int32(step + group * filters * line))
        base = int32(base + n * ints[uint32(at + TARGET_BATCH)] + step + group * filters * line)
        if splits > 1:
            line = positions
            base = int32(
                ints[uint32(at + PARTIAL)]
                + (split * ints[uint32(at + GROUPS)] + group) * filters * positions
                + m
            )
        for column in range(int32(RN)):
            for j in range(RN):
                if j == column:
                    for i in range(RM):
                        tile[uint64(down * TM + (i // VM) * MS + across * VM + i % VM)] = sums[
                            i * RN + j
                        ]
            cuda.syncthreads()
            f = int32(
                cuda.blockIdx.y * TN
                + quotient(column, int32(VN)) * NS
                + a_k * VN
                + remainder(column, int32(VN))
            )
            read = t
            for _ in range(ROWS // A_STEP):
                if valid and f < filters:
                    total = tile[uint32(read)]
                    if splits == 1:
                        other = int32(residual + f * line) if residual >= 0 else int32(-1)
                        total = finished(arena, params, total, bias + f, other, kind, one, two)
                    arena[uint32(base + f * line)] = total
                read = int32(read + THREADS)
                f = int32(f + A_STEP * VN)
            cuda.syncthreads()

    return conv_tile


KERNELS: dict[Tile, Any] = {tile: tiled(tile) for tile in TILES}
