"""A fully connected layer for few samples: a block some filters, sums by shuffles.

Reading the weights is the work, so each is read once for all the block's samples, 16 bytes at a
time, in rows that are filled with zeros to whole *units* of 16 bytes: 4 weights, or 8 of bfloat16,
to which inputs are rounded then too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda, float32, int32, uint32

from netdsl.cuda.arith import quotient, remainder
from netdsl.cuda.functions import bend
from netdsl.cuda.sizes import THREADS, WARP
from netdsl.cuda.warp import as_bf16, bits_of, float_of, load4
from netdsl.cuda.wide import WARPS, warp_sum

ZERO = np.float32(0)

SOURCE, SOURCE_BATCH, TARGET, TARGET_BATCH = range(4)
INPUTS, BATCH, FILTERS, WEIGHTS, BIAS, KIND, NUMBERS, WIDE = range(4, 12)
"""Inputs of a row, samples, filters, where weights and biases lie, the activation, whether samples
begin at multiples of four and inputs are whole fours."""

SAMPLES = 4
"""Samples that a block of dense_rows takes at once."""
ROWS = 4
"""Filters that it takes: what is read of the samples serves them all, and as many loads of weights
are under way together."""
SUMS = SAMPLES * ROWS
SHARED = WARPS * SUMS


def spread_by(per: int) -> Any:
    """The device function that takes a word's values, `per` of them."""
    HALVES = per == 2

    @cuda.jit(device=True)
    def spread(values, i, word):  # type: ignore[no-untyped-def]
        if HALVES:
            bits = bits_of(word)
            values[2 * i] = float_of(uint32(bits << uint32(16)))
            values[2 * i + 1] = float_of(uint32(bits & uint32(0xFFFF0000)))
        else:
            values[i] = word

    return spread


def rows_of(per: int) -> Any:
    """The kernel for weights of which `per` lie in a word: 1, or 2 of bfloat16."""
    PER, UNIT = per, 4 * per
    HELD = ROWS * UNIT
    spread = spread_by(per)

    @cuda.jit
    def dense_rows(arena, params, ints, at):  # type: ignore[no-untyped-def]
        """Some filters of a fully connected layer for some samples: grid (filters / ROWS x samples
        / SAMPLES), those of the same filters next to each other, whose weights then lie in L2."""
        shared = cuda.shared.array(SHARED, float32)
        sums = cuda.local.array(SUMS, float32)
        weights = cuda.local.array(HELD, float32)
        x = cuda.local.array(UNIT, float32)
        t = int32(cuda.threadIdx.x)
        inputs, wide = ints[uint32(at + INPUTS)], ints[uint32(at + WIDE)] != 0
        apart = ints[uint32(at + SOURCE_BATCH)]
        pieces = quotient(int32(ints[uint32(at + BATCH)] + SAMPLES - 1), int32(SAMPLES))
        block = int32(cuda.blockIdx.x)
        which = quotient(block, pieces)
        first = int32((block - which * pieces) * SAMPLES)
        taken = int32(ints[uint32(at + BATCH)] - first)
        source = int32(ints[uint32(at + SOURCE)] + first * apart)
        units = quotient(int32(inputs + UNIT - 1), int32(UNIT))
        row = int32(4 * units)
        begin = int32(ints[uint32(at + WEIGHTS)] + which * ROWS * row)
        for i in range(SUMS):
            sums[i] = ZERO
        for u in range(t, units, int32(THREADS)):
            for f in range(ROWS):
                words = load4(params, uint32(begin + f * row + 4 * u))
                for k in range(4):
                    spread(weights, f * 4 + k, words[k])
            for s in range(SAMPLES):
                if s < taken:
                    place = int32(source + s * apart + UNIT * u)
                    for k in range(PER):
                        left = int32(inputs - UNIT * u - 4 * k)
                        four = int32(place + 4 * k)
                        if wide and left > 0:
                            a, b, c, d = load4(arena, uint32(four))
                        else:
                            a = arena[uint32(four)] if left > 0 else ZERO
                            b = arena[uint32(four + 1)] if left > 1 else ZERO
                            c = arena[uint32(four + 2)] if left > 2 else ZERO
                            d = arena[uint32(four + 3)] if left > 3 else ZERO
                        if PER == 2:
                            spread(x, 2 * k, as_bf16(a, b))
                            spread(x, 2 * k + 1, as_bf16(c, d))
                        else:
                            x[4 * k], x[4 * k + 1], x[4 * k + 2], x[4 * k + 3] = a, b, c, d
                    for f in range(ROWS):
                        for k in range(UNIT):
                            sums[f * SAMPLES + s] += weights[f * UNIT + k] * x[k]
        warp = quotient(t, int32(WARP))
        for s in range(SAMPLES):
            if s < taken:
                for f in range(ROWS):
                    total = warp_sum(sums[f * SAMPLES + s])
                    if remainder(t, int32(WARP)) == 0:
                        shared[uint32(warp * SUMS + f * SAMPLES + s)] = total
        cuda.syncthreads()
        i = t
        while i < SUMS:
            s = remainder(i, int32(SAMPLES))
            f = int32(which * ROWS + quotient(i, int32(SAMPLES)))
            if s < taken and f < ints[uint32(at + FILTERS)]:
                total = params[uint32(ints[uint32(at + BIAS)] + f)]
                for w in range(WARPS):
                    total += shared[uint32(w * SUMS + i)]
                own = ints[uint32(at + NUMBERS)]
                one, two = params[uint32(own)], params[uint32(own + 1)]
                total = bend(ints[uint32(at + KIND)], total, one, two)
                to = int32(ints[uint32(at + TARGET)] + f)
                arena[uint32(to + (first + s) * ints[uint32(at + TARGET_BATCH)])] = total
            i = int32(i + THREADS)

    return dense_rows


DENSE: dict[int, Any] = {per: rows_of(per) for per in (1, 2)}
"""The kernel by how many weights lie in a word."""
