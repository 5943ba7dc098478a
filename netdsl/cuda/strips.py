"""Pools by the usual windows: a thread some outputs of a column, and each input read once for them.

A strip of outputs below each other shares rows of the input. Rows and columns are clamped to it, so
that every load is in bounds and none waits for a test: those of a strip are under way together. A
cell outside is then one of the edge a second time, which changes no maximum; in a mean it is zero.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import cuda, float32, int32, uint32, uint64

from netdsl.cuda.arith import MOST, divided, reciprocal
from netdsl.cuda.layout import Call, axes, spread
from netdsl.cuda.rows import place
from netdsl.cuda.sizes import SIMULATED
from netdsl.cuda.task import Task
from netdsl.cuda.warp import larger, load4
from netdsl.ops import AveragePool, MaxPool, Op

PLACES, COUNT, OUT, WIDTHS, DEPTHS, BEFORE, END = range(0, 28, 4)
"""Where fours of the descriptor's fields begin, each read at once. PLACES: the input, how far apart
its samples lie, and the same of the output. COUNT: strips of a sample; the input's depth, height
and width. OUT: those of the output, and strips of a column. WIDTHS: the reciprocals of the output's
width and of these strips. DEPTHS: that of the output's depth; a window's depth and its stride.
BEFORE: padding before each axis, and where cells that a mean counts begin on all. END: where they
end on each."""
KEPT, SAMPLE = 28, 29
"""Where taps are noted, and outputs of a sample."""

ZERO, THIRD, HALF, ONE = np.float32(0), np.float32(1 / 3), np.float32(0.5), np.float32(1)
LEAST = np.float32(-np.inf)
ANYWHERE = -(1 << 30)


class Window(NamedTuple):
    """Rows and columns of a window, how far the next lies from it, outputs of a strip."""

    size: int
    stride: int
    outputs: int

    @property
    def rows(self) -> int:
        """Rows of the input that a strip reads."""
        return (self.outputs - 1) * self.stride + self.size


WINDOWS = (
    Window(2, 2, 2 if SIMULATED else 4),
    Window(3, 2, 2 if SIMULATED else 4),
    Window(2, 1, 3 if SIMULATED else 8),
    Window(3, 1, 3 if SIMULATED else 8),
    Window(5, 1, 2 if SIMULATED else 8),
)


@cuda.jit(device=True)
def clamped(i, size):  # type: ignore[no-untyped-def]
    """The index of an axis that lies nearest."""
    return min(max(i, int32(0)), int32(size - 1))


def strip_by(window: Window) -> Any:
    """The device function that says of strip i of a sample its channel, its first output's place in
    the sample and row, and where the window of that one begins along each axis."""
    S, R = window.stride, window.outputs

    @cuda.jit(device=True)
    def strip_of(ints, at, i):  # type: ignore[no-untyped-def]
        depth, height, width, strips = load4(ints, uint64(at + OUT))
        by_width, width_shift, by_strips, strips_shift = load4(ints, uint64(at + WIDTHS))
        by_depth, depth_shift, _, stride = load4(ints, uint64(at + DEPTHS))
        before, above, left, _ = load4(ints, uint64(at + BEFORE))
        lines = divided(i, by_width, width_shift)
        planes = divided(lines, by_strips, strips_shift)
        c = divided(planes, by_depth, depth_shift)
        x, z = int32(i - lines * width), int32(planes - c * depth)
        y = int32((lines - planes * strips) * R)
        first = int32((planes * height + y) * width + x)
        return c, first, y, int32(z * stride - before), int32(y * S - above), int32(x * S - left)

    return strip_of


def read_by(window: Window) -> Any:
    """The device function that puts the cells of a strip into `cells`, row by row. plane: where the
    plane of the input that they lie in begins."""
    K, ROWS = window.size, window.rows

    @cuda.jit(device=True)
    def read(cells, arena, plane, y0, columns, height, width):  # type: ignore[no-untyped-def]
        for r in range(ROWS):
            row = int32(plane + clamped(int32(y0 + r), height) * width)
            for k in range(K):
                cells[r * K + k] = arena[uint32(row + columns[k])]

    return read


def largest_by(window: Window) -> Any:
    """The kernel of a max pool."""
    K, S, R, ROWS = window.size, window.stride, window.outputs, window.rows
    CELLS = ROWS * K
    strip_of, read = strip_by(window), read_by(window)

    @cuda.jit
    def max_strips(arena, params, ints, at):  # type: ignore[no-untyped-def]
        """The largest of windows, NaN where there is one: grid (strips of a sample / threads,
        samples)."""
        i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
        n = int32(cuda.blockIdx.y)
        count, depth, height, width = load4(ints, uint64(at + COUNT))
        if i >= count:
            return
        c, first, y, z0, y0, x0 = strip_of(ints, at, i)
        columns = cuda.local.array(K, int32)
        cells = cuda.local.array(CELLS, float32)
        rows = cuda.local.array(ROWS, float32)
        best = cuda.local.array(R, float32)
        for k in range(K):
            columns[k] = clamped(int32(x0 + k), width)
        for o in range(R):
            best[o] = LEAST
        source, source_batch, target, target_batch = load4(ints, uint64(at + PLACES))
        source = int32(source + n * source_batch + c * depth * height * width)
        deep = ints[uint64(at + DEPTHS + 2)]
        for z in range(max(z0, int32(0)), min(int32(z0 + deep), depth)):
            read(cells, arena, int32(source + z * height * width), y0, columns, height, width)
            for r in range(ROWS):
                rows[r] = cells[r * K]
                for k in range(1, K):
                    rows[r] = larger(rows[r], cells[r * K + k])
            for o in range(R):
                for k in range(K):
                    best[o] = larger(best[o], rows[o * S + k])
        out_height, out_width = ints[uint64(at + OUT + 1)], ints[uint64(at + OUT + 2)]
        target = int32(target + n * target_batch + first)
        for o in range(R):
            if int32(y + o) < out_height:
                arena[uint32(target + int32(o) * out_width)] = best[o]

    return max_strips


def noting_by(window: Window) -> Any:
    """The kernel of a max pool that notes which tap of each window was the largest, the first where
    several are."""
    K, S, R, CELLS = window.size, window.stride, window.outputs, window.rows * window.size
    strip_of, read = strip_by(window), read_by(window)

    @cuda.jit
    def max_strips_noting(arena, params, ints, at):  # type: ignore[no-untyped-def]
        """The largest of windows, and their taps: grid (strips of a sample / threads, samples)."""
        i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
        n = int32(cuda.blockIdx.y)
        count, depth, height, width = load4(ints, uint64(at + COUNT))
        if i >= count:
            return
        c, first, y, z0, y0, x0 = strip_of(ints, at, i)
        columns = cuda.local.array(K, int32)
        cells = cuda.local.array(CELLS, float32)
        best = cuda.local.array(R, float32)
        taps = cuda.local.array(R, int32)
        for k in range(K):
            columns[k] = clamped(int32(x0 + k), width)
        begin = max(z0, int32(0))
        for o in range(R):
            # Where all is -inf, the first cell that is none of the padding.
            top = int32(y0 + o * S)
            best[o] = LEAST
            taps[o] = int32(((begin - z0) * K + clamped(top, height) - top) * K + columns[0] - x0)
        source, source_batch, target, target_batch = load4(ints, uint64(at + PLACES))
        source = int32(source + n * source_batch + c * depth * height * width)
        deep = ints[uint64(at + DEPTHS + 2)]
        for z in range(begin, min(int32(z0 + deep), depth)):
            read(cells, arena, int32(source + z * height * width), y0, columns, height, width)
            for o in range(R):
                top = int32(y0 + o * S)
                for r in range(K):
                    down = int32(clamped(int32(top + r), height) - top)
                    line = int32(((z - z0) * K + down) * K - x0)
                    for k in range(K):
                        value = cells[(o * S + r) * K + k]
                        if value > best[o] or value != value:
                            best[o], taps[o] = value, int32(line + columns[k])
        out_height, out_width = ints[uint64(at + OUT + 1)], ints[uint64(at + OUT + 2)]
        target = int32(target + n * target_batch + first)
        kept = int32(ints[uint64(at + KEPT)] + n * ints[uint64(at + SAMPLE)] + first)
        for o in range(R):
            if int32(y + o) < out_height:
                arena[uint32(target + int32(o) * out_width)] = best[o]
                arena[uint32(kept + int32(o) * out_width)] = float32(taps[o])

    return max_strips_noting


@cuda.jit(device=True)
def counted(start, size, begin, end):  # type: ignore[no-untyped-def]
    """Cells of a window along an axis that a mean counts."""
    return int32(min(int32(start + size), end) - max(start, begin))


@cuda.jit(device=True)
def one_by(rows):  # type: ignore[no-untyped-def]
    """1 / rows of a window, of which there are one to three: a division would be some ten
    instructions and a branch."""
    return ONE if rows == 1 else (HALF if rows == 2 else THIRD)


def mean_by(window: Window) -> Any:
    """The kernel of an average pool."""
    K, S, R, ROWS = window.size, window.stride, window.outputs, window.rows
    CELLS = ROWS * K
    strip_of, read = strip_by(window), read_by(window)

    @cuda.jit
    def mean_strips(arena, params, ints, at):  # type: ignore[no-untyped-def]
        """The mean of windows: grid (strips of a sample / threads, samples)."""
        i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
        n = int32(cuda.blockIdx.y)
        count, depth, height, width = load4(ints, uint64(at + COUNT))
        if i >= count:
            return
        c, first, y, z0, y0, x0 = strip_of(ints, at, i)
        columns = cuda.local.array(K, int32)
        cells = cuda.local.array(CELLS, float32)
        rows = cuda.local.array(ROWS, float32)
        totals = cuda.local.array(R, float32)
        for k in range(K):
            columns[k] = clamped(int32(x0 + k), width)
        for o in range(R):
            totals[o] = ZERO
        source, source_batch, target, target_batch = load4(ints, uint64(at + PLACES))
        source = int32(source + n * source_batch + c * depth * height * width)
        deep = ints[uint64(at + DEPTHS + 2)]
        for z in range(max(z0, int32(0)), min(int32(z0 + deep), depth)):
            read(cells, arena, int32(source + z * height * width), y0, columns, height, width)
            for r in range(ROWS):
                total = cells[r * K] if columns[0] == x0 else ZERO
                for k in range(1, K):
                    total += cells[r * K + k] if columns[k] == int32(x0 + k) else ZERO
                line = int32(y0 + r)
                rows[r] = total if clamped(line, height) == line else ZERO
            for o in range(R):
                for k in range(K):
                    totals[o] += rows[o * S + k]
        end, below, right, _ = load4(ints, uint64(at + END))
        begin = ints[uint64(at + BEFORE + 3)]
        across = int32(counted(z0, deep, begin, end) * counted(x0, int32(K), begin, right))
        share = ONE / float32(across)
        out_height, out_width = ints[uint64(at + OUT + 1)], ints[uint64(at + OUT + 2)]
        target = int32(target + n * target_batch + first)
        for o in range(R):
            if int32(y + o) < out_height:
                down = counted(int32(y0 + o * S), int32(K), begin, below)
                mean = totals[o] * (share * one_by(down))
                arena[uint32(target + int32(o) * out_width)] = mean

    return mean_strips


LARGEST: dict[Window, Any] = {window: largest_by(window) for window in WINDOWS}
SMALL = tuple(window for window in WINDOWS if window.size <= 3)
"""Those of which all kinds of pools go by strips: there are registers for them."""
NOTING: dict[Window, Any] = {window: noting_by(window) for window in SMALL}
MEANS: dict[Window, Any] = {window: mean_by(window) for window in SMALL}


def strips_of(task: Task) -> Window | None:
    """The window of these that a pool has; None where there is none, where a window may lie in the
    padding altogether, so that what it is clamped to is none of its cells, or where there are too
    many outputs to be divided by reciprocals."""
    op = task.whole.base
    assert isinstance(op, MaxPool | AveragePool)
    window, source, target = op.window, task.inputs[0], task.output
    _, *size = kernel = axes(window.kernel, 1)
    _, *step = stride = axes(window.stride, 1)
    before = axes((lo for lo, _ in window.padding), 0)
    for length, far, apart, last, end in zip(
        kernel, before, stride, target.size, source.size, strict=True
    ):
        if far >= length or (last - 1) * apart - far >= end:
            return None
    if set(window.dilation) != {1} or target.sample >= MOST:
        return None
    same = (w for w in WINDOWS if size == [w.size] * 2 and step == [w.stride] * 2)
    return next(same, None)


def plan_strips(task: Task, window: Window, kept: int | None = None) -> Call:
    """The call of a pool by strips. kept: where a max pool notes its taps."""
    op, source, target = task.whole.base, task.inputs[0], task.output
    assert isinstance(op, MaxPool | AveragePool)
    w, (depth, height, width) = op.window, target.size
    strips = -(-height // window.outputs)
    count = target.channels * depth * strips * width
    counts_padding = isinstance(op, AveragePool) and op.count_pad
    after = axes((hi for _, hi in w.padding), 0) if counts_padding else (0, 0, 0)
    d = [*place(source), *place(target), count, *source.size, *target.size, strips]
    d += [*reciprocal(width), *reciprocal(strips), *reciprocal(depth)]
    d += [axes(w.kernel, 1)[0], axes(w.stride, 1)[0], *axes((lo for lo, _ in w.padding), 0)]
    d += [ANYWHERE if counts_padding else 0]
    d += [*(size + more for size, more in zip(source.size, after, strict=True)), 0]
    at = task.ints.add([*d, -1 if kept is None else kept, target.sample], align=4)
    return spread(kernels_of(op, kept)[window], count, at, target.batch)


def kernels_of(op: Op, kept: int | None) -> dict[Window, Any]:
    """The kernels of a pool, which notes its taps or not."""
    if isinstance(op, AveragePool):
        return MEANS
    return LARGEST if kept is None else NOTING
