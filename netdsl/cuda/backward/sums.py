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
    OTHER,
    OTHER_BATCH,
    OWN,
    SOURCE,
    SOURCE_BATCH,
    TARGET,
    TARGET_BATCH,
    WIDE,
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
from netdsl.cuda.sizes import THREADS
from netdsl.cuda.task import Task
from netdsl.cuda.wide import EACH, WARPS, block_sum

INTO, SLOPES = OWN, OWN + 1
"""Where in the arena the sums go; of slope_back, where in params the slopes lie."""
COUNT, PARTS, FROM, TO = range(4)
"""Of sum_parts: sums, parts of each, where the parts lie and the sums go."""

ZERO = np.float32(0)


@cuda.jit
def slope_back(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Leaky's gradient with a learned slope a channel, and the slope's, for a part of a channel.

    The source is the output's gradient, OTHER the input; a target below 0 is not wanted.
    """
    shared = cuda.shared.array(WARPS, float32)
    q, t = int32(cuda.blockIdx.x), int32(cuda.threadIdx.x)
    part, parts = int32(cuda.blockIdx.y), int32(cuda.gridDim.y)
    wide = ints[uint32(at + WIDE)] != 0
    unit = int32(EACH if wide else 1)
    first, end, units = span(ints, at, part, parts)
    source, other = group_at(ints, at, SOURCE, q), group_at(ints, at, OTHER, q)
    target = int32(-1)
    if ints[uint32(at + TARGET)] >= 0:
        target = group_at(ints, at, TARGET, q)
    slope = params[uint32(ints[uint32(at + SLOPES)] + q)]
    row = quotient(int32(first + t), units)
    column = int32(first + t - row * units)
    g, x = cuda.local.array(EACH, float32), cuda.local.array(EACH, float32)
    total = ZERO
    for _ in range(int32(first + t), end, int32(THREADS)):
        across = int32(column * unit)
        take(g, arena, int32(source + row * ints[uint32(at + SOURCE_BATCH)] + across), wide, ZERO)
        take(x, arena, int32(other + row * ints[uint32(at + OTHER_BATCH)] + across), wide, ZERO)
        for k in range(EACH):
            if x[k] < ZERO:
                total += g[k] * x[k]
            if not x[k] > ZERO:
                g[k] *= slope
        if target >= 0:
            give(arena, int32(target + row * ints[uint32(at + TARGET_BATCH)] + across), wide, g)
        row, column = stepped(row, column, units)
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
    ends = [*place(source), *(place(target) if target else (-1, 0)), *place(other or source)]
    at = task.ints.add([*ends, *groups.fields, start, *own])
    return [
        shared_by(kernel, groups, parts, at),
        *add_up(task, groups.count, parts, start, into),
    ]
