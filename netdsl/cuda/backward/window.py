"""Gradients of everything that reads windows of positions: max pools, and all that is linear.

Each input gathers from the outputs that read it, so nothing is added by two threads. A max pool
notes in training which tap of each window was the largest; see strips.py for the usual windows.
Average pools of any kind, enlarging and padding are weighted sums of positions, and the weight of a
position is a product over the axes. A table says for each input index of an axis which outputs read
it, and with what weight, or as which tap; what is found out for one channel serves eight.
"""

from __future__ import annotations

import numpy as np
from numba import cuda, float32, int32, uint32, uint64

from netdsl.cuda.arith import place_by, quotient, reciprocal
from netdsl.cuda.backward.strips import back_window, plan_back
from netdsl.cuda.backward.task import BackPlaces, Calls
from netdsl.cuda.layout import Buffer, Call, axes, spread
from netdsl.cuda.pool import by_windows, plan_pool
from netdsl.cuda.rows import place, small, teams
from netdsl.cuda.task import Task
from netdsl.cuda.warp import float_of, load4
from netdsl.cuda.wide import WARPS, row_of, team_largest, team_of
from netdsl.cuda.windows import bits, rows_of, windows_of
from netdsl.graph.taps import Taps, taps_of, turned
from netdsl.ops import MaxPool

PLACES, COUNT, SIZE, WIDTHS, DEPTHS, TABLES = range(0, 24, 4)
"""Where fours of the descriptor's fields begin, each read at once. PLACES: the output's gradient,
how far apart its rows lie, and the same of the input's; a row is a sample, or all of them. COUNT:
threads of a row, its channels, positions of a channel of the input and of the output. SIZE: the
input's depth, height and width; columns of the output. WIDTHS: the reciprocals of the input's width
and height. DEPTHS: that of its depth; positions of a plane of the output, columns of a window.
TABLES: those of depth, height and width; positions of a window's plane."""
KEPT, KEPT_ROW = 24, 25
"""Of max_back: where the taps are noted, and how far apart their rows lie."""

GROUP = 8
"""Channels of a thread."""

SOURCE, TARGET, PLANE, CHANNELS, OTHER = 0, 2, 4, 5, 6
"""Of largest_back: positions of a channel, channels, the pool's input (OTHER and the samples'
distance), its output after that."""
RESULT, ITEMS, SMALL = 8, 10, 11
"""Channels of all samples, and whether a warp takes one."""

ZERO, ONE = np.float32(0), np.float32(1)
NOWHERE = np.float32(-(1 << 30))


@cuda.jit(device=True)
def input_of(ints, at, i):  # type: ignore[no-untyped-def]
    """Of thread i of a row: its first channel, its input's place in a channel, and of each axis
    where the outputs that read it begin and end in ints."""
    depth, height, width, _ = load4(ints, uint64(at + SIZE))
    widths, depths = load4(ints, uint64(at + WIDTHS)), load4(ints, uint64(at + DEPTHS))
    of_depth, of_height, of_width, _ = load4(ints, uint64(at + TABLES))
    group, z, y, x = place_by(i, depth, height, width, widths, depths)
    first_z, end_z, _, _ = load4(ints, uint64(of_depth + 4 * z))
    first_y, end_y, _, _ = load4(ints, uint64(of_height + 4 * y))
    first_x, end_x, _, _ = load4(ints, uint64(of_width + 4 * x))
    p = int32((z * height + y) * width + x)
    return int32(group * GROUP), p, first_z, end_z, first_y, end_y, first_x, end_x


@cuda.jit(device=True)
def channels_of(apart, c, channels, plane):  # type: ignore[no-untyped-def]
    """How far a thread's channels lie from the row's begin; the last once more where there are
    fewer."""
    for k in range(GROUP):
        apart[k] = int32(min(int32(c + k), int32(channels - 1)) * plane)


@cuda.jit(device=True)
def given(arena, begin, c, channels, plane, values):  # type: ignore[no-untyped-def]
    """Writes what each channel's input came to."""
    for k in range(GROUP):
        if int32(c + k) < channels:
            arena[uint32(begin + (c + k) * plane)] = values[k]


@cuda.jit
def max_back(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Gathers the gradients of the windows whose noted tap an input is: grid (inputs of a row /
    eights of channels / threads, rows)."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    count, channels, in_plane, out_plane = load4(ints, uint64(at + COUNT))
    if i >= count:
        return
    c, p, first_z, end_z, first_y, end_y, first_x, end_x = input_of(ints, at, i)
    source, source_row, target, target_row = load4(ints, uint64(at + PLACES))
    area, columns = ints[uint64(at + DEPTHS + 2)], ints[uint64(at + DEPTHS + 3)]
    line, taps = ints[uint64(at + SIZE + 3)], ints[uint64(at + TABLES + 3)]
    source = int32(source + n * source_row)
    kept = int32(ints[uint64(at + KEPT)] + n * ints[uint64(at + KEPT_ROW)])
    apart = cuda.local.array(GROUP, int32)
    noted = cuda.local.array(GROUP, float32)
    slopes = cuda.local.array(GROUP, float32)
    totals = cuda.local.array(GROUP, float32)
    channels_of(apart, c, channels, out_plane)
    for k in range(GROUP):
        totals[k] = ZERO
    for z in range(first_z, end_z, int32(4)):
        oz, kz, _, _ = load4(ints, uint64(z))
        for y in range(first_y, end_y, int32(4)):
            oy, ky, _, _ = load4(ints, uint64(y))
            for x in range(first_x, end_x, int32(4)):
                ox, kx, _, _ = load4(ints, uint64(x))
                tap = float32(int32(kz * taps + ky * columns + kx))
                o = int32(oz * area + oy * line + ox)
                for k in range(GROUP):
                    noted[k] = arena[uint32(kept + apart[k] + o)]
                    slopes[k] = arena[uint32(source + apart[k] + o)]
                for k in range(GROUP):
                    totals[k] += slopes[k] if noted[k] == tap else ZERO
    given(arena, int32(target + n * target_row + p), c, channels, in_plane, totals)


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
    """Gathers the gradients of the outputs that an input was summed into: grid as `max_back`."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    count, channels, in_plane, out_plane = load4(ints, uint64(at + COUNT))
    if i >= count:
        return
    c, p, first_z, end_z, first_y, end_y, first_x, end_x = input_of(ints, at, i)
    source, source_row, target, target_row = load4(ints, uint64(at + PLACES))
    area, line = ints[uint64(at + DEPTHS + 2)], ints[uint64(at + SIZE + 3)]
    source = int32(source + n * source_row)
    apart = cuda.local.array(GROUP, int32)
    slopes = cuda.local.array(GROUP, float32)
    totals = cuda.local.array(GROUP, float32)
    channels_of(apart, c, channels, out_plane)
    for k in range(GROUP):
        totals[k] = ZERO
    for z in range(first_z, end_z, int32(4)):
        oz, by_z, _, _ = load4(ints, uint64(z))
        for y in range(first_y, end_y, int32(4)):
            oy, by_y, _, _ = load4(ints, uint64(y))
            by = float_of(uint32(by_z)) * float_of(uint32(by_y))
            for x in range(first_x, end_x, int32(4)):
                ox, by_x, _, _ = load4(ints, uint64(x))
                o = int32(source + oz * area + oy * line + ox)
                for k in range(GROUP):
                    slopes[k] = arena[uint32(o + apart[k])]
                share = by * float_of(uint32(by_x))
                for k in range(GROUP):
                    totals[k] += share * slopes[k]
    given(arena, int32(target + n * target_row + p), c, channels, in_plane, totals)


def max_kept(task: Task) -> int:
    """A tap an output."""
    return task.batch * task.output.sample


def max_forward(task: Task, places: BackPlaces) -> tuple[Calls, Calls]:
    """A max pool that notes its taps; one that is tried does not."""
    return [by_windows(task, places.kept)], plan_pool(task)


def max_pool_back(task: Task, places: BackPlaces) -> Calls:
    """The call of a max pool."""
    op, target, window = task.whole.base, places.gradients[0], back_window(task)
    if target is None:
        return []
    if window is not None:
        return [plan_back(task, places, target, window)]
    assert isinstance(op, MaxPool)
    w = op.window
    own = (
        axes(w.stride, 1),
        axes((lo for lo, _ in w.padding), 0),
        axes(w.dilation, 1),
    )
    readers = [
        tapped([(first, end) for first, end, _ in axis], size, *numbers)
        for axis, size, *numbers in zip(windows_of(task), target.size, *own, strict=True)
    ]
    return [gathering(task, places, target, readers, axes(w.kernel, 1))]


Readers = list[list[tuple[int, int]]]
"""For each input of an axis the outputs that read it, and a word that goes with each."""


def tapped(
    windows: list[tuple[int, int]], size: int, stride: int, before: int, dilation: int
) -> Readers:
    """Which windows (first tap, end) of an axis hold each place of it, and as which tap."""
    found: Readers = [[] for _ in range(size)]
    for o, (first, end) in enumerate(windows):
        for at in range(first, end, dilation):
            found[at].append((o, (at - o * stride + before) // dilation))
    return found


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
    op, target = task.whole.base, places.gradients[0]
    if target is None:
        return []
    readers = [
        weighted(turned(axis, size))
        for axis, size in zip(
            taps_of(op, task.shapes[0], task.node.shape), target.size, strict=True
        )
    ]
    return [gathering(task, places, target, readers)]


def weighted(axis: Taps) -> Readers:
    """The bits of the weights."""
    return [[(at, bits(share)) for at, share in taps] for taps in axis]


def gathering(
    task: Task,
    places: BackPlaces,
    target: Buffer,
    readers: list[Readers],
    kernel: tuple[int, int, int] | None = None,
) -> Call:
    """The call that gathers an input's gradient. kernel: of a max pool's windows."""
    g = places.gradient
    rows, channels = rows_of(g, target)
    (depth, height, width), (_, lines, columns) = target.size, g.size
    count = -(-channels // GROUP) * target.plane
    taps = kernel or (0, 0, 0)
    d = [*place(g), *place(target), count, channels, target.plane, g.plane]
    d += [depth, height, width, columns, *reciprocal(width), *reciprocal(height)]
    d += [*reciprocal(depth), lines * columns, taps[2]]
    d += [*(table(task, axis) for axis in readers), taps[1] * taps[2]]
    at = task.ints.add([*d, places.kept, g.sample], align=4)
    return spread(gather_back if kernel is None else max_back, count, at, rows)


def table(task: Task, axis: Readers) -> int:
    """Where an axis's table lies in ints: of each input where its outputs begin there, and end;
    then these, each with its word. All in fours, which are read at once."""
    start = task.ints.add([], align=4)
    place, heads, outputs = start + 4 * len(axis), list[int](), list[int]()
    for found in axis:
        heads += [place, place + 4 * len(found), 0, 0]
        place += 4 * len(found)
        for at, word in found:
            outputs += [at, word, 0, 0]
    return task.ints.add([*heads, *outputs])
