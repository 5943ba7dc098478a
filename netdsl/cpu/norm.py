"""Normalisations that measure what they normalise, and softmax.

Means and variances are summed in double precision in two passes. Batch norm is in activation.py:
when a network runs, its statistics are given.
"""

from __future__ import annotations

import math

import numpy as np

from netdsl.cpu.functions import exp
from netdsl.cpu.lanes import (
    keep,
    largest,
    load,
    muladd,
    narrow,
    splat,
    sqrt,
    store,
    total,
    where_less,
    wide_splat,
    widen,
    within,
)
from netdsl.cpu.late import njit
from netdsl.cpu.launch import share, worker
from netdsl.cpu.layout import (
    BATCH,
    BLOCK_STRIDE,
    BLOCKS,
    CHANNELS,
    DEPTH,
    HEIGHT,
    Call,
)
from netdsl.cpu.task import Places, Task, by_channel
from netdsl.cpu.views import (
    OWN,
    SOURCE,
    TARGET,
    call,
    lanes_of,
    row_at,
    row_width,
)
from netdsl.ops import GroupNorm, InstanceNorm, LayerNorm, LogSoftmax

# Of group_norm and channel_norm: channels in a group; where params hold eps (one block), then the
# scale and the shift of each channel block.
GROUP, NUMBERS = OWN, OWN + 1
LOWEST = np.float32(-np.inf)


@njit(forceinline=True)
def block_sums(arena, d, n, b, mean):  # type: ignore[no-untyped-def]
    """Each lane's sum of x - mean, and of its square, over all positions of a block."""
    columns, rows = row_width(d), d[TARGET + HEIGHT]
    sums, squares = wide_splat(0.0), wide_splat(0.0)
    for y in range(d[TARGET + DEPTH] * rows):
        source = row_at(d, SOURCE, n, b, y // rows, y % rows)
        for x in range(columns):
            off = widen(load(arena, source + 16 * x)) - mean
            sums += off
            squares = muladd(off, off, squares)
    return sums, squares


@njit(forceinline=True)
def normalise_block(arena, d, n, b, mean, scale, shift, low, high):  # type: ignore[no-untyped-def]
    """(x - mean) scale + shift in the lanes from low to high; the others stay as they are."""
    columns, rows = row_width(d), d[TARGET + HEIGHT]
    for y in range(d[TARGET + DEPTH] * rows):
        source = row_at(d, SOURCE, n, b, y // rows, y % rows)
        out = row_at(d, TARGET, n, b, y // rows, y % rows)
        for x in range(columns):
            v = muladd(narrow(widen(load(arena, source + 16 * x)) - mean), scale, shift)
            v = keep(v, low, high)
            if low > 0:
                v += keep(load(arena, out + 16 * x), 0, low)
            store(arena, out + 16 * x, v)


@worker
def channel_norm(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """Each channel of each sample by its own mean and deviation: 16 at once."""
    blocks, numbers = d[TARGET + BLOCKS], d[NUMBERS]
    count = d[TARGET + DEPTH] * d[TARGET + HEIGHT] * row_width(d)
    eps = np.float64(params[numbers])
    work = d[TARGET + BATCH] * blocks
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b = item // blocks, item % blocks
        sums, _ = block_sums(arena, d, n, b, wide_splat(0.0))
        mean = sums / np.float64(count)
        _, squares = block_sums(arena, d, n, b, mean)
        at = numbers + 16 + 32 * b
        scale = narrow(widen(load(params, at)) / sqrt(squares / np.float64(count) + eps))
        normalise_block(arena, d, n, b, mean, scale, load(params, at + 16), 0, lanes_of(d, b))


@worker
def group_norm(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """Groups of channels of each sample by their common mean and deviation."""
    group, numbers = d[GROUP], d[NUMBERS]
    groups = d[TARGET + CHANNELS] // group
    count = np.float64(group * d[TARGET + DEPTH] * d[TARGET + HEIGHT] * row_width(d))
    eps = np.float64(params[numbers])
    # A block may hold several groups, and two threads may not write to one block: a sample's
    # groups that share a block are one thread's. `span` groups fill whole blocks, or all of them.
    span = groups
    for g in range(1, groups):
        if g * group % 16 == 0:
            span = g
            break
    spans = (groups + span - 1) // span
    work = d[TARGET + BATCH] * spans
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, start = item // spans, item % spans * span
        for g in range(start, min(start + span, groups)):
            low, high = g * group, (g + 1) * group
            mean, squared = 0.0, 0.0
            for b in range(low // 16, (high + 15) // 16):
                sums, _ = block_sums(arena, d, n, b, wide_splat(0.0))
                mean += total(keep(sums, low - 16 * b, high - 16 * b))
            mean /= count
            for b in range(low // 16, (high + 15) // 16):
                _, squares = block_sums(arena, d, n, b, wide_splat(mean))
                squared += total(keep(squares, low - 16 * b, high - 16 * b))
            by = wide_splat(1.0 / math.sqrt(squared / count + eps))
            for b in range(low // 16, (high + 15) // 16):
                at = numbers + 16 + 32 * b
                scale = narrow(widen(load(params, at)) * by)
                lows, highs = max(low - 16 * b, 0), min(high - 16 * b, 16)
                shift = load(params, at + 16)
                normalise_block(arena, d, n, b, wide_splat(mean), scale, shift, lows, highs)


LOG = OWN
"""Of softmax: whether the logarithm is wanted."""


@worker
def softmax(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """Softmax across the channels of each position, or its logarithm."""
    blocks, columns = d[TARGET + BLOCKS], row_width(d)
    from_block, to_block = d[SOURCE + BLOCK_STRIDE], d[TARGET + BLOCK_STRIDE]
    rows, depth, log = d[TARGET + HEIGHT], d[TARGET + DEPTH], d[LOG]
    work = d[TARGET + BATCH] * depth * rows
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, z, y = item // (rows * depth), item // rows % depth, item % rows
        for x in range(columns):
            source = row_at(d, SOURCE, n, 0, z, y) + 16 * x
            out = row_at(d, TARGET, n, 0, z, y) + 16 * x
            best = splat(LOWEST)
            for b in range(blocks):
                v = within(load(arena, source + b * from_block), 0, lanes_of(d, b), LOWEST)
                best = where_less(best, v, v, best)
            top = largest(best)
            sums = wide_splat(0.0)
            for b in range(blocks):
                v = keep(exp(load(arena, source + b * from_block) - top), 0, lanes_of(d, b))
                sums += widen(v)
                if not log:
                    store(arena, out + b * to_block, v)
            whole = total(sums)
            if log:
                less = np.float32(math.log(whole))
                for b in range(blocks):
                    v = load(arena, source + b * from_block) - top - less
                    store(arena, out + b * to_block, keep(v, 0, lanes_of(d, b)))
            else:
                by = np.float32(1.0 / whole)
                for b in range(blocks):
                    store(arena, out + b * to_block, load(arena, out + b * to_block) * by)


def plan_norm(task: Task, places: Places) -> list[Call]:
    """The call of a layer, instance or group norm."""
    op, channels = task.whole.base, task.node.shape[0]
    assert isinstance(op, LayerNorm | InstanceNorm | GroupNorm)
    group = 1 if isinstance(op, InstanceNorm) else channels
    if isinstance(op, GroupNorm):
        group = channels // op.groups
    scale = places.weights["weight"] if op.affine else 1.0
    shift = places.weights["bias"] if op.affine else 0.0
    line = np.stack([by_channel(scale, channels), by_channel(shift, channels)], axis=1)
    eps = np.array([op.eps, *(0.0,) * 15])
    at = places.params.add(np.concatenate([eps, line.reshape(-1)]))
    kernel = channel_norm if group == 1 else group_norm
    return [call(kernel, task.parts, places.output, places.inputs[0], group, at)]


def plan_softmax(task: Task, places: Places) -> list[Call]:
    """The call of softmax or its logarithm."""
    log = int(isinstance(task.whole.base, LogSoftmax))
    return [call(softmax, task.parts, places.output, places.inputs[0], log)]
