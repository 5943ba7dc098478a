"""Normalisations by a group's own statistics, and batch norm's in training: one form for all four.

A group's mean and squares are found by one block, or by several that each keep what their part
gave; then every block puts these together and normalises its part.
"""

from __future__ import annotations

import math

import numpy as np
from numba import cuda, float32, int32, uint32, uint64

from netdsl.cuda.activation import by_channel
from netdsl.cuda.arith import divided, quotient, remainder
from netdsl.cuda.few import (
    FOURS,
    ROUNDS,
    edges_of,
    fields,
    filled,
    fours_at,
    give_four,
    lanes_for,
    team_at,
)
from netdsl.cuda.groups import (
    CHANNELS,
    GROUPS,
    LENGTH,
    OWN,
    PLANE,
    ROWS,
    SINGLE,
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
from netdsl.cuda.layout import Call, blocks, spread
from netdsl.cuda.rows import place
from netdsl.cuda.sizes import THREADS
from netdsl.cuda.task import Task
from netdsl.cuda.wide import EACH, SUMS, block_sum, block_sums, lanes_sum
from netdsl.ops import GroupNorm, InstanceNorm, LayerNorm

TEAM = OWN + 8
"""Of norm_few: where its numbers begin, see few.py."""

FOUND = 3
"""Numbers of a part: its mean, the sum of squares, its elements."""
ZERO, ONE = np.float32(0), np.float32(1)

SCALE, SHIFT, SETTINGS, PARTS, TABLE, RUNNING, VARIANCE, RELU = range(OWN, OWN + 8)
"""Of the norms: where params hold the scale and the shift of each channel, eps, and momentum; where
the arena takes what the parts of a group found, and each group's mean and 1 / deviation; where
params hold the running mean and variance. -1: there is none. Whether a relu follows."""


@cuda.jit(device=True)
def number_of(params, place, c, missing):  # type: ignore[no-untyped-def]
    """A channel's number, where there are any."""
    return params[uint32(place + c)] if place >= 0 else missing


@cuda.jit(device=True)
def scaled(x, mean, rate, scale, shift):  # type: ignore[no-untyped-def]
    """A number normalised; on the way back the same bits again."""
    return (x - mean) * (rate * scale) + shift


@cuda.jit(device=True)
def measured(arena, ints, at, q, part, parts, t, shared):  # type: ignore[no-untyped-def]
    """The mean of a part of a group, the sum of squared distances from it, and its elements.

    A pivot near the mean is taken off first, so that numbers far from zero lose nothing: the mean
    of the first number of each thread.
    """
    wide, length = ints[uint32(at + WIDE)], ints[uint32(at + LENGTH)]
    first, end, units = span(ints, at, part, parts)
    step, unit = ints[uint32(at + SOURCE_BATCH)], int32(1 if wide == SINGLE else EACH)
    start = group_at(ints, at, SOURCE, q)
    row = quotient(int32(first + t), units)
    column, down = int32(first + t - row * units), quotient(int32(THREADS), units)
    pivot = ZERO
    if first + t < end:
        pivot = arena[uint32(start + row * step + min(int32(column * unit), int32(length - 1)))]
    pivot = block_sum(shared, t, pivot) / float32(min(int32(end - first), int32(THREADS)))
    values = cuda.local.array(EACH, float32)
    total, squares, found = ZERO, ZERO, int32(0)
    for _ in range(int32(first + t), end, int32(THREADS)):
        begin = take(values, arena, int32(start + row * step), column, length, wide, pivot)
        for k in range(EACH):
            apart = values[k] - pivot
            total += apart
            squares += apart * apart
        there = int32(min(int32(begin + unit), length) - max(begin, int32(0)))
        found = int32(found + max(there, int32(0)))
        row, column = stepped(row, column, units, down)
    total, squares = block_sums(shared, t, total, squares)
    count = block_sum(shared, t, float32(found))
    off = total / count
    return pivot + off, max(squares - total * off, ZERO), count


@cuda.jit(device=True)
def joined(arena, ints, at, q, parts, t, shared):  # type: ignore[no-untyped-def]
    """The mean of a group and the sum of squares, from what its parts found (Chan et al. 1983)."""
    mean, squares, count = ZERO, ZERO, ZERO
    if t < parts:
        place = int32(ints[uint32(at + PARTS)] + FOUND * (q * parts + t))
        mean, squares = arena[uint32(place)], arena[uint32(place + 1)]
        count = arena[uint32(place + 2)]
    total, every = block_sums(shared, t, count * mean, count)
    whole = total / every
    apart = mean - whole
    return whole, block_sum(shared, t, squares + count * apart * apart)


@cuda.jit(device=True)
def settled(arena, params, ints, at, q, t, mean, squares):  # type: ignore[no-untyped-def]
    """1 / deviation; the first thread keeps the statistics, and moves the running ones."""
    count = float32(int32(ints[uint32(at + LENGTH)] * ints[uint32(at + ROWS)]))
    settings = ints[uint32(at + SETTINGS)]
    rate = ONE / float32(math.sqrt(squares / count + params[uint32(settings)]))
    table, running = ints[uint32(at + TABLE)], ints[uint32(at + RUNNING)]
    if t == 0 and table >= 0:
        arena[uint32(table + 2 * q)] = mean
        arena[uint32(table + 2 * q + 1)] = rate
    if t == 0 and running >= 0:
        new, variance = params[uint32(settings + 1)], int32(ints[uint32(at + VARIANCE)] + q)
        old = ONE - new
        params[uint32(running + q)] = old * params[uint32(running + q)] + new * mean
        fair = squares / (count - ONE)
        params[uint32(variance)] = old * params[uint32(variance)] + new * fair
    return rate


@cuda.jit(device=True)
def finished(x, mean, rate, scale, shift, relu):  # type: ignore[no-untyped-def]
    """A number normalised, or the relu of it."""
    x = scaled(x, mean, rate, scale, shift)
    return ZERO if relu and x < ZERO else x


@cuda.jit(device=True)
def normalised(arena, params, ints, at, q, part, parts, t, mean, rate):  # type: ignore[no-untyped-def]
    """Writes (x - mean) rate scale + shift of a part of a group, or the relu of it."""
    # Fields are read before the loop: after what it writes, all would have to be read again.
    wide, plane = ints[uint32(at + WIDE)], ints[uint32(at + PLANE)]
    length = ints[uint32(at + LENGTH)]
    first, end, units = span(ints, at, part, parts)
    source, target = group_at(ints, at, SOURCE, q), group_at(ints, at, TARGET, q)
    source_step, target_step = ints[uint32(at + SOURCE_BATCH)], ints[uint32(at + TARGET_BATCH)]
    scales, shifts = ints[uint32(at + SCALE)], ints[uint32(at + SHIFT)]
    channels, relu = ints[uint32(at + CHANNELS)], ints[uint32(at + RELU)] != 0
    mixed = channels > 1 and remainder(plane, int32(EACH)) != 0
    channel = int32(remainder(q, ints[uint32(at + GROUPS)]) * channels)
    scale = number_of(params, scales, channel, ONE)
    shift = number_of(params, shifts, channel, ZERO)
    row = quotient(int32(first + t), units)
    column, down = int32(first + t - row * units), quotient(int32(THREADS), units)
    values = cuda.local.array(EACH, float32)
    for _ in range(int32(first + t), end, int32(THREADS)):
        c, left = channel, plane
        across = take(values, arena, int32(source + row * source_step), column, length, wide, ZERO)
        if channels > 1:
            c = int32(channel + quotient(across, plane))
            left = int32((c - channel + 1) * plane - across)
            scale = number_of(params, scales, c, ONE)
            shift = number_of(params, shifts, c, ZERO)
        values[0] = finished(values[0], mean, rate, scale, shift, relu)
        if wide != SINGLE and not mixed:
            for k in range(1, EACH):
                values[k] = finished(values[k], mean, rate, scale, shift, relu)
        elif wide != SINGLE:
            # Of four neighbours the next may be of the next channel.
            for k in range(1, EACH):
                left = int32(left - 1)
                if left == 0:
                    left, c = plane, int32(c + 1)
                    scale = number_of(params, scales, c, ONE)
                    shift = number_of(params, shifts, c, ZERO)
                values[k] = finished(values[k], mean, rate, scale, shift, relu)
        give(arena, int32(target + row * target_step), across, length, wide, values)
        row, column = stepped(row, column, units, down)


@cuda.jit
def norm_whole(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Normalises a group: grid (groups)."""
    shared = cuda.shared.array(SUMS, float32)
    q, t, one = int32(cuda.blockIdx.x), int32(cuda.threadIdx.x), int32(1)
    mean, squares, _ = measured(arena, ints, at, q, int32(0), one, t, shared)
    rate = settled(arena, params, ints, at, q, t, mean, squares)
    normalised(arena, params, ints, at, q, int32(0), one, t, mean, rate)


@cuda.jit
def norm_moments(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Measures a part of a group: grid (groups, parts)."""
    shared = cuda.shared.array(SUMS, float32)
    q, t = int32(cuda.blockIdx.x), int32(cuda.threadIdx.x)
    part, parts = int32(cuda.blockIdx.y), int32(cuda.gridDim.y)
    mean, squares, count = measured(arena, ints, at, q, part, parts, t, shared)
    if t == 0:
        place = int32(ints[uint32(at + PARTS)] + FOUND * (q * parts + part))
        arena[uint32(place)] = mean
        arena[uint32(place + 1)] = squares
        arena[uint32(place + 2)] = count


@cuda.jit
def norm_apply(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Normalises a part of a group whose parts are measured: grid (groups, parts)."""
    shared = cuda.shared.array(SUMS, float32)
    q, t = int32(cuda.blockIdx.x), int32(cuda.threadIdx.x)
    part, parts = int32(cuda.blockIdx.y), int32(cuda.gridDim.y)
    mean, squares = joined(arena, ints, at, q, parts, t, shared)
    keeper = t if part == 0 else int32(1)
    rate = settled(arena, params, ints, at, q, keeper, mean, squares)
    normalised(arena, params, ints, at, q, part, parts, t, mean, rate)


@cuda.jit
def norm_few(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Normalises small groups: some lanes each, grid (groups x lanes / threads). What is read again
    was read just before."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    q, lane, lanes, length = team_at(ints, at, TEAM, i)
    source, target = group_at(ints, at, SOURCE, q), group_at(ints, at, TARGET, q)
    skew, fours = edges_of(source, length)
    step = int32(lanes * ROUNDS)
    values = cuda.local.array(FOURS, float32)
    total, squares, first = ZERO, ZERO, int32(0)
    while first < fours:
        fours_at(values, first, arena, source, skew, fours, lane, lanes)
        filled(values, first, skew, lane, lanes, length, ZERO)
        for k in range(FOURS):
            total += values[k]
        first = int32(first + step)
    mean, first = lanes_sum(total, lanes) / float32(max(length, int32(1))), int32(0)
    while first < fours:
        fours_at(values, first, arena, source, skew, fours, lane, lanes)
        filled(values, first, skew, lane, lanes, length, mean)
        for k in range(FOURS):
            squares += (values[k] - mean) * (values[k] - mean)
        first = int32(first + step)
    squares, first = lanes_sum(squares, lanes), int32(0)
    if length == 0:
        return
    rate = settled(arena, params, ints, at, q, lane, mean, squares)
    relu, channels = ints[uint64(at + RELU)] != 0, ints[uint64(at + CHANNELS)]
    channel = int32(remainder(q, ints[uint64(at + GROUPS)]) * channels)
    scales = int32(ints[uint64(at + SCALE)] + channel)
    shifts = int32(ints[uint64(at + SHIFT)] + channel)
    scale, off = params[uint32(scales)], params[uint32(shifts)]
    by_plane, shift = ints[uint64(at + TEAM + 2)], ints[uint64(at + TEAM + 3)]
    while first < fours:
        fours_at(values, first, arena, source, skew, fours, lane, lanes)
        for r in range(ROUNDS):
            begin = int32((first + r * lanes + lane) * EACH - skew)
            for k in range(EACH):
                if channels > 1:
                    there = min(max(int32(begin + k), int32(0)), int32(length - 1))
                    c = divided(there, by_plane, shift)
                    scale, off = params[uint32(scales + c)], params[uint32(shifts + c)]
                values[r * EACH + k] = finished(values[r * EACH + k], mean, rate, scale, off, relu)
            give_four(values, r * EACH, arena, target, begin, length)
        first = int32(first + step)


def norm_calls(task: Task, groups: Groups, own: list[int]) -> list[Call]:
    """Measuring and normalising. own: the fields from SCALE on, but for PARTS and RELU."""
    source, target = task.inputs[0], task.output
    lanes = lanes_for(groups, task.processors, source, target)
    if lanes:
        return [few(task, groups, own, lanes)]
    parts = groups.parts(task.processors)
    scratch = task.scratch(FOUND * groups.count * parts)
    d = [*place(source), *place(target), *place(source), *groups.fields, *own[:3], scratch]
    at = task.ints.add([*d, *own[3:], int(task.whole.activation is not None)])
    if parts == 1:
        return [blocks(norm_whole, groups.count, at)]
    return [shared_by(kernel, groups, parts, at) for kernel in (norm_moments, norm_apply)]


def few(task: Task, groups: Groups, own: list[int], lanes: int) -> Call:
    """The call that does both for small groups."""
    source, target = task.inputs[0], task.output
    scale, shift = place_or_fill(task, own[0], 1.0), place_or_fill(task, own[1], 0.0)
    d = [*place(source), *place(target), *place(source), *groups.fields, scale, shift, own[2], -1]
    d += [*own[3:], int(task.whole.activation is not None), *fields(groups, lanes)]
    return spread(norm_few, groups.count * lanes, task.ints.add(d))


def place_or_fill(task: Task, place: int, value: float) -> int:
    """Where params hold a number for each channel: this one, where there are none."""
    return place if place >= 0 else task.params.add([value] * task.inputs[0].channels)


def plan_norm(task: Task) -> list[Call]:
    """Layer, instance or group norm: they differ in how many groups a sample has."""
    op, source = task.whole.base, task.inputs[0]
    assert isinstance(op, LayerNorm | InstanceNorm | GroupNorm)
    params, channels = task.params, source.channels
    counts = {LayerNorm: 1, InstanceNorm: channels}
    groups = op.groups if isinstance(op, GroupNorm) else counts[type(op)]
    scale = params.add(by_channel(task.weights.get("weight"), channels, 1.0))
    shift = params.add(by_channel(task.weights.get("bias"), channels, 0.0))
    own = [scale, shift, params.add([op.eps]), -1, -1, -1]
    return norm_calls(task, groups_of(groups, source, task.output, mixed=True), own)
