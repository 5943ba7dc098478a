"""Gradients of activations: the output's gradient times the slope.

Each takes the target (the input's gradient), the source (the output's gradient; they may be one
buffer) and OTHER, what was saved: the output of relu, clip, sigmoid, tanh and softmax, the input
of the rest.
"""

from __future__ import annotations

import math

import numpy as np
from numba import cuda, float32, int32, uint32

from netdsl.cuda.activation import STRAIGHT, numbers, slopes_call
from netdsl.cuda.arith import quotient
from netdsl.cuda.backward.sums import slope_back, sums
from netdsl.cuda.backward.task import BackPlaces, Calls
from netdsl.cuda.functions import (
    CLIP,
    CUBIC,
    ELU,
    GELU,
    GELU_TANH,
    HALF,
    HARD_SIGMOID,
    HARD_SWISH,
    LEAKY,
    ONE,
    RELU,
    ROOT_HALF,
    ROOT_TWO_OVER_PI,
    SIGMOID,
    SILU,
    SIX,
    THREE,
    ZERO,
    sigmoid,
)
from netdsl.cuda.layout import Buffer, Call, blocks, spread
from netdsl.cuda.rows import place, rows_of
from netdsl.cuda.sizes import THREADS
from netdsl.cuda.softmax import WIDE_PLANE
from netdsl.cuda.task import Task
from netdsl.cuda.wide import EACH, WARPS, block_sum, fetch, first_of, put, row_of
from netdsl.ops import Activation, LogSoftmax, Relu, Relu6, Sigmoid, Tanh

SOURCE, SOURCE_BATCH, TARGET, TARGET_BATCH, OTHER, OTHER_BATCH = range(6)
COUNT, WIDE, KIND, NUMBERS = range(6, 10)
"""Of a pass: the elements of a row, whether four lie together; the activation's kind, and where in
params its numbers lie."""
CLASSES, POSITIONS, LOG = range(6, 9)
"""Of the softmaxes: channels, positions of a channel, whether the output is the logarithm."""

FROM_OUTPUT = (Relu, Relu6, Sigmoid, Tanh)

INVERSE_ROOT_TAU = np.float32(1 / math.sqrt(2 * math.pi))
CUBIC_SLOPE = np.float32(3 * CUBIC)


@cuda.jit(device=True)
def bend_back(kind, g, v, a, b):  # type: ignore[no-untyped-def]
    """g times the slope of an activation of straight pieces, at output v (relu, clip) or input."""
    if kind == RELU:
        return g if v > ZERO else ZERO
    if kind == CLIP:
        return g if v > ZERO and v < a else ZERO
    if kind == LEAKY:
        return g if v > ZERO else g * a
    if kind == HARD_SIGMOID:
        inner = v * a + b
        return g * a if inner > ZERO and inner < ONE else ZERO
    if kind == HARD_SWISH:
        if v < -THREE:
            return ZERO
        return g * (v + v + THREE) / SIX if v < THREE else g
    return g


@cuda.jit(device=True)
def curve_back(kind, g, v, a):  # type: ignore[no-untyped-def]
    """g times the slope of a curved activation, at output v (sigmoid, tanh) or input v."""
    if kind == SIGMOID:
        return g * v * (ONE - v)
    if kind == SILU:
        s = sigmoid(v)
        return g * s * (v * (ONE - s) + ONE)
    if kind == ELU:
        return g if v > ZERO else g * a * float32(math.exp(v))
    if kind == GELU:
        below = HALF * float32(math.erfc(-v * ROOT_HALF))
        return g * (below + v * float32(math.exp(-HALF * v * v)) * INVERSE_ROOT_TAU)
    if kind == GELU_TANH:
        t = float32(math.tanh(ROOT_TWO_OVER_PI * (v + CUBIC * v * v * v)))
        steep = ROOT_TWO_OVER_PI * (ONE + CUBIC_SLOPE * v * v)
        return g * HALF * (t + ONE + v * (ONE - t * t) * steep)
    return g * (ONE - v * v)


@cuda.jit
def bent_back(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The gradient of an activation made of straight pieces."""
    count, wide = ints[uint32(at + COUNT)], ints[uint32(at + WIDE)] != 0
    n = int32(cuda.blockIdx.y)
    i = first_of(cuda.blockIdx.x, cuda.threadIdx.x, wide)
    if i < count:
        g, v = cuda.local.array(EACH, float32), cuda.local.array(EACH, float32)
        fetch(g, arena, row_of(ints, at + SOURCE, n), i, count, wide)
        fetch(v, arena, row_of(ints, at + OTHER, n), i, count, wide)
        kind, own = ints[uint32(at + KIND)], ints[uint32(at + NUMBERS)]
        a, b = params[uint32(own)], params[uint32(own + 1)]
        for k in range(EACH):
            g[k] = bend_back(kind, g[k], v[k], a, b)
        put(arena, row_of(ints, at + TARGET, n), i, count, wide, g)


@cuda.jit
def curved_back(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The gradient of an activation that takes an exponential."""
    count, wide = ints[uint32(at + COUNT)], ints[uint32(at + WIDE)] != 0
    n = int32(cuda.blockIdx.y)
    i = first_of(cuda.blockIdx.x, cuda.threadIdx.x, wide)
    if i < count:
        g, v = cuda.local.array(EACH, float32), cuda.local.array(EACH, float32)
        fetch(g, arena, row_of(ints, at + SOURCE, n), i, count, wide)
        fetch(v, arena, row_of(ints, at + OTHER, n), i, count, wide)
        kind, a = ints[uint32(at + KIND)], params[uint32(ints[uint32(at + NUMBERS)])]
        for k in range(EACH):
            g[k] = curve_back(kind, g[k], v[k], a)
        put(arena, row_of(ints, at + TARGET, n), i, count, wide, g)


@cuda.jit
def softmax_rows_back(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The gradient of softmax at one position: grid (samples x positions).

    y (g - sum of y g); of the logarithm g - e^y times the sum of g.
    """
    shared = cuda.shared.array(WARPS, float32)
    t = int32(cuda.threadIdx.x)
    positions, log = ints[uint32(at + POSITIONS)], ints[uint32(at + LOG)] != 0
    n = quotient(int32(cuda.blockIdx.x), positions)
    p = int32(cuda.blockIdx.x - n * positions)
    source = int32(row_of(ints, at + SOURCE, n) + p)
    target = int32(row_of(ints, at + TARGET, n) + p)
    other = int32(row_of(ints, at + OTHER, n) + p)
    end, step = int32(ints[uint32(at + CLASSES)] * positions), int32(THREADS * positions)
    total = ZERO
    for i in range(int32(t * positions), end, step):
        g = arena[uint32(source + i)]
        total += g if log else g * arena[uint32(other + i)]
    total = block_sum(shared, t, total)
    for i in range(int32(t * positions), end, step):
        g, y = arena[uint32(source + i)], arena[uint32(other + i)]
        back = g - float32(math.exp(y)) * total if log else y * (g - total)
        arena[uint32(target + i)] = back


@cuda.jit
def softmax_columns_back(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The same by one thread a position: grid (positions / threads, samples)."""
    p = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    positions, log = ints[uint32(at + POSITIONS)], ints[uint32(at + LOG)] != 0
    if p >= positions:
        return
    source = int32(row_of(ints, at + SOURCE, n) + p)
    target = int32(row_of(ints, at + TARGET, n) + p)
    other = int32(row_of(ints, at + OTHER, n) + p)
    end = int32(ints[uint32(at + CLASSES)] * positions)
    total = ZERO
    for i in range(int32(0), end, positions):
        g = arena[uint32(source + i)]
        total += g if log else g * arena[uint32(other + i)]
    for i in range(int32(0), end, positions):
        g, y = arena[uint32(source + i)], arena[uint32(other + i)]
        back = g - float32(math.exp(y)) * total if log else y * (g - total)
        arena[uint32(target + i)] = back


def head(places: BackPlaces, target: Buffer, other: Buffer) -> list[int]:
    """What the descriptors here begin with."""
    return [*place(places.gradient), *place(target), *place(other)]


def activation_back(task: Task, places: BackPlaces) -> Calls:
    """The call of an activation without parameters."""
    op, target = task.whole.base, places.gradients[0]
    assert isinstance(op, Activation)
    if target is None:
        return []
    other = places.output if isinstance(op, FROM_OUTPUT) else places.inputs[0]
    kind, values = numbers(op)
    rows = rows_of(places.gradient, target, other)
    own = task.params.add(values)
    at = task.ints.add([*head(places, target, other), *rows.fields, kind, own])
    return [rows.call(bent_back if isinstance(op, STRAIGHT) else curved_back, at)]


def relu_back(task: Task, g: Buffer, y: Buffer, target: Buffer) -> Call:
    """The call of a relu whose output is y, whatever else the node is."""
    rows = rows_of(g, target, y)
    ends = [*place(g), *place(target), *place(y)]
    at = task.ints.add([*ends, *rows.fields, RELU, task.params.add([0.0, 0.0])])
    return rows.call(bent_back, at)


def softmax_back(task: Task, places: BackPlaces) -> Calls:
    """The call of softmax, or its logarithm."""
    target, y = places.gradients[0], places.output
    if target is None:
        return []
    log = int(isinstance(task.whole.base, LogSoftmax))
    at = task.ints.add([*head(places, target, y), y.channels, y.plane, log])
    if y.plane < WIDE_PLANE:
        return [blocks(softmax_rows_back, y.batch * y.plane, at)]
    return [spread(softmax_columns_back, y.plane, at, y.batch)]


def slopes_back(task: Task, places: BackPlaces) -> Calls:
    """The gradients of a leaky with learned slopes: the slopes' and the input's in one pass."""
    target, x = places.gradients[0], places.inputs[0]
    own = [places.weights["weight"]]
    into = places.into["weight"]
    return sums(task, slope_back, places.gradient, into, target=target, other=x, own=own)


def slopes_forward(task: Task, places: BackPlaces) -> tuple[Calls, Calls]:
    """The same on both ways forward, with the slopes where they are learned."""
    calls = [slopes_call(task, places.weights["weight"])]
    return calls, calls
