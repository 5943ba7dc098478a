"""Pools: the maximum or the mean of windows, all of one form.

Each output position of an axis has a window: its first tap, its end, and what it counts in the
divisor, clipped to the input beforehand. So no kernel meets padding, and windowed, adaptive and
global pools are one. NaN propagates through both.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from netdsl.cpu.lanes import load, maximum, splat, store
from netdsl.cpu.launch import share, worker
from netdsl.cpu.layout import DEPTH, HEIGHT, PLANE_STRIDE, ROW_STRIDE
from netdsl.cpu.views import OWN, SOURCE, TARGET, row_at, row_count, row_place, row_width

STEPS = OWN
WINDOWS = OWN + 3
LOWEST = np.float32(-np.inf)


@njit(forceinline=True)
def window(d, axis, i):  # type: ignore[no-untyped-def]
    """First tap, end, step and count of the i-th window of an axis (depth, rows, columns)."""
    at = i
    if axis > 0:
        at += d[TARGET + DEPTH]
    if axis > 1:
        at += d[TARGET + HEIGHT]
    at = WINDOWS + 3 * at
    return d[at], d[at + 1], d[STEPS + axis], d[at + 2]


@worker
def max_pool(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """The largest of each window."""
    work, columns = row_count(d), row_width(d)
    down, back = d[SOURCE + ROW_STRIDE], d[SOURCE + PLANE_STRIDE]
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b, z, y = row_place(d, item)
        plane, out = row_at(d, SOURCE, n, b, 0, 0), row_at(d, TARGET, n, b, z, y)
        first_z, end_z, step_z, _ = window(d, 0, z)
        first_y, end_y, step_y, _ = window(d, 1, y)
        for x in range(columns):
            first_x, end_x, step_x, _ = window(d, 2, x)
            best = splat(LOWEST)
            for i in range(first_z, end_z, step_z):
                for j in range(first_y, end_y, step_y):
                    row = plane + i * back + j * down
                    for k in range(first_x, end_x, step_x):
                        best = maximum(load(arena, row + 16 * k), best)
            store(arena, out + 16 * x, best)


@worker
def average_pool(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """The mean of each window, summed row by row so that long sums stay exact."""
    work, columns = row_count(d), row_width(d)
    down, back = d[SOURCE + ROW_STRIDE], d[SOURCE + PLANE_STRIDE]
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b, z, y = row_place(d, item)
        plane, out = row_at(d, SOURCE, n, b, 0, 0), row_at(d, TARGET, n, b, z, y)
        first_z, end_z, step_z, count_z = window(d, 0, z)
        first_y, end_y, step_y, count_y = window(d, 1, y)
        for x in range(columns):
            first_x, end_x, step_x, count_x = window(d, 2, x)
            total = splat(np.float32(0.0))
            for i in range(first_z, end_z, step_z):
                for j in range(first_y, end_y, step_y):
                    row = plane + i * back + j * down
                    along = splat(np.float32(0.0))
                    for k in range(first_x, end_x, step_x):
                        along += load(arena, row + 16 * k)
                    total += along
            store(arena, out + 16 * x, total / np.float32(count_z * count_y * count_x))
