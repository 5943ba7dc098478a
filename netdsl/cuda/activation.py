"""Activations, batch norm and sums: what passes once over the elements, a thread an element.

Grid (elements of a sample / threads, samples). A pass may write where it reads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import cuda, int32, uint32
from numpy.typing import NDArray

from netdsl.cuda.arith import quotient
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
from netdsl.cuda.layout import Buffer, Call, spread
from netdsl.cuda.task import Task
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

SOURCE, SOURCE_BATCH, TARGET, TARGET_BATCH, COUNT, PLANE, KIND, NUMBERS = range(8)
"""COUNT elements of a sample, PLANE of a channel; where the activation's numbers lie: of all
elements a and b in turn (`bent`, `curved`), or of a channel."""

SCALE, SHIFT = 8, 9
OTHER, OTHER_BATCH = 8, 9

STRAIGHT = (Relu, Relu6, Leaky, HardSigmoid, HardSwish)
"""Activations of straight pieces with numbers for all channels, which other kernels apply too."""


@cuda.jit
def bent(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """An activation made of straight pieces."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    if i < ints[uint32(at + COUNT)]:
        x = arena[uint32(ints[uint32(at + SOURCE)] + n * ints[uint32(at + SOURCE_BATCH)] + i)]
        numbers = ints[uint32(at + NUMBERS)]
        a, b = params[uint32(numbers)], params[uint32(numbers + 1)]
        to = int32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)] + i)
        arena[uint32(to)] = bend(ints[uint32(at + KIND)], x, a, b)


@cuda.jit
def curved(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """An activation that takes an exponential."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    if i < ints[uint32(at + COUNT)]:
        x = arena[uint32(ints[uint32(at + SOURCE)] + n * ints[uint32(at + SOURCE_BATCH)] + i)]
        a = params[uint32(ints[uint32(at + NUMBERS)])]
        to = int32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)] + i)
        arena[uint32(to)] = curve(ints[uint32(at + KIND)], x, a)


@cuda.jit
def sloped(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """Leaky with a slope a channel."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    if i < ints[uint32(at + COUNT)]:
        x = arena[uint32(ints[uint32(at + SOURCE)] + n * ints[uint32(at + SOURCE_BATCH)] + i)]
        c = quotient(i, ints[uint32(at + PLANE)])
        slope = params[uint32(ints[uint32(at + NUMBERS)] + c)]
        to = int32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)] + i)
        arena[uint32(to)] = bend(LEAKY, x, slope, slope)


@cuda.jit
def affine(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """x scale + shift, by channel, and an activation."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    if i < ints[uint32(at + COUNT)]:
        x = arena[uint32(ints[uint32(at + SOURCE)] + n * ints[uint32(at + SOURCE_BATCH)] + i)]
        c = quotient(i, ints[uint32(at + PLANE)])
        scale = params[uint32(ints[uint32(at + SCALE)] + c)]
        shift = params[uint32(ints[uint32(at + SHIFT)] + c)]
        numbers = ints[uint32(at + NUMBERS)]
        a, b = params[uint32(numbers)], params[uint32(numbers + 1)]
        to = int32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)] + i)
        arena[uint32(to)] = bend(ints[uint32(at + KIND)], x * scale + shift, a, b)


@cuda.jit
def add(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The sum of two tensors, and an activation."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    n = int32(cuda.blockIdx.y)
    if i < ints[uint32(at + COUNT)]:
        x = arena[uint32(ints[uint32(at + SOURCE)] + n * ints[uint32(at + SOURCE_BATCH)] + i)]
        y = arena[uint32(ints[uint32(at + OTHER)] + n * ints[uint32(at + OTHER_BATCH)] + i)]
        numbers = ints[uint32(at + NUMBERS)]
        a, b = params[uint32(numbers)], params[uint32(numbers + 1)]
        to = int32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)] + i)
        arena[uint32(to)] = bend(ints[uint32(at + KIND)], x + y, a, b)


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
    task: Task, kernel: object, source: Buffer, target: Buffer, op: Activation | None, *own: int
) -> Call:
    """A pass over every element of the target, with an activation."""
    kind, values = numbers(op)
    head = [*ends(source, target), target.sample, target.plane, kind, task.params.add(values)]
    return spread(kernel, target.sample, task.ints.add([*head, *own]), target.batch)


def plan_activation(task: Task) -> list[Call]:
    """An activation by itself."""
    op = task.whole.base
    assert isinstance(op, Activation)
    source, target = task.inputs[0], task.output
    if isinstance(op, PRelu):
        slopes = task.params.add(task.weights["weight"])
        d = [*ends(source, target), target.sample, target.plane, LEAKY, slopes]
        return [spread(sloped, target.sample, task.ints.add(d), target.batch)]
    return [passes(task, bent if isinstance(op, STRAIGHT) else curved, source, target, op)]


def plan_batch_norm(task: Task) -> list[Call]:
    """Batch norm by its running statistics, where no layer could take it over."""
    op = task.whole.base
    assert isinstance(op, BatchNorm)
    own = (task.params.add(values) for values in scale_and_shift(op, task.weights))
    return [passes(task, affine, task.inputs[0], task.output, task.whole.activation, *own)]


def plan_add(task: Task) -> list[Call]:
    """A sum of any number of tensors, two at a time; the last applies the activation."""
    out, others = task.output, task.inputs[1:]
    calls = []
    for i, other in enumerate(others):
        op = task.whole.activation if i == len(others) - 1 else None
        source = out if i else task.inputs[0]
        calls.append(passes(task, add, source, out, op, other.offset, other.batch_stride))
    return calls or [copy(task, task.inputs[0], out)]


def copy(task: Task, source: Buffer, target: Buffer) -> Call:
    """A tensor as it is, to another place."""
    return passes(task, bent, source, target, None)


def by_channel(
    values: NDArray[np.float32] | None, channels: int, missing: float
) -> Sequence[float]:
    """A parameter of a value a channel, or one number for all."""
    return [missing] * channels if values is None else values.tolist()
