"""Convolutions of groups with few filters by the usual windows: depthwise ones, and the groups of
ResNeXt and ShuffleNet.

A thread computes the outputs of a strip, some below each other, for one filter or four of a group:
it reads each cell once for all of them, row by row. A cell outside of the input is zero, by a load
that is not made and not by a branch, so that the loads of many rows are under way together.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import cuda, float32, int32, uint32, uint64

from netdsl.cuda.arith import MOST, divided, place_by, reciprocal
from netdsl.cuda.describe import Ending, Sum
from netdsl.cuda.functions import CLIP, HARD_SIGMOID, HARD_SWISH, LEAKY, NONE, bend, clip
from netdsl.cuda.layout import Call, Floats, spread
from netdsl.cuda.rows import place
from netdsl.cuda.sizes import LIMITED, SIMULATED
from netdsl.cuda.task import Task
from netdsl.cuda.warp import load4, load_if

PLACES, COUNT, OUT, WIDTHS, DEPTHS, START, GROUP, STEPS, ENDING, MORE = range(0, 40, 4)
"""Where fours of the descriptor's fields begin, each read at once. PLACES: the input, how far apart
its samples lie, and the same of the output. COUNT: strips of a sample; the input's depth, height
and width. OUT: those of the output, and strips of a column. WIDTHS: the reciprocals of the output's
width and of these strips. DEPTHS: that of the output's depth; a window's depth and its stride.
START: where the first window begins along each axis, the stride along rows. GROUP: channels of a
group; threads that share its filters, and the reciprocal of that. STEPS: how far apart the output's
filters, planes, rows and columns lie. ENDING: where in params weights and biases lie, the
activation, its numbers. MORE: the residual, below 0 if there is none, and how far apart its samples
lie; filters of a group."""

FAR = np.float32(np.inf)


class Strip(NamedTuple):
    """What a thread computes: rows and columns of a window, how far the next row of windows lies
    from it, outputs below each other, filters, and whether windows may have many planes, of depth
    or of channels."""

    rows: int
    columns: int
    stride: int
    outputs: int
    filters: int
    many: bool

    @property
    def reach(self) -> int:
        """Rows of the input that it reads."""
        return (self.outputs - 1) * self.stride + self.rows

    @property
    def floats(self) -> int:
        """Weights of a plane of the window, up to whole fours."""
        return -(-self.rows * self.columns * self.filters // 4) * 4

    def count(self, height: int) -> int:
        """Strips of a column."""
        return -(-height // self.outputs)


LOW, HIGH = (2, 3) if SIMULATED else (4, 7)
"""Outputs of a strip: maps are often 7, 14, 28, 56 high."""

DEPTHWISE = (
    *(Strip(k, k, 1, HIGH, 1, False) for k in (3, 5, 7)),
    *(Strip(k, k, 1, 2 * HIGH, 1, False) for k in (5, 7)),
    *(Strip(k, k, 2, LOW, 1, False) for k in (3, 5, 7)),
    *(Strip(1, k, 1, 1, 1, False) for k in (3, 5, 7)),
    Strip(3, 3, 1, HIGH, 1, True),
    Strip(3, 3, 2, LOW, 1, True),
)
SHARED = (
    Strip(1, 1, 1, HIGH, 4, True),
    Strip(3, 3, 1, HIGH, 4, True),
    Strip(3, 3, 2, LOW, 4, True),
)


@cuda.jit(device=True)
def within(i, size):  # type: ignore[no-untyped-def]
    """Whether 0 <= i < size: below 0 an index is a large word."""
    return uint32(i) < uint32(size)


def columns_by(count: int) -> Any:
    """The device function that gives a bit for each of so many columns that lies inside."""

    @cuda.jit(device=True)
    def columns_of(x0, width):  # type: ignore[no-untyped-def]
        columns = int32(0)
        for k in range(count):
            if within(int32(x0 + k), width):
                columns = int32(columns | int32(1 << k))
        return columns

    return columns_of


def bent_by(sums: int) -> Any:
    """The device function that applies an activation to so many sums; which one is asked once."""

    @cuda.jit(device=True)
    def bend_all(totals, kind, a, b):  # type: ignore[no-untyped-def]
        if kind <= CLIP:
            most = a if kind == CLIP else FAR
            for s in range(sums):
                totals[s] = clip(totals[s], most)
        elif kind == LEAKY:
            for s in range(sums):
                totals[s] = bend(LEAKY, totals[s], a, b)
        elif kind == HARD_SIGMOID:
            for s in range(sums):
                totals[s] = bend(HARD_SIGMOID, totals[s], a, b)
        else:
            for s in range(sums):
                totals[s] = bend(HARD_SWISH, totals[s], a, b)

    return bend_all


@cuda.jit(device=True)
def no_row(totals, w, cells, arena, source, plane, y0, x0, height, width, columns):  # type: ignore[no-untyped-def]
    """What comes before the first row."""


def rows_by(strip: Strip, rows: int) -> Any:
    """The device function that adds to a strip's sums what its first so many rows of a plane give.

    The last row's function calls that of the rows before it: so every index of a sum and of a
    weight is a constant, and they stay in registers. columns: a bit for each that lies inside.
    """
    KY, KX, S, R, F, _ = strip
    ROW = rows - 1
    FIRST, END = max(-(-(ROW - KY + 1) // S), 0), min(ROW // S + 1, R)
    TERMS = (END - FIRST) * KX
    before = rows_by(strip, ROW) if ROW else no_row

    @cuda.jit(device=True)
    def add_rows(totals, w, cells, arena, source, plane, y0, x0, height, width, columns):  # type: ignore[no-untyped-def]
        before(totals, w, cells, arena, source, plane, y0, x0, height, width, columns)
        there = columns if within(int32(y0 + ROW), height) else int32(0)
        first = uint64(int32(source + (plane + y0 + ROW) * width + x0))
        for k in range(KX):
            cells[k] = load_if(arena, first + uint64(k), int32(there & int32(1 << k)))
        for j in range(TERMS):
            o, k = FIRST + j // KX, j % KX
            for f in range(F):
                totals[o * F + f] += cells[k] * w[((ROW - o * S) * KX + k) * F + f]

    return add_rows


def kernel_by(strip: Strip) -> Any:
    """The kernel for one strip."""
    _, KX, S, R, F, MANY = strip
    BLOCK, FOURS, SUMS = strip.floats, strip.floats // 4, R * F
    add_rows, bend_all = rows_by(strip, strip.reach), bent_by(SUMS)
    columns_of = columns_by(KX)

    @cuda.jit(**LIMITED)
    def conv_strips(arena, params, ints, at):  # type: ignore[no-untyped-def]
        """Sums with their bias, residual and activation: grid (strips of a sample / threads,
        samples)."""
        i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
        n = int32(cuda.blockIdx.y)
        count, depth, height, width = load4(ints, uint64(at + COUNT))
        if i >= count:
            return
        out_depth, out_height, out_width, strips = load4(ints, uint64(at + OUT))
        widths, depths = load4(ints, uint64(at + WIDTHS)), load4(ints, uint64(at + DEPTHS))
        start_z, start_y, start_x, stride_x = load4(ints, uint64(at + START))
        channels, teams, by_teams, teams_shift = load4(ints, uint64(at + GROUP))
        team, z, line, x = place_by(i, out_depth, strips, out_width, widths, depths)
        group, y = divided(team, by_teams, teams_shift), int32(line * R)
        x0, y0 = int32(x * stride_x + start_x), int32(y * S + start_y)
        deep, z0 = depths[2], int32(z * depths[3] + start_z)
        columns = columns_of(x0, width)
        totals = cuda.local.array(SUMS, float32)
        w = cuda.local.array(BLOCK, float32)
        cells = cuda.local.array(KX, float32)
        weight, bias, kind, numbers = load4(ints, uint64(at + ENDING))
        residual, residual_batch, filters, _ = load4(ints, uint64(at + MORE))
        own = int32((team - group * teams) * F)
        for f in range(F):
            one = min(int32(own + f), int32(filters - 1))
            shift = params[uint32(bias + group * filters + one)]
            for o in range(R):
                totals[o * F + f] = shift
        source, source_batch, target, target_batch = load4(ints, uint64(at + PLACES))
        source = int32(source + n * source_batch + group * channels * depth * height * width)
        weight = int32(weight + team * channels * deep * BLOCK)
        c, dz = int32(0), int32(0)
        for _ in range(int32(channels * deep) if MANY else int32(1)):
            for j in range(FOURS):
                w[4 * j], w[4 * j + 1], w[4 * j + 2], w[4 * j + 3] = load4(
                    params, uint32(weight + 4 * j)
                )
            there = columns if within(int32(z0 + dz), depth) else int32(0)
            plane = int32((c * depth + z0 + dz) * height)
            add_rows(totals, w, cells, arena, source, plane, y0, x0, height, width, there)
            weight, dz = int32(weight + BLOCK), int32(dz + 1)
            if dz == deep:
                c, dz = int32(c + 1), int32(0)
        step_f, step_z, step_y, step_x = load4(ints, uint64(at + STEPS))
        spot = int32((group * filters + own) * step_f + z * step_z + y * step_y + x * step_x)
        down, across = int32(out_height - y), int32(filters - own)
        if residual >= 0:
            other = int32(residual + n * residual_batch + spot)
            for o in range(R):
                for f in range(F):
                    if o < down and f < across:
                        far = int32(int32(f) * step_f + int32(o) * step_y)
                        totals[o * F + f] += arena[uint32(other + far)]
        if kind != NONE:
            bend_all(totals, kind, params[uint32(numbers)], params[uint32(numbers + 1)])
        target = int32(target + n * target_batch + spot)
        for o in range(R):
            for f in range(F):
                if o < down and f < across:
                    far = int32(int32(f) * step_f + int32(o) * step_y)
                    arena[uint32(target + far)] = totals[o * F + f]

    return conv_strips


STRIPS: dict[Strip, Any] = {strip: kernel_by(strip) for strip in (*DEPTHWISE, *SHARED)}


class Box(NamedTuple):
    """The cells of a window that fill a box: where they begin, and how many along each axis."""

    first: tuple[int, int, int]
    size: tuple[int, int, int]


def box_of(whole: Sum) -> Box | None:
    """The box that a window's cells fill; None where there are gaps between them."""
    cells = whole.cells
    if not len(cells):
        return None
    first, last = cells.min(0), cells.max(0)
    z, y, x = (int(n) for n in last - first + 1)
    if len(cells) != z * y * x or len(np.unique(cells, axis=0)) != len(cells):
        return None
    return Box((int(first[0]), int(first[1]), int(first[2])), (z, y, x))


def strip_for(whole: Sum) -> Strip | None:
    """The strip to compute a sum of few filters by: of those for its window the one that reads the
    fewest rows. None where there is none, or too many strips to be divided by reciprocals."""
    box, (groups, _, filters) = box_of(whole), whole.weights.shape
    if box is None or groups * filters * whole.positions >= MOST:
        return None
    many = whole.channels * box.size[0] > 1
    fit = [
        strip
        for strip in STRIPS
        if (strip.rows, strip.columns) == box.size[1:]
        and (strip.filters > 1) == (filters > 1)
        and (strip.outputs == 1 or strip.stride == whole.stride[1])
        and strip.many >= many
    ]
    _, height, _ = whole.out
    return min(fit, key=lambda s: (s.count(height) * s.reach, s.outputs, s.many), default=None)


def plan_strip(task: Task, whole: Sum, strip: Strip, ending: Ending) -> Call:
    """The call of a sum by strips."""
    box, (groups, _, filters) = box_of(whole), whole.weights.shape
    assert box is not None
    source, target = task.inputs[0], task.output
    depth, height, width = whole.out
    teams, strips = -(-filters // strip.filters), strip.count(height)
    count = groups * teams * depth * strips * width
    start = (begin + first for begin, first in zip(whole.start, box.first, strict=True))
    stride_z, _, stride_x = whole.stride
    weights = task.params.add(packed(whole, box, strip))
    residual = task.inputs[1] if task.whole.residual else None
    d = [*place(source), target.offset + whole.origin, target.batch_stride]
    d += [count, *whole.size, *whole.out, strips]
    d += [*reciprocal(width), *reciprocal(strips), *reciprocal(depth), box.size[0], stride_z]
    d += [*start, stride_x, whole.channels, teams, *reciprocal(teams)]
    d += [target.plane, *whole.steps]
    d += [weights, ending.bias, ending.kind, ending.numbers]
    d += [-1, 0] if residual is None else [residual.offset + whole.origin, residual.batch_stride]
    at = task.ints.add([*d, filters, 0], align=4)
    return spread(STRIPS[strip], count, at, task.batch)


def packed(whole: Sum, box: Box, strip: Strip) -> Floats:
    """The weights as threads read them, (groups, teams, channels, planes, floats of a plane): a
    plane's cells row by row, each with its filters; zeros for filters past the last."""
    groups, _, filters = whole.weights.shape
    cells, channels = whole.cells - np.array(box.first), whole.channels
    teams, planes, (_, rows, columns) = -(-filters // strip.filters), box.size[0], box.size
    given = whole.weights.reshape(groups, channels, len(cells), filters)
    filled = np.zeros((groups, channels, *box.size, teams * strip.filters), np.float32)
    filled[:, :, cells[:, 0], cells[:, 1], cells[:, 2], :filters] = given
    split = filled.reshape(groups, channels, planes, rows * columns, teams, strip.filters)
    split = split.transpose(0, 4, 1, 2, 3, 5).reshape(groups, teams, channels, planes, -1)
    spare = strip.floats - split.shape[-1]
    return np.pad(split, [(0, 0)] * 4 + [(0, spare)])
