"""A fully connected layer for few samples: a block a filter, sums by halves in shared memory."""

from __future__ import annotations

import numpy as np
from numba import cuda, float32, int32, uint32

from netdsl.cuda.functions import bend
from netdsl.cuda.sizes import THREADS

ZERO = np.float32(0)

SOURCE, SOURCE_BATCH, TARGET, TARGET_BATCH = range(4)
INPUTS, BATCH, WEIGHTS, BIAS, KIND, NUMBERS = range(4, 10)
"""Inputs of a row, samples, where weights and biases lie, the activation."""

SAMPLES = 4
"""Samples that a block of dense_rows takes at once, so that weights are read once for all."""
SUMS = SAMPLES * THREADS


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
