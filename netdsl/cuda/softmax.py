"""Softmax across the channels, or its logarithm: the largest and the sum in one pass over them."""

from __future__ import annotations

import math

import numpy as np
from numba import cuda, float32, int32, uint32

from netdsl.cuda.activation import ends
from netdsl.cuda.arith import quotient
from netdsl.cuda.layout import Call, blocks, spread
from netdsl.cuda.sizes import THREADS
from netdsl.cuda.task import Task
from netdsl.cuda.wide import WARPS, block_largest, block_sum
from netdsl.ops import LogSoftmax

SOURCE, SOURCE_BATCH, TARGET, TARGET_BATCH, CLASSES, POSITIONS, LOG = range(7)
"""Channels, positions of a channel, whether the logarithm is wanted."""

ZERO, ONE = np.float32(0), np.float32(1)
LEAST = np.finfo(np.float32).min
"""Below every score but -inf, whose distance from -inf would be no number."""

WIDE_PLANE = 32
"""Positions from which on neighbouring threads take neighbouring positions."""


@cuda.jit(device=True)
def power(x):  # type: ignore[no-untyped-def]
    """e^x."""
    return float32(math.exp(x))


@cuda.jit(device=True)
def gathered(arena, first, end, step):  # type: ignore[no-untyped-def]
    """The largest of some scores, and the sum of each one's e^(score - largest)."""
    best, total = LEAST, ZERO
    for i in range(first, end, step):
        value = arena[uint32(i)]
        if value > best:
            total = total * power(best - value) + ONE
            best = value
        else:
            total += power(value - best)
    return best, total


@cuda.jit(device=True)
def handed_out(arena, source, target, first, end, step, best, total, log):  # type: ignore[no-untyped-def]
    """Writes what each score comes to."""
    rest = float32(math.log(total))
    for i in range(first, end, step):
        apart = arena[uint32(source + i)] - best
        arena[uint32(target + i)] = apart - rest if log else power(apart) / total


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


@cuda.jit
def softmax_columns(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Softmax of a position by one thread: grid (positions / threads, samples)."""
    p = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    positions = ints[uint32(at + POSITIONS)]
    if p >= positions:
        return
    source = int32(ints[uint32(at + SOURCE)] + n * ints[uint32(at + SOURCE_BATCH)] + p)
    target = int32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)] + p)
    end = int32(ints[uint32(at + CLASSES)] * positions)
    best, total = gathered(arena, source, int32(source + end), positions)
    log = ints[uint32(at + LOG)] != 0
    handed_out(arena, source, target, int32(0), end, positions, best, total, log)


def plan_softmax(task: Task) -> list[Call]:
    """Softmax across the channels, or its logarithm."""
    source = task.inputs[0]
    log = int(isinstance(task.whole.base, LogSoftmax))
    at = task.ints.add([*ends(source, task.output), source.channels, source.plane, log])
    if source.plane < WIDE_PLANE:
        return [blocks(softmax_rows, source.batch * source.plane, at)]
    return [spread(softmax_columns, source.plane, at, source.batch)]
