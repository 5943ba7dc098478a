"""Fully connected layers in training on tensor cores: forward, and their inputs' gradients.

A row is a sample, and each column sums products of the sample's values and of weights. The samples
lie packed (`netdsl.cuda.pack`) as in tensor.py. The weights are a net's largest matrices and are
read where they are learned, in float32, by the same asynchronous copies; a lane rounds them as it
takes them out of shared memory, so that they are neither packed anew each step nor kept twice.

Forward a column is a filter, whose weights are neighbours; back it is an input, and a row of
weights is a product. Forward, TF32 takes fragments by `matrices` and rounds their words, bfloat16
takes neighbours two by two; back, words are taken one by one from a row each. Units of 16 bytes lie
in their line exchanged so that lanes meet no bank twice; forward, pairs meet each twice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda, float32, int32, uint32, uint64

from netdsl.cuda.arith import quotient, remainder
from netdsl.cuda.rounding import PER_WORD
from netdsl.cuda.sizes import LIMITED
from netdsl.cuda.tensor import (
    AHEAD,
    ALIGNED,
    DEEP,
    LANES,
    MEDIUM,
    SMALL,
    STAGES,
    UNITS,
    WarpTile,
    accumulated,
    all_arrived,
    next_arrived,
    place,
)
from netdsl.cuda.warp import (
    as_bf16,
    as_tf32,
    bits_of,
    commit,
    copy16,
    float_of,
    matrices,
)

(
    ROWS,
    COLUMNS,
    PRODUCTS,
    PART,
    SPLITS,
    LEFT,
    LEFT_ROW,
    LEFT_WORDS,
    WEIGHTS,
    WEIGHTS_ROW,
    TARGET,
    TARGET_ROW,
    BIAS,
    PARTIAL,
    FIELDS,
) = range(15)
"""What the descriptor holds. ROWS and COLUMNS, PRODUCTS of each sum, PART of them in each of
SPLITS. Where the samples begin, how far apart they lie, words of each. In params: where the
weights begin, how far apart their rows lie, and a bias for each column, or -1. Where results go,
and how far apart rows lie there. PARTIAL: with SPLITS above 1, the parts' sums, (splits, rows,
columns)."""

ZERO = np.float32(0)


def products_of(precision: str) -> int:
    """Products of a slice."""
    return DEEP * PER_WORD[precision]


@cuda.jit(device=True)
def rounded(word):  # type: ignore[no-untyped-def]
    """A float32's word as TF32."""
    return bits_of(as_tf32(float_of(word)))


@cuda.jit(device=True)
def paired(tile, low, high):  # type: ignore[no-untyped-def]
    """Two floats of shared memory as bfloat16."""
    return bits_of(as_bf16(tile[uint64(low)], tile[uint64(high)]))


def fragments(size: WarpTile, precision: str, back: bool) -> Any:
    """The device function that loads a warp's fragments of half a slice and adds their products. It
    is given where in shared memory this lane's first words of either operand lie."""
    HALVES, BACK = precision == "bf16", back
    DOWN, ACROSS = size.wm // 16, size.wn // 8
    LINE = size.n
    # Eight columns further; four and eight rows of weights.
    FAR, FOUR, EIGHT = 8 * products_of(precision), 4 * LINE, 8 * LINE
    accumulate = accumulated(size, precision)

    @cuda.jit(device=True)
    def multiply(tile, left, right, sums, a, b):  # type: ignore[no-untyped-def]
        for i in range(DOWN):
            r0, r1, r2, r3 = matrices(tile, uint64(a + i * 16 * DEEP))
            left[4 * i], left[4 * i + 1], left[4 * i + 2], left[4 * i + 3] = r0, r1, r2, r3
        if BACK:
            for j in range(ACROSS):
                at = int32(b ^ (8 * j))
                if HALVES:
                    right[2 * j] = paired(tile, at, at + LINE)
                    right[2 * j + 1] = paired(tile, at + EIGHT, at + EIGHT + LINE)
                else:
                    right[2 * j] = bits_of(as_tf32(tile[uint64(at)]))
                    right[2 * j + 1] = bits_of(as_tf32(tile[uint64(at + FOUR)]))
        elif HALVES:
            for j in range(ACROSS):
                at = int32(b + j * FAR)
                right[2 * j] = paired(tile, at, at + 1)
                right[2 * j + 1] = paired(tile, at ^ 8, (at ^ 8) + 1)
        else:
            for j in range(ACROSS // 2):
                r0, r1, r2, r3 = matrices(tile, uint64(b + 2 * j * FAR))
                right[4 * j], right[4 * j + 1] = rounded(r0), rounded(r1)
                right[4 * j + 2], right[4 * j + 3] = rounded(r2), rounded(r3)
        accumulate(left, right, sums)

    return multiply


def tiled(size: WarpTile, precision: str, back: bool) -> Any:
    """The kernel for one size of tile, precision and way."""
    TM, TN, WM, WN = size
    HALVES, BACK = precision == "bf16", back
    THREADS = size.threads
    DOWN, ACROSS = WM // 16, WN // 8
    WARPS_DOWN = TM // WM
    LEFTS, RIGHTS, SUMS = 4 * DOWN, 2 * ACROSS, 4 * DOWN * ACROSS
    A_ROWS = TM // (THREADS // UNITS)
    A_FAR = THREADS // UNITS
    SLICE = products_of(precision)
    A_STAGE = TM * DEEP
    STAGE = A_STAGE + TN * SLICE
    SHARED = STAGES * STAGE
    # A line of weights in shared memory: of a column forward, of a product back.
    LINE = TN if back else SLICE
    LINE_UNITS = LINE // 4
    B_FAR = THREADS // LINE_UNITS
    B_LOADS = TN * SLICE // (4 * THREADS)
    assert A_ROWS * A_FAR == TM
    assert B_FAR * LINE_UNITS == THREADS
    assert B_FAR % 8 == 0 or (not back and HALVES and B_FAR % 4 == 0)
    assert B_LOADS * B_FAR * LINE == TN * SLICE
    assert SHARED <= 48 * 1024 // 4
    multiply = fragments(size, precision, back)
    # How far apart the two halves of a slice lie, and what each is reached by from the other.
    B_STEP = SLICE // 2 * TN if back else 0
    B_TURN = 0 if back else 16 if precision == "bf16" else 8

    @cuda.jit(device=True)
    def mixed(line, unit):  # type: ignore[no-untyped-def]
        """Where in a stage's weights a unit of a line lies."""
        if BACK:
            k = int32(line >> 1) if HALVES else line
            return int32(line * LINE + 4 * (unit ^ (2 * (k & 3) & (LINE_UNITS - 1))))
        if HALVES:
            return int32(line * LINE + 4 * (unit ^ (2 * (line & 3))))
        return place(line, unit)

    @cuda.jit(**LIMITED)
    def dense_tensor(arena, params, ints, at):  # type: ignore[no-untyped-def]
        """A tile of sums: grid (tiles of rows, tiles of columns, splits)."""
        tile = cuda.shared.array(SHARED, float32, ALIGNED)
        sums = cuda.local.array(SUMS, float32)
        left = cuda.local.array(LEFTS, uint32)
        right = cuda.local.array(RIGHTS, uint32)
        t = int32(cuda.threadIdx.x)
        rows, columns = ints[uint32(at + ROWS)], ints[uint32(at + COLUMNS)]
        products = ints[uint32(at + PRODUCTS)]
        start = int32(cuda.blockIdx.z * ints[uint32(at + PART)])
        end = min(int32(start + ints[uint32(at + PART)]), products)
        slices = quotient(int32(end - start + SLICE - 1), int32(SLICE))

        # What this thread copies: a unit of several samples, and one of several lines of weights.
        unit, row = remainder(t, int32(UNITS)), quotient(t, int32(UNITS))
        words = ints[uint32(at + LEFT_WORDS)]
        apart = int32(A_FAR * ints[uint32(at + LEFT_ROW)])
        word = int32(quotient(start, int32(SLICE // DEEP)) + 4 * unit)
        sample = int32(cuda.blockIdx.x * TM + row)
        a_at = int32(ints[uint32(at + LEFT)] + sample * ints[uint32(at + LEFT_ROW)] + word)
        a_to = place(row, unit)
        unit, line = remainder(t, int32(LINE_UNITS)), quotient(t, int32(LINE_UNITS))
        b_to = int32(A_STAGE + mixed(line, unit))
        far = ints[uint32(at + WEIGHTS_ROW)]
        if BACK:
            k = int32(start + line)
            column = int32(cuda.blockIdx.y * TN + 4 * unit)
            b_at = int32(ints[uint32(at + WEIGHTS)] + k * far + column)
            next_slice = int32(SLICE * far)
        else:
            k = int32(start + 4 * unit)
            column = int32(cuda.blockIdx.y * TN + line)
            b_at = int32(ints[uint32(at + WEIGHTS)] + column * far + k)
            next_slice = int32(SLICE)
        far = int32(B_FAR * far)

        for i in range(SUMS):
            sums[i] = ZERO
        # Where this lane's words of a warp's first fragments lie, in a stage.
        warp = quotient(t, int32(LANES))
        lane = remainder(t, int32(LANES))
        down = int32(remainder(warp, int32(WARPS_DOWN)) * WM)
        across = int32(quotient(warp, int32(WARPS_DOWN)) * WN)
        a_read = place(int32(down + (lane & 15)), int32(lane >> 4))
        if BACK:
            q = int32(2 * (lane & 3)) if HALVES else int32(lane & 3)
            b_read = mixed(q, int32((across + (lane >> 2)) >> 2))
            b_read = int32(A_STAGE + b_read + ((lane >> 2) & 3))
        elif HALVES:
            b_read = mixed(int32(across + (lane >> 2)), int32((lane & 3) >> 1))
            b_read = int32(A_STAGE + b_read + 2 * (lane & 1))
        else:
            b_read = place(int32(across + (lane & 7) + 8 * (lane >> 4)), int32((lane >> 3) & 1))
            b_read = int32(A_STAGE + b_read)
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
                for i in range(A_ROWS):
                    there = sample + i * A_FAR < rows and word < words
                    to = uint64(a_to + i * A_FAR * DEEP)
                    copy16(tile, to, arena, uint32(a_at + i * apart), there)
                for i in range(B_LOADS):
                    if BACK:
                        there = k + i * B_FAR < products and column < columns
                    else:
                        there = k < products and column + i * B_FAR < columns
                    to = uint64(b_to + i * B_FAR * LINE)
                    copy16(tile, to, params, uint32(b_at + i * far), there)
                word, a_at = int32(word + DEEP), int32(a_at + DEEP)
                k, b_at = int32(k + SLICE), int32(b_at + next_slice)
            commit()
            step = int32(STAGE) if fill < AHEAD else int32(-AHEAD * STAGE)
            fill = int32(fill + 1) if fill < AHEAD else int32(0)
            a_to, b_to = int32(a_to + step), int32(b_to + step)
            if s >= 0:
                multiply(tile, left, right, sums, a_read, b_read)
                multiply(tile, left, right, sums, a_read ^ 8, (b_read ^ B_TURN) + B_STEP)
                step = int32(STAGE) if stage < AHEAD else int32(-AHEAD * STAGE)
                stage = int32(stage + 1) if stage < AHEAD else int32(0)
                a_read, b_read = int32(a_read + step), int32(b_read + step)
            s = int32(s + 1)
        all_arrived()

        splits, bias = ints[uint32(at + SPLITS)], ints[uint32(at + BIAS)]
        apart, base = ints[uint32(at + TARGET_ROW)], ints[uint32(at + TARGET)]
        if splits > 1:
            apart, bias = columns, int32(-1)
            base = int32(ints[uint32(at + PARTIAL)] + cuda.blockIdx.z * rows * columns)
        row = int32(cuda.blockIdx.x * TM + down + (lane >> 2))
        column = int32(cuda.blockIdx.y * TN + across + 2 * (lane & 3))
        for j in range(ACROSS):
            for e in range(2):
                c = int32(column + 8 * j + e)
                if c < columns:
                    more = params[uint32(bias + c)] if bias >= 0 else ZERO
                    for i in range(DOWN):
                        for h in range(2):
                            r = int32(row + 16 * i + 8 * h)
                            if r < rows:
                                total = sums[4 * (i * ACROSS + j) + 2 * h + e]
                                arena[uint32(base + r * apart + c)] = total + more

    return dense_tensor


TILES = (MEDIUM, SMALL)
KERNELS: dict[tuple[WarpTile, str, bool], Any] = {
    (tile, precision, back): tiled(tile, precision, back)
    for tile in TILES
    for precision in ("tf32", "bf16")
    for back in (False, True)
}


@cuda.jit
def dense_finish(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Adds up the parts of sums, a thread a sum: grid (rows x columns / threads)."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    columns = ints[uint32(at + COLUMNS)]
    count = int32(ints[uint32(at + ROWS)] * columns)
    if i >= count:
        return
    total = ZERO
    partial = int32(ints[uint32(at + PARTIAL)] + i)
    for _ in range(ints[uint32(at + SPLITS)]):
        total += arena[uint32(partial)]
        partial = int32(partial + count)
    row = quotient(i, columns)
    column = int32(i - row * columns)
    bias = ints[uint32(at + BIAS)]
    if bias >= 0:
        total = total + params[uint32(bias + column)]
    to = int32(ints[uint32(at + TARGET)] + row * ints[uint32(at + TARGET_ROW)] + column)
    arena[uint32(to)] = total
