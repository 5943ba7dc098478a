"""Activations, batch norm and sums: what passes once over the elements.

Four elements a thread: grid (elements of a row / 4 / threads, rows). A pass may write where it
reads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import cuda, float32, int32, uint32
from numpy.typing import NDArray

from netdsl.cuda.arith import quotient, remainder
from netdsl.cuda.functions import (
    CLIP,
    ELU,
    GELU,
    GELU_TANH,
    HARD_SIGMOID,
    HARD_SWISH,
    LEAKY,
    NONE,
    RELU,
    SIGMOID,
    SILU,
    TANH,
    bend,
    curve,
)
from netdsl.cuda.layout import Buffer, Call
from netdsl.cuda.rows import place, rows_of
from netdsl.cuda.sizes import THREADS
from netdsl.cuda.task import Task
from netdsl.cuda.wide import EACH, fetch, first_of, put, row_of
from netdsl.graph.passes import scale_and_shift
from netdsl.ops import (
    Activation,
    BatchNorm,
    Elu,
    Gelu,
    HardSigmoid,
    HardSwish,
    Leaky,
    PRelu,
    Relu,
    Relu6,
    Sigmoid,
    Silu,
    Tanh,
)

SOURCE, SOURCE_BATCH, TARGET, TARGET_BATCH, COUNT, WIDE, KIND, NUMBERS = range(8)
"""COUNT elements of a row, whether four lie together; the activation, and where params hold its
numbers: of all elements a and b in turn (`bent`, `curved`), or of a channel."""

PLANE, CHANNELS, SCALE, SHIFT = range(8, 12)
"""Positions of a channel, channels; where params hold what each is multiplied by and moved."""
OTHER, OTHER_BATCH = 8, 9

STRAIGHT = (Relu, Relu6, Leaky, HardSigmoid, HardSwish)
"""Activations of straight pieces with numbers for all channels, which other kernels apply too."""


@cuda.jit
def bent(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """An activation made of straight pieces."""
    count, wide = ints[uint32(at + COUNT)], ints[uint32(at + WIDE)] != 0
    n = int32(cuda.blockIdx.y)
    i = first_of(cuda.blockIdx.x, cuda.threadIdx.x, wide)
    if i < count:
        x = cuda.local.array(EACH, float32)
        fetch(x, arena, row_of(ints, at + SOURCE, n), i, count, wide)
        kind, own = ints[uint32(at + KIND)], ints[uint32(at + NUMBERS)]
        a, b = params[uint32(own)], params[uint32(own + 1)]
        for k in range(EACH):
            x[k] = bend(kind, x[k], a, b)
        put(arena, row_of(ints, at + TARGET, n), i, count, wide, x)


@cuda.jit
def curved(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """An activation that takes an exponential."""
    count, wide = ints[uint32(at + COUNT)], ints[uint32(at + WIDE)] != 0
    n = int32(cuda.blockIdx.y)
    i = first_of(cuda.blockIdx.x, cuda.threadIdx.x, wide)
    if i < count:
        x = cuda.local.array(EACH, float32)
        fetch(x, arena, row_of(ints, at + SOURCE, n), i, count, wide)
        kind, a = ints[uint32(at + KIND)], params[uint32(ints[uint32(at + NUMBERS)])]
        for k in range(EACH):
            x[k] = curve(kind, x[k], a)
        put(arena, row_of(ints, at + TARGET, n), i, count, wide, x)


@cuda.jit(device=True)
def channels_of(found, ints, at, i, wide):  # type: ignore[no-untyped-def]
    """Puts the channels of a thread's four elements into `found`. Neighbours take one division for
    all: four would take longer than the memory."""
    plane, channels = ints[uint32(at + PLANE)], ints[uint32(at + CHANNELS)]
    if wide:
        rows = quotient(i, plane)
        left, c = int32(plane - (i - rows * plane)), remainder(rows, channels)
        for k in range(EACH):
            found[k] = c
            left = int32(left - 1)
            if left == 0:
                left, c = plane, int32(c + 1)
                if c == channels:
                    c = int32(0)
    else:
        for k in range(EACH):
            found[k] = remainder(quotient(int32(i + k * THREADS), plane), channels)


@cuda.jit
def sloped(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Leaky with a slope a channel."""
    count, wide = ints[uint32(at + COUNT)], ints[uint32(at + WIDE)] != 0
    n = int32(cuda.blockIdx.y)
    i = first_of(cuda.blockIdx.x, cuda.threadIdx.x, wide)
    if i < count:
        x, c = cuda.local.array(EACH, float32), cuda.local.array(EACH, int32)
        fetch(x, arena, row_of(ints, at + SOURCE, n), i, count, wide)
        channels_of(c, ints, at, i, wide)
        for k in range(EACH):
            slope = params[uint32(ints[uint32(at + NUMBERS)] + c[k])]
            x[k] = bend(LEAKY, x[k], slope, slope)
        put(arena, row_of(ints, at + TARGET, n), i, count, wide, x)


@cuda.jit
def affine(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """x scale + shift, by channel, and an activation."""
    count, wide = ints[uint32(at + COUNT)], ints[uint32(at + WIDE)] != 0
    n = int32(cuda.blockIdx.y)
    i = first_of(cuda.blockIdx.x, cuda.threadIdx.x, wide)
    if i < count:
        x, c = cuda.local.array(EACH, float32), cuda.local.array(EACH, int32)
        fetch(x, arena, row_of(ints, at + SOURCE, n), i, count, wide)
        channels_of(c, ints, at, i, wide)
        kind, own = ints[uint32(at + KIND)], ints[uint32(at + NUMBERS)]
        a, b = params[uint32(own)], params[uint32(own + 1)]
        for k in range(EACH):
            scale = params[uint32(ints[uint32(at + SCALE)] + c[k])]
            shift = params[uint32(ints[uint32(at + SHIFT)] + c[k])]
            x[k] = bend(kind, x[k] * scale + shift, a, b)
        put(arena, row_of(ints, at + TARGET, n), i, count, wide, x)


@cuda.jit
def add(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The sum of two tensors, and an activation."""
    count, wide = ints[uint32(at + COUNT)], ints[uint32(at + WIDE)] != 0
    n = int32(cuda.blockIdx.y)
    i = first_of(cuda.blockIdx.x, cuda.threadIdx.x, wide)
    if i < count:
        x, y = cuda.local.array(EACH, float32), cuda.local.array(EACH, float32)
        fetch(x, arena, row_of(ints, at + SOURCE, n), i, count, wide)
        fetch(y, arena, row_of(ints, at + OTHER, n), i, count, wide)
        kind, own = ints[uint32(at + KIND)], ints[uint32(at + NUMBERS)]
        a, b = params[uint32(own)], params[uint32(own + 1)]
        for k in range(EACH):
            x[k] = bend(kind, x[k] + y[k], a, b)
        put(arena, row_of(ints, at + TARGET, n), i, count, wide, x)


def ends(source: Buffer, target: Buffer) -> list[int]:
    """What every descriptor but the convolutions' begins with."""
    return [source.offset, source.batch_stride, target.offset, target.batch_stride]


def numbers(op: Activation | None) -> tuple[int, tuple[float, float]]:
    """An activation's kind, and the numbers that it takes."""
    match op:
        case None:
            return NONE, (0.0, 0.0)
        case Relu():
            return RELU, (0.0, 0.0)
        case Relu6():
            return CLIP, (6.0, 0.0)
        case Leaky(slope):
            return LEAKY, (slope, 0.0)
        case HardSigmoid(slope, offset):
            return HARD_SIGMOID, (slope, offset)
        case HardSwish():
            return HARD_SWISH, (0.0, 0.0)
        case Elu(alpha):
            return ELU, (alpha, 0.0)
        case Gelu(form):
            return (GELU if form == "erf" else GELU_TANH), (0.0, 0.0)
    return {Silu: SILU, Sigmoid: SIGMOID, Tanh: TANH}[type(op)], (0.0, 0.0)


def passes(
    task: Task,
    kernel: object,
    source: Buffer,
    target: Buffer,
    op: Activation | None,
    *own: int,
    other: Buffer | None = None,
) -> Call:
    """A pass over every element of the target, with an activation. own: the fields after NUMBERS,
    which are those of `other` where there is one."""
    kind, values = numbers(op)
    rows = rows_of(source, target, *([other] if other else []))
    more = place(other) if other else own
    head = [*ends(source, target), *rows.fields, kind, task.params.add(values)]
    return rows.call(kernel, task.ints.add([*head, *more]))


def slopes_call(task: Task, slopes: int) -> Call:
    """A leaky with a slope a channel, which lie in params from `slopes` on."""
    source, target = task.inputs[0], task.output
    rows = rows_of(source, target)
    d = [*ends(source, target), *rows.fields, LEAKY, slopes, target.plane, target.channels]
    return rows.call(sloped, task.ints.add(d))


def plan_activation(task: Task) -> list[Call]:
    """An activation by itself."""
    op = task.whole.base
    assert isinstance(op, Activation)
    source, target = task.inputs[0], task.output
    if isinstance(op, PRelu):
        return [slopes_call(task, task.params.add(task.weights["weight"]))]
    return [passes(task, bent if isinstance(op, STRAIGHT) else curved, source, target, op)]


def plan_batch_norm(task: Task) -> list[Call]:
    """Batch norm by its running statistics, where no layer could take it over."""
    op, source, target = task.whole.base, task.inputs[0], task.output
    assert isinstance(op, BatchNorm)
    own = [task.params.add(values) for values in scale_and_shift(op, task.weights)]
    act = task.whole.activation
    return [passes(task, affine, source, target, act, target.plane, target.channels, *own)]


def added(
    task: Task, source: Buffer, other: Buffer, target: Buffer, op: Activation | None = None
) -> Call:
    """The sum of two tensors, and an activation."""
    return passes(task, add, source, target, op, other=other)


def plan_add(task: Task) -> list[Call]:
    """A sum of any number of tensors, two at a time; the last applies the activation."""
    out, others = task.output, task.inputs[1:]
    calls = []
    for i, other in enumerate(others):
        op = task.whole.activation if i == len(others) - 1 else None
        calls.append(added(task, out if i else task.inputs[0], other, out, op))
    return calls or [copy(task, task.inputs[0], out)]


def copy(task: Task, source: Buffer, target: Buffer) -> Call:
    """A tensor as it is, to another place."""
    return passes(task, bent, source, target, None)


def by_channel(
    values: NDArray[np.float32] | None, channels: int, missing: float
) -> Sequence[float]:
    """A parameter of a value a channel, or one number for all."""
    return [missing] * channels if values is None else values.tolist()
