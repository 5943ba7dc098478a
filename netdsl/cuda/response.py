"""Local response normalisation: by the squares of neighbouring channels.

The usual one, over five channels and to the power of 3/4, goes by strips: a thread computes some
channels of a position, and reads what their windows share once.
"""

from __future__ import annotations

import math

import numpy as np
from numba import cuda, float32, int32, uint32, uint64

from netdsl.cuda.activation import ends
from netdsl.cuda.arith import MOST, divided, inside, quotient, reciprocal
from netdsl.cuda.layout import Buffer, Call, spread
from netdsl.cuda.rows import place
from netdsl.cuda.sizes import SIMULATED
from netdsl.cuda.task import Task
from netdsl.cuda.warp import load4, load_if
from netdsl.cuda.wide import row_of
from netdsl.ops import LocalResponseNorm

SOURCE, SOURCE_BATCH, TARGET, TARGET_BATCH, CHANNELS, PLANE, BELOW, ABOVE, NUMBERS = range(9)
"""Of local_response: neighbours below and above, and where k, alpha / size and beta lie."""

STRIPS, WHERE = 0, 4
"""Where fours of response_strips' fields begin, the first of them read at once: strips of a sample,
positions of a channel and the reciprocal of that. WHERE: the input, how far apart its samples lie,
the same of the output; channels; where k, alpha / size and beta lie."""

SIDE = 2
"""Channels on either side of one, in strips."""
WINDOW = 2 * SIDE + 1
DEEP = 4 if SIMULATED else 16
"""Channels of a strip."""
READ = DEEP + 2 * SIDE
THREE_QUARTERS = np.float32(0.75)

ZERO, ONE = np.float32(0), np.float32(1)


@cuda.jit(device=True)
def three_quarters_down(s):  # type: ignore[no-untyped-def]
    """s^(-3/4), by roots."""
    root = float32(math.sqrt(s))
    return ONE / (root * float32(math.sqrt(root)))


@cuda.jit
def response_strips(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Local response of some channels of a position: grid (strips of a sample / threads,
    samples)."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    count, plane, by_plane, plane_shift = load4(ints, uint64(at + STRIPS))
    if i >= count:
        return
    strip = divided(i, by_plane, plane_shift)
    first, channels = int32(strip * DEEP), ints[uint32(at + WHERE + 4)]
    p = int32(i - strip * plane + first * plane)
    source = int32(row_of(ints, at + WHERE, n) + p)
    target = int32(row_of(ints, at + WHERE + 2, n) + p)
    x = cuda.local.array(READ, float32)
    for c in range(READ):
        there = inside(int32(first + int32(c) - SIDE), channels)
        x[c] = load_if(arena, uint32(int32(source + (int32(c) - SIDE) * plane)), there)
    numbers = ints[uint32(at + WHERE + 5)]
    k, alpha = params[uint32(numbers)], params[uint32(numbers + 1)]
    for c in range(DEEP):
        total = ZERO
        for j in range(WINDOW):
            total += x[c + j] * x[c + j]
        if int32(first + int32(c)) < channels:
            value = x[c + SIDE] * three_quarters_down(k + alpha * total)
            arena[uint32(int32(target + int32(c) * plane))] = value


@cuda.jit
def local_response(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Local response of an element: grid (elements of a sample / threads, samples)."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    plane = ints[uint32(at + PLANE)]
    channels = ints[uint32(at + CHANNELS)]
    if i >= int32(channels * plane):
        return
    c = quotient(i, plane)
    p = int32(i - c * plane)
    first = int32(c - ints[uint32(at + BELOW)])
    if first < 0:
        first = int32(0)
    last = int32(c + ints[uint32(at + ABOVE)])
    if last >= channels:
        last = int32(channels - 1)
    source = int32(ints[uint32(at + SOURCE)] + n * ints[uint32(at + SOURCE_BATCH)])
    total = ZERO
    for other in range(first, int32(last + 1)):
        value = arena[uint32(source + other * plane + p)]
        total += value * value
    numbers = ints[uint32(at + NUMBERS)]
    k, alpha = params[uint32(numbers)], params[uint32(numbers + 1)]
    beta = params[uint32(numbers + 2)]
    value = arena[uint32(source + i)]
    to = int32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)] + i)
    arena[uint32(to)] = value / float32(math.pow(k + alpha * total, beta))


def usual(op: LocalResponseNorm, x: Buffer) -> bool:
    """Whether strips can have it."""
    return op.size == WINDOW and op.beta == THREE_QUARTERS and x.sample < MOST


def strips_of(x: Buffer, deep: int) -> list[int]:
    """Of strips of so many channels, what a descriptor begins with."""
    return [-(-x.channels // deep) * x.plane, x.plane, *reciprocal(x.plane)]


def plan_response(task: Task) -> list[Call]:
    """Local response normalisation."""
    op, x, y = task.whole.base, task.inputs[0], task.output
    assert isinstance(op, LocalResponseNorm)
    numbers = task.params.add([op.k, op.alpha / op.size, op.beta])
    if usual(op, x):
        d = [*(head := strips_of(x, DEEP)), *place(x), *place(y), x.channels, numbers]
        return [spread(response_strips, head[0], task.ints.add(d, align=4), x.batch)]
    d = [*ends(x, y), x.channels, x.plane, *op.reach, numbers]
    return [spread(local_response, x.sample, task.ints.add(d), x.batch)]
