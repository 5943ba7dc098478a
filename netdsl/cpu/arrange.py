"""Moving values about: in and out of the blocked layout, gathers along axes, mixing of channels."""

from __future__ import annotations

import numpy as np

from netdsl.cpu.lanes import keep, load, muladd, splat, store
from netdsl.cpu.late import njit
from netdsl.cpu.launch import share, worker
from netdsl.cpu.layout import (
    BATCH,
    BLOCK_STRIDE,
    BLOCKS,
    CHANNELS,
    DEPTH,
    HEIGHT,
    PLANE_STRIDE,
    ROW_STRIDE,
    WIDTH,
    Buffer,
    Call,
    axes3,
)
from netdsl.cpu.micro import prefetch
from netdsl.cpu.task import Places, Task
from netdsl.cpu.views import (
    OWN,
    SOURCE,
    TARGET,
    call,
    lanes_of,
    row_at,
    row_count,
    row_place,
    row_width,
)
from netdsl.graph.taps import padded
from netdsl.ops import Pad, Shuffle, Upsample


@worker
def pack(arena, array, d, part, parts):  # type: ignore[no-untyped-def]
    """From an array (N, C, *spatial), given in place of params, into blocks of 16 channels."""
    columns, channels = row_width(d), d[TARGET + CHANNELS]
    rows, depth = d[TARGET + HEIGHT], d[TARGET + DEPTH]
    plane = depth * rows * columns
    work = row_count(d)
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b, z, y = row_place(d, item)
        out = row_at(d, TARGET, n, b, z, y)
        lanes = lanes_of(d, b)
        source = (n * channels + 16 * b) * plane + (z * rows + y) * columns
        for x in range(columns):
            if lanes < 16:
                store(arena, out + 16 * x, splat(np.float32(0.0)))
            for lane in range(lanes):
                arena[out + 16 * x + lane] = array[source + lane * plane + x]


@worker
def pack_planar(arena, array, d, part, parts):  # type: ignore[no-untyped-def]
    """From an array (N, C, *spatial), given in place of params, into planes with a halo."""
    columns = row_width(d)
    work = row_count(d)
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, c, z, y = row_place(d, item)
        out = row_at(d, TARGET, n, c, z, y)
        source = item * columns
        for x in range(columns):
            arena[out + x] = array[source + x]


@worker
def unpack(arena, array, d, part, parts):  # type: ignore[no-untyped-def]
    """From blocks into an array (N, C, *spatial), given in place of params: TARGET is read."""
    columns, channels = row_width(d), d[TARGET + CHANNELS]
    rows, depth = d[TARGET + HEIGHT], d[TARGET + DEPTH]
    plane = depth * rows * columns
    work = row_count(d)
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b, z, y = row_place(d, item)
        source = row_at(d, TARGET, n, b, z, y)
        out = (n * channels + 16 * b) * plane + (z * rows + y) * columns
        for lane in range(lanes_of(d, b)):
            for x in range(columns):
                array[out + lane * plane + x] = arena[source + 16 * x + lane]


BEFORE, AFTER = OWN, OWN + 3
"""Of clear_halo: how wide it is before and after each of depth, height and width."""

AHEAD = 12
"""Rows from one whose halo is cleared to one whose halo is asked for."""


@worker
def clear_halo(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """Zeros all around the images of TARGET, which stay as they are. Halos of rows that come later
    are asked for meanwhile."""
    columns, left, right = row_width(d), d[BEFORE + 2], d[AFTER + 2]
    height, depth = d[TARGET + HEIGHT], d[TARGET + DEPTH]
    down, ahead = d[TARGET + ROW_STRIDE], AHEAD * d[TARGET + ROW_STRIDE]
    blocks, planes = d[TARGET + BLOCKS], d[BEFORE] + depth + d[AFTER]
    work = d[TARGET + BATCH] * blocks * planes
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        cube, z = item // planes, item % planes - d[BEFORE]
        at = row_at(d, TARGET, cube // blocks, cube % blocks, z, -d[BEFORE + 1]) - 16 * left
        if z < 0 or z >= depth:
            fill(arena, at, (d[BEFORE + 1] + height + d[AFTER + 1]) * (left + columns + right))
            continue
        # What is right of a row lies before what is left of the next.
        fill(arena, at, d[BEFORE + 1] * (left + columns + right) + left)
        at += d[BEFORE + 1] * down + 16 * (left + columns)
        for _ in range(height - 1):
            for x in range(left + right):
                prefetch(arena, at + ahead + 16 * x)
                store(arena, at + 16 * x, splat(np.float32(0.0)))
            at += down
        fill(arena, at, d[AFTER + 1] * (left + columns + right) + right)


@njit(boundscheck=False, error_model="numpy")
def fill(arena, at, count):  # type: ignore[no-untyped-def]
    """Zeros so many pixels of a block."""
    for x in range(count):
        store(arena, at + 16 * x, splat(np.float32(0.0)))


def clearing(buffer: Buffer, parts: int) -> Call:
    """The call that zeros a buffer's halo."""
    return call(clear_halo, parts, buffer, buffer, *buffer.halo.lo, *buffer.halo.hi)


FILL, PLACES = OWN, OWN + 1
"""Of gather: where params hold the filling; which place each depth, height and column is from."""


@worker
def gather(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """Every position from a place of the source given per axis, or the filling where it is -1.

    Nearest-neighbour enlarging, padding of any mode, and cropping.
    """
    columns, depth, rows = row_width(d), d[TARGET + DEPTH], d[TARGET + HEIGHT]
    fill = splat(params[d[FILL]])
    work = row_count(d)
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b, z, y = row_place(d, item)
        out = row_at(d, TARGET, n, b, z, y)
        from_z, from_y = d[PLACES + z], d[PLACES + depth + y]
        source = row_at(d, SOURCE, n, b, from_z, from_y)
        filling = keep(fill, 0, lanes_of(d, b))
        for x in range(columns):
            from_x = d[PLACES + depth + rows + x]
            if from_z < 0 or from_y < 0 or from_x < 0:
                store(arena, out + 16 * x, filling)
            else:
                store(arena, out + 16 * x, load(arena, source + 16 * from_x))


WEIGHTS, PAIRS = OWN, OWN + 1
"""Of interpolate: where params hold the share of each axis's second place; the two places."""


@worker
def interpolate(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """Linear interpolation between two places per axis. A share of 0 leaves the second unread."""
    columns, depth, rows = row_width(d), d[TARGET + DEPTH], d[TARGET + HEIGHT]
    weights = d[WEIGHTS]
    work = row_count(d)
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b, z, y = row_place(d, item)
        out = row_at(d, TARGET, n, b, z, y)
        for x in range(columns):
            result = splat(np.float32(0.0))
            for corner in range(8):
                i, j, k = corner >> 2, corner >> 1 & 1, corner & 1
                wz = params[weights + z]
                wy = params[weights + depth + y]
                wx = params[weights + depth + rows + x]
                share_z = wz if i else np.float32(1.0) - wz
                share_y = wy if j else np.float32(1.0) - wy
                share_x = wx if k else np.float32(1.0) - wx
                weight = share_z * share_y * share_x
                if weight != 0.0:
                    at_z = d[PAIRS + 2 * z + i]
                    at_y = d[PAIRS + 2 * (depth + y) + j]
                    at_x = d[PAIRS + 2 * (depth + rows + x) + k]
                    source = row_at(d, SOURCE, n, b, at_z, at_y)
                    result = muladd(load(arena, source + 16 * at_x), splat(weight), result)
            store(arena, out + 16 * x, result)


ORDER = OWN
"""Of mix: for each lane of the target's blocks, the channel of the source, -1 for 0, -2 to keep."""


@worker
def mix(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """Each channel from another: a shuffle, or a branch's place in a concatenation."""
    columns, apart = row_width(d), d[SOURCE + BLOCK_STRIDE]
    work = row_count(d)
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b, z, y = row_place(d, item)
        out = row_at(d, TARGET, n, b, z, y)
        source = row_at(d, SOURCE, n, 0, z, y)
        for lane in range(16):
            channel = d[ORDER + 16 * b + lane]
            if channel >= 0:
                start = source + channel // 16 * apart + channel % 16
                for x in range(columns):
                    arena[out + 16 * x + lane] = arena[start + 16 * x]
            elif channel == -1:
                for x in range(columns):
                    arena[out + 16 * x + lane] = np.float32(0.0)


@worker
def flatten(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """(C, *spatial) into a vector, channel by channel."""
    depth, rows, columns = d[SOURCE + DEPTH], d[SOURCE + HEIGHT], d[SOURCE + WIDTH]
    apart, back, down = d[SOURCE + BLOCK_STRIDE], d[SOURCE + PLANE_STRIDE], d[SOURCE + ROW_STRIDE]
    channels, plane = d[SOURCE + CHANNELS], depth * rows * columns
    work = d[TARGET + BATCH] * channels
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, c = item // channels, item % channels
        source = row_at(d, SOURCE, n, 0, 0, 0) + c // 16 * apart + c % 16
        out = row_at(d, TARGET, n, 0, 0, 0) + c * plane
        for z in range(depth):
            for y in range(rows):
                at = source + z * back + y * down
                for x in range(columns):
                    arena[out + x] = arena[at + 16 * x]
                out += columns
        if c == channels - 1:
            for spare in range(-(channels * plane) % 16):
                arena[out + spare] = np.float32(0.0)


def plan_flatten(task: Task, places: Places) -> list[Call]:
    """The call of a flatten that moves something."""
    return [call(flatten, task.parts, places.output, places.inputs[0])]


def plan_upsample(task: Task, places: Places) -> list[Call]:
    """The call of an enlarging, by repeating or by interpolating."""
    op, spatial = task.whole.base, task.shapes[0][1:]
    assert isinstance(op, Upsample)
    if op.mode == "nearest":
        axes = [
            [i // f for i in range(size * f)] for size, f in zip(spatial, op.factor, strict=True)
        ]
        return [_gather(task, places, axes, 0.0)]
    pairs, shares = [], []
    for size, f in zip(axes3(spatial), axes3(op.factor), strict=True):
        for i in range(size * f):
            # Cell centres lie at half positions; before the first one there is nothing to mix.
            at = max((i + 0.5) / f - 0.5, 0.0)
            low = min(int(at), size - 1)
            pairs += [low, min(low + 1, size - 1)]
            shares.append(at - low)
    weights = places.params.add(np.array(shares))
    return [call(interpolate, task.parts, places.output, places.inputs[0], weights, *pairs)]


def plan_pad(task: Task, places: Places) -> list[Call]:
    """The call of a padding or cropping."""
    op, spatial = task.whole.base, task.shapes[0][1:]
    assert isinstance(op, Pad)
    axes = [
        [padded(op.mode, i - before, size) for i in range(size + before + after)]
        for size, (before, after) in zip(spatial, op.amount, strict=True)
    ]
    return [_gather(task, places, axes, op.value)]


def _gather(task: Task, places: Places, axes: list[list[int]], fill: float) -> Call:
    at = places.params.add(np.array([fill]))
    tables = [i for axis in [[0]] * (3 - len(axes)) + axes for i in axis]
    return call(gather, task.parts, places.output, places.inputs[0], at, *tables)


def plan_shuffle(task: Task, places: Places) -> list[Call]:
    """The call of a channel shuffle: (G, C/G) channels to (C/G, G)."""
    op, channels = task.whole.base, task.node.shape[0]
    assert isinstance(op, Shuffle)
    order = np.arange(channels).reshape(op.groups, -1).T.reshape(-1)
    table = [*map(int, order), *(-1,) * (-channels % 16)]
    return [call(mix, task.parts, places.output, places.inputs[0], *table)]


def plan_concat(task: Task, places: Places) -> list[Call]:
    """A copy for each branch that does not lie in the concatenation already."""
    calls: list[Call] = []
    if places.output.pairs:
        return calls  # All branches lie in it (halves.py).
    channel = 0
    for shape, source in zip(task.shapes, places.inputs, strict=True):
        start, end = channel, channel + shape[0]
        channel = end
        first = start // 16 * 16
        there = places.output.part(first, end - first)
        if source.offset == there.offset and start == first:
            continue
        # Lanes before the branch hold what was copied there; those after are zero until then.
        kept, blank = (-2,) * (start - first), (-1,) * (-end % 16)
        table = (*kept, *range(shape[0]), *blank)
        calls.append(call(mix, task.parts, there, source, *table))
    return calls
