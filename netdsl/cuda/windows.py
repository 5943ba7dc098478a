"""Pools by windows of any kind: a thread an output's place in four channels.

For each axis a table says where every output's window begins and how many of its taps lie inside,
so that stride, padding, dilation and adaptive windows are one; what is found out for one channel
serves four. Taps of a plane are taken four at a time, the last of them once more where there are
fewer: that changes no maximum, and in a mean it is zero. No load waits for a test.
"""

from __future__ import annotations

import struct

import numpy as np
from numba import cuda, float32, int32, uint32, uint64

from netdsl.cuda.arith import place_by, reciprocal
from netdsl.cuda.layout import Buffer, Call, axes, spread
from netdsl.cuda.rows import place
from netdsl.cuda.task import Task
from netdsl.cuda.warp import base_of, float_of, larger, load4, load_at
from netdsl.cuda.wide import EACH
from netdsl.graph.taps import Axis, axis_windows
from netdsl.ops import AdaptiveAveragePool, AveragePool, MaxPool

PLACES, COUNT, OUT, WIDTHS, DEPTHS, STEPS, TABLES = range(0, 28, 4)
"""Where fours of the descriptor's fields begin, each read at once. PLACES: the input, how far apart
its rows lie, and the same of the output; a row is a sample, or all of them. COUNT: threads of a
row, its channels, positions of a channel of the input and of the output. OUT: the output's depth,
height and width; the input's width. WIDTHS: the reciprocals of the output's width and height.
DEPTHS: that of its depth; a window's rows and columns. STEPS: how far apart a window's planes, rows
and columns lie; positions of a plane of the input. TABLES: those of depth, height and width."""
KEPT, KEPT_ROW = 28, 29
"""Where taps are noted, and how far apart their rows lie."""

TAPS = 4
"""Taps taken at a time."""
CELLS = TAPS * EACH

ZERO = np.float32(0)
LEAST = np.float32(-np.inf)


@cuda.jit(device=True)
def window_of(ints, at, i, n):  # type: ignore[no-untyped-def]
    """Of thread i of row n: its first channel, its output's place in a channel; where its window
    begins in the row's first channel; the taps of its axes, the number of the first; and what a
    mean multiplies its sum by."""
    depth, height, width, line = load4(ints, uint64(at + OUT))
    of_depth, of_height, of_width, area = load4(ints, uint64(at + TABLES))
    widths, depths = load4(ints, uint64(at + WIDTHS)), load4(ints, uint64(at + DEPTHS))
    group, z, y, x = place_by(i, depth, height, width, widths, depths)
    z0, deep, tap_z, share_z = load4(ints, uint64(of_depth + 4 * z))
    y0, down, tap_y, share_y = load4(ints, uint64(of_height + 4 * y))
    x0, across, tap_x, share_x = load4(ints, uint64(of_width + 4 * x))
    source = int32(ints[uint64(at + PLACES)] + n * ints[uint64(at + PLACES + 1)])
    begin = int32(source + z0 * area + y0 * line + x0)
    tap = int32((tap_z * depths[2] + tap_y) * depths[3] + tap_x)
    share = float_of(uint32(share_z)) * float_of(uint32(share_y)) * float_of(uint32(share_x))
    o = int32((z * height + y) * width + x)
    return int32(group * EACH), o, begin, deep, down, across, tap, share


@cuda.jit(device=True)
def steps_of(ints, at, down, across):  # type: ignore[no-untyped-def]
    """How far apart a window's planes and columns lie, how far the next row from the end of one,
    and the last tap of a plane from the first."""
    plane, line, step, _ = load4(ints, uint64(at + STEPS))
    last = int32((down - 1) * line + (across - 1) * step)
    return plane, step, int32(line - across * step), last


@cuda.jit(device=True)
def channels_at(starts, offsets, arena, begin, c, channels, plane):  # type: ignore[no-untyped-def]
    """Where a window's plane begins in the channels of a thread; the last once more where there are
    fewer. begin: in the first channel of the row."""
    offsets[0] = int32(0)
    for k in range(EACH):
        channel = min(int32(c + k), int32(channels - 1))
        starts[k] = base_of(arena, uint32(begin + channel * plane))


@cuda.jit(device=True)
def taken(cells, offsets, arena, starts, step, turn, last, column, across):  # type: ignore[no-untyped-def]
    """The next taps of a plane in all channels; offsets: where each lies, the first is known. Gives
    back the column of the one after these."""
    offset = offsets[0]
    for j in range(TAPS):
        offsets[j] = min(offset, last)
        for k in range(EACH):
            cells[j * EACH + k] = load_at(arena, starts[k], offsets[j])
        offset, column = int32(offset + step), int32(column + 1)
        if column == across:
            offset, column = int32(offset + turn), int32(0)
    offsets[0] = offset
    return column


@cuda.jit(device=True)
def given(arena, begin, plane, c, channels, values):  # type: ignore[no-untyped-def]
    """Writes what each channel's window came to."""
    for k in range(EACH):
        if int32(c + k) < channels:
            arena[uint32(begin + (c + k) * plane)] = values[k]


@cuda.jit
def max_windows(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The largest of windows, NaN where there is one: grid (outputs of a row / fours of channels /
    threads, rows)."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    count, channels, in_plane, out_plane = load4(ints, uint64(at + COUNT))
    if i >= count:
        return
    c, o, begin, deep, down, across, _, _ = window_of(ints, at, i, n)
    plane, step, turn, last = steps_of(ints, at, down, across)
    starts = cuda.local.array(EACH, uint64)
    offsets = cuda.local.array(TAPS, int32)
    cells = cuda.local.array(CELLS, float32)
    best = cuda.local.array(EACH, float32)
    for k in range(EACH):
        best[k] = LEAST
    for z in range(deep):
        channels_at(starts, offsets, arena, int32(begin + z * plane), c, channels, in_plane)
        column = int32(0)
        for _ in range(int32(0), int32(down * across), int32(TAPS)):
            column = taken(cells, offsets, arena, starts, step, turn, last, column, across)
            for j in range(TAPS):
                for k in range(EACH):
                    best[k] = larger(best[k], cells[j * EACH + k])
    target = int32(ints[uint64(at + PLACES + 2)] + n * ints[uint64(at + PLACES + 3)] + o)
    given(arena, target, out_plane, c, channels, best)


@cuda.jit
def mean_windows(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The mean of windows: grid as `max_windows`."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    count, channels, in_plane, out_plane = load4(ints, uint64(at + COUNT))
    if i >= count:
        return
    c, o, begin, deep, down, across, _, share = window_of(ints, at, i, n)
    plane, step, turn, last = steps_of(ints, at, down, across)
    starts = cuda.local.array(EACH, uint64)
    offsets = cuda.local.array(TAPS, int32)
    cells = cuda.local.array(CELLS, float32)
    totals = cuda.local.array(EACH, float32)
    for k in range(EACH):
        totals[k] = ZERO
    taps = int32(down * across)
    for z in range(deep):
        channels_at(starts, offsets, arena, int32(begin + z * plane), c, channels, in_plane)
        column = int32(0)
        for first in range(int32(0), taps, int32(TAPS)):
            column = taken(cells, offsets, arena, starts, step, turn, last, column, across)
            for j in range(TAPS):
                there = int32(first + j) < taps
                for k in range(EACH):
                    totals[k] += cells[j * EACH + k] if there else ZERO
    for k in range(EACH):
        totals[k] *= share
    target = int32(ints[uint64(at + PLACES + 2)] + n * ints[uint64(at + PLACES + 3)] + o)
    given(arena, target, out_plane, c, channels, totals)


@cuda.jit
def max_windows_noting(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """As `max_windows`, noting which tap of each window was the largest, the first where several
    are."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    count, channels, in_plane, out_plane = load4(ints, uint64(at + COUNT))
    if i >= count:
        return
    c, o, begin, deep, down, across, tap, _ = window_of(ints, at, i, n)
    plane, step, turn, last = steps_of(ints, at, down, across)
    rows, columns = ints[uint64(at + DEPTHS + 2)], ints[uint64(at + DEPTHS + 3)]
    starts = cuda.local.array(EACH, uint64)
    offsets = cuda.local.array(TAPS, int32)
    cells = cuda.local.array(CELLS, float32)
    best = cuda.local.array(EACH, float32)
    found = cuda.local.array(EACH, float32)
    for k in range(EACH):
        # Where all is -inf, the first tap that is none of the padding.
        best[k], found[k] = LEAST, float32(tap)
    for z in range(deep):
        channels_at(starts, offsets, arena, int32(begin + z * plane), c, channels, in_plane)
        column, number, after = int32(0), int32(0), int32(0)
        for _ in range(int32(0), int32(down * across), int32(TAPS)):
            column = taken(cells, offsets, arena, starts, step, turn, last, column, across)
            for j in range(TAPS):
                # What is taken once more is no larger, whatever its number.
                here = float32(int32(tap + z * rows * columns + number))
                for k in range(EACH):
                    value = cells[j * EACH + k]
                    if value > best[k] or value != value:
                        best[k], found[k] = value, here
                number, after = int32(number + 1), int32(after + 1)
                if after == across:
                    number, after = int32(number + columns - across), int32(0)
    target = int32(ints[uint64(at + PLACES + 2)] + n * ints[uint64(at + PLACES + 3)] + o)
    given(arena, target, out_plane, c, channels, best)
    kept = int32(ints[uint64(at + KEPT)] + n * ints[uint64(at + KEPT_ROW)] + o)
    given(arena, kept, out_plane, c, channels, found)


def bits(value: float) -> int:
    """The word of a float32, as an int32."""
    (word,) = struct.unpack("<i", struct.pack("<f", value))
    return int(word)


def windows_of(task: Task) -> list[Axis]:
    """The windows of depth, height and width."""
    op, spatial, out = task.whole.base, task.shapes[0][1:], task.node.shape[1:]
    if isinstance(op, AdaptiveAveragePool):
        found = [[(lo, hi, hi - lo) for lo, hi in axis] for axis in op.windows(spatial)]
    else:
        assert isinstance(op, MaxPool | AveragePool)
        counts = isinstance(op, AveragePool) and op.count_pad
        found = [
            axis_windows(op.window, i, n, m, counts)
            for i, (n, m) in enumerate(zip(spatial, out, strict=True))
        ]
    return [[(0, 1, 1)]] * (3 - len(found)) + found


def table(axis: Axis, stride: int, before: int, dilation: int) -> list[int]:
    """Of each window of an axis where it begins in the input, its taps inside, the first one's
    number, and the bits of 1 / what a mean counts."""
    fields = []
    for o, (first, end, counted) in enumerate(axis):
        taps = len(range(first, end, dilation))
        skipped = (first - o * stride + before) // dilation
        share = bits(1 / counted if counted else float("nan"))
        fields += [first, taps, skipped if taps else 0, share]
    return fields


def rows_of(source: Buffer, target: Buffer) -> tuple[int, int]:
    """The rows of two tensors, and the channels of each: a row a sample, or all of them where they
    lie next to each other."""
    if all(b.batch_stride == b.sample for b in (source, target)):
        return 1, source.batch * source.channels
    return source.batch, source.channels


def plan_windows(task: Task, kept: int | None = None) -> Call:
    """The call of a pool by windows. kept: where a max pool notes its taps."""
    op, source, target = task.whole.base, task.inputs[0], task.output
    kernel, stride, before, dilation = (1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1)
    if isinstance(op, MaxPool | AveragePool):
        w = op.window
        kernel, stride, dilation = (axes(v, 1) for v in (w.kernel, w.stride, w.dilation))
        before = axes((lo for lo, _ in w.padding), 0)
    tables = [
        task.ints.add(table(axis, *own), align=4)
        for axis, *own in zip(windows_of(task), stride, before, dilation, strict=True)
    ]
    rows, channels = rows_of(source, target)
    depth, height, width = target.size
    line, area = source.size[2], source.size[1] * source.size[2]
    count = -(-channels // EACH) * target.plane
    d = [*place(source), *place(target), count, channels, source.plane, target.plane]
    d += [*target.size, line, *reciprocal(width), *reciprocal(height)]
    d += [*reciprocal(depth), *kernel[1:]]
    d += [dilation[0] * area, dilation[1] * line, dilation[2], 0, *tables, area]
    at = task.ints.add([*d, -1 if kept is None else kept, target.sample], align=4)
    if isinstance(op, MaxPool):
        return spread(max_windows if kept is None else max_windows_noting, count, at, rows)
    return spread(mean_windows, count, at, rows)
