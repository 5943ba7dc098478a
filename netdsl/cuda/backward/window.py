"""Gradients of everything that reads windows of positions: max pools, and all that is linear.

Each input gathers from the outputs that read it, so nothing is added by two threads. A max pool
notes in training which tap of each window was the largest. Average pools of any kind, enlarging
and padding are weighted sums of positions, and the weight of a position is a product over the
axes: a table says for each input index of an axis which outputs read it, and with what weight.
"""

from __future__ import annotations

import numpy as np
from numba import cuda, float32, int32, uint32

from netdsl.cuda.arith import place_of, quotient
from netdsl.cuda.backward.task import BackPlaces, Calls
from netdsl.cuda.layout import spread
from netdsl.cuda.pool import (
    BEFORE,
    DEPTH,
    DILATION,
    HEIGHT,
    KERNEL,
    OUT_DEPTH,
    OUT_HEIGHT,
    OUT_WIDTH,
    STRIDE,
    TARGET,
    WIDTH,
    largest_of,
    plan_pool,
    windows,
)
from netdsl.cuda.rows import place, small, teams
from netdsl.cuda.strips import plan_strips, strips_of
from netdsl.cuda.task import Task
from netdsl.cuda.wide import WARPS, row_of, team_largest, team_of
from netdsl.graph.taps import Taps, taps_of, turned

COUNT = 4
"""As in pool.py: the elements of a sample of the target, which backward is the input's gradient."""
KEPT, GRADIENT, GRADIENT_BATCH, INTO, INTO_BATCH = 27, 28, 29, 30, 31
"""After a pool's own fields: where the taps are noted; the output's gradient, the input's."""

SOURCE = 0
TABLES = 11
"""Of gather_back, after COUNT and the input's and output's sizes: where in ints the table of each
axis begins (where each input's taps start, and end; then the taps' outputs)."""
SHARES = 14
"""Where in params the taps' weights of each axis begin, less where its outputs do in ints."""

PLANE, CHANNELS, OTHER = 4, 5, 6
"""Of largest_back: positions of a channel, channels, the pool's input (OTHER and the samples'
distance), its output after that."""
RESULT, ITEMS, SMALL = 8, 10, 11
"""Channels of all samples, and whether a warp takes one."""

ZERO = np.float32(0)
NOWHERE = np.float32(-(1 << 30))


@cuda.jit
def max_pool_noting(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """A max pool that notes its taps: grid (outputs of a sample / threads, samples)."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    count = ints[uint32(at + COUNT)]
    if i < count:
        best, tap = largest_of(arena, ints, at, n, i)
        arena[uint32(row_of(ints, at + TARGET, n) + i)] = best
        arena[uint32(ints[uint32(at + KEPT)] + n * count + i)] = float32(tap)


@cuda.jit(device=True)
def readers(ints, at, axis, i):  # type: ignore[no-untyped-def]
    """The first window along an axis that may hold index i, the end of these, and i's place in
    window 0."""
    from_start = int32(i + ints[uint32(at + BEFORE + axis)])
    stride = ints[uint32(at + STRIDE + axis)]
    reach = int32((ints[uint32(at + KERNEL + axis)] - 1) * ints[uint32(at + DILATION + axis)])
    first = int32(0)
    if from_start > reach:
        first = quotient(int32(from_start - reach + stride - 1), stride)
    end = int32(quotient(from_start, stride) + 1)
    return first, min(end, ints[uint32(at + OUT_DEPTH + axis)]), from_start


@cuda.jit(device=True)
def tap_of(ints, at, axis, from_start, o):  # type: ignore[no-untyped-def]
    """Which tap of window o that place is; -1 if it lies between two."""
    apart = int32(from_start - o * ints[uint32(at + STRIDE + axis)])
    dilation = ints[uint32(at + DILATION + axis)]
    k = quotient(apart, dilation)
    return k if int32(k * dilation) == apart else int32(-1)


@cuda.jit
def max_back(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Gathers the gradients of the windows whose noted tap an input is: grid (inputs of a sample /
    threads, samples)."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    depth, height, width = (
        ints[uint32(at + DEPTH)],
        ints[uint32(at + HEIGHT)],
        ints[uint32(at + WIDTH)],
    )
    c, z, y, x = place_of(i, depth, height, width)
    out_height, out_width = ints[uint32(at + OUT_HEIGHT)], ints[uint32(at + OUT_WIDTH)]
    plane = int32(ints[uint32(at + OUT_DEPTH)] * out_height * out_width)
    count = ints[uint32(at + COUNT)]
    channels = quotient(count, plane)
    if c >= channels:
        return
    noted = int32(ints[uint32(at + KEPT)] + n * count + c * plane)
    source = int32(row_of(ints, at + GRADIENT, n) + c * plane)
    first_z, end_z, from_z = readers(ints, at, 0, z)
    first_y, end_y, from_y = readers(ints, at, 1, y)
    first_x, end_x, from_x = readers(ints, at, 2, x)
    total = ZERO
    for oz in range(first_z, end_z):
        kz = tap_of(ints, at, 0, from_z, oz)
        for oy in range(first_y, end_y):
            ky = tap_of(ints, at, 1, from_y, oy)
            for ox in range(first_x, end_x):
                kx = tap_of(ints, at, 2, from_x, ox)
                if kz >= 0 and ky >= 0 and kx >= 0:
                    o = int32((oz * out_height + oy) * out_width + ox)
                    tap = int32(kz * ints[uint32(at + KERNEL + 1)] + ky)
                    tap = int32(tap * ints[uint32(at + KERNEL + 2)] + kx)
                    if arena[uint32(noted + o)] == float32(tap):
                        total += arena[uint32(source + o)]
    arena[uint32(row_of(ints, at + INTO, n) + i)] = total


@cuda.jit
def largest_back(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Gives a channel's gradient to the first of its largest: a team each, grid (samples x
    channels)."""
    shared = cuda.shared.array(WARPS, float32)
    t, small = int32(cuda.threadIdx.x), ints[uint32(at + SMALL)] != 0
    team, start, step = team_of(t, small)
    q = int32(cuda.blockIdx.x * WARPS + team) if small else int32(cuda.blockIdx.x)
    channels, end = ints[uint32(at + CHANNELS)], ints[uint32(at + PLANE)]
    n = quotient(q, channels)
    c = int32(q - n * channels)
    other = int32(row_of(ints, at + OTHER, n) + c * end)
    target = int32(row_of(ints, at + TARGET, n) + c * end)
    best, g = ZERO, ZERO
    if q < ints[uint32(at + ITEMS)]:
        best = arena[uint32(row_of(ints, at + RESULT, n) + c)]
        g = arena[uint32(row_of(ints, at + SOURCE, n) + c)]
    else:
        end = int32(0)
    first = NOWHERE
    for i in range(start, end, step):
        value = arena[uint32(other + i)]
        if value == best or value != value:
            first = max(first, float32(int32(-i)))
    where = int32(-team_largest(shared, t, first, small))
    for i in range(start, end, step):
        arena[uint32(target + i)] = g if i == where else ZERO


@cuda.jit
def gather_back(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Gathers the gradients of the outputs that an input was summed into: grid (inputs of a
    sample / threads, samples)."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    if i >= ints[uint32(at + COUNT)]:
        return
    c, z, y, x = place_of(
        i, ints[uint32(at + DEPTH)], ints[uint32(at + HEIGHT)], ints[uint32(at + WIDTH)]
    )
    out_height, out_width = ints[uint32(at + OUT_HEIGHT)], ints[uint32(at + OUT_WIDTH)]
    plane = int32(ints[uint32(at + OUT_DEPTH)] * out_height * out_width)
    source = int32(row_of(ints, at + SOURCE, n) + c * plane)
    table_z = int32(ints[uint32(at + TABLES)] + z)
    table_y = int32(ints[uint32(at + TABLES + 1)] + y)
    table_x = int32(ints[uint32(at + TABLES + 2)] + x)
    total = ZERO
    for k in range(ints[uint32(table_z)], ints[uint32(table_z + 1)]):
        by_z = params[uint32(k + ints[uint32(at + SHARES)])]
        row_z = int32(ints[uint32(k)] * out_height)
        for j in range(ints[uint32(table_y)], ints[uint32(table_y + 1)]):
            by_y = by_z * params[uint32(j + ints[uint32(at + SHARES + 1)])]
            row = int32(source + (row_z + ints[uint32(j)]) * out_width)
            for m in range(ints[uint32(table_x)], ints[uint32(table_x + 1)]):
                share = by_y * params[uint32(m + ints[uint32(at + SHARES + 2)])]
                total += share * arena[uint32(row + ints[uint32(m)])]
    arena[uint32(row_of(ints, at + TARGET, n) + i)] = total


def max_kept(task: Task) -> int:
    """A tap an output."""
    return task.batch * task.output.sample


def max_forward(task: Task, places: BackPlaces) -> tuple[Calls, Calls]:
    """A max pool that notes its taps; one that is tried does not."""
    window, out = strips_of(task), task.output
    if window is not None:
        return [plan_strips(task, window, places.kept)], plan_pool(task)
    at = task.ints.add([*windows(task), places.kept])
    return [spread(max_pool_noting, out.sample, at, out.batch)], plan_pool(task)


def max_pool_back(task: Task, places: BackPlaces) -> Calls:
    """The call of a max pool."""
    target = places.gradients[0]
    if target is None:
        return []
    own = [places.kept, *place(places.gradient), *place(target)]
    at = task.ints.add([*windows(task), *own])
    return [spread(max_back, target.sample, at, target.batch)]


def global_max_back(task: Task, places: BackPlaces) -> Calls:
    """The call of a largest of everything."""
    target, x = places.gradients[0], places.inputs[0]
    if target is None:
        return []
    d = [*place(places.gradient), *place(target), target.plane, target.channels]
    items, plane = target.batch * target.channels, target.plane
    at = task.ints.add([*d, *place(x), *place(places.output), items, int(small(plane))])
    return [teams(largest_back, items, plane, at)]


def linear_back(task: Task, places: BackPlaces) -> Calls:
    """The call of an average pool, an enlarging or a padding."""
    op, g, target = task.whole.base, places.gradient, places.gradients[0]
    if target is None:
        return []
    axes = [
        table(task, turned(axis, size))
        for axis, size in zip(
            taps_of(op, task.shapes[0], task.node.shape), target.size, strict=True
        )
    ]
    d = [*place(g), *place(target), target.sample, *target.size, *g.size]
    at = task.ints.add([*d, *(start for start, _ in axes), *(apart for _, apart in axes)])
    return [spread(gather_back, target.sample, at, target.batch)]


def table(task: Task, axis: Taps) -> tuple[int, int]:
    """Puts an axis's table into ints and params: where it begins, and how far the weights lie from
    the outputs."""
    counts = np.cumsum([0, *(len(taps) for taps in axis)])
    outputs = [at for taps in axis for at, _ in taps]
    first = task.ints.count + len(counts)
    start = task.ints.add([*(int(count) + first for count in counts), *outputs])
    shares = task.params.add([share for taps in axis for _, share in taps])
    return start, shares - first
