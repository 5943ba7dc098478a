"""The product of the ways back where a tile would be mostly empty: groups of few rows or columns.

Tables tell how far each window starts, and each cell lies, along every axis: so any number of edges
will do.
"""

from __future__ import annotations

import numpy as np
from numba import cuda, float32, int32, uint32

from netdsl.cuda.arith import inside, quotient
from netdsl.cuda.backward.product import (
    COLUMNS,
    FIELDS,
    LEFT,
    LEFT_BATCH,
    LEFT_GROUP,
    LEFT_ROW,
    PART,
    PARTIAL,
    PLANE,
    PRODUCTS,
    ROWS,
    SOURCE,
    SOURCE_BATCH,
    SOURCE_GROUP,
    SPLITS,
    TABLE,
    TARGET,
    TARGET_COLUMN,
    TARGET_GROUP,
    TARGET_ROW,
    WINDOWS,
)
from netdsl.cuda.sizes import THREADS

SIZE = FIELDS
"""After a product's own fields: where B's axes stand. WINDOWS and TABLE hold, after how far the
window or cell lies, how far along each axis."""

ZERO = np.float32(0)


@cuda.jit
def product_direct(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """A block a part of a sum: grid (groups x rows x columns, splits)."""
    shared = cuda.shared.array(THREADS, float32)
    t = int32(cuda.threadIdx.x)
    i = int32(cuda.blockIdx.x)
    rows = ints[uint32(at + ROWS)]
    columns = ints[uint32(at + COLUMNS)]
    every_row = quotient(i, columns)
    column = int32(i - every_row * columns)
    group = quotient(every_row, rows)
    row = int32(every_row - group * rows)
    plane = ints[uint32(at + PLANE)]
    windows = ints[uint32(at + WINDOWS)]
    left = int32(
        ints[uint32(at + LEFT)]
        + group * ints[uint32(at + LEFT_GROUP)]
        + row * ints[uint32(at + LEFT_ROW)]
    )
    entry = int32(ints[uint32(at + TABLE)] + 4 * column)
    cell, z = ints[uint32(entry)], ints[uint32(entry + 1)]
    y, x = ints[uint32(entry + 2)], ints[uint32(entry + 3)]
    size = ints[uint32(at + SIZE)]
    depth, height, width = ints[uint32(size)], ints[uint32(size + 1)], ints[uint32(size + 2)]
    source = int32(ints[uint32(at + SOURCE)] + group * ints[uint32(at + SOURCE_GROUP)])
    start = int32(cuda.blockIdx.y * ints[uint32(at + PART)])
    end = int32(start + ints[uint32(at + PART)])
    if end > ints[uint32(at + PRODUCTS)]:
        end = ints[uint32(at + PRODUCTS)]
    total = ZERO
    for k in range(int32(start + t), end, int32(THREADS)):
        n = quotient(int32(k), plane)
        p = int32(k - n * plane)
        value = arena[uint32(left + n * ints[uint32(at + LEFT_BATCH)] + p)]
        window = int32(windows + 4 * p)
        if (
            inside(int32(z + ints[uint32(window + 1)]), depth)
            and inside(int32(y + ints[uint32(window + 2)]), height)
            and inside(int32(x + ints[uint32(window + 3)]), width)
        ):
            far = int32(ints[uint32(window)] + cell)
            to = uint32(source + n * ints[uint32(at + SOURCE_BATCH)] + far)
            total += value * arena[to]
    shared[uint32(t)] = total
    cuda.syncthreads()
    half = int32(THREADS // 2)
    while half > 0:
        if t < half:
            shared[uint32(t)] += shared[uint32(t + half)]
        cuda.syncthreads()
        half = int32(half // 2)
    if t == 0:
        whole = int32(cuda.blockIdx.y * cuda.gridDim.x + i)
        to = int32(ints[uint32(at + PARTIAL)] + whole)
        if ints[uint32(at + SPLITS)] == 1:
            to = int32(
                ints[uint32(at + TARGET)]
                + group * ints[uint32(at + TARGET_GROUP)]
                + row * ints[uint32(at + TARGET_ROW)]
                + column * ints[uint32(at + TARGET_COLUMN)]
            )
        arena[uint32(to)] = shared[uint32(0)]
