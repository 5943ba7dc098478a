"""What a card does with many values at once: loads of four floats, and sums of a warp and a block.

A block's sum is each warp's by shuffles, then the warps' through shared memory, always in the same
order.
"""

from __future__ import annotations

from threading import current_thread
from typing import Any

import numpy as np
from numba import cuda, int32, uint32

from netdsl.cuda.arith import quotient, remainder
from netdsl.cuda.sizes import SIMULATED, THREADS, WARP
from netdsl.cuda.warp import load4, shuffle_xor, store4

WARPS = THREADS // WARP
EACH = 4
"""Values that a thread takes at a time."""

SUMS = 2 * WARPS
"""Floats of shared memory that two sums of a block want."""

FEW = 16 if SIMULATED else 1024
"""Numbers up to which a warp sums them alone."""

ZERO = np.float32(0)

if SIMULATED:

    def barrier() -> None:
        """Until every thread of the block is here.

        The simulator's own `cuda` stands in the kernel's file alone, so functions of other files
        call the thread.
        """
        thread: Any = current_thread()
        thread.syncthreads()

else:

    @cuda.jit(device=True)
    def barrier():  # type: ignore[no-untyped-def]
        cuda.syncthreads()


@cuda.jit(device=True)
def lanes_sum(value, lanes):  # type: ignore[no-untyped-def]
    """The sum over `lanes` neighbours, a power of two, to each of them the same bits."""
    mask = int32(lanes // 2)
    while mask > 0:
        value += shuffle_xor(value, mask)
        mask = int32(mask // 2)
    return value


@cuda.jit(device=True)
def lanes_largest(value, lanes):  # type: ignore[no-untyped-def]
    """The largest of `lanes` neighbours, NaN if there is one."""
    mask = int32(lanes // 2)
    while mask > 0:
        other = shuffle_xor(value, mask)
        if other > value or other != other:
            value = other
        mask = int32(mask // 2)
    return value


@cuda.jit(device=True)
def warp_sum(value):  # type: ignore[no-untyped-def]
    """The sum over a warp."""
    return lanes_sum(value, WARP)


@cuda.jit(device=True)
def warp_largest(value):  # type: ignore[no-untyped-def]
    """The largest of a warp, NaN if there is one."""
    return lanes_largest(value, WARP)


@cuda.jit(device=True)
def block_sum(shared, t, value):  # type: ignore[no-untyped-def]
    """The sum of every thread's value, to every thread. shared: WARPS floats or more."""
    value = warp_sum(value)
    if remainder(t, WARP) == 0:
        shared[uint32(quotient(t, WARP))] = value
    barrier()
    total = ZERO
    for i in range(WARPS):
        total += shared[uint32(i)]
    barrier()
    return total


@cuda.jit(device=True)
def block_sums(shared, t, one, two):  # type: ignore[no-untyped-def]
    """Two sums at once, as `block_sum`. shared: SUMS floats."""
    one, two = warp_sum(one), warp_sum(two)
    if remainder(t, WARP) == 0:
        shared[uint32(quotient(t, WARP))] = one
        shared[uint32(quotient(t, WARP) + WARPS)] = two
    barrier()
    first, second = ZERO, ZERO
    for i in range(WARPS):
        first += shared[uint32(i)]
        second += shared[uint32(i + WARPS)]
    barrier()
    return first, second


@cuda.jit(device=True)
def block_largest(shared, t, value):  # type: ignore[no-untyped-def]
    """The largest of every thread's value, to every thread; NaN if there is one."""
    value = warp_largest(value)
    if remainder(t, WARP) == 0:
        shared[uint32(quotient(t, WARP))] = value
    barrier()
    best = shared[uint32(0)]
    for i in range(1, WARPS):
        other = shared[uint32(i)]
        if other > best or other != other:
            best = other
    barrier()
    return best


@cuda.jit(device=True)
def team_of(t, small):  # type: ignore[no-untyped-def]
    """Which of its block's teams a thread is in, its number there, and how many a team has: a warp
    where `small`, else the block."""
    if small:
        team = quotient(t, WARP)
        return team, int32(t - team * WARP), int32(WARP)
    return int32(0), int32(t), int32(THREADS)


@cuda.jit(device=True)
def team_sum(shared, t, value, small):  # type: ignore[no-untyped-def]
    """The sum of a team's values, to each of its threads. shared: WARPS floats."""
    if small:
        return warp_sum(value)
    return block_sum(shared, t, value)


@cuda.jit(device=True)
def team_largest(shared, t, value, small):  # type: ignore[no-untyped-def]
    """The largest of a team's values; NaN if there is one."""
    if small:
        return warp_largest(value)
    return block_largest(shared, t, value)


@cuda.jit(device=True)
def first_of(block, t, wide):  # type: ignore[no-untyped-def]
    """The first of the four elements of a thread: neighbours where `wide`, else THREADS apart."""
    if wide:
        return int32((block * THREADS + t) * EACH)
    return int32(block * THREADS * EACH + t)


@cuda.jit(device=True)
def fetch(values, array, base, i, count, wide):  # type: ignore[no-untyped-def]
    """Puts a thread's four elements of a row into `values`, zeros past `count`."""
    if wide:
        values[0], values[1], values[2], values[3] = load4(array, uint32(base + i))
    else:
        for k in range(EACH):
            values[k] = ZERO
            if int32(i + k * THREADS) < count:
                values[k] = array[uint32(base + i + k * THREADS)]


@cuda.jit(device=True)
def put(array, base, i, count, wide, values):  # type: ignore[no-untyped-def]
    """Writes a thread's four elements, none past `count`."""
    if wide:
        store4(array, uint32(base + i), values[0], values[1], values[2], values[3])
    else:
        for k in range(EACH):
            if int32(i + k * THREADS) < count:
                array[uint32(base + i + k * THREADS)] = values[k]


@cuda.jit(device=True)
def row_of(ints, field, n):  # type: ignore[no-untyped-def]
    """Where sample n of a tensor begins, whose offset and samples' distance lie from `field` on."""
    return int32(ints[uint32(field)] + n * ints[uint32(field + 1)])
