"""Losses and their gradients, as `netdsl.train.losses`: one pass that reads the scores, one that
writes the gradient and sums the loss, and the sum of what blocks or positions found."""

from __future__ import annotations

import math

import numpy as np
from numba import cuda, float32, int32, uint32

from netdsl.cuda.arith import quotient
from netdsl.cuda.backward.task import Calls, LossTask
from netdsl.cuda.layout import Buffer, blocks, spread
from netdsl.cuda.rows import place, rows_of
from netdsl.cuda.sizes import THREADS
from netdsl.cuda.softmax import WIDE_PLANE, gathered, power
from netdsl.cuda.wide import (
    EACH,
    SUMS,
    WARPS,
    block_largest,
    block_sum,
    block_sums,
    fetch,
    first_of,
    put,
    row_of,
)

SOURCE, SOURCE_BATCH, TARGET, TARGET_BATCH, TARGETS, VALUES, NUMBERS = range(7)
"""The scores, and their gradient (TARGET below 0: nobody wants it); where the classes are in ints,
or the other targets in the arena; where in the arena each position's or block's loss goes; where
params hold what the gradient is multiplied by, and the loss's own numbers after it."""
CLASSES, POSITIONS = 7, 8
"""Scores of a position, positions of a sample."""
COUNT, WIDE, ENTROPY, TARGETS_BATCH = 7, 8, 9, 10
"""Of pair_loss: elements of a row, whether four lie together; whether it is the binary cross
entropy; how far apart samples of targets lie."""
HOW_MANY, FROM, TO, SHARE = range(4)
"""Of mean_of: numbers, where they lie, where their mean goes, where params hold 1 / count."""

ZERO, HALF, ONE, TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)


@cuda.jit(device=True)
def entropy_of(arena, params, ints, at, source, target, own, first, end, step, best, total):  # type: ignore[no-untyped-def]
    """Writes the gradient in some scores of a position, and gives their share of the loss.

    own: the place of the right class, counted like `first`, `end` and `step`.
    """
    numbers = ints[uint32(at + NUMBERS)]
    factor = params[uint32(numbers)]
    even, right = params[uint32(numbers + 1)], params[uint32(numbers + 2)]
    rest, loss = float32(math.log(total)), ZERO
    for i in range(first, end, step):
        log = (arena[uint32(source + i)] - best) - rest
        wanted = even + right if i == own else even
        if wanted > ZERO:
            loss -= wanted * log
        if target >= 0:
            arena[uint32(target + i)] = (power(log) - wanted) * factor
    return loss


@cuda.jit(device=True)
def score_places(ints, at, n, p):  # type: ignore[no-untyped-def]
    """Where the scores of a position begin, and their gradient; -1 where nobody wants it."""
    target = int32(-1)
    if ints[uint32(at + TARGET)] >= 0:
        target = int32(row_of(ints, at + TARGET, n) + p)
    return int32(row_of(ints, at + SOURCE, n) + p), target


@cuda.jit
def entropy_rows(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Softmax's cross entropy of a position: grid (samples x positions)."""
    shared = cuda.shared.array(WARPS, float32)
    t, m = int32(cuda.threadIdx.x), int32(cuda.blockIdx.x)
    positions = ints[uint32(at + POSITIONS)]
    n = quotient(m, positions)
    source, target = score_places(ints, at, n, int32(m - n * positions))
    first, step = int32(t * positions), int32(THREADS * positions)
    end = int32(ints[uint32(at + CLASSES)] * positions)
    best, total = gathered(arena, int32(source + first), int32(source + end), step)
    most = block_largest(shared, t, best)
    total = block_sum(shared, t, total * power(best - most))
    own = int32(ints[uint32(ints[uint32(at + TARGETS)] + m)] * positions)
    loss = entropy_of(arena, params, ints, at, source, target, own, first, end, step, most, total)
    loss = block_sum(shared, t, loss)
    if t == 0:
        arena[uint32(ints[uint32(at + VALUES)] + m)] = loss


@cuda.jit
def entropy_columns(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The same by a thread a position: grid (positions / threads, samples)."""
    p = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n, positions = int32(cuda.blockIdx.y), ints[uint32(at + POSITIONS)]
    if p >= positions:
        return
    m = int32(n * positions + p)
    source, target = score_places(ints, at, n, p)
    end = int32(ints[uint32(at + CLASSES)] * positions)
    best, total = gathered(arena, source, int32(source + end), positions)
    own = int32(ints[uint32(ints[uint32(at + TARGETS)] + m)] * positions)
    arena[uint32(ints[uint32(at + VALUES)] + m)] = entropy_of(
        arena, params, ints, at, source, target, own, int32(0), end, positions, best, total
    )


@cuda.jit
def hinge_rows(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The multiclass hinge of a position: grid (samples x positions)."""
    shared = cuda.shared.array(SUMS, float32)
    t, m = int32(cuda.threadIdx.x), int32(cuda.blockIdx.x)
    positions = ints[uint32(at + POSITIONS)]
    n = quotient(m, positions)
    source, target = score_places(ints, at, n, int32(m - n * positions))
    end = int32(ints[uint32(at + CLASSES)] * positions)
    own = int32(ints[uint32(ints[uint32(at + TARGETS)] + m)] * positions)
    numbers = ints[uint32(at + NUMBERS)]
    factor, margin = params[uint32(numbers)], params[uint32(numbers + 1)]
    right = arena[uint32(source + own)]
    loss, over = ZERO, ZERO
    for i in range(int32(t * positions), end, int32(THREADS * positions)):
        above = (arena[uint32(source + i)] - right) + margin
        if i != own:
            counts = above > ZERO
            if counts or above != above:
                loss += above
            if counts:
                over += ONE
            if target >= 0:
                arena[uint32(target + i)] = factor if counts else ZERO
    loss, over = block_sums(shared, t, loss, over)
    if t == 0:
        arena[uint32(ints[uint32(at + VALUES)] + m)] = loss
        if target >= 0:
            arena[uint32(target + own)] = -over * factor


@cuda.jit
def pair_loss(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The squared error, or the binary cross entropy, of each element: grid (elements of a row,
    rows); a block's loss goes to VALUES."""
    shared = cuda.shared.array(WARPS, float32)
    count, wide = ints[uint32(at + COUNT)], ints[uint32(at + WIDE)] != 0
    n, t = int32(cuda.blockIdx.y), int32(cuda.threadIdx.x)
    i = first_of(cuda.blockIdx.x, t, wide)
    loss = ZERO
    if i < count:
        s, w = cuda.local.array(EACH, float32), cuda.local.array(EACH, float32)
        fetch(s, arena, row_of(ints, at + SOURCE, n), i, count, wide)
        base = int32(ints[uint32(at + TARGETS)] + n * ints[uint32(at + TARGETS_BATCH)])
        fetch(w, arena, base, i, count, wide)
        factor = params[uint32(ints[uint32(at + NUMBERS)])]
        entropy = ints[uint32(at + ENTROPY)] != 0
        for k in range(EACH):
            there = wide or int32(i + k * THREADS) < count
            if entropy:
                small = power(-abs(s[k]))
                value = max(s[k], ZERO) - s[k] * w[k] + float32(math.log1p(small))
                chance = (ONE if s[k] >= ZERO else small) / (ONE + small)
                s[k] = (chance - w[k]) * factor
            else:
                apart = s[k] - w[k]
                value = apart * apart
                s[k] = apart * factor
            if there:
                loss += value
        if ints[uint32(at + TARGET)] >= 0:
            put(arena, row_of(ints, at + TARGET, n), i, count, wide, s)
    loss = block_sum(shared, t, loss)
    if t == 0:
        arena[uint32(ints[uint32(at + VALUES)] + n * cuda.gridDim.x + cuda.blockIdx.x)] = loss


@cuda.jit
def mean_of(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The sum of some numbers over their count: one block."""
    shared = cuda.shared.array(WARPS, float32)
    t, source = int32(cuda.threadIdx.x), ints[uint32(at + FROM)]
    total = ZERO
    for i in range(t, ints[uint32(at + HOW_MANY)], int32(THREADS)):
        total += arena[uint32(source + i)]
    total = block_sum(shared, t, total)
    if t == 0:
        share = params[uint32(ints[uint32(at + SHARE)])]
        arena[uint32(ints[uint32(at + TO)])] = total * share


def head(task: LossTask, values: int, numbers: list[float]) -> list[int]:
    """What the descriptors of losses begin with."""
    slope = place(task.slope) if task.slope else [-1, 0]
    return [*place(task.scores), *slope, task.targets, values, task.params.add(numbers)]


def class_loss(task: LossTask) -> Calls:
    """The cross entropy, or the hinge."""
    s = task.scores
    rows = s.batch * s.plane
    values, factor = task.scratch(rows), task.share / rows
    hinge = task.name == "hinge"
    even = task.smoothing / s.channels
    numbers = [factor, 1.0] if hinge else [factor, even, 1.0 - task.smoothing]
    at = task.ints.add([*head(task, values, numbers), s.channels, s.plane])
    if hinge:
        call = blocks(hinge_rows, rows, at)
    elif s.plane < WIDE_PLANE:
        call = blocks(entropy_rows, rows, at)
    else:
        call = spread(entropy_columns, s.plane, at, s.batch)
    return [call, *mean(task, rows, values, 1.0 / rows)]


def element_loss(task: LossTask) -> Calls:
    """The squared error, or the binary cross entropy."""
    s, entropy = task.scores, task.name == "bce"
    wanted = Buffer(task.targets, s.batch, s.shape, s.sample)
    rows = rows_of(s, wanted, *([task.slope] if task.slope else []))
    size = s.batch * s.sample
    numbers = [task.share / size * (1.0 if entropy else 2.0)]
    call = rows.call(pair_loss, 0)
    count = call.grid[0] * call.grid[1]
    values = task.scratch(count)
    d = [*head(task, values, numbers), *rows.fields, int(entropy), wanted.batch_stride]
    return [call._replace(at=task.ints.add(d)), *mean(task, count, values, 1.0 / size)]


def mean(task: LossTask, count: int, start: int, share: float) -> Calls:
    """The mean loss, from what positions or blocks found."""
    at = task.ints.add([count, start, task.value, task.params.add([share])])
    return [blocks(mean_of, 1, at)]


LOSSES = {
    "cross_entropy": class_loss,
    "hinge": class_loss,
    "mse": element_loss,
    "bce": element_loss,
}
"""How each loss is planned."""
