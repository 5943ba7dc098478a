"""Sums over samples and positions, a channel each: a bias's gradient, a learned slope's.

Grid (channels, parts): a part's sum goes to INTO + channel x parts + part, where it belongs
where there is one part; else `sum_parts` adds them up, in order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import cuda, float32, int32, uint32

from netdsl.cuda.arith import quotient
from netdsl.cuda.groups import (
    GROUPS,
    LENGTH,
    OTHER,
    OTHER_BATCH,
    OWN,
    ROWS,
    SOURCE,
    SOURCE_BATCH,
    TARGET,
    TARGET_BATCH,
    WIDE,
    Groups,
    give,
    group_at,
    groups_of,
    shared_by,
    span,
    stepped,
    take,
)
from netdsl.cuda.layout import Buffer, Call, spread
from netdsl.cuda.rows import place
from netdsl.cuda.sizes import SIMULATED, THREADS
from netdsl.cuda.task import Task
from netdsl.cuda.wide import EACH, WARPS, block_sum

INTO, SLOPES = OWN, OWN + 1
"""Where in the arena the sums go; of slope_back, where in params the slopes lie."""
COUNT, PARTS, FROM, TO = range(4)
"""Of sum_parts: sums, parts of each, where the parts lie and the sums go."""

ROWS_LEAST = 2 if SIMULATED else 16
"""Samples below which a part of a column is not worth a block."""

ZERO = np.float32(0)


@cuda.jit
def channel_sums(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The sum of the source over a part of a channel.

    Where OTHER is the output of a relu, the source is the gradient of that, and is zeroed first
    where the output is zero, in its own place.
    """
    shared = cuda.shared.array(WARPS, float32)
    q, t = int32(cuda.blockIdx.x), int32(cuda.threadIdx.x)
    part, parts = int32(cuda.blockIdx.y), int32(cuda.gridDim.y)
    wide, bent = ints[uint32(at + WIDE)], ints[uint32(at + OTHER)] >= 0
    length, step = ints[uint32(at + LENGTH)], ints[uint32(at + SOURCE_BATCH)]
    first, end, units = span(ints, at, part, parts)
    source = group_at(ints, at, SOURCE, q)
    other = group_at(ints, at, OTHER, q) if bent else source
    row = quotient(int32(first + t), units)
    column, down = int32(first + t - row * units), quotient(int32(THREADS), units)
    g, y = cuda.local.array(EACH, float32), cuda.local.array(EACH, float32)
    total = ZERO
    for _ in range(int32(first + t), end, int32(THREADS)):
        begin = int32(source + row * step)
        across = take(g, arena, begin, column, length, wide, ZERO)
        if bent:
            saved = int32(other + row * ints[uint32(at + OTHER_BATCH)])
            take(y, arena, saved, column, length, wide, ZERO)
            for k in range(EACH):
                if not y[k] > ZERO:
                    g[k] = ZERO
            give(arena, begin, across, length, wide, g)
        total += (g[0] + g[1]) + (g[2] + g[3])
        row, column = stepped(row, column, units, down)
    total = block_sum(shared, t, total)
    if t == 0:
        arena[uint32(ints[uint32(at + INTO)] + q * parts + part)] = total


@cuda.jit
def column_sums(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The sum of the source over some samples where channels have one position: a thread a channel,
    grid (channels / threads, parts)."""
    c = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    if c >= ints[uint32(at + GROUPS)]:
        return
    part, parts, rows = (
        int32(cuda.blockIdx.y),
        int32(cuda.gridDim.y),
        ints[uint32(at + ROWS)],
    )
    source, step = group_at(ints, at, SOURCE, c), ints[uint32(at + SOURCE_BATCH)]
    end = quotient(int32((part + 1) * rows), parts)
    total = ZERO
    for row in range(quotient(int32(part * rows), parts), end):
        total += arena[uint32(source + row * step)]
    arena[uint32(ints[uint32(at + INTO)] + c * parts + part)] = total


@cuda.jit
def slope_back(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Leaky's gradient with a learned slope a channel, and the slope's, for a part of a channel.

    The source is the output's gradient, OTHER the input; a target below 0 is not wanted.
    """
    shared = cuda.shared.array(WARPS, float32)
    q, t = int32(cuda.blockIdx.x), int32(cuda.threadIdx.x)
    part, parts = int32(cuda.blockIdx.y), int32(cuda.gridDim.y)
    wide, length = ints[uint32(at + WIDE)], ints[uint32(at + LENGTH)]
    first, end, units = span(ints, at, part, parts)
    source, other = group_at(ints, at, SOURCE, q), group_at(ints, at, OTHER, q)
    target = int32(-1)
    if ints[uint32(at + TARGET)] >= 0:
        target = group_at(ints, at, TARGET, q)
    slope = params[uint32(ints[uint32(at + SLOPES)] + q)]
    row = quotient(int32(first + t), units)
    column, down = int32(first + t - row * units), quotient(int32(THREADS), units)
    g, x = cuda.local.array(EACH, float32), cuda.local.array(EACH, float32)
    total = ZERO
    for _ in range(int32(first + t), end, int32(THREADS)):
        from_g = int32(source + row * ints[uint32(at + SOURCE_BATCH)])
        from_x = int32(other + row * ints[uint32(at + OTHER_BATCH)])
        across = take(g, arena, from_g, column, length, wide, ZERO)
        take(x, arena, from_x, column, length, wide, ZERO)
        for k in range(EACH):
            if x[k] < ZERO:
                total += g[k] * x[k]
            if not x[k] > ZERO:
                g[k] *= slope
        if target >= 0:
            to = int32(target + row * ints[uint32(at + TARGET_BATCH)])
            give(arena, to, across, length, wide, g)
        row, column = stepped(row, column, units, down)
    total = block_sum(shared, t, total)
    if t == 0:
        arena[uint32(ints[uint32(at + INTO)] + q * parts + part)] = total


@cuda.jit
def sum_parts(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Adds up the parts of sums, a thread a sum: grid (sums / threads)."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    if i < ints[uint32(at + COUNT)]:
        parts = ints[uint32(at + PARTS)]
        start = int32(ints[uint32(at + FROM)] + i * parts)
        total = ZERO
        for part in range(parts):
            total += arena[uint32(start + part)]
        arena[uint32(ints[uint32(at + TO)] + i)] = total


def add_up(task: Task, count: int, parts: int, start: int, into: int) -> list[Call]:
    """What is left to do where sums came in parts, from `start` on in the arena."""
    if parts == 1:
        return []
    return [spread(sum_parts, count, task.ints.add([count, parts, start, into]))]


def sums(
    task: Task,
    kernel: object,
    source: Buffer,
    into: int,
    *,
    target: Buffer | None = None,
    other: Buffer | None = None,
    own: Sequence[int] = (),
) -> list[Call]:
    """The calls of a kernel that sums each channel of all samples to `into` in the arena."""
    there = [buffer for buffer in (source, target, other) if buffer is not None]
    groups = groups_of(source.channels, *there, batch=True)
    parts = groups.parts(task.processors)
    start = into if parts == 1 else task.scratch(groups.count * parts)
    ends = [n for b in (source, target, other) for n in (place(b) if b else (-1, 0))]
    at = task.ints.add([*ends, *groups.fields, start, *own])
    return [
        shared_by(kernel, groups, parts, at),
        *add_up(task, groups.count, parts, start, into),
    ]


def bias_sums(task: Task, g: Buffer, into: int, relu: Buffer | None = None) -> list[Call]:
    """The gradient of a bias, to `into` in the arena: the sum of each channel of g.

    relu: the layer's output, where it is a relu's; then g is made the gradient of what is before.
    """
    if relu is not None:
        return sums(task, channel_sums, g, into, target=g, other=relu)
    if g.plane > 1:
        return sums(task, channel_sums, g, into)
    groups = groups_of(g.channels, g, batch=True)
    parts = column_parts(groups, task.processors)
    start = into if parts == 1 else task.scratch(groups.count * parts)
    at = task.ints.add([*place(g), -1, 0, -1, 0, *groups.fields, start])
    return [
        spread(column_sums, groups.count, at, parts),
        *add_up(task, groups.count, parts, start, into),
    ]


def column_parts(groups: Groups, processors: int) -> int:
    """How many blocks should share the samples of THREADS columns."""
    blocks_there = -(-groups.count // THREADS)
    return max(1, min(-(-processors // blocks_there), groups.rows // ROWS_LEAST))
