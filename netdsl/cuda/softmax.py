"""Softmax across the channels, or its logarithm: the largest and the sum in one pass over them.

A warp keeps a position's scores in registers, where they fit. Of planes threads take positions, or
several share one, and what they find is put together.
"""

from __future__ import annotations

import math

import numpy as np
from numba import cuda, float32, int32, uint32

from netdsl.cuda.activation import ends
from netdsl.cuda.arith import quotient
from netdsl.cuda.layout import Call, blocks
from netdsl.cuda.rows import fits, place
from netdsl.cuda.sizes import SIMULATED, THREADS, WARP
from netdsl.cuda.task import Task
from netdsl.cuda.warp import load4, store4
from netdsl.cuda.wide import EACH, WARPS, barrier, block_largest, block_sum, warp_largest, warp_sum
from netdsl.ops import LogSoftmax

SOURCE, SOURCE_BATCH, TARGET, TARGET_BATCH, CLASSES, POSITIONS, LOG = range(7)
"""Channels, positions of a channel, whether the logarithm is wanted."""
ITEMS, WIDE = 7, 8
"""Of softmax_held: positions of all samples, and whether scores can be taken four at a time."""
SLICES = 7
"""Of softmax_columns: threads that share a position."""

ZERO, ONE = np.float32(0), np.float32(1)
LEAST = np.finfo(np.float32).min
"""Below every score but -inf, whose distance from -inf would be no number."""
NOTHING = np.float32(-np.inf)
"""A score that adds nothing."""

WIDE_PLANE = 32
"""Positions from which on neighbouring threads take neighbouring positions."""
HELD = 2 if SIMULATED else 8
"""Fours of scores that a lane keeps."""
KEPT = HELD * EACH
BUSY = 2048
"""Threads that a multiprocessor should have."""


@cuda.jit(device=True)
def power(x):  # type: ignore[no-untyped-def]
    """e^x."""
    return float32(math.exp(x))


@cuda.jit(device=True)
def gathered(arena, first, end, step):  # type: ignore[no-untyped-def]
    """The largest of some scores, and the sum of each one's e^(score - largest)."""
    best, total, i = LEAST, ZERO, first
    while int32(end - i) > int32(3 * step):
        # Four loads under way at once, and one power for what there was before.
        one, two = arena[uint32(i)], arena[uint32(i + step)]
        three, four = arena[uint32(i + 2 * step)], arena[uint32(i + 3 * step)]
        top = above(above(above(above(best, one), two), three), four)
        total = total * power(best - top)
        total += power(one - top) + power(two - top) + power(three - top) + power(four - top)
        best, i = top, int32(i + 4 * step)
    while i < end:
        top = above(best, arena[uint32(i)])
        total = total * power(best - top) + power(arena[uint32(i)] - top)
        best, i = top, int32(i + step)
    return best, total


@cuda.jit(device=True)
def above(best, score):  # type: ignore[no-untyped-def]
    """The larger; a score that is no number is for the sum to show."""
    return score if score > best else best


@cuda.jit(device=True)
def handed_out(arena, source, target, first, end, step, best, total, log):  # type: ignore[no-untyped-def]
    """Writes what each score comes to."""
    rest, share = float32(math.log(total)), ONE / total
    i = first
    while int32(end - i) > int32(3 * step):
        one, two = arena[uint32(source + i)], arena[uint32(source + i + step)]
        three = arena[uint32(source + i + 2 * step)]
        four = arena[uint32(source + i + 3 * step)]
        arena[uint32(target + i)] = outcome(one - best, rest, share, log)
        arena[uint32(target + i + step)] = outcome(two - best, rest, share, log)
        arena[uint32(target + i + 2 * step)] = outcome(three - best, rest, share, log)
        arena[uint32(target + i + 3 * step)] = outcome(four - best, rest, share, log)
        i = int32(i + 4 * step)
    while i < end:
        arena[uint32(target + i)] = outcome(arena[uint32(source + i)] - best, rest, share, log)
        i = int32(i + step)


@cuda.jit(device=True)
def outcome(apart, rest, share, log):  # type: ignore[no-untyped-def]
    return apart - rest if log else power(apart) * share


@cuda.jit
def softmax_rows(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Softmax of one position: grid (samples x positions)."""
    shared = cuda.shared.array(WARPS, float32)
    t = int32(cuda.threadIdx.x)
    positions = ints[uint32(at + POSITIONS)]
    n = quotient(int32(cuda.blockIdx.x), positions)
    p = int32(cuda.blockIdx.x - n * positions)
    source = int32(ints[uint32(at + SOURCE)] + n * ints[uint32(at + SOURCE_BATCH)] + p)
    target = int32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)] + p)
    first, step = int32(t * positions), int32(THREADS * positions)
    end = int32(ints[uint32(at + CLASSES)] * positions)
    own, total = gathered(arena, int32(source + first), int32(source + end), step)
    best = block_largest(shared, t, own)
    total = block_sum(shared, t, total * power(own - best))
    log = ints[uint32(at + LOG)] != 0
    handed_out(arena, source, target, first, end, step, best, total, log)


@cuda.jit(device=True)
def kept(values, arena, source, lane, classes, positions, wide):  # type: ignore[no-untyped-def]
    """Puts a lane's scores into `values`."""
    for j in range(HELD):
        for k in range(EACH):
            values[j * EACH + k] = NOTHING
        i = int32((j * WARP + lane) * EACH)
        if wide and i < classes:
            a, b, c, d = load4(arena, uint32(source + i))
            values[j * EACH], values[j * EACH + 1] = a, b
            values[j * EACH + 2], values[j * EACH + 3] = c, d
        if not wide:
            for k in range(EACH):
                i = int32((j * EACH + k) * WARP + lane)
                if i < classes:
                    values[j * EACH + k] = arena[uint32(source + i * positions)]


@cuda.jit(device=True)
def given(values, arena, target, lane, classes, positions, wide):  # type: ignore[no-untyped-def]
    """Writes a lane's results."""
    for j in range(HELD):
        i, own = int32((j * WARP + lane) * EACH), j * EACH
        if wide and i < classes:
            to = uint32(target + i)
            store4(arena, to, values[own], values[own + 1], values[own + 2], values[own + 3])
        if not wide:
            for k in range(EACH):
                i = int32((own + k) * WARP + lane)
                if i < classes:
                    arena[uint32(target + i * positions)] = values[own + k]


@cuda.jit
def softmax_held(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Softmax of positions whose scores are read once: a warp each, grid (samples x positions /
    warps)."""
    values = cuda.local.array(KEPT, float32)
    t = int32(cuda.threadIdx.x)
    warp = quotient(t, int32(WARP))
    lane, q = int32(t - warp * WARP), int32(cuda.blockIdx.x * WARPS + warp)
    classes = ints[uint32(at + CLASSES)] if q < ints[uint32(at + ITEMS)] else int32(0)
    positions, wide = ints[uint32(at + POSITIONS)], ints[uint32(at + WIDE)] != 0
    n = quotient(q, positions)
    p = int32(q - n * positions)
    source = int32(ints[uint32(at + SOURCE)] + n * ints[uint32(at + SOURCE_BATCH)] + p)
    target = int32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)] + p)
    kept(values, arena, source, lane, classes, positions, wide)
    best = LEAST
    for k in range(KEPT):
        best = above(best, values[k])
    best = warp_largest(best)
    log, total = ints[uint32(at + LOG)] != 0, ZERO
    for k in range(KEPT):
        apart = values[k] - best
        share = power(apart)
        total += share
        values[k] = apart if log else share
    total = warp_sum(total)
    if classes == 0:
        return
    rest, part = float32(math.log(total)), ONE / total
    for k in range(KEPT):
        values[k] = values[k] - rest if log else values[k] * part
    given(values, arena, target, lane, classes, positions, wide)


@cuda.jit
def softmax_columns(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Softmax of positions by some threads each: grid (positions / those of a block, samples)."""
    bests = cuda.shared.array(THREADS, float32)
    totals = cuda.shared.array(THREADS, float32)
    t, n = int32(cuda.threadIdx.x), int32(cuda.blockIdx.y)
    positions, slices = ints[uint32(at + POSITIONS)], ints[uint32(at + SLICES)]
    across = quotient(int32(THREADS), slices)
    part = quotient(t, across)
    own = int32(t - part * across)
    p = int32(cuda.blockIdx.x * across + own)
    source = int32(ints[uint32(at + SOURCE)] + n * ints[uint32(at + SOURCE_BATCH)] + p)
    target = int32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)] + p)
    end = int32(ints[uint32(at + CLASSES)] * positions) if p < positions else int32(0)
    first, step = int32(part * positions), int32(slices * positions)
    best, total = gathered(arena, int32(source + first), int32(source + end), step)
    if slices > 1:
        bests[uint32(t)], totals[uint32(t)] = best, total
        barrier()
        total = ZERO
        for i in range(slices):
            best = above(best, bests[uint32(i * across + own)])
        for i in range(slices):
            there = uint32(i * across + own)
            total += totals[there] * power(bests[there] - best)
    if p >= positions:
        return
    log = ints[uint32(at + LOG)] != 0
    handed_out(arena, source, target, first, end, step, best, total, log)


def plan_softmax(task: Task) -> list[Call]:
    """Softmax across the channels, or its logarithm."""
    source, target, ints = task.inputs[0], task.output, task.ints
    classes, plane, items = source.channels, source.plane, source.batch * source.plane
    log = int(isinstance(task.whole.base, LogSoftmax))
    d = [*ends(source, target), classes, plane, log]
    if plane >= WIDE_PLANE:
        slices = sharing(classes, items, task.processors)
        count = -(-plane // (THREADS // slices))
        return [blocks(softmax_columns, count, ints.add([*d, slices]), source.batch)]
    if classes > KEPT * WARP:
        return [blocks(softmax_rows, items, ints.add(d))]
    wide = plane == 1 and fits(classes, *place(source), *place(target))
    at = ints.add([*d, items, int(wide)])
    return [blocks(softmax_held, -(-items // WARPS), at)]


def sharing(classes: int, items: int, processors: int) -> int:
    """How many threads of a block should share a position."""
    slices = 1
    while slices < WARPS and items * slices < BUSY * processors and 2 * slices * EACH <= classes:
        slices *= 2
    return slices
