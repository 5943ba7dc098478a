"""The products of Winograd's algorithm: for each of 36 points a matrix product over channels.

Both operands lie channel by channel, tiles of the one and filters of the other next to each other,
so that both are read 16 bytes at a time and need neither a table nor guards: what is past the last
tile, filter or channel is scratch, or zeros of the packed weights. As in gemm.py a block holds a
tile of sums in registers, and two slices of both operands in shared memory.

Sums over many channels are most of what the algorithm errs by. So a thread puts its sums aside
after every PART slices, added to those put aside before, in shared memory that nobody else reads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda, float32, int32, uint32, uint64

from netdsl.cuda.arith import quotient, remainder
from netdsl.cuda.gemm import ALIGNED, multiplied
from netdsl.cuda.sizes import LIMITED, WINOGRAD_TILES, Tile
from netdsl.cuda.sums import FILTERS, WEIGHTS, WEIGHTS_GROUP, WEIGHTS_ROW
from netdsl.cuda.warp import load4, store4

LAYER, FIRST, COUNT, LINE, INNER, INNER_POINT, MADE, MADE_POINT, SLICES, PART = range(10)
"""What is told of a chunk of tiles. LAYER: where the descriptor of the convolution lies, see
winograd.py. FIRST: the chunk's first tile, of the batch's; COUNT of them. LINE: floats of scratch
from one channel's tiles to the next's. INNER, MADE: where in scratch the transformed inputs and the
products lie, each (36, channels or filters, LINE); *_POINT from one of 36 to the next. SLICES of
channels, and PART of them that are summed up at a time."""

ZERO = np.float32(0)


def mover(deep: int, wide: int, threads: int) -> tuple[Any, Any]:
    """The device functions that take a slice, `deep` channels of `wide` neighbours, from device
    memory to a thread's registers, and on to shared memory: four neighbours of a channel, and those
    all threads further on.

    They are given where the thread's first four lie, and `line` from one channel to the next.
    """
    WIDE, FOURS = wide, deep * wide // 4
    LOADS, STEP = -(-FOURS // threads), 4 * threads // wide
    ALL = FOURS % threads == 0
    assert ALL or threads > FOURS

    @cuda.jit(device=True)
    def load(held, array, start, line, t):  # type: ignore[no-untyped-def]
        if ALL or t < FOURS:
            for i in range(LOADS):
                v0, v1, v2, v3 = load4(array, uint32(start + STEP * i * line))
                held[4 * i], held[4 * i + 1], held[4 * i + 2], held[4 * i + 3] = v0, v1, v2, v3

    @cuda.jit(device=True)
    def store(held, tile, start, t):  # type: ignore[no-untyped-def]
        if ALL or t < FOURS:
            for i in range(LOADS):
                k = uint64(start + STEP * i * WIDE)
                store4(tile, k, held[4 * i], held[4 * i + 1], held[4 * i + 2], held[4 * i + 3])

    return load, store


def keeper(count: int, threads: int) -> tuple[Any, Any]:
    """The device functions that put a thread's sums aside in shared memory and begin anew, and that
    add to them what was put aside. own: where a thread's first four lie."""
    COUNT, STEP = count, 4 * threads

    @cuda.jit(device=True)
    def put(sums, tile, own):  # type: ignore[no-untyped-def]
        for i in range(COUNT // 4):
            k = uint64(own + i * STEP)
            store4(tile, k, sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3])
        for i in range(COUNT):
            sums[i] = ZERO

    @cuda.jit(device=True)
    def add(sums, tile, own):  # type: ignore[no-untyped-def]
        for i in range(COUNT // 4):
            v0, v1, v2, v3 = load4(tile, uint64(own + i * STEP))
            sums[4 * i] += v0
            sums[4 * i + 1] += v1
            sums[4 * i + 2] += v2
            sums[4 * i + 3] += v3

    return put, add


def product(size: Tile) -> Any:
    """The kernel for one size of tile: m tiles of outputs by n filters."""
    TM, TN, TK, RM, RN, VECTOR = size
    THREADS = size.threads
    ACROSS = TM // RM
    MS, NS = VECTOR * ACROSS, VECTOR * (TN // RN)
    A_SLICE, B_SLICE = TK * TM, TK * TN
    SUMS = RM * RN
    # Both slices of A, then of B, from where a bit tells the second slice; sums put aside.
    B_START = 2 * max(A_SLICE, B_SLICE)
    ASIDE = B_START + 2 * B_SLICE
    SHARED = ASIDE + SUMS * THREADS
    A_HELD, B_HELD = (4 * -(-n // (4 * THREADS)) for n in (A_SLICE, B_SLICE))
    assert VECTOR == 4
    assert RM % 4 == RN % 4 == 0
    assert A_SLICE & (A_SLICE - 1) == B_SLICE & (B_SLICE - 1) == 0
    multiply = multiplied(size)
    load_a, store_a = mover(TK, TM, THREADS)
    load_b, store_b = mover(TK, TN, THREADS)
    put, add = keeper(SUMS, THREADS)

    @cuda.jit(**LIMITED)
    def winograd_product(arena, params, ints, at):  # type: ignore[no-untyped-def]
        """A tile of sums of a point: grid (tiles of LINE, tiles of WEIGHTS_ROW, 36)."""
        tile = cuda.shared.array(SHARED, float32, ALIGNED)
        sums = cuda.local.array(SUMS, float32)
        a_next = cuda.local.array(A_HELD, float32)
        b_next = cuda.local.array(B_HELD, float32)
        a_row = cuda.local.array(RM, float32)
        b_row = cuda.local.array(RN, float32)
        t = int32(cuda.threadIdx.x)
        point = int32(cuda.blockIdx.z)
        layer = ints[uint32(at + LAYER)]
        line = ints[uint32(at + LINE)]
        row = ints[uint32(layer + WEIGHTS_ROW)]
        slices = ints[uint32(at + SLICES)]
        part = ints[uint32(at + PART)]

        # What this thread loads: four tiles of a channel, and four filters of a channel.
        a_m, a_k = int32(4 * remainder(t, int32(TM // 4))), quotient(t, int32(TM // 4))
        b_n, b_k = int32(4 * remainder(t, int32(TN // 4))), quotient(t, int32(TN // 4))
        a_at = int32(
            ints[uint32(at + INNER)]
            + point * ints[uint32(at + INNER_POINT)]
            + a_k * line
            + cuda.blockIdx.x * TM
            + a_m
        )
        b_at = int32(
            ints[uint32(layer + WEIGHTS)]
            + point * ints[uint32(layer + WEIGHTS_GROUP)]
            + b_k * row
            + cuda.blockIdx.y * TN
            + b_n
        )
        for i in range(SUMS):
            sums[i] = ZERO
        across, down = remainder(t, int32(ACROSS)), quotient(t, int32(ACROSS))
        # The slice to multiply and the next take turns: one at 0, one behind it.
        a_read, b_read = int32(4 * across), int32(B_START + 4 * down)
        a_write, b_write = int32(a_k * TM + a_m), int32(B_START + b_k * TN + b_n)
        load_a(a_next, arena, a_at, line, t)
        load_b(b_next, params, b_at, row, t)
        store_a(a_next, tile, a_write, t)
        store_b(b_next, tile, b_write, t)
        cuda.syncthreads()
        own = int32(ASIDE + 4 * t)
        s, end = int32(0), min(part, slices)
        while s < slices:
            while s < end:
                # The next slice's values are asked for before this slice is multiplied.
                s = int32(s + 1)
                more = s < slices
                if more:
                    a_at, b_at = int32(a_at + TK * line), int32(b_at + TK * row)
                    load_a(a_next, arena, a_at, line, t)
                    load_b(b_next, params, b_at, row, t)
                a, b = a_read, b_read
                # Written out, because the compiler unrolls no loop as long as this.
                multiply(tile, a_row, b_row, sums, a, b)
                multiply(tile, a_row, b_row, sums, a + TM, b + TN)
                if TK > 2:
                    multiply(tile, a_row, b_row, sums, a + 2 * TM, b + 2 * TN)
                    multiply(tile, a_row, b_row, sums, a + 3 * TM, b + 3 * TN)
                    multiply(tile, a_row, b_row, sums, a + 4 * TM, b + 4 * TN)
                    multiply(tile, a_row, b_row, sums, a + 5 * TM, b + 5 * TN)
                    multiply(tile, a_row, b_row, sums, a + 6 * TM, b + 6 * TN)
                    multiply(tile, a_row, b_row, sums, a + 7 * TM, b + 7 * TN)
                a_read, b_read = int32(a_read ^ A_SLICE), int32(b_read ^ B_SLICE)
                a_write, b_write = int32(a_write ^ A_SLICE), int32(b_write ^ B_SLICE)
                if more:
                    store_a(a_next, tile, a_write, t)
                    store_b(b_next, tile, b_write, t)
                cuda.syncthreads()
            # A part of the channels is summed up.
            if end > part:
                add(sums, tile, own)
            if end < slices:
                put(sums, tile, own)
            end = min(int32(end + part), slices)
        # Neighbouring threads write neighbouring tiles, 16 bytes each.
        filters = ints[uint32(layer + FILTERS)]
        base = int32(
            ints[uint32(at + MADE)]
            + point * ints[uint32(at + MADE_POINT)]
            + cuda.blockIdx.x * TM
            + 4 * across
        )
        for j in range(RN):
            f = int32(cuda.blockIdx.y * TN + (j // 4) * NS + 4 * down + j % 4)
            if f < filters:
                for i in range(RM // 4):
                    k = 4 * i * RN + j
                    store4(
                        arena,
                        uint32(base + f * line + i * MS),
                        sums[k],
                        sums[k + RN],
                        sums[k + 2 * RN],
                        sums[k + 3 * RN],
                    )

    return winograd_product


PRODUCTS: dict[Tile, Any] = {tile: product(tile) for tile in WINOGRAD_TILES}
