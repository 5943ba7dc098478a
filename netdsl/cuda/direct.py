"""Sums by a thread an output: of groups with few filters, and of sums that were cut into parts."""

from __future__ import annotations

from numba import cuda, float32, int32, uint32

from netdsl.cuda.arith import inside, quotient, remainder
from netdsl.cuda.describe import Sum
from netdsl.cuda.functions import bend
from netdsl.cuda.layout import Call, spread
from netdsl.cuda.rows import fits
from netdsl.cuda.sums import (
    BIAS,
    DEPTH,
    FILTERS,
    GROUPS,
    HEIGHT,
    KIND,
    NUMBERS,
    PARTIAL,
    POSITIONS,
    PRODUCTS,
    SOURCE,
    SOURCE_BATCH,
    SOURCE_GROUP,
    SPLITS,
    TABLE,
    TARGET,
    TARGET_BATCH,
    TARGET_FILTER,
    WEIGHTS,
    WEIGHTS_GROUP,
    WEIGHTS_ROW,
    WIDTH,
    ZERO,
    finished,
    residual_of,
    target_of,
    window_of,
)
from netdsl.cuda.task import Task
from netdsl.cuda.warp import load4, store4
from netdsl.cuda.wide import EACH


@cuda.jit(device=True)
def put(arena, params, ints, at, total, m, f):  # type: ignore[no-untyped-def]
    """Ends the sum of position m and filter f, counted in all groups; writes it where the output is
    not packed alone."""
    n, step = target_of(ints, at, m)
    return put_at(arena, params, ints, at, total, n, step, f)


@cuda.jit(device=True)
def put_at(arena, params, ints, at, total, n, step, f):  # type: ignore[no-untyped-def]
    """The same where the position is known as `target_of` gives it."""
    place = int32(step + f * ints[uint32(at + TARGET_FILTER)])
    numbers = ints[uint32(at + NUMBERS)]
    total = finished(
        arena,
        params,
        total,
        int32(ints[uint32(at + BIAS)] + f),
        residual_of(ints, at, n, place),
        ints[uint32(at + KIND)],
        params[uint32(numbers)],
        params[uint32(numbers + 1)],
    )
    target = ints[uint32(at + TARGET)]
    if target >= 0:
        arena[uint32(target + n * ints[uint32(at + TARGET_BATCH)] + place)] = total
    return total


@cuda.jit(device=True)
def added(arena, ints, at, m, f):  # type: ignore[no-untyped-def]
    """The sum of position m and filter f, of its parts."""
    positions = ints[uint32(at + POSITIONS)]
    lines = int32(ints[uint32(at + GROUPS)] * ints[uint32(at + FILTERS)])
    partial = int32(ints[uint32(at + PARTIAL)] + f * positions + m)
    total = ZERO
    for _ in range(ints[uint32(at + SPLITS)]):
        total += arena[uint32(partial)]
        partial = int32(partial + positions * lines)
    return total


@cuda.jit
def conv_finish(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Adds up the sums that were split, a thread an output: grid (outputs / threads)."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    positions = ints[uint32(at + POSITIONS)]
    lines = int32(ints[uint32(at + GROUPS)] * ints[uint32(at + FILTERS)])
    if i >= int32(positions * lines):
        return
    f = quotient(i, positions)
    m = int32(i - f * positions)
    put(arena, params, ints, at, added(arena, ints, at, m, f), m, f)


@cuda.jit
def conv_finish_fours(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The same of four neighbouring positions, which lie next to each other in a sample's plane and
    begin at multiples of four everywhere: a thread four outputs, grid (outputs / 4 / threads)."""
    i = int32(EACH * (cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x))
    positions = ints[uint32(at + POSITIONS)]
    lines = int32(ints[uint32(at + GROUPS)] * ints[uint32(at + FILTERS)])
    if i >= int32(positions * lines):
        return
    f = quotient(i, positions)
    m = int32(i - f * positions)
    plane = ints[uint32(at + TARGET_FILTER)]
    n = quotient(m, plane)
    place = int32(m - n * plane + f * plane)
    sums, other = cuda.local.array(EACH, float32), cuda.local.array(EACH, float32)
    for k in range(EACH):
        sums[k] = ZERO
    partial = int32(ints[uint32(at + PARTIAL)] + i)
    for _ in range(ints[uint32(at + SPLITS)]):
        other[0], other[1], other[2], other[3] = load4(arena, uint32(partial))
        for k in range(EACH):
            sums[k] += other[k]
        partial = int32(partial + positions * lines)
    bias = params[uint32(ints[uint32(at + BIAS)] + f)]
    residual = residual_of(ints, at, n, place)
    for k in range(EACH):
        sums[k] += bias
    if residual >= 0:
        other[0], other[1], other[2], other[3] = load4(arena, uint32(residual))
        for k in range(EACH):
            sums[k] += other[k]
    kind, numbers = ints[uint32(at + KIND)], ints[uint32(at + NUMBERS)]
    one, two = params[uint32(numbers)], params[uint32(numbers + 1)]
    for k in range(EACH):
        sums[k] = bend(kind, sums[k], one, two)
    to = int32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)] + place)
    store4(arena, uint32(to), sums[0], sums[1], sums[2], sums[3])


FINISHES = (conv_finish, conv_finish_fours)


def plan_adding(task: Task, whole: Sum, partial: int, at: int) -> Call:
    """The call that adds up the parts of a sum, from `partial` in the arena on, and ends it."""
    groups, _, filters = whole.weights.shape
    outputs = task.batch * whole.positions * groups * filters
    target = task.output
    _, height, width = target.size
    natural = whole.origin == 0 and whole.steps == (height * width, width, 1)
    held = [target, task.inputs[1]] if task.whole.residual else [target]
    starts = (n for buffer in held for n in (buffer.offset, buffer.batch_stride))
    if natural and whole.out == target.size and fits(target.plane, partial, *starts):
        return spread(conv_finish_fours, outputs // EACH, at)
    return spread(conv_finish, outputs, at)


@cuda.jit
def conv_direct(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """A thread an output, for groups of few filters: grid (outputs / threads)."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    positions = ints[uint32(at + POSITIONS)]
    filters = ints[uint32(at + FILTERS)]
    if i >= int32(positions * ints[uint32(at + GROUPS)] * filters):
        return
    f = quotient(i, positions)
    m = int32(i - f * positions)
    group = quotient(f, filters)
    n, z0, y0, x0 = window_of(ints, at, m)
    source = int32(
        ints[uint32(at + SOURCE)]
        + n * ints[uint32(at + SOURCE_BATCH)]
        + group * ints[uint32(at + SOURCE_GROUP)]
        + (z0 * ints[uint32(at + HEIGHT)] + y0) * ints[uint32(at + WIDTH)]
        + x0
    )
    weight = int32(
        ints[uint32(at + WEIGHTS)]
        + group * ints[uint32(at + WEIGHTS_GROUP)]
        + remainder(f, filters)
    )
    row = ints[uint32(at + WEIGHTS_ROW)]
    entry = ints[uint32(at + TABLE)]
    total = ZERO
    for _ in range(ints[uint32(at + PRODUCTS)]):
        z = int32(z0 + ints[uint32(entry + 1)])
        y = int32(y0 + ints[uint32(entry + 2)])
        x = int32(x0 + ints[uint32(entry + 3)])
        if (
            inside(z, ints[uint32(at + DEPTH)])
            and inside(y, ints[uint32(at + HEIGHT)])
            and inside(x, ints[uint32(at + WIDTH)])
        ):
            total += arena[uint32(source + ints[uint32(entry)])] * params[uint32(weight)]
        entry = int32(entry + 4)
        weight = int32(weight + row)
    put(arena, params, ints, at, total, m, f)
