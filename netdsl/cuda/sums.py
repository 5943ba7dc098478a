"""What the kernels of convolutions share: their descriptor, and where and how a sum ends.

Rows are output positions of the batch (m), columns filters (n), and each sums K products (k) of
an input value and a weight.
"""

from __future__ import annotations

import numpy as np
from numba import cuda, int32, uint32

from netdsl.cuda.arith import quotient
from netdsl.cuda.functions import bend

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
    EDGES,
    EDGE,
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
    CELL,
    PACKED,
    PACKED_BATCH,
    PACKED_CELL,
    EACH,
    FIELDS,
) = range(45)
"""What the descriptor holds. Of the sums: POSITIONS in the batch, OUT_* of them along each axis,
PRODUCTS each, FILTERS in each of GROUPS. Of the input: where it begins, how far apart samples and
groups lie, its axes, where a window starts. EDGES pairs from EDGE on: an axis and a cell's distance
along it from the window's start, for cells that may lie outside. TABLE: see gemm.py; or for
`conv_direct`. The weights are a matrix (PRODUCTS, WEIGHTS_ROW) a
group. Of the output: where its first value goes, and how far apart samples, filters and positions
lie; below 0 where it is written packed alone. RESIDUAL is -1 without one. With SPLITS above 1 each
of so many blocks sums SLICES slices and writes to PARTIAL, (splits, groups x filters, positions).
CELL: how far apart neighbouring cells of the input lie, see tensor.py. PACKED: where the output
goes packed (see pack.py), below 0 if nowhere; how far apart samples and positions lie there; EACH,
channels of a word."""

EDGE_BITS = 30
"""Edges that a word of the table tells of."""

MOST_EDGES = 2 * EDGE_BITS

OUTSIDE = 1 << EDGE_BITS
"""The bit of the first word that says a position exists, and of the second for products past the
last: what a table's entry has set and a thread has too is zero."""

ZERO = np.float32(0)


@cuda.jit(device=True)
def position_of(ints, at, m):  # type: ignore[no-untyped-def]
    """The sample of position m, and its place along each axis."""
    width = ints[uint32(at + OUT_WIDTH)]
    height = ints[uint32(at + OUT_HEIGHT)]
    depth = ints[uint32(at + OUT_DEPTH)]
    rows = quotient(m, width)
    planes = quotient(rows, height)
    n = quotient(planes, depth)
    return n, int32(planes - n * depth), int32(rows - planes * height), int32(m - rows * width)


@cuda.jit(device=True)
def window_of(ints, at, m):  # type: ignore[no-untyped-def]
    """The sample of position m, and where its window starts along each axis of the input."""
    n, z, y, x = position_of(ints, at, m)
    z0 = int32(z * ints[uint32(at + STRIDE_Z)] + ints[uint32(at + START_Z)])
    y0 = int32(y * ints[uint32(at + STRIDE_Y)] + ints[uint32(at + START_Y)])
    x0 = int32(x * ints[uint32(at + STRIDE_X)] + ints[uint32(at + START_X)])
    return n, z0, y0, x0


@cuda.jit(device=True)
def target_of(ints, at, m):  # type: ignore[no-untyped-def]
    """The sample of position m, and how far from the sample's first output it goes."""
    n, z, y, x = position_of(ints, at, m)
    step = int32(
        z * ints[uint32(at + STEP_Z)]
        + y * ints[uint32(at + STEP_Y)]
        + x * ints[uint32(at + STEP_X)]
    )
    return n, step


@cuda.jit(device=True)
def packed_of(ints, at, m):  # type: ignore[no-untyped-def]
    """Where the channels of position m begin in the packed output; below 0 past the last position,
    and without one."""
    packed = ints[uint32(at + PACKED)]
    if packed < 0 or m >= ints[uint32(at + POSITIONS)]:
        return int32(-1)
    n, step = target_of(ints, at, m)
    sample = int32(packed + n * ints[uint32(at + PACKED_BATCH)])
    return int32(sample + step * ints[uint32(at + PACKED_CELL)])


@cuda.jit(device=True)
def finished(arena, params, total, bias, residual, kind, a, b):  # type: ignore[no-untyped-def]
    """A sum with its bias (in params), residual (in the arena, or below 0), and activation."""
    total = total + params[uint32(bias)]
    if residual >= 0:
        total = total + arena[uint32(residual)]
    return bend(kind, total, a, b)


@cuda.jit(device=True)
def residual_of(ints, at, n, place):  # type: ignore[no-untyped-def]
    """Where the residual of an output lies, `place` floats into sample n; below 0 without one."""
    residual = ints[uint32(at + RESIDUAL)]
    if residual < 0:
        return int32(-1)
    return int32(residual + n * ints[uint32(at + RESIDUAL_BATCH)] + place)
