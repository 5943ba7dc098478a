"""The joins: concatenation, and products of which either side may be stretched.

Products of two tensors of one shape, and of one by a number a channel and sample (a gate, as in
squeeze-and-excitation), are passes that take four elements a thread; others an element.
"""

from __future__ import annotations

from math import prod

from numba import cuda, float32, int32, uint32

from netdsl.cuda.activation import channels_of, copy, ends
from netdsl.cuda.arith import place_of
from netdsl.cuda.layout import Buffer, Call, spread
from netdsl.cuda.rows import place, rows_of
from netdsl.cuda.task import Task
from netdsl.cuda.wide import EACH, fetch, first_of, put, row_of

SOURCE, SOURCE_BATCH, TARGET, TARGET_BATCH, COUNT, DEPTH, HEIGHT, WIDTH = range(8)
STRIDES = 8
"""Eight: how far apart channels, planes, rows and columns of the first lie, and of the other."""
OTHER, OTHER_BATCH = 16, 17

WIDE, FACTOR, FACTOR_BATCH = 5, 6, 7
"""Of the passes, after COUNT: whether four elements lie together, the other factor. What follows is
channels_of's: positions of a channel, channels of a row."""


@cuda.jit
def times(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The product of two tensors of one shape: grid (elements of a row / 4 / threads, rows)."""
    count, wide = ints[uint32(at + COUNT)], ints[uint32(at + WIDE)] != 0
    n = int32(cuda.blockIdx.y)
    i = first_of(cuda.blockIdx.x, cuda.threadIdx.x, wide)
    if i < count:
        x, y = cuda.local.array(EACH, float32), cuda.local.array(EACH, float32)
        fetch(x, arena, row_of(ints, at + SOURCE, n), i, count, wide)
        fetch(y, arena, row_of(ints, at + FACTOR, n), i, count, wide)
        for k in range(EACH):
            x[k] *= y[k]
        put(arena, row_of(ints, at + TARGET, n), i, count, wide, x)


@cuda.jit
def gated(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The product of a tensor and a number a channel: grid as of `times`."""
    count, wide = ints[uint32(at + COUNT)], ints[uint32(at + WIDE)] != 0
    n = int32(cuda.blockIdx.y)
    i = first_of(cuda.blockIdx.x, cuda.threadIdx.x, wide)
    if i < count:
        x, c = cuda.local.array(EACH, float32), cuda.local.array(EACH, int32)
        fetch(x, arena, row_of(ints, at + SOURCE, n), i, count, wide)
        channels_of(c, ints, at, i, wide)
        gate = row_of(ints, at + FACTOR, n)
        for k in range(EACH):
            x[k] *= arena[uint32(gate + c[k])]
        put(arena, row_of(ints, at + TARGET, n), i, count, wide, x)


@cuda.jit
def multiply(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The product of two tensors: grid (elements of a sample / threads, samples)."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    if i < ints[uint32(at + COUNT)]:
        c, z, y, x = place_of(
            i, ints[uint32(at + DEPTH)], ints[uint32(at + HEIGHT)], ints[uint32(at + WIDTH)]
        )
        one = int32(
            ints[uint32(at + SOURCE)]
            + n * ints[uint32(at + SOURCE_BATCH)]
            + c * ints[uint32(at + STRIDES)]
            + z * ints[uint32(at + STRIDES + 1)]
            + y * ints[uint32(at + STRIDES + 2)]
            + x * ints[uint32(at + STRIDES + 3)]
        )
        two = int32(
            ints[uint32(at + OTHER)]
            + n * ints[uint32(at + OTHER_BATCH)]
            + c * ints[uint32(at + STRIDES + 4)]
            + z * ints[uint32(at + STRIDES + 5)]
            + y * ints[uint32(at + STRIDES + 6)]
            + x * ints[uint32(at + STRIDES + 7)]
        )
        to = int32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)] + i)
        arena[uint32(to)] = arena[uint32(one)] * arena[uint32(two)]


def stretched(buffer: Buffer, out: Buffer) -> list[int]:
    """How far apart the channels, planes, rows and columns lie; 0 along stretched axes."""
    sizes = (buffer.channels, *buffer.size)
    strides = [prod(sizes[i + 1 :]) for i in range(4)]
    wanted = (out.channels, *out.size)
    return [
        0 if size == 1 and want > 1 else stride
        for size, want, stride in zip(sizes, wanted, strides, strict=True)
    ]


def full(buffer: Buffer, out: Buffer) -> bool:
    """Whether a factor has the product's shape."""
    return (buffer.channels, *buffer.size) == (out.channels, *out.size)


def gates(buffer: Buffer, out: Buffer) -> bool:
    """Whether a factor is a number a channel of a product."""
    return buffer.channels == out.channels and buffer.plane == 1 < out.plane


def plan_product(task: Task, one: Buffer, two: Buffer, out: Buffer) -> Call:
    """The product of two tensors of `out`'s shape, or stretched to it."""
    if not full(one, out):
        one, two = two, one
    if full(one, out) and full(two, out):
        rows = rows_of(one, out, two)
        return rows.call(times, task.ints.add([*ends(one, out), *rows.fields, *place(two)]))
    if full(one, out) and gates(two, out):
        # All samples are one row where the gates of all lie next to each other too.
        rows = rows_of(one, out, apart=two.batch_stride != two.channels)
        d = [*ends(one, out), *rows.fields, *place(two), out.plane]
        return rows.call(gated, task.ints.add([*d, rows.count // out.plane]))
    d = [*ends(one, out), out.sample, *out.size]
    d += [*stretched(one, out), *stretched(two, out), *place(two)]
    return spread(multiply, out.sample, task.ints.add(d), out.batch)


def plan_multiply(task: Task) -> list[Call]:
    """A product of any number of tensors, two at a time."""
    out, (first, *others) = task.output, task.inputs
    sources = [first, *[out] * (len(others) - 1)]
    calls = [
        plan_product(task, one, other, out) for one, other in zip(sources, others, strict=True)
    ]
    return calls or [copy(task, first, out)]


def plan_concat(task: Task) -> list[Call]:
    """Copies of the branches that do not lie in the joined tensor already. Of what is wanted packed
    all do."""
    if not task.output.there:
        return []
    calls, start = [], 0
    for source in task.inputs:
        target = task.output.part(start, source.shape)
        if source != target:
            calls.append(copy(task, source, target))
        start += source.sample
    return calls
