"""Pools: the maximum or the mean of windows, all of one form.

Each output position of an axis has a window: its first tap, its end, and what it counts in the
divisor, clipped to the input beforehand. So no kernel meets padding, and windowed, adaptive and
global pools are one. NaN propagates through both.
"""

from __future__ import annotations

from math import gcd

import numpy as np

from netdsl.cpu.half_pool import half_narrow_pool, half_pool
from netdsl.cpu.lanes import keep, load, maximum, maximum3, splat, store
from netdsl.cpu.late import njit
from netdsl.cpu.launch import share, worker
from netdsl.cpu.layout import HEIGHT, PLANE_STRIDE, ROW_STRIDE, Buffer, Call, axes3
from netdsl.cpu.task import Places, Task
from netdsl.cpu.views import (
    SOURCE,
    TARGET,
    call,
    lanes_of,
    row_at,
    row_count,
    row_width,
    striped_place,
)
from netdsl.cpu.windows import EVEN, STRIPES, even, window
from netdsl.graph.taps import axis_windows
from netdsl.ops import AdaptiveAveragePool, AveragePool, GlobalMax, MaxPool

LOWEST = np.float32(-np.inf)
PART = 8
"""Columns of a window that are summed one after the other."""


@njit(forceinline=True)
def column(arena, at, rows, planes):  # type: ignore[no-untyped-def]
    """The largest of one column of a window of up to three rows.

    rows: where the top, middle and bottom one lie; planes: the first, the end and the step.
    """
    top, middle, bottom = rows
    first, end, step = planes
    place = at + first
    best = largest_of(arena, place + top, place + middle, place + bottom)
    for back in range(first + step, end, step):
        place = at + back
        best = maximum(largest_of(arena, place + top, place + middle, place + bottom), best)
    return best


@njit(forceinline=True)
def largest_of(arena, a, b, c):  # type: ignore[no-untyped-def]
    """The largest of three vectors of the arena."""
    return maximum3(load(arena, a), load(arena, b), load(arena, c))


@njit(forceinline=True)
def one_by_one(arena, d, plane, out, rows, planes):  # type: ignore[no-untyped-def]
    """A row of outputs, each window by itself.

    A window always has three columns: one taken twice changes no maximum.
    """
    for x in range(row_width(d)):
        left, end, step, _ = window(d, 2, x)
        right = end - 1
        middle = min(left + step, right)
        a = column(arena, plane + 16 * left, rows, planes)
        b = column(arena, plane + 16 * middle, rows, planes)
        c = column(arena, plane + 16 * right, rows, planes)
        store(arena, out + 16 * x, maximum3(a, b, c))


@njit(forceinline=True)
def in_pairs(arena, plane, out, count, rows, planes):  # type: ignore[no-untyped-def]
    """A row of outputs whose windows are the columns two by two."""
    for x in range(count):
        a = column(arena, plane + 32 * x, rows, planes)
        b = column(arena, plane + 32 * x + 16, rows, planes)
        store(arena, out + 16 * x, maximum3(a, b, b))


@njit(forceinline=True)
def in_threes(arena, d, plane, out, rows, planes):  # type: ignore[no-untyped-def]
    """A row of outputs whose windows are three neighbouring columns, and start one or two columns
    apart. Columns that two windows share stay in registers; of those outside of the image, which
    only the first window or the last may have, nothing is the largest."""
    apart, before, after = d[EVEN + 1], d[EVEN + 2], d[EVEN + 3]
    last = row_width(d) - 1
    a, b, c = splat(LOWEST), splat(LOWEST), splat(LOWEST)
    plane -= 16 * before
    if before == 0:
        a = column(arena, plane, rows, planes)
    if apart == 1:
        b = column(arena, plane + 16, rows, planes)
        for x in range(last):
            c = column(arena, plane + 16 * x + 32, rows, planes)
            store(arena, out + 16 * x, maximum3(a, b, c))
            a, b = b, c
    else:
        for x in range(last):
            b = column(arena, plane + 32 * x + 16, rows, planes)
            c = column(arena, plane + 32 * x + 32, rows, planes)
            store(arena, out + 16 * x, maximum3(a, b, c))
            a = c
        b = splat(LOWEST)
        if after < 2:
            b = column(arena, plane + 32 * last + 16, rows, planes)
    c = splat(LOWEST)
    if after == 0:
        c = column(arena, plane + 16 * apart * last + 32, rows, planes)
    store(arena, out + 16 * last, maximum3(a, b, c))


@worker
def narrow_max_pool(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """The largest of each window of up to three rows and columns.

    A window always has three rows: one taken twice changes no maximum.
    """
    work, height = row_count(d), d[TARGET + HEIGHT] // d[STRIPES]
    down, back = d[SOURCE + ROW_STRIDE], d[SOURCE + PLANE_STRIDE]
    at, end = share(work, part, parts), share(work, part + 1, parts)
    while at < end:
        n, block, z, first = striped_place(d, at, d[STRIPES])
        count = min(height - at % height, end - at)
        at += count
        plane, out = row_at(d, SOURCE, n, block, 0, 0), row_at(d, TARGET, n, block, z, first)
        first_z, end_z, step_z, _ = window(d, 0, z)
        planes = (first_z * back, end_z * back, step_z * back)
        for y in range(first, first + count):
            first_y, end_y, step_y, _ = window(d, 1, y)
            top, bottom = first_y * down, (end_y - 1) * down
            rows = (top, min(top + step_y * down, bottom), bottom)
            if d[EVEN] == 3:
                in_threes(arena, d, plane, out, rows, planes)
            elif d[EVEN] == 2:
                in_pairs(arena, plane, out, row_width(d), rows, planes)
            else:
                one_by_one(arena, d, plane, out, rows, planes)
            out += d[TARGET + ROW_STRIDE]


@worker
def max_pool(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """The largest of each window, of any size."""
    work, columns = row_count(d), row_width(d)
    down, back = d[SOURCE + ROW_STRIDE], d[SOURCE + PLANE_STRIDE]
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, block, z, y = striped_place(d, item, d[STRIPES])
        plane, out = row_at(d, SOURCE, n, block, 0, 0), row_at(d, TARGET, n, block, z, y)
        # A window of nothing but padding gives -inf, which lanes without a channel must not hold.
        lanes = lanes_of(d, block)
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
            store(arena, out + 16 * x, keep(best, 0, lanes))


@worker
def average_pool(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """The mean of each window, summed in parts of a row so that long sums stay exact."""
    work, columns = row_count(d), row_width(d)
    down, back = d[SOURCE + ROW_STRIDE], d[SOURCE + PLANE_STRIDE]
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, block, z, y = striped_place(d, item, d[STRIPES])
        plane, out = row_at(d, SOURCE, n, block, 0, 0), row_at(d, TARGET, n, block, z, y)
        lanes = lanes_of(d, block)
        first_z, end_z, step_z, count_z = window(d, 0, z)
        first_y, end_y, step_y, count_y = window(d, 1, y)
        for x in range(columns):
            first_x, end_x, step_x, count_x = window(d, 2, x)
            total = splat(np.float32(0.0))
            for i in range(first_z, end_z, step_z):
                for j in range(first_y, end_y, step_y):
                    row = plane + i * back + j * down
                    for left in range(first_x, end_x, PART * step_x):
                        along = splat(np.float32(0.0))
                        for k in range(left, min(end_x, left + PART * step_x), step_x):
                            along += load(arena, row + 16 * k)
                        total += along
            mean = total / np.float32(count_z * count_y * count_x)
            store(arena, out + 16 * x, keep(mean, 0, lanes))


POOLS = {False: (narrow_max_pool, max_pool), True: (half_narrow_pool, half_pool)}
"""Max pools of windows of up to three rows and columns, and of any, of floats and of bfloat16."""


def plan_pool(task: Task, places: Places) -> list[Call]:
    """The calls of any pool."""
    return [pool_rows(task, places.output, places.inputs[0], slice(None), task.parts)]


def pool_rows(task: Task, output: Buffer, source: Buffer, rows: slice, parts: int) -> Call:
    """The call that makes these rows of each plane of any pool's output, which is all of them in
    `output`, on so many threads."""
    op, spatial = task.whole.base, task.shapes[0][1:]
    steps: tuple[int, ...] = (1,) * len(spatial)
    if isinstance(op, MaxPool | AveragePool):
        count_pad = isinstance(op, AveragePool) and op.count_pad
        sizes = zip(spatial, task.node.shape[1:], strict=True)
        steps = op.window.dilation
        axes = [axis_windows(op.window, i, n, m, count_pad) for i, (n, m) in enumerate(sizes)]
    elif isinstance(op, AdaptiveAveragePool):
        axes = [[(lo, hi, hi - lo) for lo, hi in axis] for axis in op.windows(spatial)]
    else:
        axes = [[(0, size, size)] for size in spatial]
    axes = [[(0, 1, 1)]] * (3 - len(axes)) + axes
    axes[1] = axes[1][rows]
    steps = axes3(steps)
    kernel = average_pool
    if isinstance(op, MaxPool | GlobalMax):
        counts = [
            {len(range(first, end, step)) for first, end, _ in axis}
            for axis, step in zip(axes, steps, strict=True)
        ]
        few = min(map(min, counts)) > 0 and max(map(max, counts[1:])) <= 3
        narrow, any_size = POOLS[output.pairs]
        kernel = narrow if few else any_size
    tables = [number for axis in axes for window in axis for number in window]
    own = (gcd(output.size[1], parts), *even(axes[2], steps[2]), *steps, *tables)
    return call(kernel, parts, output, source, *own)
