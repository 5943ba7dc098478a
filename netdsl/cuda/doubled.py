"""Transposed depthwise convolutions of two axes with stride 2, which is also how the gradient of a
depthwise layer of that stride goes back to its input.

Of a position's row and column, padding included, parity decides which weights it takes: a thread
computes two by two positions, and some such squares below each other, from the same few cells.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda, float32, int32, uint32, uint64

from netdsl.cuda.arith import MOST, divided, reciprocal
from netdsl.cuda.depthwise import bent_by, columns_by, no_row, within
from netdsl.cuda.describe import Ending
from netdsl.cuda.functions import NONE
from netdsl.cuda.layout import Call, spread
from netdsl.cuda.rows import place
from netdsl.cuda.sizes import LIMITED, SIMULATED
from netdsl.cuda.task import Task
from netdsl.cuda.warp import load4, load_if
from netdsl.ops import ConvTranspose

PLACES, COUNT, OUT, STRIPS, START, ENDING, MORE = range(0, 28, 4)
"""Where fours of the descriptor's fields begin, each read at once. PLACES: the input, how far apart
its samples lie, and the same of the output. COUNT: strips of a sample; the input's height and
width; the first square's row. OUT: the output's height and width, squares of a row, strips of a
column. STRIPS: the reciprocals of the last two. START: padding before rows and columns, the first
square's column. ENDING: where in params weights and biases lie, the activation, its numbers. MORE:
the residual, below 0 if there is none, and how far apart its samples lie."""

SQUARES = 2 if SIMULATED else 4
"""Of a strip."""

SIZES = (3, 5, 7)
"""Rows and columns of a window."""


def rows_by(size: int, rows: int) -> Any:
    """The device function that adds to a strip's sums what its first so many rows of cells give,
    see rows_by of depthwise.py."""
    HALF, ROW = (size + 1) // 2, rows - 1
    FIRST, END = max(ROW - HALF + 1, 0), min(rows, SQUARES)
    before = rows_by(size, ROW) if ROW else no_row

    @cuda.jit(device=True)
    def spread_rows(totals, w, cells, arena, source, plane, y0, x0, height, width, columns):  # type: ignore[no-untyped-def]
        before(totals, w, cells, arena, source, plane, y0, x0, height, width, columns)
        there = columns if within(int32(y0 + ROW), height) else int32(0)
        first = uint64(int32(source + (plane + y0 + ROW) * width + x0))
        for k in range(HALF):
            cells[k] = load_if(arena, first + uint64(k), int32(there & int32(1 << k)))
        for r in range(FIRST, END):
            for s in range(4):
                y = s // 2 + 2 * (r + HALF - 1 - ROW)
                for k in range(HALF):
                    x = s % 2 + 2 * (HALF - 1 - k)
                    if y < size and x < size:
                        totals[4 * r + s] += cells[k] * w[y * size + x]

    return spread_rows


def kernel_by(size: int) -> Any:
    """The kernel for windows of so many rows and columns."""
    HALF, SUMS, FOURS = (size + 1) // 2, 4 * SQUARES, -(-size * size // 4)
    BLOCK = 4 * FOURS
    spread_rows, bend_all = rows_by(size, SQUARES + HALF - 1), bent_by(SUMS)
    columns_of = columns_by(HALF)

    @cuda.jit(**LIMITED)
    def conv_doubled(arena, params, ints, at):  # type: ignore[no-untyped-def]
        """Sums with their bias, residual and activation: grid (strips of a sample / threads,
        samples)."""
        i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
        n = int32(cuda.blockIdx.y)
        count, height, width, first_y = load4(ints, uint64(at + COUNT))
        if i >= count:
            return
        out_height, out_width, across, strips = load4(ints, uint64(at + OUT))
        by_across, across_shift, by_strips, strips_shift = load4(ints, uint64(at + STRIPS))
        above, left, first_x, _ = load4(ints, uint64(at + START))
        lines = divided(i, by_across, across_shift)
        c = divided(lines, by_strips, strips_shift)
        x = int32(i - lines * across + first_x)
        y = int32((lines - c * strips) * SQUARES + first_y)
        x0, y0 = int32(x - (HALF - 1)), int32(y - (HALF - 1))
        columns = columns_of(x0, width)
        totals = cuda.local.array(SUMS, float32)
        w = cuda.local.array(BLOCK, float32)
        cells = cuda.local.array(HALF, float32)
        weights, bias, kind, numbers = load4(ints, uint64(at + ENDING))
        shift = params[uint32(bias + c)]
        for s in range(SUMS):
            totals[s] = shift
        for j in range(FOURS):
            w[4 * j], w[4 * j + 1], w[4 * j + 2], w[4 * j + 3] = load4(
                params, uint32(weights + int32(c * BLOCK) + 4 * j)
            )
        source, source_batch, target, target_batch = load4(ints, uint64(at + PLACES))
        source = int32(source + n * source_batch + c * height * width)
        spread_rows(totals, w, cells, arena, source, int32(0), y0, x0, height, width, columns)
        y, x = int32(2 * y - above), int32(2 * x - left)
        spot = int32((c * out_height + y) * out_width + x)
        residual, residual_batch, _, _ = load4(ints, uint64(at + MORE))
        if residual >= 0:
            other = int32(residual + n * residual_batch + spot)
            for s in range(SUMS):
                if within(int32(y + s // 2), out_height) and within(int32(x + s % 2), out_width):
                    far = int32(int32(s // 2) * out_width + int32(s % 2))
                    totals[s] += arena[uint32(other + far)]
        if kind != NONE:
            bend_all(totals, kind, params[uint32(numbers)], params[uint32(numbers + 1)])
        target = int32(target + n * target_batch + spot)
        for s in range(SUMS):
            if within(int32(y + s // 2), out_height) and within(int32(x + s % 2), out_width):
                far = int32(int32(s // 2) * out_width + int32(s % 2))
                arena[uint32(target + far)] = totals[s]

    return conv_doubled


DOUBLED: dict[int, Any] = {size: kernel_by(size) for size in SIZES}


def doubles(task: Task) -> bool:
    """Whether a transposed convolution is one of these."""
    op, source, target = task.whole.base, task.inputs[0], task.output
    assert isinstance(op, ConvTranspose)
    w = op.window
    alone = op.groups == op.filters == source.channels > 1
    window = w.stride == (2, 2) and w.dilation == (1, 1) and w.kernel in {(n, n) for n in SIZES}
    return alone and window and target.sample < MOST


def plan_doubled(task: Task, ending: Ending) -> Call:
    """The call of a transposed convolution of these."""
    op, source, target = task.whole.base, task.inputs[0], task.output
    assert isinstance(op, ConvTranspose)
    size, padding = op.window.kernel[0], [lo for lo, _ in op.window.padding]
    _, *out = target.size
    firsts = [lo // 2 for lo in padding]
    down, across = (
        (n - 1 + lo) // 2 - first + 1 for n, lo, first in zip(out, padding, firsts, strict=True)
    )
    strips = -(-down // SQUARES)
    count = source.channels * strips * across
    weights = task.weights["weight"].reshape(source.channels, size * size)
    start = task.params.add(np.pad(weights, [(0, 0), (0, -size * size % 4)]))
    residual = task.inputs[1] if task.whole.residual else None
    d = [*place(source), *place(target), count, *source.size[1:], firsts[0], *out, across, strips]
    d += [*reciprocal(across), *reciprocal(strips), *padding, firsts[1], 0]
    d += [start, ending.bias, ending.kind, ending.numbers]
    d += [*([-1, 0] if residual is None else place(residual)), 0, 0]
    return spread(DOUBLED[size], count, task.ints.add(d, align=4), task.batch)
