"""Ops that move values about: enlarging, padding, shuffling channels. A thread an output.

Grid (outputs of a sample / threads, samples).
"""

from __future__ import annotations

import numpy as np
from numba import cuda, float32, int32, uint32

from netdsl.cuda.activation import copy, ends
from netdsl.cuda.arith import inside, place_of, quotient, remainder
from netdsl.cuda.layout import Call, axes, spread
from netdsl.cuda.task import Task
from netdsl.ops import Pad, Shuffle, Upsample

SOURCE, SOURCE_BATCH, TARGET, TARGET_BATCH, COUNT = range(5)
DEPTH, HEIGHT, WIDTH, OUT_DEPTH, OUT_HEIGHT, OUT_WIDTH = range(5, 11)
FACTOR, LINEAR = 11, 14
"""Of enlarge: how much by along depth, height and width; whether to interpolate."""
BEFORE, MODE, VALUE = 11, 14, 15
"""Of pad: cells before along the three axes, the mode, and where in params the value lies."""
GROUPS, EACH, PLANE = 5, 6, 7
"""Of mix: groups, channels of each, positions of a channel."""

CONSTANT, REFLECT, EDGE = range(3)
MODES = {"constant": CONSTANT, "reflect": REFLECT, "edge": EDGE}

ZERO, ONE = np.float32(0), np.float32(1)


@cuda.jit(device=True)
def output_of(ints, at, i):  # type: ignore[no-untyped-def]
    """The channel, depth, row and column of output i."""
    return place_of(
        i,
        ints[uint32(at + OUT_DEPTH)],
        ints[uint32(at + OUT_HEIGHT)],
        ints[uint32(at + OUT_WIDTH)],
    )


@cuda.jit(device=True)
def lower(o, factor):  # type: ignore[no-untyped-def]
    """The input cell at or below output o's place, (o + 1/2) / factor - 1/2, or 0."""
    twice = int32(2 * o + 1 - factor)
    return quotient(twice, int32(2 * factor)) if twice > 0 else int32(0)


@cuda.jit(device=True)
def beyond(o, factor):  # type: ignore[no-untyped-def]
    """How far output o's place lies past that cell."""
    twice = int32(2 * o + 1 - factor)
    if twice <= 0:
        return ZERO
    return float32(remainder(twice, int32(2 * factor))) / float32(int32(2 * factor))


@cuda.jit(device=True)
def weight_of(side, share):  # type: ignore[no-untyped-def]
    """The weight of the lower cell (side 0) or the upper."""
    return share if side != 0 else ONE - share


@cuda.jit(device=True)
def upper(low, side, size):  # type: ignore[no-untyped-def]
    """The lower cell (side 0), or the one after it if there is one."""
    i = int32(low + side)
    return i if i < size else int32(size - 1)


@cuda.jit
def enlarge(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Upsampling, by repeating or linearly on every axis."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    if i >= ints[uint32(at + COUNT)]:
        return
    depth = ints[uint32(at + DEPTH)]
    height = ints[uint32(at + HEIGHT)]
    width = ints[uint32(at + WIDTH)]
    c, oz, oy, ox = output_of(ints, at, i)
    fz = ints[uint32(at + FACTOR)]
    fy = ints[uint32(at + FACTOR + 1)]
    fx = ints[uint32(at + FACTOR + 2)]
    source = int32(
        ints[uint32(at + SOURCE)] + n * ints[uint32(at + SOURCE_BATCH)] + c * depth * height * width
    )
    to = int32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)] + i)
    if ints[uint32(at + LINEAR)] == 0:
        z, y, x = quotient(oz, fz), quotient(oy, fy), quotient(ox, fx)
        arena[uint32(to)] = arena[uint32(source + (z * height + y) * width + x)]
        return
    z0, y0, x0 = lower(oz, fz), lower(oy, fy), lower(ox, fx)
    sz, sy, sx = beyond(oz, fz), beyond(oy, fy), beyond(ox, fx)
    total = ZERO
    for dz in range(2):
        z = upper(z0, int32(dz), depth)
        for dy in range(2):
            y = upper(y0, int32(dy), height)
            for dx in range(2):
                x = upper(x0, int32(dx), width)
                share = weight_of(dz, sz) * weight_of(dy, sy) * weight_of(dx, sx)
                if share != ZERO:
                    total += share * arena[uint32(source + (z * height + y) * width + x)]
    arena[uint32(to)] = total


@cuda.jit(device=True)
def met(i, size, mode):  # type: ignore[no-untyped-def]
    """The cell that stands for cell i of an axis, where i may lie outside."""
    if mode == REFLECT:
        if i < 0:
            return int32(-i)
        return int32(2 * (size - 1) - i) if i >= size else i
    if mode == EDGE:
        if i < 0:
            return int32(0)
        return int32(size - 1) if i >= size else i
    return i


@cuda.jit
def pad(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Padding and cropping."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    if i >= ints[uint32(at + COUNT)]:
        return
    depth = ints[uint32(at + DEPTH)]
    height = ints[uint32(at + HEIGHT)]
    width = ints[uint32(at + WIDTH)]
    mode = ints[uint32(at + MODE)]
    c, z, y, x = output_of(ints, at, i)
    z = int32(z - ints[uint32(at + BEFORE)])
    y = int32(y - ints[uint32(at + BEFORE + 1)])
    x = int32(x - ints[uint32(at + BEFORE + 2)])
    z, y, x = met(z, depth, mode), met(y, height, mode), met(x, width, mode)
    value = params[uint32(ints[uint32(at + VALUE)])]
    if inside(z, depth) and inside(y, height) and inside(x, width):
        value = arena[
            uint32(
                ints[uint32(at + SOURCE)]
                + n * ints[uint32(at + SOURCE_BATCH)]
                + ((c * depth + z) * height + y) * width
                + x
            )
        ]
    to = int32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)] + i)
    arena[uint32(to)] = value


@cuda.jit
def mix(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Channel shuffle."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    if i >= ints[uint32(at + COUNT)]:
        return
    plane = ints[uint32(at + PLANE)]
    groups = ints[uint32(at + GROUPS)]
    c = quotient(i, plane)
    one = quotient(c, groups)
    from_c = int32(int32(c - one * groups) * ints[uint32(at + EACH)] + one)
    source = int32(ints[uint32(at + SOURCE)] + n * ints[uint32(at + SOURCE_BATCH)])
    to = int32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)] + i)
    arena[uint32(to)] = arena[uint32(source + from_c * plane + int32(i - c * plane))]


def plan_upsample(task: Task) -> list[Call]:
    """Upsampling."""
    op, source, target = task.whole.base, task.inputs[0], task.output
    assert isinstance(op, Upsample)
    d = [*ends(source, target), target.sample, *source.size, *target.size]
    d += [*axes(op.factor, 1), int(op.mode == "bilinear")]
    return [spread(enlarge, target.sample, task.ints.add(d), target.batch)]


def plan_pad(task: Task) -> list[Call]:
    """Padding and cropping."""
    op, source, target = task.whole.base, task.inputs[0], task.output
    assert isinstance(op, Pad)
    d = [*ends(source, target), target.sample, *source.size, *target.size]
    d += [*axes((lo for lo, _ in op.amount), 0), MODES[op.mode], task.params.add([op.value])]
    return [spread(pad, target.sample, task.ints.add(d), target.batch)]


def plan_shuffle(task: Task) -> list[Call]:
    """Channel shuffle."""
    op, source, target = task.whole.base, task.inputs[0], task.output
    assert isinstance(op, Shuffle)
    d = [*ends(source, target), target.sample, op.groups, source.channels // op.groups]
    at = task.ints.add([*d, source.plane])
    return [spread(mix, target.sample, at, target.batch)]


def plan_flatten(task: Task) -> list[Call]:
    """Nothing, where the flattened tensor is the tensor; else a copy."""
    source, target = task.inputs[0], task.output
    return [] if source.offset == target.offset else [copy(task, source, target)]
