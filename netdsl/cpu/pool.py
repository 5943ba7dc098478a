"""Pools: the maximum or the mean of windows, all of one form.

Each output position of an axis has a window: its first tap, its end, and what it counts in the
divisor, clipped to the input beforehand. So no kernel meets padding, and windowed, adaptive and
global pools are one. NaN propagates through both.
"""

from __future__ import annotations

import numpy as np

from netdsl.cpu.half_pool import half_narrow_pool, half_pool
from netdsl.cpu.lanes import keep, load, maximum, maximum4, splat, store
from netdsl.cpu.late import njit
from netdsl.cpu.launch import share, worker
from netdsl.cpu.layout import PLANE_STRIDE, ROW_STRIDE, Call, axes3
from netdsl.cpu.task import Places, Task
from netdsl.cpu.views import (
    SOURCE,
    TARGET,
    call,
    lanes_of,
    row_at,
    row_count,
    row_place,
    row_width,
)
from netdsl.cpu.windows import window
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
    best = splat(LOWEST)
    for back in range(planes[0], planes[1], planes[2]):
        place = at + back
        a, b = load(arena, place + top), load(arena, place + middle)
        best = maximum4(a, b, load(arena, place + bottom), best)
    return best


@worker
def narrow_max_pool(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """The largest of each window of up to three rows and columns.

    A window always has three of both: one taken twice changes no maximum. A column's maximum is
    kept for as long as the windows that follow have that column too.
    """
    work, columns = row_count(d), row_width(d)
    down, back = d[SOURCE + ROW_STRIDE], d[SOURCE + PLANE_STRIDE]
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, block, z, y = row_place(d, item)
        plane, out = row_at(d, SOURCE, n, block, 0, 0), row_at(d, TARGET, n, block, z, y)
        lanes = lanes_of(d, block)
        first_z, end_z, step_z, _ = window(d, 0, z)
        first_y, end_y, step_y, _ = window(d, 1, y)
        top, bottom = first_y * down, (end_y - 1) * down
        rows = (top, min(top + step_y * down, bottom), bottom)
        planes = (first_z * back, end_z * back, step_z * back)
        a = b = c = splat(LOWEST)
        at_a = at_b = at_c = -1
        for x in range(columns):
            left, end, step, _ = window(d, 2, x)
            right = end - 1
            middle = min(left + step, right)
            if left == at_b:
                a = b
            elif left == at_c:
                a = c
            elif left != at_a:
                a = column(arena, plane + 16 * left, rows, planes)
            if middle == left:
                b = a
            elif middle == at_c:
                b = c
            elif middle != at_b:
                b = column(arena, plane + 16 * middle, rows, planes)
            if right == middle:
                c = b
            elif right != at_c:
                c = column(arena, plane + 16 * right, rows, planes)
            at_a, at_b, at_c = left, middle, right
            store(arena, out + 16 * x, keep(maximum4(a, b, c, c), 0, lanes))


@worker
def max_pool(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """The largest of each window, of any size."""
    work, columns = row_count(d), row_width(d)
    down, back = d[SOURCE + ROW_STRIDE], d[SOURCE + PLANE_STRIDE]
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, block, z, y = row_place(d, item)
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
        n, block, z, y = row_place(d, item)
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
    steps = axes3(steps)
    kernel = average_pool
    if isinstance(op, MaxPool | GlobalMax):
        few = all(
            1 <= len(range(first, end, step)) <= 3
            for axis, step in zip(axes[1:], steps[1:], strict=True)
            for first, end, _ in axis
        )
        narrow, any_size = POOLS[places.output.pairs]
        kernel = narrow if few else any_size
    tables = [number for axis in axes for window in axis for number in window]
    return [call(kernel, task.parts, places.output, places.inputs[0], *steps, *tables)]
