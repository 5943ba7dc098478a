"""The optimisers' updates, each one pass over the weights, four floats a thread.

All parameters lie in one flat vector, so do their gradients and each optimiser's slots. The decay
of each block of 16 lies in params, what changes with each step among the step's numbers in the
arena. Nothing moves where a loss was not finite. No sum crosses elements but the gradient's norm,
whose parts are added in a fixed order.
"""

from __future__ import annotations

import math

import numpy as np
from numba import cuda, float32, int32, uint32

from netdsl.cuda.arith import quotient
from netdsl.cuda.backward.task import (
    BLOCK,
    GO,
    RATE,
    SCALE,
    UNBIAS,
    UNBIAS_SQUARES,
    Calls,
    UpdateTask,
)
from netdsl.cuda.layout import Call, blocks
from netdsl.cuda.sizes import THREADS
from netdsl.cuda.warp import load4, store4
from netdsl.cuda.wide import EACH, WARPS, block_sum

LENGTH, WEIGHTS, DECAY, GRADIENT, FIRST, SECOND, NUMBERS, OWN, FORM = range(9)
"""Floats of the vector; where the weights and the decay lie in params, the gradient, the slots and
the step's numbers in the arena; where params hold keep, keep_squares and eps; whether Nesterov's
momentum, or Adam's decay apart."""
PARTS, FROM, LIMIT, CLIPS, LOSSES, HOW_MANY, STEP = range(7)
"""Of settle: parts of the squared norm and where they lie; where params hold the largest norm, and
whether there is one; where the losses lie, how many, and the step's numbers."""
VECTOR, SQUARES = 1, 2
"""Of square_parts, after LENGTH: where the gradient lies, where the parts go."""

MOST_PARTS = 4 * THREADS
ZERO, ONE = np.float32(0), np.float32(1)
LARGEST = np.finfo(np.float32).max


@cuda.jit
def square_parts(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Sums of squares of the gradient, a block a part."""
    shared = cuda.shared.array(WARPS, float32)
    t = int32(cuda.threadIdx.x)
    total, start = ZERO, ints[uint32(at + VECTOR)]
    first = int32((cuda.blockIdx.x * THREADS + t) * EACH)
    for i in range(first, ints[uint32(at + LENGTH)], int32(cuda.gridDim.x * THREADS * EACH)):
        a, b, c, d = load4(arena, uint32(start + i))
        total += (a * a + b * b) + (c * c + d * d)
    total = block_sum(shared, t, total)
    if t == 0:
        arena[uint32(ints[uint32(at + SQUARES)] + cuda.blockIdx.x)] = total


@cuda.jit
def settle(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """What the gradient is multiplied by, and whether every loss is finite: one block."""
    shared = cuda.shared.array(WARPS, float32)
    t, numbers = int32(cuda.threadIdx.x), ints[uint32(at + STEP)]
    total = ZERO
    for i in range(t, ints[uint32(at + PARTS)], int32(THREADS)):
        total += arena[uint32(ints[uint32(at + FROM)] + i)]
    total = block_sum(shared, t, total)
    if t == 0:
        norm, scale = float32(math.sqrt(total)), ONE
        limit = params[uint32(ints[uint32(at + LIMIT)])]
        if ints[uint32(at + CLIPS)] != 0 and norm > limit:
            scale = limit / norm
        go = ONE
        for i in range(ints[uint32(at + HOW_MANY)]):
            if not abs(arena[uint32(ints[uint32(at + LOSSES)] + i)]) <= LARGEST:
                go = ZERO
        arena[uint32(numbers + SCALE)] = scale
        arena[uint32(numbers + GO)] = go


@cuda.jit(device=True)
def begun(arena, ints, at):  # type: ignore[no-untyped-def]
    """A thread's first element, and the end of the vector, or 0 where no weight may move."""
    numbers = ints[uint32(at + NUMBERS)]
    end = ints[uint32(at + LENGTH)]
    if arena[uint32(numbers + GO)] == ZERO:
        end = int32(0)
    return int32((cuda.blockIdx.x * THREADS + cuda.threadIdx.x) * EACH), end


@cuda.jit(device=True)
def fetched(values, array, place):  # type: ignore[no-untyped-def]
    """Four neighbours."""
    values[0], values[1], values[2], values[3] = load4(array, uint32(place))


@cuda.jit(device=True)
def left(array, place, values):  # type: ignore[no-untyped-def]
    """Writes four neighbours."""
    store4(array, uint32(place), values[0], values[1], values[2], values[3])


@cuda.jit(device=True)
def slope(arena, params, ints, at, i, w, g):  # type: ignore[no-untyped-def]
    """Puts four weights into `w`, and their gradient, clipped, into `g`; gives their decay and the
    rate."""
    numbers = ints[uint32(at + NUMBERS)]
    fetched(w, params, int32(ints[uint32(at + WEIGHTS)] + i))
    fetched(g, arena, int32(ints[uint32(at + GRADIENT)] + i))
    scale = arena[uint32(numbers + SCALE)]
    for k in range(EACH):
        g[k] *= scale
    fade = params[uint32(ints[uint32(at + DECAY)] + quotient(i, BLOCK))]
    return fade, arena[uint32(numbers + RATE)]


@cuda.jit
def descend(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """w <- w - rate (g + decay w)"""
    i, end = begun(arena, ints, at)
    if i < end:
        w, g = cuda.local.array(EACH, float32), cuda.local.array(EACH, float32)
        fade, rate = slope(arena, params, ints, at, i, w, g)
        for k in range(EACH):
            w[k] -= (g[k] + w[k] * fade) * rate
        left(params, int32(ints[uint32(at + WEIGHTS)] + i), w)


@cuda.jit
def momentum(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """v <- keep v + g, then w <- w - rate v; Nesterov's looks ahead: rate (g + keep v)."""
    i, end = begun(arena, ints, at)
    if i < end:
        w, g = cuda.local.array(EACH, float32), cuda.local.array(EACH, float32)
        v = cuda.local.array(EACH, float32)
        fade, rate = slope(arena, params, ints, at, i, w, g)
        fetched(v, arena, int32(ints[uint32(at + FIRST)] + i))
        keep = params[uint32(ints[uint32(at + OWN)])]
        ahead = ints[uint32(at + FORM)] != 0
        for k in range(EACH):
            d = g[k] + w[k] * fade
            v[k] = v[k] * keep + d
            w[k] -= (v[k] * keep + d if ahead else v[k]) * rate
        left(arena, int32(ints[uint32(at + FIRST)] + i), v)
        left(params, int32(ints[uint32(at + WEIGHTS)] + i), w)


@cuda.jit
def by_squares(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """s <- keep s + new g^2, w <- w - rate g / (sqrt(s) + eps): AdaGrad where keep and new are 1,
    RMSProp where new is 1 - keep."""
    i, end = begun(arena, ints, at)
    if i < end:
        w, g = cuda.local.array(EACH, float32), cuda.local.array(EACH, float32)
        s = cuda.local.array(EACH, float32)
        fade, rate = slope(arena, params, ints, at, i, w, g)
        fetched(s, arena, int32(ints[uint32(at + FIRST)] + i))
        own = ints[uint32(at + OWN)]
        keep, new, eps = params[uint32(own)], params[uint32(own + 1)], params[uint32(own + 2)]
        for k in range(EACH):
            d = g[k] + w[k] * fade
            s[k] = s[k] * keep + d * d * new
            w[k] -= d * rate / (float32(math.sqrt(s[k])) + eps)
        left(arena, int32(ints[uint32(at + FIRST)] + i), s)
        left(params, int32(ints[uint32(at + WEIGHTS)] + i), w)


@cuda.jit
def adam(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Adam; where FORM is not 0 the decay leaves the moments alone (AdamW)."""
    i, end = begun(arena, ints, at)
    if i < end:
        w, g = cuda.local.array(EACH, float32), cuda.local.array(EACH, float32)
        m, s = cuda.local.array(EACH, float32), cuda.local.array(EACH, float32)
        fade, rate = slope(arena, params, ints, at, i, w, g)
        fetched(m, arena, int32(ints[uint32(at + FIRST)] + i))
        fetched(s, arena, int32(ints[uint32(at + SECOND)] + i))
        own, numbers = ints[uint32(at + OWN)], ints[uint32(at + NUMBERS)]
        keep, keep2, eps = params[uint32(own)], params[uint32(own + 1)], params[uint32(own + 2)]
        unbias, unbias2 = (
            arena[uint32(numbers + UNBIAS)],
            arena[uint32(numbers + UNBIAS_SQUARES)],
        )
        apart = ints[uint32(at + FORM)] != 0
        for k in range(EACH):
            d = g[k] if apart else g[k] + w[k] * fade
            m[k] = m[k] * keep + d * (ONE - keep)
            s[k] = s[k] * keep2 + d * d * (ONE - keep2)
            way = m[k] * unbias / (float32(math.sqrt(s[k] * unbias2)) + eps)
            if apart:
                way += w[k] * fade
            w[k] -= way * rate
        left(arena, int32(ints[uint32(at + FIRST)] + i), m)
        left(arena, int32(ints[uint32(at + SECOND)] + i), s)
        left(params, int32(ints[uint32(at + WEIGHTS)] + i), w)


UPDATES = {
    "sgd": (descend, 0),
    "momentum": (momentum, 0),
    "nesterov": (momentum, 1),
    "adagrad": (by_squares, 0),
    "rmsprop": (by_squares, 0),
    "adam": (adam, 0),
    "adamw": (adam, 1),
}
"""The kernel of each optimiser, and which form of it."""


def update(task: UpdateTask) -> Calls:
    """The calls of a step: the gradient's norm where it is clipped, whether to go, the update."""
    count = -(-task.length // (EACH * THREADS))
    parts = min(count, MOST_PARTS) if task.clip is not None else 0
    start = task.scratch(parts)
    calls = list[Call]()
    if parts:
        calls = [blocks(square_parts, parts, task.ints.add([task.length, task.gradient, start]))]
    limit = task.params.add([task.clip or 0.0])
    d = [parts, start, limit, int(parts > 0), task.values, task.losses, task.numbers]
    calls.append(blocks(settle, 1, task.ints.add(d)))
    if not count:
        return calls
    kernel, form = UPDATES[task.name]
    one, two = task.keep, task.keep_squares
    if kernel is by_squares:
        one, two = (1.0, 1.0) if task.name == "adagrad" else (one, 1.0 - one)
    first, second = (*task.slots, -1, -1)[:2]
    d = [task.length, task.weights, task.decay, task.gradient, first, second, task.numbers]
    at = task.ints.add([*d, task.params.add([one, two, task.eps]), form])
    return [*calls, blocks(kernel, count, at)]
