"""Normalisation in training, and its gradient: one form for batch, layer, instance and group.

With z = (x - mean) rate and y = z w + b, the input's gradient is

    rate (w g - mean of w g - z mean of w g z)

where the means are over the group. One block finds them, or several that keep what their part gave;
then every block puts these together and writes its part. The sums of g and of g z over a channel
are the gradients of b and w: a batch norm's group is a channel, so it has them already. What a relu
after the norm passed is told by y, computed again.
"""

from __future__ import annotations

import math

import numpy as np
from numba import cuda, float32, int32, uint32

from netdsl.cuda.arith import quotient, remainder
from netdsl.cuda.backward.few import back_few
from netdsl.cuda.backward.sums import add_up, column_parts
from netdsl.cuda.backward.task import BackPlaces, Calls
from netdsl.cuda.few import lanes_for
from netdsl.cuda.groups import (
    CHANNELS,
    GROUPS,
    LENGTH,
    OTHER,
    OTHER_BATCH,
    OWN,
    PLANE,
    ROWS,
    SINGLE,
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
from netdsl.cuda.layout import Buffer, Call, blocks, spread
from netdsl.cuda.norm import (
    RUNNING,
    SETTINGS,
    VARIANCE,
    norm_calls,
    normalised,
    number_of,
    scaled,
)
from netdsl.cuda.rows import place
from netdsl.cuda.sizes import THREADS
from netdsl.cuda.task import Task
from netdsl.cuda.wide import EACH, SUMS, block_sums
from netdsl.ops import BatchNorm, GroupNorm, InstanceNorm, LayerNorm

SCALE, SHIFT, RELU, TABLE = range(OWN, OWN + 4)
"""Where params hold the scale and the shift of each channel (-1: there is none); whether a relu
follows, and where the arena holds each group's mean and 1 / deviation."""
PARTS, INTO_WEIGHT, INTO_BIAS = range(OWN + 4, OWN + 7)
"""Where the arena takes what the parts of a group found, and, where a group is a channel of all
samples, the gradients of scale and shift (-1: not here)."""
TABLE_GROUPS, TABLE_CHANNELS, SUMS_WEIGHT, SUMS_BIAS = range(OWN + 4, OWN + 8)
"""Of the scale's sums: the norm's own groups a sample, and channels of each; where sums go."""

ZERO, ONE = np.float32(0), np.float32(1)


@cuda.jit
def norm_running(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Normalises a part of a channel by the running statistics: grid (channels, parts)."""
    q, t = int32(cuda.blockIdx.x), int32(cuda.threadIdx.x)
    part, parts = int32(cuda.blockIdx.y), int32(cuda.gridDim.y)
    mean = params[uint32(ints[uint32(at + RUNNING)] + q)]
    variance = params[uint32(ints[uint32(at + VARIANCE)] + q)]
    rate = ONE / float32(math.sqrt(variance + params[uint32(ints[uint32(at + SETTINGS)])]))
    normalised(arena, params, ints, at, q, part, parts, t, mean, rate)


@cuda.jit(device=True)
def numbers_of(params, ints, at, c):  # type: ignore[no-untyped-def]
    """A channel's scale and shift."""
    scale = number_of(params, ints[uint32(at + SCALE)], c, ONE)
    return scale, number_of(params, ints[uint32(at + SHIFT)], c, ZERO)


@cuda.jit(device=True)
def later(across, plane, k):  # type: ignore[no-untyped-def]
    """The channel within its group of the k-th element from `across` on: four neighbours are of one
    channel, or of as many where channels have one position."""
    return int32(across + k) if plane == 1 else quotient(across, plane)


@cuda.jit(device=True)
def passed(relu, g, x, mean, rate, scale, shift):  # type: ignore[no-untyped-def]
    """What a relu after the norm passes of a gradient; all of it where there is none."""
    return ZERO if relu and not scaled(x, mean, rate, scale, shift) > ZERO else g


@cuda.jit(device=True)
def pulled(arena, params, ints, at, q, part, parts, t, shared):  # type: ignore[no-untyped-def]
    """The sums of w g and of w g z over a part of a group; of one channel without its w."""
    wide, length = ints[uint32(at + WIDE)], ints[uint32(at + LENGTH)]
    first, end, units = span(ints, at, part, parts)
    table = int32(ints[uint32(at + TABLE)] + 2 * q)
    mean, rate = arena[uint32(table)], arena[uint32(table + 1)]
    source, other = group_at(ints, at, SOURCE, q), group_at(ints, at, OTHER, q)
    row = quotient(int32(first + t), units)
    column, down = int32(first + t - row * units), quotient(int32(THREADS), units)
    g, x = cuda.local.array(EACH, float32), cuda.local.array(EACH, float32)
    relu, channels = ints[uint32(at + RELU)] != 0, ints[uint32(at + CHANNELS)]
    plane, channel = (
        ints[uint32(at + PLANE)],
        int32(remainder(q, ints[uint32(at + GROUPS)]) * channels),
    )
    scale, shift = numbers_of(params, ints, at, channel)
    pull, turn = ZERO, ZERO
    for _ in range(int32(first + t), end, int32(THREADS)):
        from_g = int32(source + row * ints[uint32(at + SOURCE_BATCH)])
        from_x = int32(other + row * ints[uint32(at + OTHER_BATCH)])
        across = take(g, arena, from_g, column, length, wide, ZERO)
        take(x, arena, from_x, column, length, wide, mean)
        for k in range(EACH):
            if wide != SINGLE or k == 0:
                if channels > 1 and (k == 0 or plane == 1):
                    c = int32(channel + later(across, plane, k))
                    scale, shift = numbers_of(params, ints, at, c)
                wg = passed(relu, g[k], x[k], mean, rate, scale, shift)
                if channels > 1:
                    wg *= scale
                pull += wg
                turn += wg * ((x[k] - mean) * rate)
        row, column = stepped(row, column, units, down)
    return block_sums(shared, t, pull, turn)


@cuda.jit(device=True)
def kept(arena, ints, at, q, t, pull, turn):  # type: ignore[no-untyped-def]
    """The first thread keeps the gradients of a channel's scale and shift, where they are these."""
    if t == 0 and ints[uint32(at + INTO_WEIGHT)] >= 0:
        arena[uint32(ints[uint32(at + INTO_WEIGHT)] + q)] = turn
        arena[uint32(ints[uint32(at + INTO_BIAS)] + q)] = pull


@cuda.jit(device=True)
def combined(arena, params, ints, at, q, part, parts, t, pull, turn):  # type: ignore[no-untyped-def]
    """Writes the input's gradient of a part of a group."""
    wide, length = ints[uint32(at + WIDE)], ints[uint32(at + LENGTH)]
    first, end, units = span(ints, at, part, parts)
    table = int32(ints[uint32(at + TABLE)] + 2 * q)
    mean, rate = arena[uint32(table)], arena[uint32(table + 1)]
    source, other = group_at(ints, at, SOURCE, q), group_at(ints, at, OTHER, q)
    target, relu = group_at(ints, at, TARGET, q), ints[uint32(at + RELU)] != 0
    channels, plane = ints[uint32(at + CHANNELS)], ints[uint32(at + PLANE)]
    channel = int32(remainder(q, ints[uint32(at + GROUPS)]) * channels)
    scale, shift = numbers_of(params, ints, at, channel)
    share = scale if channels == 1 else ONE
    share /= float32(int32(ints[uint32(at + LENGTH)] * ints[uint32(at + ROWS)]))
    pull, turn = pull * share, turn * share
    row = quotient(int32(first + t), units)
    column, down = int32(first + t - row * units), quotient(int32(THREADS), units)
    g, x = cuda.local.array(EACH, float32), cuda.local.array(EACH, float32)
    for _ in range(int32(first + t), end, int32(THREADS)):
        from_g = int32(source + row * ints[uint32(at + SOURCE_BATCH)])
        from_x = int32(other + row * ints[uint32(at + OTHER_BATCH)])
        across = take(g, arena, from_g, column, length, wide, ZERO)
        take(x, arena, from_x, column, length, wide, mean)
        for k in range(EACH):
            if wide != SINGLE or k == 0:
                if channels > 1 and (k == 0 or plane == 1):
                    c = int32(channel + later(across, plane, k))
                    scale, shift = numbers_of(params, ints, at, c)
                wg = scale * passed(relu, g[k], x[k], mean, rate, scale, shift)
                g[k] = rate * ((wg - pull) - (x[k] - mean) * rate * turn)
        into = int32(target + row * ints[uint32(at + TARGET_BATCH)])
        give(arena, into, across, length, wide, g)
        row, column = stepped(row, column, units, down)


@cuda.jit
def norm_back_whole(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The gradients of a group: grid (groups). A target below 0 is not wanted."""
    shared = cuda.shared.array(SUMS, float32)
    q, t, one = int32(cuda.blockIdx.x), int32(cuda.threadIdx.x), int32(1)
    pull, turn = pulled(arena, params, ints, at, q, int32(0), one, t, shared)
    kept(arena, ints, at, q, t, pull, turn)
    if ints[uint32(at + TARGET)] >= 0:
        combined(arena, params, ints, at, q, int32(0), one, t, pull, turn)


@cuda.jit
def norm_pulls(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The sums of a part of a group: grid (groups, parts)."""
    shared = cuda.shared.array(SUMS, float32)
    q, t = int32(cuda.blockIdx.x), int32(cuda.threadIdx.x)
    part, parts = int32(cuda.blockIdx.y), int32(cuda.gridDim.y)
    pull, turn = pulled(arena, params, ints, at, q, part, parts, t, shared)
    if t == 0:
        to = int32(ints[uint32(at + PARTS)] + 2 * (q * parts + part))
        arena[uint32(to)] = pull
        arena[uint32(to + 1)] = turn


@cuda.jit
def norm_combine(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The gradients of a part of a group whose parts are summed: grid (groups, parts)."""
    shared = cuda.shared.array(SUMS, float32)
    q, t = int32(cuda.blockIdx.x), int32(cuda.threadIdx.x)
    part, parts = int32(cuda.blockIdx.y), int32(cuda.gridDim.y)
    pull, turn = ZERO, ZERO
    if t < parts:
        found = int32(ints[uint32(at + PARTS)] + 2 * (q * parts + t))
        pull, turn = arena[uint32(found)], arena[uint32(found + 1)]
    pull, turn = block_sums(shared, t, pull, turn)
    if part == 0:
        kept(arena, ints, at, q, t, pull, turn)
    if ints[uint32(at + TARGET)] >= 0:
        combined(arena, params, ints, at, q, part, parts, t, pull, turn)


@cuda.jit
def scale_sums(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The sums of g z and of g over a part of a channel of all samples: grid (channels, parts)."""
    shared = cuda.shared.array(SUMS, float32)
    c, t = int32(cuda.blockIdx.x), int32(cuda.threadIdx.x)
    part, parts = int32(cuda.blockIdx.y), int32(cuda.gridDim.y)
    wide, length = ints[uint32(at + WIDE)], ints[uint32(at + LENGTH)]
    groups = ints[uint32(at + TABLE_GROUPS)]
    first, end, units = span(ints, at, part, parts)
    table = int32(ints[uint32(at + TABLE)] + 2 * quotient(c, ints[uint32(at + TABLE_CHANNELS)]))
    source, other = group_at(ints, at, SOURCE, c), group_at(ints, at, OTHER, c)
    row = quotient(int32(first + t), units)
    column, down = int32(first + t - row * units), quotient(int32(THREADS), units)
    g, x = cuda.local.array(EACH, float32), cuda.local.array(EACH, float32)
    relu, pull, turn = ints[uint32(at + RELU)] != 0, ZERO, ZERO
    scale, shift = numbers_of(params, ints, at, c)
    for _ in range(int32(first + t), end, int32(THREADS)):
        found = int32(table + 2 * groups * row)
        mean, rate = arena[uint32(found)], arena[uint32(found + 1)]
        from_g = int32(source + row * ints[uint32(at + SOURCE_BATCH)])
        from_x = int32(other + row * ints[uint32(at + OTHER_BATCH)])
        take(g, arena, from_g, column, length, wide, ZERO)
        take(x, arena, from_x, column, length, wide, mean)
        for k in range(EACH):
            own = passed(relu, g[k], x[k], mean, rate, scale, shift)
            pull += own
            turn += own * ((x[k] - mean) * rate)
        row, column = stepped(row, column, units, down)
    pull, turn = block_sums(shared, t, pull, turn)
    if t == 0:
        to = int32(c * parts + part)
        arena[uint32(ints[uint32(at + SUMS_WEIGHT)] + to)] = turn
        arena[uint32(ints[uint32(at + SUMS_BIAS)] + to)] = pull


@cuda.jit
def scale_columns(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The same where channels have one position: a thread a channel, grid (channels / threads,
    parts of the samples)."""
    c = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    if c >= ints[uint32(at + GROUPS)]:
        return
    part, parts = int32(cuda.blockIdx.y), int32(cuda.gridDim.y)
    groups, rows = ints[uint32(at + TABLE_GROUPS)], ints[uint32(at + ROWS)]
    table = int32(ints[uint32(at + TABLE)] + 2 * quotient(c, ints[uint32(at + TABLE_CHANNELS)]))
    source, other = group_at(ints, at, SOURCE, c), group_at(ints, at, OTHER, c)
    relu, pull, turn = ints[uint32(at + RELU)] != 0, ZERO, ZERO
    scale, shift = numbers_of(params, ints, at, c)
    for row in range(
        quotient(int32(part * rows), parts), quotient(int32((part + 1) * rows), parts)
    ):
        found = int32(table + 2 * groups * row)
        mean, rate = arena[uint32(found)], arena[uint32(found + 1)]
        g = arena[uint32(source + row * ints[uint32(at + SOURCE_BATCH)])]
        x = arena[uint32(other + row * ints[uint32(at + OTHER_BATCH)])]
        g = passed(relu, g, x, mean, rate, scale, shift)
        pull += g
        turn += g * ((x - mean) * rate)
    to = int32(c * parts + part)
    arena[uint32(ints[uint32(at + SUMS_WEIGHT)] + to)] = turn
    arena[uint32(ints[uint32(at + SUMS_BIAS)] + to)] = pull


def norm_groups(task: Task) -> int:
    """How many groups a sample's channels have; of a batch norm every channel is one."""
    op, channels = task.whole.base, task.inputs[0].channels
    if isinstance(op, GroupNorm):
        return op.groups
    assert isinstance(op, BatchNorm | InstanceNorm | LayerNorm)
    return 1 if isinstance(op, LayerNorm) else channels


def norm_kept(task: Task) -> int:
    """Two floats a group."""
    samples = 1 if isinstance(task.whole.base, BatchNorm) else task.batch
    return 2 * samples * norm_groups(task)


def norm_forward(task: Task, places: BackPlaces) -> tuple[Calls, Calls]:
    """Measuring and normalising; a batch norm that is tried uses what it measured before."""
    op, weights = task.whole.base, places.weights
    assert isinstance(op, BatchNorm | GroupNorm | InstanceNorm | LayerNorm)
    batch = isinstance(op, BatchNorm)
    groups = groups_of(norm_groups(task), task.inputs[0], task.output, batch=batch, mixed=True)
    settings = task.params.add([op.eps, op.momentum if isinstance(op, BatchNorm) else 0.0])
    running = (weights.get("mean", -1), weights.get("var", -1))
    own = [weights.get("weight", -1), weights.get("bias", -1), settings, places.kept, *running]
    training = norm_calls(task, groups, own)
    if not batch:
        return training, training
    parts = groups.parts(task.processors)
    return training, [shared_by(norm_running, groups, parts, training[0].at)]


def norm_back(task: Task, places: BackPlaces) -> Calls:
    """The gradients of scale and shift, then the input's."""
    batch = isinstance(task.whole.base, BatchNorm)
    g, x, target = places.gradient, places.inputs[0], places.gradients[0]
    there = [g, x] if target is None else [g, x, target]
    ends = [*place(g), *(place(target) if target else (-1, 0)), *place(x)]
    learned = "weight" in places.into
    calls = _scale_back(task, places, ends, there) if learned and not batch else []
    if target is None and not (learned and batch):
        return calls
    groups = groups_of(norm_groups(task), *there, batch=batch)
    lanes = 0 if batch else lanes_for(groups, task.processors, *there)
    if lanes:
        return [*calls, back_few(task, places, groups, ends, lanes)]
    parts = groups.parts(task.processors)
    scratch = task.scratch(2 * groups.count * parts)
    into = [places.into["weight"], places.into["bias"]] if learned and batch else [-1, -1]
    at = task.ints.add([*ends, *groups.fields, *_shared(task, places), scratch, *into])
    if parts == 1:
        return [*calls, blocks(norm_back_whole, groups.count, at)]
    return [
        *calls,
        *(shared_by(kernel, groups, parts, at) for kernel in (norm_pulls, norm_combine)),
    ]


def _shared(task: Task, places: BackPlaces) -> list[int]:
    """The fields from SCALE to TABLE."""
    weights, relu = places.weights, task.whole.activation is not None
    return [weights.get("weight", -1), weights.get("bias", -1), int(relu), places.kept]


def _scale_back(task: Task, places: BackPlaces, ends: list[int], there: list[Buffer]) -> list[Call]:
    """The gradients of a scale and shift that many groups share."""
    channels, own = task.inputs[0].channels, norm_groups(task)
    groups = groups_of(channels, *there, batch=True)
    columns = groups.plane == 1
    parts = column_parts(groups, task.processors) if columns else groups.parts(task.processors)
    into = [places.into["weight"], places.into["bias"]]
    start = task.scratch(2 * channels * parts)
    to = into if parts == 1 else [start, start + channels * parts]
    fields = [*_shared(task, places), own, channels // own, *to]
    at = task.ints.add([*ends, *groups.fields, *fields])
    call = shared_by(scale_sums, groups, parts, at)
    if columns:
        call = spread(scale_columns, channels, at, parts)
    adds = [add_up(task, channels, parts, a, b) for a, b in zip(to, into, strict=True)]
    return [call, *adds[0], *adds[1]]
