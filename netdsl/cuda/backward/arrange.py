"""Gradients of what moves values about; dropout."""

from __future__ import annotations

from zlib import crc32

import numpy as np
from numba import cuda, float32, int32, uint32, uint64

from netdsl.cuda.activation import copy
from netdsl.cuda.arith import quotient, remainder
from netdsl.cuda.arrange import mix
from netdsl.cuda.backward.task import BackPlaces, Calls
from netdsl.cuda.layout import Buffer, spread
from netdsl.cuda.rows import place, rows_of
from netdsl.cuda.sizes import THREADS
from netdsl.cuda.task import Task
from netdsl.cuda.wide import EACH, fetch, first_of, put, row_of
from netdsl.ops import Dropout, Shuffle

SOURCE, SOURCE_BATCH, TARGET, TARGET_BATCH, COUNT, WIDE = range(6)
CHANNELS, PLANE, SEED, STEP, THRESHOLD, KEEP = range(6, 12)
"""Of drop: what of the seed is the node's own; where in ints the step and the run's seed stand; the
rate in 2^32; where params hold the scale of what stays."""

LANES = 16
"""Channels of a block on the CPU, whose masks these are."""

ZERO = np.float32(0)
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FIRST, SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
BY_30, BY_27, BY_31, BY_32 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32)


@cuda.jit(device=True)
def mixed(x):  # type: ignore[no-untyped-def]
    """A good 64-bit hash of a counter (splitmix64's finish)."""
    x = x + GOLDEN
    x = (x ^ (x >> BY_30)) * FIRST
    x = (x ^ (x >> BY_27)) * SECOND
    return x ^ (x >> BY_31)


@cuda.jit(device=True)
def counter_of(i, n, channels, plane):  # type: ignore[no-untyped-def]
    """Where the CPU has element i of sample n: in blocks of 16 channels."""
    c = quotient(i, plane)
    p = int32(i - c * plane)
    block = int32(n * quotient(int32(channels + LANES - 1), LANES) + quotient(c, LANES))
    return uint64(uint32(int32(block * plane + p))) * uint64(LANES) + uint64(
        uint32(remainder(c, LANES))
    )


@cuda.jit
def drop(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Dropout, and its gradient: zeroes the same elements whenever seed and step are the same.

    An element's fate is a hash of the seed, the step and its place, so no mask is kept and no
    order of threads matters.
    """
    count, wide = ints[uint32(at + COUNT)], ints[uint32(at + WIDE)] != 0
    row = int32(cuda.blockIdx.y)
    i = first_of(cuda.blockIdx.x, cuda.threadIdx.x, wide)
    if i < count:
        v = cuda.local.array(EACH, float32)
        fetch(v, arena, row_of(ints, at + SOURCE, row), i, count, wide)
        channels, plane = ints[uint32(at + CHANNELS)], ints[uint32(at + PLANE)]
        step = ints[uint32(at + STEP)]
        seed = uint64(uint32(ints[uint32(step + 1)])) << BY_32
        seed = seed ^ uint64(uint32(ints[uint32(at + SEED)]))
        stream = mixed(seed ^ mixed(uint64(uint32(ints[uint32(step)]))))
        scale = params[uint32(ints[uint32(at + KEEP)])]
        threshold = uint32(ints[uint32(at + THRESHOLD)])
        sample = int32(channels * plane)
        for k in range(EACH):
            j = int32(i + k) if wide else int32(i + k * THREADS)
            n = quotient(j, sample)
            counter = counter_of(int32(j - n * sample), int32(n + row), channels, plane)
            fate = uint32(mixed(stream + counter) >> BY_32)
            v[k] = v[k] * scale if fate >= threshold else ZERO
        put(arena, row_of(ints, at + TARGET, row), i, count, wide, v)


def dropped(task: Task, places: BackPlaces, source: Buffer, target: Buffer) -> Calls:
    """The call of dropout, of values or of gradients."""
    op = task.whole.base
    assert isinstance(op, Dropout)
    keep = task.params.add([1.0 / (1.0 - op.rate)])
    seed, threshold = signed(crc32(task.node.name.encode())), signed(round(op.rate * 2**32))
    rows = rows_of(source, target)
    d = [*place(source), *place(target), *rows.fields, source.channels, source.plane]
    at = task.ints.add([*d, seed, places.step, threshold, keep])
    return [rows.call(drop, at)]


def signed(bits: int) -> int:
    """32 bits as ints hold them."""
    return bits - (1 << 32) if bits >= 1 << 31 else bits


def dropout_forward(task: Task, places: BackPlaces) -> tuple[Calls, Calls]:
    """Dropping in training; a copy otherwise, or nothing where both lie in one place."""
    x, y = places.inputs[0], places.output
    return dropped(task, places, x, y), [] if x == y else [copy(task, x, y)]


def dropout_back(task: Task, places: BackPlaces) -> Calls:
    """The same elements dropped from the gradient."""
    target = places.gradients[0]
    return dropped(task, places, places.gradient, target) if target else []


def flatten_back(task: Task, places: BackPlaces) -> Calls:
    """Nothing, where the vector's gradient is the tensor's; else a copy."""
    target = places.gradients[0]
    if target is None or target.offset == places.gradient.offset:
        return []
    return [copy(task, places.gradient, target)]


def shuffle_back(task: Task, places: BackPlaces) -> Calls:
    """Each channel's gradient back to where the channel was: a shuffle by groups as many as a
    group had channels."""
    op, g, target = task.whole.base, places.gradient, places.gradients[0]
    assert isinstance(op, Shuffle)
    if target is None:
        return []
    each = g.channels // op.groups
    d = [*place(g), *place(target), g.sample, each, op.groups, g.plane]
    return [spread(mix, g.sample, task.ints.add(d), g.batch)]


def concat_back(task: Task, places: BackPlaces) -> Calls:
    """Each branch's part of the gradient, where the branch does not lie there already."""
    calls, start = [], 0
    for shape, target in zip(task.shapes, places.gradients, strict=True):
        part = places.gradient.part(start, shape)
        start += part.sample
        if target is not None and target.offset != part.offset:
            calls.append(copy(task, part, target))
    return calls
