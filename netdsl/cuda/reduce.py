"""Kernels whose threads sum together: a block a result, by halves in shared memory.

They stand in one file because Numba's simulator replaces `cuda` a file at a time, and only then
may device functions of this file call syncthreads.
"""

from __future__ import annotations

import math

import numpy as np
from numba import cuda, float32, int32, uint32

from netdsl.cuda.arith import quotient
from netdsl.cuda.functions import bend
from netdsl.cuda.sizes import THREADS

ZERO, ONE = np.float32(0), np.float32(1)
LEAST = np.float32(-np.inf)

# What every descriptor begins with.
SOURCE, SOURCE_BATCH, TARGET, TARGET_BATCH = range(4)

GROUPS, CHANNELS, PLANE, SCALE, SHIFT, EPS = range(4, 10)
"""Of group_norm: groups of a sample, channels of a group, positions of a channel, and where in
params the scale and shift of each channel lie, and eps."""

POOL_CHANNELS, POOL_PLANE, LARGEST = range(4, 7)
"""Of pool_all: channels, positions of a channel, whether the largest is wanted."""

CLASSES, POSITIONS, LOG = range(4, 7)
"""Of the softmaxes: channels, positions of a channel, whether the logarithm is wanted."""

INPUTS, BATCH, WEIGHTS, BIAS, KIND, NUMBERS = range(4, 10)
"""Of dense_rows: inputs of a row, samples, where weights and biases lie, the activation."""

SAMPLES = 4
"""Samples that a block of dense_rows takes at once, so that weights are read once for all."""
SUMS = SAMPLES * THREADS


@cuda.jit(device=True)
def total_of(shared, t, value):  # type: ignore[no-untyped-def]
    """The sum of every thread's value, to every thread."""
    shared[uint32(t)] = value
    cuda.syncthreads()
    half = int32(THREADS // 2)
    while half > 0:
        if t < half:
            shared[uint32(t)] += shared[uint32(t + half)]
        cuda.syncthreads()
        half = int32(half // 2)
    result = shared[uint32(0)]
    cuda.syncthreads()
    return result


@cuda.jit(device=True)
def larger(a, b):  # type: ignore[no-untyped-def]
    """The larger of two, NaN if either is."""
    return b if b > a or b != b else a


@cuda.jit(device=True)
def largest_of(shared, t, value):  # type: ignore[no-untyped-def]
    """The largest of every thread's value, to every thread; NaN if there is one."""
    shared[uint32(t)] = value
    cuda.syncthreads()
    half = int32(THREADS // 2)
    while half > 0:
        if t < half:
            shared[uint32(t)] = larger(shared[uint32(t)], shared[uint32(t + half)])
        cuda.syncthreads()
        half = int32(half // 2)
    result = shared[uint32(0)]
    cuda.syncthreads()
    return result


@cuda.jit
def group_norm(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Normalises a group of a sample: grid (samples x groups).

    The deviations' sum mends the mean, so that numbers far from zero lose nothing.
    """
    shared = cuda.shared.array(THREADS, float32)
    t = int32(cuda.threadIdx.x)
    groups = ints[uint32(at + GROUPS)]
    channels = ints[uint32(at + CHANNELS)]
    plane = ints[uint32(at + PLANE)]
    n = quotient(int32(cuda.blockIdx.x), groups)
    group = int32(cuda.blockIdx.x - n * groups)
    count = int32(channels * plane)
    start = int32(group * count)
    source = int32(ints[uint32(at + SOURCE)] + n * ints[uint32(at + SOURCE_BATCH)] + start)
    target = int32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)] + start)
    inverse = ONE / float32(count)
    total = ZERO
    for i in range(t, count, int32(THREADS)):
        total += arena[uint32(source + i)]
    mean = total_of(shared, t, total) * inverse
    total, squares = ZERO, ZERO
    for i in range(t, count, int32(THREADS)):
        apart = arena[uint32(source + i)] - mean
        total += apart
        squares += apart * apart
    slip = total_of(shared, t, total) * inverse
    variance = total_of(shared, t, squares) * inverse - slip * slip
    if variance < ZERO:
        variance = ZERO
    eps = params[uint32(ints[uint32(at + EPS)])]
    factor = ONE / float32(math.sqrt(variance + eps))
    scales = int32(ints[uint32(at + SCALE)] + group * channels)
    shifts = int32(ints[uint32(at + SHIFT)] + group * channels)
    for i in range(t, count, int32(THREADS)):
        c = quotient(int32(i), plane)
        value = ((arena[uint32(source + i)] - mean) - slip) * factor
        arena[uint32(target + i)] = value * params[uint32(scales + c)] + params[uint32(shifts + c)]


@cuda.jit
def pool_all(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The mean or largest of a channel of a sample: grid (samples x channels)."""
    shared = cuda.shared.array(THREADS, float32)
    t = int32(cuda.threadIdx.x)
    channels = ints[uint32(at + POOL_CHANNELS)]
    plane = ints[uint32(at + POOL_PLANE)]
    n = quotient(int32(cuda.blockIdx.x), channels)
    c = int32(cuda.blockIdx.x - n * channels)
    source = int32(ints[uint32(at + SOURCE)] + n * ints[uint32(at + SOURCE_BATCH)] + c * plane)
    if ints[uint32(at + LARGEST)] != 0:
        best = LEAST
        for i in range(t, plane, int32(THREADS)):
            best = larger(best, arena[uint32(source + i)])
        result = largest_of(shared, t, best)
    else:
        total = ZERO
        for i in range(t, plane, int32(THREADS)):
            total += arena[uint32(source + i)]
        result = total_of(shared, t, total) / float32(plane)
    if t == 0:
        to = int32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)] + c)
        arena[uint32(to)] = result


@cuda.jit
def softmax_rows(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Softmax of one position: grid (samples x positions)."""
    shared = cuda.shared.array(THREADS, float32)
    t = int32(cuda.threadIdx.x)
    classes = ints[uint32(at + CLASSES)]
    positions = ints[uint32(at + POSITIONS)]
    n = quotient(int32(cuda.blockIdx.x), positions)
    p = int32(cuda.blockIdx.x - n * positions)
    source = int32(ints[uint32(at + SOURCE)] + n * ints[uint32(at + SOURCE_BATCH)] + p)
    target = int32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)] + p)
    best = LEAST
    for c in range(t, classes, int32(THREADS)):
        best = larger(best, arena[uint32(source + c * positions)])
    best = largest_of(shared, t, best)
    total = ZERO
    for c in range(t, classes, int32(THREADS)):
        total += float32(math.exp(arena[uint32(source + c * positions)] - best))
    total = total_of(shared, t, total)
    if ints[uint32(at + LOG)] != 0:
        rest = float32(math.log(total))
        for c in range(t, classes, int32(THREADS)):
            apart = arena[uint32(source + c * positions)] - best
            arena[uint32(target + c * positions)] = apart - rest
    else:
        for c in range(t, classes, int32(THREADS)):
            apart = arena[uint32(source + c * positions)] - best
            arena[uint32(target + c * positions)] = float32(math.exp(apart)) / total


@cuda.jit
def dense_rows(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """A fully connected layer's filter for some samples: grid (filters, samples / SAMPLES)."""
    shared = cuda.shared.array(SUMS, float32)
    t = int32(cuda.threadIdx.x)
    f = int32(cuda.blockIdx.x)
    inputs = ints[uint32(at + INPUTS)]
    batch = ints[uint32(at + BATCH)]
    apart = ints[uint32(at + SOURCE_BATCH)]
    first = int32(cuda.blockIdx.y * SAMPLES)
    taken = int32(batch - first)
    if taken > SAMPLES:
        taken = int32(SAMPLES)
    source = int32(ints[uint32(at + SOURCE)] + first * apart)
    weights = int32(ints[uint32(at + WEIGHTS)] + f * inputs)
    sums = cuda.local.array(SAMPLES, float32)
    for s in range(SAMPLES):
        sums[s] = ZERO
    for i in range(t, inputs, int32(THREADS)):
        weight = params[uint32(weights + i)]
        for s in range(SAMPLES):
            if s < taken:
                sums[s] += weight * arena[uint32(source + s * apart + i)]
    for s in range(SAMPLES):
        shared[uint32(s * THREADS + t)] = sums[s]
    cuda.syncthreads()
    half = int32(THREADS // 2)
    while half > 0:
        if t < half:
            for s in range(SAMPLES):
                shared[uint32(s * THREADS + t)] += shared[uint32(s * THREADS + t + half)]
        cuda.syncthreads()
        half = int32(half // 2)
    if t < taken:
        numbers = ints[uint32(at + NUMBERS)]
        value = shared[uint32(t * THREADS)] + params[uint32(ints[uint32(at + BIAS)] + f)]
        value = bend(
            ints[uint32(at + KIND)], value, params[uint32(numbers)], params[uint32(numbers + 1)]
        )
        to = int32(ints[uint32(at + TARGET)] + (first + t) * ints[uint32(at + TARGET_BATCH)] + f)
        arena[uint32(to)] = value
