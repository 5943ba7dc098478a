"""Gradients of the weights of depthwise layers, and of groups of few filters, by strips.

A block sums what one filter and one channel give each other: the weights of a plane of the window
are sums that its threads keep in registers. A thread takes strips as on the way forward: the
output's gradient at some places below each other, and each cell once that their windows hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda, float32, int32, uint32, uint64

from netdsl.cuda.arith import MOST, place_by, quotient, reciprocal, remainder
from netdsl.cuda.backward.products import FEW
from netdsl.cuda.backward.sums import add_up
from netdsl.cuda.backward.task import Calls
from netdsl.cuda.depthwise import DEPTHWISE, HIGH, Strip, columns_by, no_row, within
from netdsl.cuda.groups import MOST_PARTS, WAVES
from netdsl.cuda.layout import Buffer, Call, axes
from netdsl.cuda.rows import place
from netdsl.cuda.sizes import LIMITED, SIMULATED, THREADS, WARP
from netdsl.cuda.task import Task
from netdsl.cuda.warp import load4, load_if
from netdsl.cuda.wide import WARPS, warp_sum
from netdsl.ops import Conv, ConvTranspose

PLACES, COUNT, OUT, WIDTHS, DEPTHS, START, GROUP, INTO = range(0, 32, 4)
"""Where fours of the descriptor's fields begin, each read at once. PLACES: the output's gradient,
how far apart its samples lie, and the same of the input. COUNT: strips of a channel in all samples;
the input's depth, height and width. OUT: those of the output, and strips of a column. WIDTHS: the
reciprocals of the output's width and of these strips. DEPTHS: that of the output's depth; the
strides along planes and rows. START: where the first window begins along each axis. GROUP: filters
and channels of a group; strips of a part. INTO: where the sums go."""

FEWEST = 2 if SIMULATED else 4
"""Strips of a thread below which a part is not worth a block."""

MANY = 40
"""Sums of a thread for which the registers do not suffice that tiled kernels have: it is given more
of them, and fewer threads share a multiprocessor."""

ZERO = np.float32(0)


def rows_by(strip: Strip, rows: int) -> Any:
    """The device function that adds to the weights' sums what the first so many rows of a strip
    give, see rows_by of the way forward. g: the output's gradients."""
    KY, KX, S, R, _, _ = strip
    ROW = rows - 1
    FIRST, END = max(-(-(ROW - KY + 1) // S), 0), min(ROW // S + 1, R)
    before = rows_by(strip, ROW) if ROW else no_row

    @cuda.jit(device=True)
    def pull_rows(totals, g, cells, arena, source, plane, y0, x0, height, width, columns):  # type: ignore[no-untyped-def]
        before(totals, g, cells, arena, source, plane, y0, x0, height, width, columns)
        there = columns if within(int32(y0 + ROW), height) else int32(0)
        first = uint64(int32(source + (plane + y0 + ROW) * width + x0))
        for k in range(KX):
            cells[k] = load_if(arena, first + uint64(k), int32(there & int32(1 << k)))
        for o in range(FIRST, END):
            for k in range(KX):
                totals[(ROW - o * S) * KX + k] += cells[k] * g[o]

    return pull_rows


def kernel_by(strip: Strip) -> Any:
    """The kernel for one strip."""
    _, KX, S, R, _, _ = strip
    SUMS = strip.rows * KX
    SHARED, ALL = WARPS * SUMS, (1 << R) - 1
    pull_rows, columns_of = rows_by(strip, strip.reach), columns_by(KX)

    @cuda.jit(**(LIMITED if SUMS < MANY else {}))
    def weight_strips(arena, params, ints, at):  # type: ignore[no-untyped-def]
        """A part of the sums of a plane of weights: grid (filters x channels of a group, parts,
        planes of the window)."""
        shared = cuda.shared.array(SHARED, float32)
        t = int32(cuda.threadIdx.x)
        pair, part, dz = int32(cuda.blockIdx.x), int32(cuda.blockIdx.y), int32(cuda.blockIdx.z)
        count, depth, height, width = load4(ints, uint64(at + COUNT))
        out_depth, out_height, out_width, strips = load4(ints, uint64(at + OUT))
        filters, channels, each, _ = load4(ints, uint64(at + GROUP))
        gradient, gradient_batch, source, source_batch = load4(ints, uint64(at + PLACES))
        f = quotient(pair, channels)
        c = int32(quotient(f, filters) * channels + pair - f * channels)
        gradient = int32(gradient + f * out_depth * out_height * out_width)
        source = int32(source + c * depth * height * width)
        totals = cuda.local.array(SUMS, float32)
        g = cuda.local.array(R, float32)
        cells = cuda.local.array(KX, float32)
        for s in range(SUMS):
            totals[s] = ZERO
        end = min(int32((part + 1) * each), count)
        for j in range(int32(part * each + t), end, int32(THREADS)):
            # Read again for each strip: there are no registers to keep them in.
            widths, depths = load4(ints, uint64(at + WIDTHS)), load4(ints, uint64(at + DEPTHS))
            start_z, start_y, start_x, _ = load4(ints, uint64(at + START))
            n, z, line, x = place_by(int32(j), out_depth, strips, out_width, widths, depths)
            y = int32(line * R)
            x0, y0 = int32(x * depths[3] + start_x), int32(y * S + start_y)
            z0 = int32(z * depths[2] + start_z + dz)
            columns = columns_of(x0, width) if within(z0, depth) else int32(0)
            down = int32(ALL) if int32(out_height - y) >= R else int32((1 << (out_height - y)) - 1)
            own = int32(gradient + n * gradient_batch + (z * out_height + y) * out_width + x)
            for o in range(R):
                far = int32(own + int32(o) * out_width)
                g[o] = load_if(arena, uint32(far), int32(down & int32(1 << o)))
            cell = int32(source + n * source_batch)
            plane = int32(z0 * height)
            pull_rows(totals, g, cells, arena, cell, plane, y0, x0, height, width, columns)
        warp, lane = quotient(t, WARP), remainder(t, WARP)
        for s in range(SUMS):
            total = warp_sum(totals[s])
            if lane == 0:
                shared[uint32(warp * SUMS + int32(s))] = total
        cuda.syncthreads()
        for s in range(t, int32(SUMS), int32(THREADS)):
            total = ZERO
            for one in range(WARPS):
                total += shared[uint32(int32(one) * SUMS + s)]
            whole = int32((pair * int32(cuda.gridDim.z) + dz) * SUMS + s)
            into = ints[uint32(at + INTO)]
            arena[uint32(into + whole * int32(cuda.gridDim.y) + part)] = total

    return weight_strips


STRIPS: dict[Strip, Any] = {
    strip: kernel_by(strip) for strip in DEPTHWISE if strip.outputs <= HIGH and not strip.many
}


def strip_for(op: Conv | ConvTranspose, centres: Buffer) -> Strip | None:
    """The strip to sum the gradients of an op's weights by. centres: the tensor that has a value a
    window. None where the groups have filters enough for a tile, or the window has no strip."""
    w, stride = op.window, axes(op.window.stride, 1)
    few = op.groups > 1 and centres.channels // op.groups < FEW
    if not few or set(w.dilation) != {1} or centres.batch * centres.sample >= MOST:
        return None
    size = axes(w.kernel, 1)[1:]
    fit = (
        strip
        for strip in STRIPS
        if (strip.rows, strip.columns) == size and (strip.outputs == 1 or strip.stride == stride[1])
    )
    return next(fit, None)


def plan_strips(
    task: Task, op: Conv | ConvTranspose, strip: Strip, centres: Buffer, cells: Buffer, into: int
) -> Calls:
    """The calls that sum the gradients of weights to `into` in the arena. centres: the tensor that
    has a value a window, cells: the one that the windows slide over."""
    w, groups = op.window, op.groups
    filters, channels = centres.channels // groups, cells.channels // groups
    depth, height, width = centres.size
    strips = strip.count(height)
    count = centres.batch * depth * strips * width
    deep, (stride_z, _, stride_x) = axes(w.kernel, 1)[0], axes(w.stride, 1)
    pairs = centres.channels * channels
    wanted = -(-WAVES * task.processors // (pairs * deep))
    parts = max(1, min(wanted, count // (FEWEST * THREADS), MOST_PARTS))
    each = -(-count // parts)
    parts = -(-count // each)
    sums = pairs * deep * strip.rows * strip.columns
    start = into if parts == 1 else task.scratch(sums * parts)
    d = [*place(centres), *place(cells), count, *cells.size, *centres.size, strips]
    d += [*reciprocal(width), *reciprocal(strips), *reciprocal(depth), stride_z, stride_x]
    d += [*(-lo for lo in axes((lo for lo, _ in w.padding), 0)), 0]
    at = task.ints.add([*d, filters, channels, each, 0, start, 0, 0, 0], align=4)
    call = Call(STRIPS[strip], (pairs, parts, deep), THREADS, at)
    return [call, *add_up(task, sums, parts, start, into)]
