"""Pools: a thread an output, or a block a channel where all of it is pooled; see strips.py for the
usual windows."""

from __future__ import annotations

import numpy as np
from numba import cuda, float32, int32, uint32, uint64

from netdsl.cuda.activation import ends
from netdsl.cuda.arith import MOST, divided, place_of, quotient, reciprocal
from netdsl.cuda.layout import Call, axes, spread
from netdsl.cuda.packing import NEVER, PASSES, Packs
from netdsl.cuda.rows import small, teams
from netdsl.cuda.sizes import SIMULATED
from netdsl.cuda.strips import plan_strips, strips_of
from netdsl.cuda.task import Task
from netdsl.cuda.units import plan_units
from netdsl.cuda.warp import larger, load4
from netdsl.cuda.wide import WARPS, lanes_largest, lanes_sum, team_largest, team_of, team_sum
from netdsl.ops import AdaptiveAveragePool, AveragePool, GlobalAverage, GlobalMax, MaxPool

SOURCE, SOURCE_BATCH, TARGET, TARGET_BATCH, COUNT = range(5)
DEPTH, HEIGHT, WIDTH, OUT_DEPTH, OUT_HEIGHT, OUT_WIDTH = range(5, 11)
KERNEL, STRIDE, DILATION, BEFORE, AFTER = 11, 14, 17, 20, 23
"""Three numbers each: of depth, height and width."""
COUNT_PAD = 26

CHANNELS, PLANE, LARGEST, ITEMS, SMALL = range(4, 9)
"""Of pool_all: channels, positions of a channel, whether the largest is wanted; channels of all
samples, whether a warp takes one."""
RECIPROCAL = 8
"""Of pool_few, in the place of SMALL: that of the channels."""

LANES = 2 if SIMULATED else 8
"""Of pool_few: neighbours that share a channel, whose loads make up a sector."""
FEW = 8 if SIMULATED else 256
"""Positions up to which they do."""

ZERO, ONE = np.float32(0), np.float32(1)
LEAST = np.float32(-np.inf)


@cuda.jit(device=True)
def window_of(ints, at, i):  # type: ignore[no-untyped-def]
    """The channel of output i, and the depth, row and column where its window begins."""
    c, z, y, x = place_of(
        i,
        ints[uint32(at + OUT_DEPTH)],
        ints[uint32(at + OUT_HEIGHT)],
        ints[uint32(at + OUT_WIDTH)],
    )
    z = int32(z * ints[uint32(at + STRIDE)] - ints[uint32(at + BEFORE)])
    y = int32(y * ints[uint32(at + STRIDE + 1)] - ints[uint32(at + BEFORE + 1)])
    x = int32(x * ints[uint32(at + STRIDE + 2)] - ints[uint32(at + BEFORE + 2)])
    return c, z, y, x


@cuda.jit(device=True)
def taps_of(start, size, kernel, dilation):  # type: ignore[no-untyped-def]
    """The first tap of a window along an axis that lies inside, and the end of these."""
    first, end, length = int32(0), kernel, int32(size - start)
    if start < 0:
        first = quotient(int32(dilation - 1 - start), dilation)
    if length <= int32((kernel - 1) * dilation):
        end = quotient(max(int32(length + dilation - 1), int32(0)), dilation)
    return first, end


@cuda.jit(device=True)
def ranges_of(ints, at, z0, y0, x0):  # type: ignore[no-untyped-def]
    """The taps of a window that lie inside, of all three axes."""
    first_z, end_z = taps_of(
        z0, ints[uint32(at + DEPTH)], ints[uint32(at + KERNEL)], ints[uint32(at + DILATION)]
    )
    first_y, end_y = taps_of(
        y0,
        ints[uint32(at + HEIGHT)],
        ints[uint32(at + KERNEL + 1)],
        ints[uint32(at + DILATION + 1)],
    )
    first_x, end_x = taps_of(
        x0, ints[uint32(at + WIDTH)], ints[uint32(at + KERNEL + 2)], ints[uint32(at + DILATION + 2)]
    )
    return first_z, end_z, first_y, end_y, first_x, end_x


@cuda.jit(device=True)
def row_at(ints, at, n, c, z, y):  # type: ignore[no-untyped-def]
    """Where a row of the input begins."""
    line = int32((c * ints[uint32(at + DEPTH)] + z) * ints[uint32(at + HEIGHT)] + y)
    source = int32(ints[uint32(at + SOURCE)] + n * ints[uint32(at + SOURCE_BATCH)])
    return int32(source + line * ints[uint32(at + WIDTH)])


@cuda.jit(device=True)
def largest_of(arena, ints, at, n, i):  # type: ignore[no-untyped-def]
    """The largest of the window of output i, NaN if there is one, and the first tap that has it."""
    c, z0, y0, x0 = window_of(ints, at, i)
    first_z, end_z, first_y, end_y, first_x, end_x = ranges_of(ints, at, z0, y0, x0)
    apart = ints[uint32(at + DILATION + 2)]
    best, found = LEAST, int32(-1)
    for kz in range(first_z, end_z):
        z = int32(z0 + kz * ints[uint32(at + DILATION)])
        for ky in range(first_y, end_y):
            y = int32(y0 + ky * ints[uint32(at + DILATION + 1)])
            row = int32(row_at(ints, at, n, c, z, y) + x0)
            line = int32(kz * ints[uint32(at + KERNEL + 1)] + ky)
            line = int32(line * ints[uint32(at + KERNEL + 2)])
            for kx in range(first_x, end_x):
                value = arena[uint32(row + kx * apart)]
                if value > best or value != value or found < 0:
                    best, found = value, int32(line + kx)
    return best, found


@cuda.jit
def max_pool(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The largest of a window; NaN wins: grid (outputs of a sample / threads, samples)."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    if i >= ints[uint32(at + COUNT)]:
        return
    best, _ = largest_of(arena, ints, at, n, i)
    arena[uint32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)] + i)] = best


@cuda.jit(device=True)
def counted(ints, at, axis, start):  # type: ignore[no-untyped-def]
    """Taps of a window along an axis that lie inside or in the padding."""
    size = int32(ints[uint32(at + DEPTH + axis)] + ints[uint32(at + AFTER + axis)])
    kernel, dilation = ints[uint32(at + KERNEL + axis)], ints[uint32(at + DILATION + axis)]
    _, end = taps_of(start, size, kernel, dilation)
    return end


@cuda.jit
def average_pool(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The mean of a window: grid (outputs of a sample / threads, samples)."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    if i >= ints[uint32(at + COUNT)]:
        return
    c, z0, y0, x0 = window_of(ints, at, i)
    first_z, end_z, first_y, end_y, first_x, end_x = ranges_of(ints, at, z0, y0, x0)
    apart = ints[uint32(at + DILATION + 2)]
    total = ZERO
    for kz in range(first_z, end_z):
        z = int32(z0 + kz * ints[uint32(at + DILATION)])
        for ky in range(first_y, end_y):
            y = int32(y0 + ky * ints[uint32(at + DILATION + 1)])
            row = int32(row_at(ints, at, n, c, z, y) + x0)
            for kx in range(first_x, end_x):
                total += arena[uint32(row + kx * apart)]
    cells = int32((end_z - first_z) * (end_y - first_y) * (end_x - first_x))
    if ints[uint32(at + COUNT_PAD)] != 0:
        cells = int32(
            counted(ints, at, int32(0), z0)
            * counted(ints, at, int32(1), y0)
            * counted(ints, at, int32(2), x0)
        )
    to = int32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)] + i)
    arena[uint32(to)] = total / float32(cells)


@cuda.jit
def adaptive_pool(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The mean of a window of the grid: grid (outputs of a sample / threads, samples)."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    if i >= ints[uint32(at + COUNT)]:
        return
    depth = ints[uint32(at + DEPTH)]
    height = ints[uint32(at + HEIGHT)]
    width = ints[uint32(at + WIDTH)]
    out_depth = ints[uint32(at + OUT_DEPTH)]
    out_height = ints[uint32(at + OUT_HEIGHT)]
    out_width = ints[uint32(at + OUT_WIDTH)]
    c, oz, oy, ox = place_of(i, out_depth, out_height, out_width)
    x0 = quotient(int32(ox * width), out_width)
    y0 = quotient(int32(oy * height), out_height)
    z0 = quotient(int32(oz * depth), out_depth)
    x1 = quotient(int32((ox + 1) * width + out_width - 1), out_width)
    y1 = quotient(int32((oy + 1) * height + out_height - 1), out_height)
    z1 = quotient(int32((oz + 1) * depth + out_depth - 1), out_depth)
    source = int32(
        ints[uint32(at + SOURCE)] + n * ints[uint32(at + SOURCE_BATCH)] + c * depth * height * width
    )
    total = ZERO
    for z in range(z0, z1):
        for y in range(y0, y1):
            for x in range(x0, x1):
                total += arena[uint32(source + (z * height + y) * width + x)]
    to = int32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)] + i)
    arena[uint32(to)] = total / float32(int32((z1 - z0) * (y1 - y0) * (x1 - x0)))


@cuda.jit
def pool_all(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The mean or largest of a channel of a sample: a team each, grid (samples x channels)."""
    shared = cuda.shared.array(WARPS, float32)
    t, small = int32(cuda.threadIdx.x), ints[uint32(at + SMALL)] != 0
    team, first, step = team_of(t, small)
    q = int32(cuda.blockIdx.x * WARPS + team) if small else int32(cuda.blockIdx.x)
    channels, plane = ints[uint32(at + CHANNELS)], ints[uint32(at + PLANE)]
    n = quotient(q, channels)
    c = int32(q - n * channels)
    source = int32(ints[uint32(at + SOURCE)] + n * ints[uint32(at + SOURCE_BATCH)] + c * plane)
    there = q < ints[uint32(at + ITEMS)]
    end = plane if there else int32(0)
    if ints[uint32(at + LARGEST)] != 0:
        best = LEAST
        for i in range(first, end, step):
            best = larger(best, arena[uint32(source + i)])
        result = team_largest(shared, t, best, small)
    else:
        total = ZERO
        for i in range(first, end, step):
            total += arena[uint32(source + i)]
        result = team_sum(shared, t, total, small) / float32(plane)
    if first == 0 and there:
        to = int32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)] + c)
        arena[uint32(to)] = result


@cuda.jit
def pool_few(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The mean or largest of a small channel of a sample: some lanes each, grid (samples x channels
    x lanes / threads)."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    q = quotient(i, int32(LANES))
    first = int32(i - q * LANES)
    source, source_batch, target, target_batch = load4(ints, uint64(at + SOURCE))
    channels, plane, largest, items = load4(ints, uint64(at + CHANNELS))
    n = divided(q, ints[uint64(at + RECIPROCAL)], ints[uint64(at + RECIPROCAL + 1)])
    c = int32(q - n * channels)
    source = int32(source + n * source_batch + c * plane)
    end = plane if q < items else int32(0)
    if largest != 0:
        result = LEAST
        for k in range(first, end, int32(LANES)):
            result = larger(result, arena[uint32(source + k)])
        result = lanes_largest(result, LANES)
    else:
        result = ZERO
        for k in range(first, end, int32(LANES)):
            result += arena[uint32(source + k)]
        result = lanes_sum(result, LANES) / float32(plane)
    if first == 0 and q < items:
        arena[uint32(target + n * target_batch + c)] = result


def windows(task: Task) -> list[int]:
    """The fields of a pool with windows of its own, up to COUNT_PAD."""
    op, source, target = task.whole.base, task.inputs[0], task.output
    assert isinstance(op, MaxPool | AveragePool)
    w = op.window
    d = [*ends(source, target), target.sample, *source.size, *target.size]
    d += [*axes(w.kernel, 1), *axes(w.stride, 1), *axes(w.dilation, 1)]
    d += [*axes((lo for lo, _ in w.padding), 0), *axes((hi for _, hi in w.padding), 0)]
    return [*d, int(isinstance(op, AveragePool) and op.count_pad)]


def plan_pool(task: Task) -> list[Call]:
    """A pool with windows of its own; of what lies packed and of floats, as it is wanted."""
    window, calls = strips_of(task), list[Call]()
    if window is not None:
        if task.packed_output is not None:
            calls.append(plan_units(task, window))
        if task.output.there:
            calls.append(plan_strips(task, window))
        return calls
    kernel = max_pool if isinstance(task.whole.base, MaxPool) else average_pool
    at = task.ints.add(windows(task))
    return [spread(kernel, task.output.sample, at, task.output.batch)]


def max_pool_packs(task: Task) -> Packs:
    """What a max pool's kernels do with packed tensors."""
    return NEVER if strips_of(task) is None else PASSES


def plan_adaptive(task: Task) -> list[Call]:
    """A pool to a given size."""
    op, source, target = task.whole.base, task.inputs[0], task.output
    assert isinstance(op, AdaptiveAveragePool)
    if target.plane == 1:
        return [whole(task, largest=False)]
    d = [*ends(source, target), target.sample, *source.size, *target.size]
    return [spread(adaptive_pool, target.sample, task.ints.add(d), target.batch)]


def plan_global(task: Task) -> list[Call]:
    """A pool of everything."""
    assert isinstance(task.whole.base, GlobalAverage)
    return [whole(task, largest=isinstance(task.whole.base, GlobalMax))]


def whole(task: Task, *, largest: bool) -> Call:
    """Every channel to one number."""
    source = task.inputs[0]
    items, plane = source.batch * source.channels, source.plane
    d = [*ends(source, task.output), source.channels, plane, int(largest), items]
    if plane <= FEW and items * LANES < MOST:
        at = task.ints.add([*d, *reciprocal(source.channels)], align=4)
        return spread(pool_few, items * LANES, at)
    return teams(pool_all, items, plane, task.ints.add([*d, int(small(plane))]))
