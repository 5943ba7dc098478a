"""How fast the card multiplies and adds at all: our widest tile on slices in shared memory.

What a layer does besides (addresses, loads, barriers, the ending) is left out, so that this is what
the tiles of gemm.py and tensor.py could reach, and no more: the cards' own libraries have
instructions for tensor cores that these tiles lack.
"""

from __future__ import annotations

from itertools import pairwise, starmap
from typing import Any

import numpy as np
from numba import cuda, float32, int32, uint32

from netdsl.cuda import launch
from netdsl.cuda.arith import quotient, remainder
from netdsl.cuda.device import check
from netdsl.cuda.failure import faults_of
from netdsl.cuda.gemm import ALIGNED as FOUR
from netdsl.cuda.gemm import multiplied
from netdsl.cuda.layout import Call, Floats
from netdsl.cuda.rounding import PER_WORD, rounded_words
from netdsl.cuda.sizes import LIMITED, SIMULATED, Tile
from netdsl.cuda.sizes import WIDE as FLOAT_TILE
from netdsl.cuda.tensor import ALIGNED, DEEP, LANES, STAGES, WarpTile, place
from netdsl.cuda.tensor import LARGE as TENSOR_TILE
from netdsl.cuda.tensor import multiplied as multiplied_fragments
from netdsl.cuda.timing import between, mark

REPEATS, TARGET = range(2)
"""Of all kernels: slices that are multiplied, and where each thread's sum goes."""

SLICES = 3 if SIMULATED else 20000
"""Some milliseconds: long beside a launch, and the card's clock settles meanwhile."""

BLOCKS = 2
"""Of a multiprocessor: as many as it has room for."""

ROUNDS = 1 if SIMULATED else 10

ZERO = np.float32(0)


def tile_kernel(size: Tile) -> Any:
    """The kernel that multiplies slices in float32."""
    TM, TN, TK, RM, RN, VECTOR = size
    THREADS, SUMS = size.threads, RM * RN
    ACROSS, VM, VN = TM // RM, min(VECTOR, RM), min(VECTOR, RN)
    A_SLICE, B_SLICE = TK * TM, TK * TN
    B_START = 2 * max(A_SLICE, B_SLICE)
    SHARED = B_START + 2 * B_SLICE
    multiply = multiplied(size)

    @cuda.jit(**LIMITED)
    def peak_tile(arena, params, ints, at):  # type: ignore[no-untyped-def]
        """Two slices of both operands, which lie in params, multiplied in turn: grid (blocks)."""
        tile = cuda.shared.array(SHARED, float32, FOUR)
        sums = cuda.local.array(SUMS, float32)
        a_row = cuda.local.array(RM, float32)
        b_row = cuda.local.array(RN, float32)
        t = int32(cuda.threadIdx.x)
        i = t
        while i < SHARED:
            tile[uint32(i)] = params[uint32(i)]
            i = int32(i + THREADS)
        for j in range(SUMS):
            sums[j] = ZERO
        cuda.syncthreads()
        a = int32(remainder(t, int32(ACROSS)) * VM)
        b = int32(B_START + quotient(t, int32(ACROSS)) * VN)
        for _ in range(ints[uint32(at + REPEATS)]):
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
            # The other slice, so that no load can be done once for all.
            a, b = int32(a ^ A_SLICE), int32(b ^ B_SLICE)
        total = ZERO
        for j in range(SUMS):
            total += sums[j]
        arena[uint32(ints[uint32(at + TARGET)] + cuda.blockIdx.x * THREADS + t)] = total

    return peak_tile


def tensor_kernel(size: WarpTile, precision: str) -> Any:
    """The kernel that multiplies slices on tensor cores."""
    TM, TN, WM, WN = size
    THREADS = size.threads
    LEFT, RIGHT, SUMS = WM // 4, WN // 4, WM // 4 * (WN // 8)
    A_STAGE, STAGE = TM * DEEP, (TM + TN) * DEEP
    SHARED, LAST = STAGES * STAGE, STAGES - 1
    multiply = multiplied_fragments(size, precision)

    limited: dict[str, Any] = {} if SIMULATED else {"max_registers": size.registers}

    @cuda.jit(**limited)
    def peak_tensor(arena, params, ints, at):  # type: ignore[no-untyped-def]
        """Three slices of both operands, which lie in params, multiplied in turn: grid (blocks)."""
        tile = cuda.shared.array(SHARED, float32, ALIGNED)
        sums = cuda.local.array(SUMS, float32)
        left = cuda.local.array(LEFT, uint32)
        right = cuda.local.array(RIGHT, uint32)
        t = int32(cuda.threadIdx.x)
        i = t
        while i < SHARED:
            tile[uint32(i)] = params[uint32(i)]
            i = int32(i + THREADS)
        for j in range(SUMS):
            sums[j] = ZERO
        cuda.syncthreads()
        warp = quotient(t, int32(LANES))
        lane = remainder(t, int32(LANES))
        down = remainder(warp, int32(TM // WM))
        across = quotient(warp, int32(TM // WM))
        a = place(int32(down * WM + (lane & 15)), int32(lane >> 4))
        b = int32(
            A_STAGE
            + place(int32(across * WN + (lane & 7) + 8 * (lane >> 4)), int32((lane >> 3) & 1))
        )
        stage = int32(0)
        for _ in range(ints[uint32(at + REPEATS)]):
            multiply(tile, left, right, sums, a, b)
            multiply(tile, left, right, sums, a ^ 8, b ^ 8)
            step = int32(STAGE) if stage < LAST else int32(-LAST * STAGE)
            stage = int32(stage + 1) if stage < LAST else int32(0)
            a, b = int32(a + step), int32(b + step)
        total = ZERO
        for j in range(SUMS):
            total += sums[j]
        arena[uint32(ints[uint32(at + TARGET)] + cuda.blockIdx.x * THREADS + t)] = total

    return peak_tensor


PEAKS: dict[str, Any] = {
    "fp32": tile_kernel(FLOAT_TILE),
    **{p: tensor_kernel(TENSOR_TILE, p) for p in ("tf32", "bf16")},
}


def operands(precision: str, random: np.random.Generator) -> Floats:
    """What a kernel copies into its shared memory: noise, because zeros would cost the card less
    power and let its clock rise."""
    if precision == "fp32":
        m, n, k, *_ = FLOAT_TILE
        return random.standard_normal(2 * (max(m, n) + n) * k, np.float32)
    words = STAGES * (TENSOR_TILE.m + TENSOR_TILE.n) * DEEP
    values = random.standard_normal((1, words * PER_WORD[precision]), np.float32)
    return rounded_words(values, precision).reshape(-1)


def flops(precision: str) -> int:
    """Of a block and a slice, two a multiply-add."""
    if precision == "fp32":
        m, n, k, *_ = FLOAT_TILE
        return 2 * m * n * k
    return 2 * TENSOR_TILE.m * TENSOR_TILE.n * DEEP * PER_WORD[precision]


def peak(precision: str = "fp32") -> float:
    """10^9 floating-point operations a second, two a multiply-add, with factors in this precision;
    the best of some runs, by the card's own clock. Raises NetError: no card that computes so, or
    one that fails."""
    check(precision)
    with faults_of("the peak", 1):
        count = BLOCKS * launch.processors()
        threads = (FLOAT_TILE if precision == "fp32" else TENSOR_TILE).threads
        stream = launch.stream()
        arena = launch.room(count * threads)
        params = launch.on_device(operands(precision, np.random.default_rng(0)))
        ints = launch.on_device(np.array([SLICES, 0], np.int32))
        kernel = PEAKS[precision]
        launch.prepare([kernel])
        call = launch.configured(Call(kernel, (count, 1, 1), threads, 0), stream)
        marks = [mark(stream)]
        for _ in range(1 + ROUNDS):
            call(arena, params, ints, np.int32(0))
            marks.append(mark(stream))
        stream.synchronize()
        # The first run loads the kernel, and the clock may still climb.
        ms = min(starmap(between, pairwise(marks[1:])))
    return flops(precision) * count * SLICES / ms / 1e6
