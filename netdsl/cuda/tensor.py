"""The tiled convolution on tensor cores: factors in TF32 or bfloat16, sums in float32.

The same implicit matrix product as gemm.py's. Its input lies packed (`pack`), so that a table's
entry stands for 16 bytes: a unit of 4 or 8 channels of one cell of the window. A slice is four
units deep. Units come by asynchronous copies into one of three stages of shared memory, two slices
ahead of the one that is multiplied; what lies outside is filled with zeros.

A stage holds a row of four units for every position and every filter. Unit u of row r lies at
place u ^ (r / 2 % 4), so that eight rows of one unit fill all banks, both as copies write them and
as `matrices` reads them. A warp multiplies 16 positions by 8 filters at a time, two units deep; how
the fragments lie is told in docs/cuda.md.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import cuda, float32, int32, uint32, uint64

from netdsl.cuda.arith import quotient, remainder
from netdsl.cuda.ending import ended
from netdsl.cuda.gemm import edges_of
from netdsl.cuda.sizes import MOST_REGISTERS, SIMULATED
from netdsl.cuda.sums import (
    CELL,
    HEIGHT,
    POSITIONS,
    PRODUCTS,
    SLICES,
    SOURCE,
    SOURCE_BATCH,
    SOURCE_GROUP,
    SPLITS,
    TABLE,
    WEIGHTS,
    WEIGHTS_GROUP,
    WEIGHTS_ROW,
    WIDTH,
    ZERO,
    window_of,
)
from netdsl.cuda.warp import (
    arrived,
    bits_of,
    commit,
    copy16,
    copy16_kept,
    float_of,
    load4,
    matrices,
    mma_bf16,
    mma_tf32,
)

ALIGNED = 128
UNITS = 4
"""Units of a slice: 64 bytes of every row."""
DEEP = 4 * UNITS
"""Words of a row's slice."""
STAGES = 3
AHEAD = STAGES - 1
LANES = 32
MOST_STAGES = 6


class WarpTile(NamedTuple):
    """What a block computes: m positions by n filters; each warp wm by wn of them."""

    m: int
    n: int
    wm: int
    wn: int

    @property
    def threads(self) -> int:
        return (self.m // self.wm) * (self.n // self.wn) * LANES

    @property
    def stages(self) -> int:
        """As many as have room where three of the largest tile have it."""
        return min(STAGES * (LARGE.m + LARGE.n) // (self.m + self.n), MOST_STAGES)

    @property
    def registers(self) -> int:
        """Of a thread, at most: two blocks of the largest tile share a multiprocessor, and of
        smaller ones as many as have room there."""
        return 255 if self.wm * self.wn > 64 * 32 else MOST_REGISTERS


WIDE = WarpTile(32, 64, 16, 32) if SIMULATED else WarpTile(128, 128, 64, 32)
MEDIUM = WarpTile(32, 16, 16, 16) if SIMULATED else WarpTile(128, 64, 64, 32)
SMALL = WarpTile(16, 16, 16, 16) if SIMULATED else WarpTile(64, 64, 32, 32)
TILES = (WIDE, MEDIUM, SMALL)
"""Of the gradients of weights."""
LARGE = WarpTile(32, 64, 32, 16) if SIMULATED else WarpTile(128, 128, 64, 64)
HALF = WarpTile(64, 16, 64, 16) if SIMULATED else WarpTile(128, 64, 64, 64)
FORWARD = (LARGE, HALF, SMALL)
"""Of the ways forward: the larger a warp's part, the fewer times is a slice read from shared
memory, which would be busier than the tensor cores otherwise. The smallest is for layers of few
tiles, and has the most slices under way."""

all_arrived, next_arrived = arrived(0), arrived(AHEAD - 1)
two_under_way, four_under_way = arrived(2), arrived(4)


@cuda.jit(device=True)
def place(row, unit):  # type: ignore[no-untyped-def]
    """Where in a stage a unit lies."""
    return int32(row * DEEP + 4 * (unit ^ ((row >> 1) & 3)))


def accumulated(size: WarpTile, precision: str) -> Any:
    """The device function that adds the products of a warp's fragments to its sums."""
    HALVES = precision == "bf16"
    DOWN, ACROSS = size.wm // 16, size.wn // 8

    @cuda.jit(device=True)
    def mma(c0, c1, c2, c3, a0, a1, a2, a3, b0, b1):  # type: ignore[no-untyped-def]
        if HALVES:
            return mma_bf16(c0, c1, c2, c3, a0, a1, a2, a3, b0, b1)
        return mma_tf32(c0, c1, c2, c3, a0, a1, a2, a3, b0, b1)

    @cuda.jit(device=True)
    def accumulate(left, right, sums):  # type: ignore[no-untyped-def]
        for i in range(DOWN):
            for j in range(ACROSS):
                s = 4 * (i * ACROSS + j)
                c0, c1, c2, c3 = mma(
                    sums[s],
                    sums[s + 1],
                    sums[s + 2],
                    sums[s + 3],
                    left[4 * i],
                    left[4 * i + 1],
                    left[4 * i + 2],
                    left[4 * i + 3],
                    right[2 * j],
                    right[2 * j + 1],
                )
                sums[s], sums[s + 1], sums[s + 2], sums[s + 3] = c0, c1, c2, c3

    return accumulate


def multiplied(size: WarpTile, precision: str) -> Any:
    """The device function that adds half a slice, two units, to a warp's sums. It is given where in
    shared memory this lane's rows of the first fragments begin."""
    DOWN, PAIRS = size.wm // 16, size.wn // 16
    accumulate = accumulated(size, precision)

    @cuda.jit(device=True)
    def multiply(tile, left, right, sums, a, b):  # type: ignore[no-untyped-def]
        for i in range(DOWN):
            r0, r1, r2, r3 = matrices(tile, uint64(a + i * 16 * DEEP))
            left[4 * i], left[4 * i + 1], left[4 * i + 2], left[4 * i + 3] = r0, r1, r2, r3
        for j in range(PAIRS):
            r0, r1, r2, r3 = matrices(tile, uint64(b + j * 16 * DEEP))
            right[4 * j], right[4 * j + 1], right[4 * j + 2], right[4 * j + 3] = r0, r1, r2, r3
        accumulate(left, right, sums)

    return multiply


def oldest_arrived(ahead: int) -> Any:
    """The device function that waits for the oldest of so many slices under way."""
    AHEAD = ahead
    assert AHEAD in (2, 3, 5)

    @cuda.jit(device=True)
    def wait():  # type: ignore[no-untyped-def]
        if AHEAD == 2:
            next_arrived()
        elif AHEAD == 3:
            two_under_way()
        else:
            four_under_way()

    return wait


def tiled(size: WarpTile, precision: str) -> Any:
    """The kernel for one size of tile and one precision."""
    TM, TN, WM, WN = size
    THREADS, STAGES = size.threads, size.stages
    AHEAD = STAGES - 1
    DOWN, ACROSS = WM // 16, WN // 8
    WARPS_DOWN = TM // WM
    LEFT, RIGHT, SUMS = 4 * DOWN, 2 * ACROSS, 4 * DOWN * ACROSS
    ROWS = THREADS // UNITS
    A_ROWS, B_ROWS = TM // ROWS, TN // ROWS
    A_STAGE = TM * DEEP
    STAGE = (TM + TN) * DEEP
    SHARED = STAGES * STAGE
    assert A_ROWS * ROWS == TM
    assert B_ROWS * ROWS == TN
    assert 3 * TM <= SHARED <= 48 * 1024 // 4
    multiply = multiplied(size, precision)
    end = ended(size, precision)
    come = oldest_arrived(AHEAD)
    limited: dict[str, Any] = {} if SIMULATED else {"max_registers": size.registers}

    @cuda.jit(**limited)
    def conv_tensor(arena, params, ints, at):  # type: ignore[no-untyped-def]
        """A tile of sums: grid (tiles of positions, tiles of filters, groups x splits)."""
        tile = cuda.shared.array(SHARED, float32, ALIGNED)
        sums = cuda.local.array(SUMS, float32)
        left = cuda.local.array(LEFT, uint32)
        right = cuda.local.array(RIGHT, uint32)
        a_at = cuda.local.array(A_ROWS, int32)
        crossed = cuda.local.array(A_ROWS, int32)
        crossed_more = cuda.local.array(A_ROWS, int32)
        t = int32(cuda.threadIdx.x)
        splits = ints[uint32(at + SPLITS)]
        group = quotient(int32(cuda.blockIdx.z), splits)
        split = int32(cuda.blockIdx.z - group * splits)
        slices = ints[uint32(at + SLICES)]
        first = int32(split * slices)
        rest = int32(quotient(ints[uint32(at + PRODUCTS)], int32(UNITS)) - first)
        if rest < slices:
            slices = rest

        # What this thread copies: one unit of several positions and of several filters.
        unit = remainder(t, int32(UNITS))
        row = quotient(t, int32(UNITS))
        entry = int32(ints[uint32(at + TABLE)] + 4 * (first * UNITS + unit))
        far, bits, bits_more, _ = load4(ints, uint32(entry))
        b_row = ints[uint32(at + WEIGHTS_ROW)]
        b_at = int32(
            ints[uint32(at + WEIGHTS)]
            + group * ints[uint32(at + WEIGHTS_GROUP)]
            + (cuda.blockIdx.y * TN + row) * b_row
            + first * DEEP
            + 4 * unit
        )
        # Where a position's window starts and which edges it crosses is found once, by one thread.
        i = t
        while i < TM:
            m = int32(cuda.blockIdx.x * TM + i)
            n, z0, y0, x0 = window_of(ints, at, m)
            cell = int32((z0 * ints[uint32(at + HEIGHT)] + y0) * ints[uint32(at + WIDTH)] + x0)
            begin = int32(
                ints[uint32(at + SOURCE)]
                + n * ints[uint32(at + SOURCE_BATCH)]
                + group * ints[uint32(at + SOURCE_GROUP)]
                + cell * ints[uint32(at + CELL)]
            )
            one, two = edges_of(ints, at, z0, y0, x0, m < ints[uint32(at + POSITIONS)])
            tile[uint32(i)] = float_of(uint32(begin))
            tile[uint32(TM + i)] = float_of(uint32(one))
            tile[uint32(2 * TM + i)] = float_of(uint32(two))
            i = int32(i + THREADS)
        cuda.syncthreads()
        for j in range(A_ROWS):
            a_at[j] = int32(bits_of(tile[uint32(row + j * ROWS)]))
            crossed[j] = int32(bits_of(tile[uint32(TM + row + j * ROWS)]))
            crossed_more[j] = int32(bits_of(tile[uint32(2 * TM + row + j * ROWS)]))
        cuda.syncthreads()
        a_to = place(row, unit)

        for i in range(SUMS):
            sums[i] = ZERO
        # Where this lane's rows of a warp's fragments begin, in a stage.
        warp = quotient(t, int32(LANES))
        lane = remainder(t, int32(LANES))
        down = remainder(warp, int32(WARPS_DOWN))
        across = quotient(warp, int32(WARPS_DOWN))
        a_read = place(int32(down * WM + (lane & 15)), int32(lane >> 4))
        b_read = int32(
            A_STAGE
            + place(int32(across * WN + (lane & 7) + 8 * (lane >> 4)), int32((lane >> 3) & 1))
        )
        # Stages take turns: the one that is filled, and the one that is multiplied.
        fill, stage = int32(0), int32(0)
        s = int32(-AHEAD)
        while s < slices:
            if s >= 0:
                # All but the newest slices have come, to every thread, and the stage that is filled
                # next is done with.
                come()
                cuda.syncthreads()
            if int32(s + AHEAD) < slices:
                for i in range(A_ROWS):
                    there = (bits & crossed[i]) | (bits_more & crossed_more[i]) == 0
                    copy16_kept(
                        tile,
                        uint64(a_to + i * ROWS * DEEP),
                        arena,
                        uint32(a_at[i] + far),
                        there,
                    )
                for i in range(B_ROWS):
                    copy16(
                        tile,
                        uint64(a_to + A_STAGE + i * ROWS * DEEP),
                        params,
                        uint32(b_at + i * ROWS * b_row),
                        True,
                    )
                entry = int32(entry + 4 * UNITS)
                far, bits, bits_more, _ = load4(ints, uint32(entry))
                b_at = int32(b_at + DEEP)
            commit()
            step = int32(STAGE) if fill < AHEAD else int32(-AHEAD * STAGE)
            fill = int32(fill + 1) if fill < AHEAD else int32(0)
            a_to = int32(a_to + step)
            if s >= 0:
                multiply(tile, left, right, sums, a_read, b_read)
                multiply(tile, left, right, sums, a_read ^ 8, b_read ^ 8)
                step = int32(STAGE) if stage < AHEAD else int32(-AHEAD * STAGE)
                stage = int32(stage + 1) if stage < AHEAD else int32(0)
                a_read, b_read = int32(a_read + step), int32(b_read + step)
            s = int32(s + 1)
        all_arrived()
        cuda.syncthreads()
        f = int32(cuda.blockIdx.y * TN + across * WN + 2 * (lane & 3))
        here = int32(down * WM + (lane >> 2))
        end(arena, params, ints, at, tile, sums, group, split, here, f)

    return conv_tensor


TENSOR_KERNELS: dict[tuple[WarpTile, str], Any] = {
    (tile, precision): tiled(tile, precision) for tile in FORWARD for precision in ("tf32", "bf16")
}
