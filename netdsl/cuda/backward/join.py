"""Gradients of sums and products, of which either side may be stretched."""

from __future__ import annotations

from math import prod

import numpy as np
from numba import cuda, float32, int32, uint32

from netdsl.cuda.activation import copy
from netdsl.cuda.arith import place_of
from netdsl.cuda.backward.task import BackPlaces, Calls
from netdsl.cuda.join import full, gates, plan_product, stretched
from netdsl.cuda.layout import Buffer, Call, spread
from netdsl.cuda.rows import fits, place, small, teams
from netdsl.cuda.task import Task
from netdsl.cuda.wide import EACH, WARPS, fetch, put, row_of, team_of, team_sum

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

GATE, GATE_BATCH, INTO, INTO_BATCH, CHANNELS, PLANE, TEAM, WIDE = range(6, 14)
"""Of gate_back: the gates and where their gradient goes, channels and the positions of one, whether
a warp takes a channel, and whether four elements lie together."""

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


@cuda.jit
def gate_back(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The gradients of a tensor and of the numbers that its channels were multiplied by, a team a
    channel: grid (channels, samples). The first is not wanted where TARGET is below 0."""
    shared = cuda.shared.array(WARPS, float32)
    n, t = int32(cuda.blockIdx.y), int32(cuda.threadIdx.x)
    small, wide = ints[uint32(at + TEAM)] != 0, ints[uint32(at + WIDE)] != 0
    team, first, step = team_of(t, small)
    c = int32(cuda.blockIdx.x * WARPS + team) if small else int32(cuda.blockIdx.x)
    there, plane = c < ints[uint32(at + CHANNELS)], ints[uint32(at + PLANE)]
    unit, end, gate = int32(EACH if wide else 1), int32(0), ZERO
    if there:
        end, gate = plane, arena[uint32(row_of(ints, at + GATE, n) + c)]
    source = int32(row_of(ints, at + SOURCE, n) + c * plane)
    other = int32(row_of(ints, at + OTHER, n) + c * plane)
    target = int32(-1)
    if ints[uint32(at + TARGET)] >= 0:
        target = int32(row_of(ints, at + TARGET, n) + c * plane)
    g, x = cuda.local.array(EACH, float32), cuda.local.array(EACH, float32)
    total = ZERO
    for i in range(int32(first * unit), end, int32(step * unit)):
        # Four elements from i on, or the one before the next.
        after = int32(i + 1)
        fetch(g, arena, source, int32(i), after, wide)
        fetch(x, arena, other, int32(i), after, wide)
        for k in range(EACH):
            total += g[k] * x[k]
            g[k] *= gate
        if target >= 0:
            put(arena, target, int32(i), after, wide, g)
    total = team_sum(shared, t, total, small)
    if first == 0 and there:
        arena[uint32(row_of(ints, at + INTO, n) + c)] = total


def extents(buffer: Buffer) -> tuple[int, ...]:
    """Channels, depth, height, width."""
    return (buffer.channels, *buffer.size)


def product_back(task: Task, places: BackPlaces) -> Calls:
    """Each factor's gradient: the product's times the other factor, summed where the factor was
    stretched."""
    calls, g = list[Call](), places.gradient
    assert len(places.inputs) == 2
    done = list[Buffer | None]()
    for i, target in enumerate(places.gradients):
        if target is not None and gates(target, g) and full(places.inputs[1 - i], g):
            done = [target, places.gradients[1 - i]]
            calls.append(_gate_back(task, g, places.inputs, done, i))
    for i, target in enumerate(places.gradients):
        if target is None or target in done:
            continue
        other = places.inputs[1 - i]
        if full(target, g):
            calls.append(plan_product(task, g, other, target))
            continue
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


def _gate_back(
    task: Task, g: Buffer, inputs: tuple[Buffer, ...], targets: list[Buffer | None], i: int
) -> Call:
    """The call that gives a gate, which is input i, its gradient, and the other input if it wants
    one. targets: the gate's, the other's."""
    gate, x = inputs[i], inputs[1 - i]
    into, target = targets
    assert into is not None
    starts = [n for b in (g, x, target) if b is not None for n in place(b)]
    d = [*place(g), *(place(target) if target else [-1, 0]), *place(x), *place(gate), *place(into)]
    d += [g.channels, g.plane, int(small(g.plane)), int(fits(g.plane, *starts))]
    return teams(gate_back, g.channels, g.plane, task.ints.add(d), g.batch)


def sum_back(task: Task, places: BackPlaces) -> Calls:
    """The gradient itself for every branch."""
    targets = [t for t in places.gradients if t is not None and t != places.gradient]
    return [copy(task, places.gradient, target) for target in targets]
