"""The gradient of local response normalisation.

With s = k + alpha/n (sum of squares in the window) and y = x / s^beta,

    dx[j] = g[j] / s[j]^beta - 2 alpha beta / n x[j] (sum of g[i] y[i] / s[i]), over the channels i
    whose window holds j.

The usual one goes by strips as on the way forward, a thread some channels of a position. Of others
a block takes some positions of some channels, and reads as many channels more on each side as two
windows reach; what one channel gives the others goes through shared memory.
"""

from __future__ import annotations

import math

import numpy as np
from numba import cuda, float32, int32, uint32, uint64

from netdsl.cuda.arith import divided, inside, quotient
from netdsl.cuda.backward.task import BackPlaces, Calls
from netdsl.cuda.layout import Call, spread
from netdsl.cuda.response import (
    SIDE,
    THREE_QUARTERS,
    WINDOW,
    strips_of,
    three_quarters_down,
    usual,
)
from netdsl.cuda.rows import place
from netdsl.cuda.sizes import SIMULATED, THREADS
from netdsl.cuda.task import Task
from netdsl.cuda.warp import load4, load_if
from netdsl.cuda.wide import row_of
from netdsl.ops import LocalResponseNorm

SOURCE, SOURCE_BATCH, TARGET, TARGET_BATCH, OTHER, OTHER_BATCH = range(6)
CHANNELS, PLANE, BELOW, ABOVE, NUMBERS = range(6, 11)
"""Neighbours below and above; where params hold k, alpha / size, beta."""

POSITIONS = 4 if SIMULATED else 32
"""Positions that a block takes."""
DEEP = 8 if SIMULATED else 64
"""Channels that it reads, those of the neighbours included."""
TILE = POSITIONS * DEEP
LINES = THREADS // POSITIONS
"""Channels that its threads take at a time."""

STRIPS, WHERE = 0, 4
"""Of response_back_strips, as on the way forward, but that WHERE are three tensors: the output's
gradient, the input's, the input; then channels, and where the numbers lie."""
STRIP = 4 if SIMULATED else 16
"""Channels of a strip."""
PULLED = STRIP + 2 * SIDE
"""Channels whose windows hold one of these."""
READ = PULLED + 2 * SIDE

ZERO, ONE, TWO = np.float32(0), np.float32(1), np.float32(2)


@cuda.jit(device=True)
def fallen(s, beta):  # type: ignore[no-untyped-def]
    """s^-beta; the usual 3/4 by roots."""
    if beta == THREE_QUARTERS:
        return three_quarters_down(s)
    return float32(math.pow(s, -beta))


@cuda.jit
def response_back_strips(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The input's gradient for some channels of a position: grid (strips of a sample / threads,
    samples)."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    count, plane, by_plane, plane_shift = load4(ints, uint64(at + STRIPS))
    if i >= count:
        return
    strip = divided(i, by_plane, plane_shift)
    first, channels = int32(strip * STRIP), ints[uint32(at + WHERE + 6)]
    p = int32(i - strip * plane + first * plane)
    source = int32(row_of(ints, at + WHERE, n) + p)
    target = int32(row_of(ints, at + WHERE + 2, n) + p)
    other = int32(row_of(ints, at + WHERE + 4, n) + p)
    numbers = ints[uint32(at + WHERE + 7)]
    k, alpha = params[uint32(numbers)], params[uint32(numbers + 1)]
    x = cuda.local.array(READ, float32)
    pulls = cuda.local.array(PULLED, float32)
    straight = cuda.local.array(STRIP, float32)
    for c in range(READ):
        far = int32(int32(c) - 2 * SIDE)
        x[c] = load_if(
            arena, uint32(int32(other + far * plane)), inside(int32(first + far), channels)
        )
    for c in range(PULLED):
        far = int32(int32(c) - SIDE)
        pulls[c] = load_if(
            arena, uint32(int32(source + far * plane)), inside(int32(first + far), channels)
        )
    for c in range(PULLED):
        total = ZERO
        for j in range(WINDOW):
            total += x[c + j] * x[c + j]
        # Channels that there are none of pull nothing, whatever k is.
        s = k + alpha * total if inside(int32(first + int32(c) - SIDE), channels) else ONE
        pulls[c] *= three_quarters_down(s)
        if c >= SIDE and c < STRIP + SIDE:
            straight[c - SIDE] = pulls[c]
        pulls[c] *= x[c + SIDE] / s
    share = TWO * alpha * params[uint32(numbers + 2)]
    for c in range(STRIP):
        total = ZERO
        for j in range(WINDOW):
            total += pulls[c + j]
        if int32(first + int32(c)) < channels:
            back = straight[c] - share * x[c + 2 * SIDE] * total
            arena[uint32(int32(target + int32(c) * plane))] = back


@cuda.jit
def response_back(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The input's gradient: grid (plane / POSITIONS, channels / inner channels, samples)."""
    squares = cuda.shared.array(TILE, float32)
    rates = cuda.shared.array(TILE, float32)
    pulls = cuda.shared.array(TILE, float32)
    t, n = int32(cuda.threadIdx.x), int32(cuda.blockIdx.z)
    line = quotient(t, POSITIONS)
    lane = int32(t - line * POSITIONS)
    p = int32(cuda.blockIdx.x * POSITIONS + lane)
    channels, plane = ints[uint32(at + CHANNELS)], ints[uint32(at + PLANE)]
    below, above = ints[uint32(at + BELOW)], ints[uint32(at + ABOVE)]
    numbers = ints[uint32(at + NUMBERS)]
    k, alpha = params[uint32(numbers)], params[uint32(numbers + 1)]
    beta = params[uint32(numbers + 2)]
    reach = int32(below + above)
    # The first channel that is read.
    low = int32(cuda.blockIdx.y * (DEEP - 2 * reach) - reach)
    source = int32(row_of(ints, at + SOURCE, n) + p)
    target = int32(row_of(ints, at + TARGET, n) + p)
    other = int32(row_of(ints, at + OTHER, n) + p)
    for r in range(line, int32(DEEP), int32(LINES)):
        x = ZERO
        if inside(int32(low + r), channels) and p < plane:
            x = arena[uint32(other + (low + r) * plane)]
        squares[uint32(r * POSITIONS + lane)] = x * x
    cuda.syncthreads()
    for r in range(int32(line + below), int32(DEEP - above), int32(LINES)):
        rate, pull = ZERO, ZERO
        if inside(int32(low + r), channels) and p < plane:
            total = ZERO
            for i in range(int32(r - below), int32(r + above + 1)):
                total += squares[uint32(i * POSITIONS + lane)]
            s = k + alpha * total
            rate = fallen(s, beta)
            g = arena[uint32(source + (low + r) * plane)]
            pull = g * arena[uint32(other + (low + r) * plane)] * rate / s
        rates[uint32(r * POSITIONS + lane)] = rate
        pulls[uint32(r * POSITIONS + lane)] = pull
    cuda.syncthreads()
    for r in range(int32(line + reach), int32(DEEP - reach), int32(LINES)):
        if inside(int32(low + r), channels) and p < plane:
            total = ZERO
            for i in range(int32(r - above), int32(r + below + 1)):
                total += pulls[uint32(i * POSITIONS + lane)]
            g = arena[uint32(source + (low + r) * plane)]
            x = arena[uint32(other + (low + r) * plane)]
            direct = g * rates[uint32(r * POSITIONS + lane)]
            arena[uint32(target + (low + r) * plane)] = direct - TWO * alpha * beta * x * total


@cuda.jit(device=True)
def strength(arena, other, i, plane, channels, below, above):  # type: ignore[no-untyped-def]
    """The sum of squares around channel i, `other` being the place of channel 0."""
    first, last = max(int32(i - below), int32(0)), min(int32(i + above), int32(channels - 1))
    total = ZERO
    for c in range(first, int32(last + 1)):
        x = arena[uint32(other + c * plane)]
        total += x * x
    return total


@cuda.jit
def response_back_far(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The same for windows too large for a tile: grid (elements of a sample / threads, samples)."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    channels, plane = ints[uint32(at + CHANNELS)], ints[uint32(at + PLANE)]
    if i >= int32(channels * plane):
        return
    c = quotient(i, plane)
    p = int32(i - c * plane)
    below, above = ints[uint32(at + BELOW)], ints[uint32(at + ABOVE)]
    numbers = ints[uint32(at + NUMBERS)]
    k, alpha = params[uint32(numbers)], params[uint32(numbers + 1)]
    beta = params[uint32(numbers + 2)]
    source = int32(row_of(ints, at + SOURCE, n) + p)
    other = int32(row_of(ints, at + OTHER, n) + p)
    first, last = max(int32(c - above), int32(0)), min(int32(c + below), int32(channels - 1))
    total = ZERO
    for j in range(first, int32(last + 1)):
        s = k + alpha * strength(arena, other, j, plane, channels, below, above)
        pull = arena[uint32(source + j * plane)] * arena[uint32(other + j * plane)]
        total += pull * fallen(s, beta) / s
    s = k + alpha * strength(arena, other, c, plane, channels, below, above)
    direct = arena[uint32(source + c * plane)] * fallen(s, beta)
    back = direct - TWO * alpha * beta * arena[uint32(other + c * plane)] * total
    arena[uint32(row_of(ints, at + TARGET, n) + i)] = back


def response_call(task: Task, places: BackPlaces) -> Calls:
    """The call of local response normalisation."""
    op, x, target = task.whole.base, places.inputs[0], places.gradients[0]
    assert isinstance(op, LocalResponseNorm)
    if target is None:
        return []
    numbers = task.params.add([op.k, op.alpha / op.size, op.beta])
    if usual(op, x):
        d = [*(head := strips_of(x, STRIP)), *place(places.gradient), *place(target), *place(x)]
        at = task.ints.add([*d, x.channels, numbers], align=4)
        return [spread(response_back_strips, head[0], at, x.batch)]
    d = [*place(places.gradient), *place(target), *place(x), x.channels, x.plane, *op.reach]
    at = task.ints.add([*d, numbers])
    inner = DEEP - 2 * sum(op.reach)
    if inner <= 0:
        return [spread(response_back_far, x.sample, at, x.batch)]
    grid = (-(-x.plane // POSITIONS), -(-x.channels // inner), x.batch)
    return [Call(response_back, grid, THREADS, at)]
