"""The joins: concatenation, and products of which either side may be stretched."""

from __future__ import annotations

from math import prod

from numba import cuda, int32, uint32

from netdsl.cuda.activation import copy, ends
from netdsl.cuda.arith import place_of
from netdsl.cuda.layout import Buffer, Call, spread
from netdsl.cuda.task import Task

SOURCE, SOURCE_BATCH, TARGET, TARGET_BATCH, COUNT, DEPTH, HEIGHT, WIDTH = range(8)
STRIDES = 8
"""Eight: how far apart channels, planes, rows and columns of the first lie, and of the other."""
OTHER, OTHER_BATCH = 16, 17


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


def plan_multiply(task: Task) -> list[Call]:
    """A product of any number of tensors, two at a time."""
    out, (first, *others) = task.output, task.inputs
    calls = []
    for i, other in enumerate(others):
        source = out if i else first
        d = [*ends(source, out), out.sample, *out.size]
        d += [*stretched(source, out), *stretched(other, out), other.offset, other.batch_stride]
        calls.append(spread(multiply, out.sample, task.ints.add(d), out.batch))
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
