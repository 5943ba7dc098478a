"""Local response normalisation: by the squares of neighbouring channels."""

from __future__ import annotations

import math

import numpy as np
from numba import cuda, float32, int32, uint32

from netdsl.cuda.activation import ends
from netdsl.cuda.arith import quotient
from netdsl.cuda.layout import Call, spread
from netdsl.cuda.task import Task
from netdsl.ops import LocalResponseNorm

SOURCE, SOURCE_BATCH, TARGET, TARGET_BATCH, CHANNELS, PLANE, BELOW, ABOVE, NUMBERS = range(9)
"""Of local_response: neighbours below and above, and where k, alpha / size and beta lie."""

ZERO = np.float32(0)


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


def plan_response(task: Task) -> list[Call]:
    """Local response normalisation."""
    op, source = task.whole.base, task.inputs[0]
    assert isinstance(op, LocalResponseNorm)
    numbers = task.params.add([op.k, op.alpha / op.size, op.beta])
    d = [*ends(source, task.output), source.channels, source.plane, *op.reach, numbers]
    return [spread(local_response, source.sample, task.ints.add(d), source.batch)]
