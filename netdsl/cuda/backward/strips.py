"""The gradient of max pools by the usual windows: a thread some inputs of a column.

The taps of the windows that inputs below each other lie in, and the gradients of these, are read
once. Places are clamped to the output, as in the way forward; what is noted there is no tap then.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda, float32, int32, uint32, uint64

from netdsl.cuda.arith import MOST, divided, place_by, reciprocal
from netdsl.cuda.backward.task import BackPlaces
from netdsl.cuda.layout import Buffer, Call, axes, spread
from netdsl.cuda.rows import place
from netdsl.cuda.sizes import SIMULATED
from netdsl.cuda.strips import SMALL, Window, clamped, strips_of
from netdsl.cuda.task import Task
from netdsl.cuda.warp import load4
from netdsl.ops import MaxPool

PLACES, COUNT, OUT, WIDTHS, DEPTHS, BEFORE = range(0, 24, 4)
"""Where fours of the descriptor's fields begin, each read at once. PLACES: the output's gradient,
how far apart its samples lie, and the same of the input's. COUNT: strips of a sample; the input's
depth, height and width. OUT: those of the output, and strips of a column. WIDTHS: the reciprocals
of the input's width and of these strips. DEPTHS: that of its depth; a window's depth and stride.
BEFORE: padding before each axis."""
KEPT, SAMPLE, BY_STRIDE = 24, 25, 26
"""Where taps are noted, outputs of a sample, and the reciprocal of the stride along the depth."""

INPUTS = 4 if SIMULATED else 8
"""Inputs of a strip, at most."""
ZERO, NONE = np.float32(0), np.float32(-1)
NEVER = np.float32(-(1 << 20))
"""A tap that is none whatever is added for rows."""


def back_by(window: Window) -> Any:
    """The kernel for one window."""
    K, S = window.size, window.stride
    Q, C = INPUTS // S, -(-K // S)  # steps of a strip; windows along an axis that hold an input
    R, ROWS = Q * S, Q + C - 1
    CELLS = ROWS * C

    @cuda.jit
    def max_back_strips(arena, params, ints, at):  # type: ignore[no-untyped-def]
        """The gradients of the windows whose noted tap an input is: grid (strips of a sample /
        threads, samples)."""
        i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
        n = int32(cuda.blockIdx.y)
        count, depth, height, width = load4(ints, uint64(at + COUNT))
        if i >= count:
            return
        out_depth, out_height, out_width, strips = load4(ints, uint64(at + OUT))
        widths, depths = load4(ints, uint64(at + WIDTHS)), load4(ints, uint64(at + DEPTHS))
        before, above, left, _ = load4(ints, uint64(at + BEFORE))
        c, z, strip, x = place_by(i, depth, strips, width, widths, depths)
        step, deep, stride = int32(strip * Q), depths[2], depths[3]

        columns = cuda.local.array(C, int32)
        firsts = cuda.local.array(C, float32)
        noted = cuda.local.array(CELLS, float32)
        slopes = cuda.local.array(CELLS, float32)
        totals = cuda.local.array(R, float32)
        along = int32(uint32(x + left) // uint32(S))
        for k in range(C):
            o, tap = int32(along - k), int32(x + left - (along - k) * S)
            columns[k] = clamped(o, out_width)
            firsts[k] = float32(tap) if columns[k] == o and tap < K else NEVER
        for r in range(R):
            totals[r] = ZERO
        source, source_batch, target, target_batch = load4(ints, uint64(at + PLACES))
        kept = int32(ints[uint64(at + KEPT)] + n * ints[uint64(at + SAMPLE)])
        source = int32(source + n * source_batch)
        by_stride, shift = ints[uint64(at + BY_STRIDE)], ints[uint64(at + BY_STRIDE + 1)]
        begin = divided(max(int32(z + before - deep + stride), int32(0)), by_stride, shift)
        end = min(int32(divided(int32(z + before), by_stride, shift) + 1), out_depth)
        for plane in range(begin, end):
            whole = int32((c * out_depth + plane) * out_height)
            deeper = float32(int32((z + before - plane * stride) * (K * K)))
            for j in range(ROWS):
                o = int32(step + j - (C - 1))
                there = clamped(o, out_height)
                row = int32((whole + there) * out_width)
                for k in range(C):
                    tap = arena[uint32(kept + row + columns[k])]
                    noted[j * C + k] = tap - deeper if there == o else NONE
                    slopes[j * C + k] = arena[uint32(source + row + columns[k])]
            for r in range(R):
                for s in range(C):
                    if r % S + s * S < K:
                        j = r // S - s + C - 1
                        for k in range(C):
                            tap = firsts[k] + float32((r % S + s * S) * K)
                            if noted[j * C + k] == tap:
                                totals[r] += slopes[j * C + k]
        target = int32(target + n * target_batch + (c * depth + z) * height * width + x)
        for r in range(R):
            y = int32(step * S + r - above)
            if y >= 0 and y < height:
                arena[uint32(target + y * width)] = totals[r]

    return max_back_strips


BACK: dict[Window, Any] = {window: back_by(window) for window in SMALL}


def back_window(task: Task) -> Window | None:
    """The window of these that a max pool has, see `strips_of`."""
    window, source = strips_of(task), task.inputs[0]
    few = 2 * source.sample < MOST  # strips along the padding are counted, too
    return window if window in BACK and few else None


def plan_back(task: Task, places: BackPlaces, target: Buffer, window: Window) -> Call:
    """The call of a max pool's gradient by strips. target: the input's."""
    op, out = task.whole.base, task.output
    assert isinstance(op, MaxPool)
    w, (depth, height, width) = op.window, target.size
    before, above, left = axes((lo for lo, _ in w.padding), 0)
    strips = -(-(height + above) // (INPUTS // window.stride * window.stride))
    count, stride = target.channels * depth * strips * width, axes(w.stride, 1)[0]
    d = [*place(places.gradient), *place(target), count, depth, height, width, *out.size, strips]
    d += [*reciprocal(width), *reciprocal(strips), *reciprocal(depth)]
    d += [axes(w.kernel, 1)[0], stride, before, above, left, 0]
    d += [places.kept, out.sample, *reciprocal(stride)]
    return spread(BACK[window], count, task.ints.add(d, align=4), target.batch)
