"""Activations, batch norm and sums: what passes once over the elements.

A pass may write where it reads. Beyond a tensor's channels the last block's lanes stay zero.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from netdsl.cpu.functions import exp_less_one, gelu, gelu_tanh, sigmoid, tanh
from netdsl.cpu.lanes import keep, load, muladd, splat, store, where_less
from netdsl.cpu.late import njit
from netdsl.cpu.launch import share, worker
from netdsl.cpu.layout import Call
from netdsl.cpu.task import Floats, Places, Task, by_channel
from netdsl.cpu.views import (
    OTHER,
    OWN,
    SOURCE,
    TARGET,
    call,
    lanes_of,
    row_at,
    row_count,
    row_place,
    row_width,
)
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

NONE, RELU, CLIP, LEAKY, HARD_SIGMOID, HARD_SWISH = range(6)
ELU, GELU, GELU_TANH, SILU, SIGMOID, TANH = range(6)

KIND, NUMBERS = OWN, OWN + 1
"""Which activation, and where in params its numbers lie: a block of 16 for each channel block."""


@njit(forceinline=True)
def bend(kind, x, a, b):  # type: ignore[no-untyped-def]
    """The activations made of straight pieces. a and b are the kind's numbers, a lane each."""
    if kind == RELU:
        return where_less(x, 0.0, 0.0, x)
    if kind == CLIP:
        return where_less(x, 0.0, 0.0, where_less(a, x, a, x))
    if kind == LEAKY:
        return where_less(x, 0.0, x * a, x)
    if kind == HARD_SIGMOID:
        x = muladd(x, a, b)
        return where_less(x, 0.0, 0.0, where_less(1.0, x, 1.0, x))
    if kind == HARD_SWISH:
        gate = x + 3.0
        gate = where_less(gate, 0.0, 0.0, where_less(6.0, gate, 6.0, gate))
        return x * gate / 6.0
    return x


@worker
def bent(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """An activation made of straight pieces."""
    work, columns, kind, numbers = row_count(d), row_width(d), d[KIND], d[NUMBERS]
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b, z, y = row_place(d, item)
        source, out = row_at(d, SOURCE, n, b, z, y), row_at(d, TARGET, n, b, z, y)
        first, second = load(params, numbers + 32 * b), load(params, numbers + 32 * b + 16)
        lanes = lanes_of(d, b)
        for x in range(columns):
            v = bend(kind, load(arena, source + 16 * x), first, second)
            store(arena, out + 16 * x, keep(v, 0, lanes))


@njit(forceinline=True)
def curve(kind, x, a):  # type: ignore[no-untyped-def]
    """The activations that need e to some power."""
    if kind == ELU:
        return where_less(x, 0.0, a * exp_less_one(x), x)
    if kind == GELU:
        return gelu(x)
    if kind == GELU_TANH:
        return gelu_tanh(x)
    if kind == SILU:
        return x * sigmoid(x)
    if kind == SIGMOID:
        return sigmoid(x)
    return tanh(x)


@worker
def curved(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """An activation that needs e to some power."""
    work, columns, kind, numbers = row_count(d), row_width(d), d[KIND], d[NUMBERS]
    alpha = splat(params[numbers])
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b, z, y = row_place(d, item)
        source, out = row_at(d, SOURCE, n, b, z, y), row_at(d, TARGET, n, b, z, y)
        lanes = lanes_of(d, b)
        for x in range(columns):
            v = curve(kind, load(arena, source + 16 * x), alpha)
            store(arena, out + 16 * x, keep(v, 0, lanes))


@worker
def affine(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """x scale + shift, a channel each (a batch norm), then an activation of straight pieces."""
    work, columns, kind, numbers = row_count(d), row_width(d), d[KIND], d[NUMBERS]
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b, z, y = row_place(d, item)
        source, out = row_at(d, SOURCE, n, b, z, y), row_at(d, TARGET, n, b, z, y)
        at = numbers + 64 * b
        first, second = load(params, at), load(params, at + 16)
        scale, shift = load(params, at + 32), load(params, at + 48)
        for x in range(columns):
            v = muladd(load(arena, source + 16 * x), scale, shift)
            store(arena, out + 16 * x, bend(kind, v, first, second))


@worker
def add(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """The sum of two tensors, then an activation of straight pieces."""
    work, columns, kind, numbers = row_count(d), row_width(d), d[KIND], d[NUMBERS]
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b, z, y = row_place(d, item)
        source, out = row_at(d, SOURCE, n, b, z, y), row_at(d, TARGET, n, b, z, y)
        other = row_at(d, OTHER, n, b, z, y)
        first, second = load(params, numbers + 32 * b), load(params, numbers + 32 * b + 16)
        lanes = lanes_of(d, b)
        for x in range(columns):
            v = load(arena, source + 16 * x) + load(arena, other + 16 * x)
            store(arena, out + 16 * x, keep(bend(kind, v, first, second), 0, lanes))


def bent_numbers(
    op: Activation | None, channels: int, weights: Mapping[str, Floats]
) -> tuple[int, Floats]:
    """The kind of an activation of straight pieces, and its numbers: (blocks, 2, 16)."""
    kind, a, b = NONE, by_channel(0.0, channels), by_channel(0.0, channels)
    if isinstance(op, Relu):
        kind = RELU
    elif isinstance(op, Relu6):
        kind, a = CLIP, by_channel(6.0, channels)
    elif isinstance(op, Leaky):
        kind, a = LEAKY, by_channel(op.slope, channels)
    elif isinstance(op, PRelu):
        kind, a = LEAKY, by_channel(weights["weight"], channels)
    elif isinstance(op, HardSigmoid):
        kind, a, b = HARD_SIGMOID, by_channel(op.slope, channels), by_channel(op.offset, channels)
    elif isinstance(op, HardSwish):
        kind = HARD_SWISH
    else:
        assert op is None, op
    return kind, np.stack([a, b], axis=1)


BENT = (Relu, Relu6, Leaky, HardSigmoid, HardSwish)
"""Activations that a sum or a batch norm takes over from the node after it."""


def plan_bent(task: Task, places: Places) -> list[Call]:
    """The call of an activation of straight pieces."""
    op = task.whole.base
    assert isinstance(op, Activation)
    kind, numbers = bent_numbers(op, task.node.shape[0], places.weights)
    at = places.params.add(numbers)
    return [call(bent, task.parts, places.output, places.inputs[0], kind, at)]


def plan_curved(task: Task, places: Places) -> list[Call]:
    """The call of an activation that needs e to some power."""
    op = task.whole.base
    alpha = op.alpha if isinstance(op, Elu) else 0.0
    kind = {Elu: ELU, Silu: SILU, Sigmoid: SIGMOID, Tanh: TANH, Gelu: GELU}[type(op)]
    if isinstance(op, Gelu) and op.form == "tanh":
        kind = GELU_TANH
    at = places.params.add(np.array([alpha]))
    return [call(curved, task.parts, places.output, places.inputs[0], kind, at)]


def plan_batch_norm(task: Task, places: Places) -> list[Call]:
    """The call of a batch norm that no layer before it could take in."""
    op, channels = task.whole.base, task.node.shape[0]
    assert isinstance(op, BatchNorm)
    scale, shift = scale_and_shift(op, places.weights)
    kind, numbers = bent_numbers(task.whole.activation, channels, places.weights)
    line = np.stack([by_channel(scale, channels), by_channel(shift, channels)], axis=1)
    at = places.params.add(np.concatenate([numbers, line], axis=1))
    return [call(affine, task.parts, places.output, places.inputs[0], kind, at)]


def plan_add(task: Task, places: Places) -> list[Call]:
    """A sum of any number of tensors, two at a time; the last call does the activation."""
    whole, channels = task.whole, task.node.shape[0]
    out, (first, *others) = places.output, places.inputs
    none, zeros = bent_numbers(None, channels, places.weights)
    idle = places.params.add(zeros)
    kind, numbers = bent_numbers(whole.activation, channels, places.weights)
    at = places.params.add(numbers)
    calls = []
    for i, other in enumerate(others):
        last = i == len(others) - 1
        does = (kind, at) if last else (none, idle)
        calls.append(call(add, task.parts, out, out if i else first, *does, other=other))
    return calls
