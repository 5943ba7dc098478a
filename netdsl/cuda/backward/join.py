"""Gradients of sums and products, of which either side may be stretched."""

from __future__ import annotations

from math import prod

import numpy as np
from numba import cuda, float32, int32, uint32

from netdsl.cuda.activation import copy
from netdsl.cuda.arith import place_of
from netdsl.cuda.backward.task import BackPlaces, Calls
from netdsl.cuda.join import stretched
from netdsl.cuda.layout import Buffer, Call, spread
from netdsl.cuda.rows import place, small, teams
from netdsl.cuda.task import Task
from netdsl.cuda.wide import WARPS, row_of, team_of, team_sum

SOURCE, SOURCE_BATCH, TARGET, TARGET_BATCH, OTHER, OTHER_BATCH = range(6)
COUNT, DEPTH, HEIGHT, WIDTH = range(6, 10)
"""The target's elements of a sample, and its axes."""
STRIDES = 10
"""Eight: how far apart channels, planes, rows and columns of the source lie, and of OTHER."""
ALONG = 18
"""Four: how many channels, planes, rows and columns of the source one element of the target was
stretched over."""
ALL, SMALL = 22, 23
"""The product of those, and whether a warp takes an element."""

ZERO = np.float32(0)


@cuda.jit(device=True)
def offset_of(ints, at, c, z, y, x):  # type: ignore[no-untyped-def]
    """How far a place lies from its tensor's first, by the four strides from `at` on."""
    return int32(
        c * ints[uint32(at)]
        + z * ints[uint32(at + 1)]
        + y * ints[uint32(at + 2)]
        + x * ints[uint32(at + 3)]
    )


@cuda.jit(device=True)
def pulls_of(arena, ints, at, n, i, first, step):  # type: ignore[no-untyped-def]
    """The sum of g times the other factor over every step-th of the places that element i of the
    target was stretched over."""
    c, z, y, x = place_of(
        i, ints[uint32(at + DEPTH)], ints[uint32(at + HEIGHT)], ints[uint32(at + WIDTH)]
    )
    one = int32(row_of(ints, at + SOURCE, n) + offset_of(ints, at + STRIDES, c, z, y, x))
    two = int32(row_of(ints, at + OTHER, n) + offset_of(ints, at + STRIDES + 4, c, z, y, x))
    total = ZERO
    for j in range(first, ints[uint32(at + ALL)], step):
        c, z, y, x = place_of(
            int32(j),
            ints[uint32(at + ALONG + 1)],
            ints[uint32(at + ALONG + 2)],
            ints[uint32(at + ALONG + 3)],
        )
        g = arena[uint32(one + offset_of(ints, at + STRIDES, c, z, y, x))]
        w = arena[uint32(two + offset_of(ints, at + STRIDES + 4, c, z, y, x))]
        total += g * w
    return total


@cuda.jit
def multiply_back(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The gradient of one factor by a thread an element: grid (elements of a sample / threads,
    samples)."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    if i < ints[uint32(at + COUNT)]:
        total = pulls_of(arena, ints, at, n, i, int32(0), int32(1))
        arena[uint32(row_of(ints, at + TARGET, n) + i)] = total


@cuda.jit
def multiply_back_wide(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The same by a team an element, of a factor that was stretched along rows: grid (elements of
    a sample, samples)."""
    shared = cuda.shared.array(WARPS, float32)
    n, t = int32(cuda.blockIdx.y), int32(cuda.threadIdx.x)
    small = ints[uint32(at + SMALL)] != 0
    team, first, step = team_of(t, small)
    i = int32(cuda.blockIdx.x * WARPS + team) if small else int32(cuda.blockIdx.x)
    total, there = ZERO, i < ints[uint32(at + COUNT)]
    if there:
        total = pulls_of(arena, ints, at, n, i, first, step)
    total = team_sum(shared, t, total, small)
    if first == 0 and there:
        arena[uint32(row_of(ints, at + TARGET, n) + i)] = total


def extents(buffer: Buffer) -> tuple[int, ...]:
    """Channels, depth, height, width."""
    return (buffer.channels, *buffer.size)


def product_back(task: Task, places: BackPlaces) -> Calls:
    """Each factor's gradient: the product's times the other factor, summed where the factor was
    stretched."""
    calls, g = list[Call](), places.gradient
    assert len(places.inputs) == 2
    for i, target in enumerate(places.gradients):
        if target is None:
            continue
        other = places.inputs[1 - i]
        along = [n if own == 1 else 1 for own, n in zip(extents(target), extents(g), strict=True)]
        d = [*place(g), *place(target), *place(other), target.sample, *target.size]
        d += [*stretched(g, g), *stretched(other, g), *along, prod(along), int(small(prod(along)))]
        at = task.ints.add(d)
        if along[3] > 1:
            call = teams(multiply_back_wide, target.sample, prod(along), at, target.batch)
            calls.append(call)
        else:
            calls.append(spread(multiply_back, target.sample, at, target.batch))
    return calls


def sum_back(task: Task, places: BackPlaces) -> Calls:
    """The gradient itself for every branch."""
    targets = [t for t in places.gradients if t is not None and t != places.gradient]
    return [copy(task, places.gradient, target) for target in targets]
