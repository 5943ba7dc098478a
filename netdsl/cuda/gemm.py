"""The tiled convolution: an implicit matrix product, in float32.

Rows are output positions of the batch (m), columns filters (n), and each sums K products (k) of
an input value and a weight. A table says for every k how far its input value lies from that of
the window's first cell, along each axis and in memory, so that one kernel serves 1D to 3D,
dilation, groups, transposed and fully connected layers.

A block holds a tile of m x n sums in registers. Slices of both operands, TK deep, lie in shared
memory twice: while one is multiplied, the next is on its way, and one barrier a slice suffices.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda, float32, int32, uint32, uint64

from netdsl.cuda.arith import inside, quotient, remainder
from netdsl.cuda.functions import bend
from netdsl.cuda.sizes import TILES, Tile

(
    POSITIONS,
    OUT_DEPTH,
    OUT_HEIGHT,
    OUT_WIDTH,
    PRODUCTS,
    FILTERS,
    SOURCE,
    SOURCE_BATCH,
    SOURCE_GROUP,
    DEPTH,
    HEIGHT,
    WIDTH,
    STRIDE_Z,
    STRIDE_Y,
    STRIDE_X,
    START_Z,
    START_Y,
    START_X,
    TABLE,
    WEIGHTS,
    WEIGHTS_GROUP,
    WEIGHTS_ROW,
    TARGET,
    TARGET_BATCH,
    TARGET_FILTER,
    STEP_Z,
    STEP_Y,
    STEP_X,
    BIAS,
    RESIDUAL,
    RESIDUAL_BATCH,
    KIND,
    NUMBERS,
    SPLITS,
    SLICES,
    PARTIAL,
    GROUPS,
    FIELDS,
) = range(38)
"""What the descriptor holds. Of the sums: POSITIONS in the batch, OUT_* of them along each axis,
PRODUCTS each, FILTERS in each of GROUPS. Of the input: where it begins, how far apart samples and
groups lie, its axes, where a window starts. The weights are a matrix (PRODUCTS, WEIGHTS_ROW) a
group. Of the output: where its first value goes, and how far apart samples, filters and positions
lie. RESIDUAL is -1 without one. With SPLITS above 1 each of so many blocks sums SLICES slices and
writes to PARTIAL, (splits, groups x filters, positions)."""

ZERO = np.float32(0)
ALIGNED = 16
"""Bytes: four floats are then read at once."""


@cuda.jit(device=True)
def target_of(ints, at, m):  # type: ignore[no-untyped-def]
    """The sample of position m, and how far from the sample's first output it goes."""
    width = ints[uint32(at + OUT_WIDTH)]
    height = ints[uint32(at + OUT_HEIGHT)]
    depth = ints[uint32(at + OUT_DEPTH)]
    rows = quotient(m, width)
    x = int32(m - rows * width)
    planes = quotient(rows, height)
    y = int32(rows - planes * height)
    n = quotient(planes, depth)
    z = int32(planes - n * depth)
    step = int32(
        z * ints[uint32(at + STEP_Z)]
        + y * ints[uint32(at + STEP_Y)]
        + x * ints[uint32(at + STEP_X)]
    )
    return n, step


@cuda.jit(device=True)
def finished(arena, params, ints, at, total, n, place, f):  # type: ignore[no-untyped-def]
    """A sum with its bias, residual and activation. f counts the filters of all groups."""
    total = total + params[uint32(ints[uint32(at + BIAS)] + f)]
    residual = ints[uint32(at + RESIDUAL)]
    if residual >= 0:
        total = total + arena[uint32(residual + n * ints[uint32(at + RESIDUAL_BATCH)] + place)]
    numbers = ints[uint32(at + NUMBERS)]
    a, b = params[uint32(numbers)], params[uint32(numbers + 1)]
    return bend(ints[uint32(at + KIND)], total, a, b)


def tiled(tile: Tile) -> Any:
    """The kernel for one size of tile. tile.rm and tile.rn divide tile.m and tile.n."""
    TM, TN, TK, RM, RN, VECTOR = tile
    THREADS = tile.threads
    ACROSS = TM // RM
    VM, VN = min(VECTOR, RM), min(VECTOR, RN)
    MS, NS = VM * ACROSS, VN * (TN // RN)
    A_SLICE, B_SLICE = TK * TM, TK * TN
    A_BOTH, B_BOTH, SUMS = 2 * A_SLICE, 2 * B_SLICE, RM * RN
    A_LOADS, B_LOADS = A_SLICE // THREADS, B_SLICE // THREADS
    A_STEP, B_STEP = THREADS // TM, THREADS // TN
    ROWS = TN // RN
    assert ROWS * TM <= A_BOTH
    assert ROWS % A_STEP == 0
    assert A_STEP * TM == B_STEP * TN == THREADS
    assert A_LOADS * A_STEP == B_LOADS * B_STEP == TK

    @cuda.jit
    def conv_tile(arena, params, ints, at):  # type: ignore[no-untyped-def]
        """A tile of sums: grid (tiles of positions, tiles of filters, groups x splits)."""
        a_tile = cuda.shared.array(A_BOTH, float32, ALIGNED)
        b_tile = cuda.shared.array(B_BOTH, float32, ALIGNED)
        sums = cuda.local.array(SUMS, float32)
        a_next = cuda.local.array(A_LOADS, float32)
        b_next = cuda.local.array(B_LOADS, float32)
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

        # What this thread loads: one position at several k, and one filter at several k.
        a_m = remainder(t, int32(TM))
        a_k = quotient(t, int32(TM))
        b_n = remainder(t, int32(TN))
        b_k = quotient(t, int32(TN))
        m = int32(cuda.blockIdx.x * TM + a_m)
        valid = m < positions
        depth = ints[uint32(at + DEPTH)]
        height = ints[uint32(at + HEIGHT)]
        width = ints[uint32(at + WIDTH)]
        rows = quotient(m, ints[uint32(at + OUT_WIDTH)])
        planes = quotient(rows, ints[uint32(at + OUT_HEIGHT)])
        n = quotient(planes, ints[uint32(at + OUT_DEPTH)])
        x0 = int32(
            int32(m - rows * ints[uint32(at + OUT_WIDTH)]) * ints[uint32(at + STRIDE_X)]
            + ints[uint32(at + START_X)]
        )
        y0 = int32(
            int32(rows - planes * ints[uint32(at + OUT_HEIGHT)]) * ints[uint32(at + STRIDE_Y)]
            + ints[uint32(at + START_Y)]
        )
        z0 = int32(
            int32(planes - n * ints[uint32(at + OUT_DEPTH)]) * ints[uint32(at + STRIDE_Z)]
            + ints[uint32(at + START_Z)]
        )
        a_at = int32(
            ints[uint32(at + SOURCE)]
            + n * ints[uint32(at + SOURCE_BATCH)]
            + group * ints[uint32(at + SOURCE_GROUP)]
            + (z0 * height + y0) * width
            + x0
        )
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
        for s in range(int32(-1), slices):
            # The next slice's values are asked for before this slice is multiplied.
            if s + 1 < slices:
                for i in range(A_LOADS):
                    e = int32(entry + 4 * A_STEP * i)
                    value = ZERO
                    if valid:
                        z = int32(z0 + ints[uint32(e + 1)])
                        y = int32(y0 + ints[uint32(e + 2)])
                        x = int32(x0 + ints[uint32(e + 3)])
                        if inside(z, depth) and inside(y, height) and inside(x, width):
                            value = arena[uint32(a_at + ints[uint32(e)])]
                    a_next[i] = value
                for i in range(B_LOADS):
                    b_next[i] = params[uint32(b_at + B_STEP * i * row)]
                entry = int32(entry + 4 * TK)
                b_at = int32(b_at + TK * row)
            if s >= 0:
                half = int32(s & 1)
                for k in range(TK):
                    for i in range(RM):
                        a_row[i] = a_tile[
                            uint64(half * A_SLICE + k * TM + (i // VM) * MS + a_read + i % VM)
                        ]
                    for j in range(RN):
                        b_row[j] = b_tile[
                            uint64(half * B_SLICE + k * TN + (j // VN) * NS + b_read + j % VN)
                        ]
                    for i in range(RM):
                        for j in range(RN):
                            sums[i * RN + j] += a_row[i] * b_row[j]
            if s + 1 < slices:
                other = int32((s + 1) & 1)
                for i in range(A_LOADS):
                    a_tile[uint32(other * A_SLICE + (a_k + A_STEP * i) * TM + a_m)] = a_next[i]
                for i in range(B_LOADS):
                    b_tile[uint32(other * B_SLICE + (b_k + B_STEP * i) * TN + b_n)] = b_next[i]
            cuda.syncthreads()

        # The sums go out by way of shared memory, a column of each thread at a time, so that
        # neighbouring threads write neighbouring positions.
        base = int32(ints[uint32(at + TARGET)])
        line = int32(ints[uint32(at + TARGET_FILTER)])
        if splits > 1:
            base = int32(
                ints[uint32(at + PARTIAL)] + split * ints[uint32(at + GROUPS)] * filters * positions
            )
        m = int32(cuda.blockIdx.x * TM + a_m)
        n, step = target_of(ints, at, m)
        for column in range(int32(RN)):
            for j in range(RN):
                if j == column:
                    for i in range(RM):
                        a_tile[uint64(down * TM + (i // VM) * MS + a_read + i % VM)] = sums[
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
                    total = a_tile[uint32(read)]
                    all_f = int32(group * filters + f)
                    if splits == 1:
                        place = int32(step + all_f * line)
                        to = int32(base + n * ints[uint32(at + TARGET_BATCH)] + place)
                        arena[uint32(to)] = finished(
                            arena, params, ints, at, total, n, place, all_f
                        )
                    else:
                        arena[uint32(base + all_f * positions + m)] = total
                read = int32(read + THREADS)
                f = int32(f + A_STEP * VN)
            cuda.syncthreads()

    return conv_tile


KERNELS: dict[Tile, Any] = {tile: tiled(tile) for tile in TILES}


@cuda.jit
def conv_finish(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Adds up the sums that were split, a thread an output: grid (outputs / threads)."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    positions = ints[uint32(at + POSITIONS)]
    lines = int32(ints[uint32(at + GROUPS)] * ints[uint32(at + FILTERS)])
    if i >= int32(positions * lines):
        return
    partial = int32(ints[uint32(at + PARTIAL)] + i)
    total = ZERO
    for _ in range(ints[uint32(at + SPLITS)]):
        total += arena[uint32(partial)]
        partial = int32(partial + positions * lines)
    f = quotient(i, positions)
    n, step = target_of(ints, at, int32(i - f * positions))
    place = int32(step + f * ints[uint32(at + TARGET_FILTER)])
    to = int32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)] + place)
    arena[uint32(to)] = finished(arena, params, ints, at, total, n, place, f)


@cuda.jit
def conv_direct(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """A thread an output, for groups of few filters: grid (outputs / threads)."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    positions = ints[uint32(at + POSITIONS)]
    filters = ints[uint32(at + FILTERS)]
    if i >= int32(positions * ints[uint32(at + GROUPS)] * filters):
        return
    f = quotient(i, positions)
    m = int32(i - f * positions)
    group = quotient(f, filters)
    width = ints[uint32(at + OUT_WIDTH)]
    height = ints[uint32(at + OUT_HEIGHT)]
    depth = ints[uint32(at + OUT_DEPTH)]
    rows = quotient(m, width)
    planes = quotient(rows, height)
    n = quotient(planes, depth)
    x0 = int32(int32(m - rows * width) * ints[uint32(at + STRIDE_X)] + ints[uint32(at + START_X)])
    y0 = int32(
        int32(rows - planes * height) * ints[uint32(at + STRIDE_Y)] + ints[uint32(at + START_Y)]
    )
    z0 = int32(int32(planes - n * depth) * ints[uint32(at + STRIDE_Z)] + ints[uint32(at + START_Z)])
    source = int32(
        ints[uint32(at + SOURCE)]
        + n * ints[uint32(at + SOURCE_BATCH)]
        + group * ints[uint32(at + SOURCE_GROUP)]
        + (z0 * ints[uint32(at + HEIGHT)] + y0) * ints[uint32(at + WIDTH)]
        + x0
    )
    weight = int32(
        ints[uint32(at + WEIGHTS)]
        + group * ints[uint32(at + WEIGHTS_GROUP)]
        + remainder(f, filters)
    )
    row = ints[uint32(at + WEIGHTS_ROW)]
    entry = ints[uint32(at + TABLE)]
    total = ZERO
    for _ in range(ints[uint32(at + PRODUCTS)]):
        z = int32(z0 + ints[uint32(entry + 1)])
        y = int32(y0 + ints[uint32(entry + 2)])
        x = int32(x0 + ints[uint32(entry + 3)])
        if (
            inside(z, ints[uint32(at + DEPTH)])
            and inside(y, ints[uint32(at + HEIGHT)])
            and inside(x, ints[uint32(at + WIDTH)])
        ):
            total += arena[uint32(source + ints[uint32(entry)])] * params[uint32(weight)]
        entry = int32(entry + 4)
        weight = int32(weight + row)
    n, step = target_of(ints, at, m)
    place = int32(step + f * ints[uint32(at + TARGET_FILTER)])
    to = int32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)] + place)
    arena[uint32(to)] = finished(arena, params, ints, at, total, n, place, f)
