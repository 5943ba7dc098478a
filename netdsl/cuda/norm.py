"""Normalisations by each sample's own statistics, softmax, and local response."""

from __future__ import annotations

import math

import numpy as np
from numba import cuda, float32, int32, uint32

from netdsl.cuda.activation import by_channel, ends
from netdsl.cuda.arith import quotient
from netdsl.cuda.layout import Call, blocks, spread
from netdsl.cuda.reduce import group_norm, softmax_rows
from netdsl.cuda.task import Task
from netdsl.ops import (
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    LocalResponseNorm,
    LogSoftmax,
)

ZERO = np.float32(0)
LEAST = np.float32(-np.inf)

SOURCE, SOURCE_BATCH, TARGET, TARGET_BATCH, CHANNELS, PLANE, LOG = range(7)
"""Of softmax_columns: as in reduce.py."""
BELOW, ABOVE, NUMBERS = range(6, 9)
"""Of local_response: neighbours below and above, and where k, alpha / size and beta lie."""

WIDE_PLANE = 32
"""Positions from which on neighbouring threads take neighbouring positions of a softmax."""


@cuda.jit
def softmax_columns(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Softmax of a position by one thread: grid (positions / threads, samples)."""
    p = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    plane = ints[uint32(at + PLANE)]
    if p >= plane:
        return
    source = int32(ints[uint32(at + SOURCE)] + n * ints[uint32(at + SOURCE_BATCH)] + p)
    target = int32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)] + p)
    end = int32(ints[uint32(at + CHANNELS)] * plane)
    best = LEAST
    for i in range(int32(0), end, plane):
        value = arena[uint32(source + i)]
        if value > best or value != value:
            best = value
    total = ZERO
    for i in range(int32(0), end, plane):
        total += float32(math.exp(arena[uint32(source + i)] - best))
    if ints[uint32(at + LOG)] != 0:
        rest = float32(math.log(total))
        for i in range(int32(0), end, plane):
            arena[uint32(target + i)] = (arena[uint32(source + i)] - best) - rest
    else:
        for i in range(int32(0), end, plane):
            arena[uint32(target + i)] = float32(math.exp(arena[uint32(source + i)] - best)) / total


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


def plan_norm(task: Task) -> list[Call]:
    """Layer, instance or group norm: they differ in how many groups a sample has."""
    op, source = task.whole.base, task.inputs[0]
    assert isinstance(op, LayerNorm | InstanceNorm | GroupNorm)
    groups = source.channels
    if isinstance(op, LayerNorm):
        groups = 1
    elif isinstance(op, GroupNorm):
        groups = op.groups
    params, channels = task.params, source.channels
    scale = params.add(by_channel(task.weights.get("weight"), channels, 1.0))
    shift = params.add(by_channel(task.weights.get("bias"), channels, 0.0))
    d = [*ends(source, task.output), groups, channels // groups, source.plane]
    at = task.ints.add([*d, scale, shift, params.add([op.eps])])
    return [blocks(group_norm, source.batch * groups, at)]


def plan_softmax(task: Task) -> list[Call]:
    """Softmax across the channels, or its logarithm."""
    source = task.inputs[0]
    log = int(isinstance(task.whole.base, LogSoftmax))
    at = task.ints.add([*ends(source, task.output), source.channels, source.plane, log])
    if source.plane < WIDE_PLANE:
        return [blocks(softmax_rows, source.batch * source.plane, at)]
    return [spread(softmax_columns, source.plane, at, source.batch)]


def plan_response(task: Task) -> list[Call]:
    """Local response normalisation."""
    op, source = task.whole.base, task.inputs[0]
    assert isinstance(op, LocalResponseNorm)
    numbers = task.params.add([op.k, op.alpha / op.size, op.beta])
    d = [*ends(source, task.output), source.channels, source.plane, *op.reach, numbers]
    return [spread(local_response, source.sample, task.ints.add(d), source.batch)]
