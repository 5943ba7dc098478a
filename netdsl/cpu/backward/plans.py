"""How each op but convolutions goes back: from a node to its kernel calls."""

from __future__ import annotations

from zlib import crc32

import numpy as np

from netdsl.cpu.activation import (
    CLIP,
    ELU,
    GELU,
    GELU_TANH,
    HARD_SIGMOID,
    HARD_SWISH,
    LEAKY,
    RELU,
    SIGMOID,
    SILU,
    TANH,
)
from netdsl.cpu.arrange import mix
from netdsl.cpu.backward import activation, arrange, dense, norm, response, sums, window
from netdsl.cpu.backward.task import BackNeeds, BackPlaces, Calls
from netdsl.cpu.layout import Buffer
from netdsl.cpu.task import Task, by_channel
from netdsl.cpu.views import call
from netdsl.graph import taps
from netdsl.ops import (
    BatchNorm,
    Dropout,
    Elu,
    Gelu,
    GlobalMax,
    GroupNorm,
    HardSigmoid,
    HardSwish,
    InstanceNorm,
    Leaky,
    LocalResponseNorm,
    LogSoftmax,
    MaxPool,
    Norm,
    Op,
    Relu,
    Relu6,
    Shuffle,
    Sigmoid,
    Silu,
    Tanh,
)

BENDS: dict[type[Op], int] = {
    Relu: RELU,
    Relu6: CLIP,
    Leaky: LEAKY,
    HardSigmoid: HARD_SIGMOID,
    HardSwish: HARD_SWISH,
}
CURVES: dict[type[Op], int] = {
    Elu: ELU,
    Gelu: GELU,
    Silu: SILU,
    Sigmoid: SIGMOID,
    Tanh: TANH,
}
FROM_OUTPUT = (Relu, Relu6, Sigmoid, Tanh)


def saved(op: Op, places: BackPlaces) -> Buffer:
    """The tensor that an activation's slope is read from."""
    return places.output if isinstance(op, FROM_OUTPUT) else places.inputs[0]


def bent_back(task: Task, places: BackPlaces) -> Calls:
    """The call of an activation of straight pieces."""
    op, channels, target = task.whole.base, task.node.shape[0], places.gradients[0]
    if target is None:
        return []
    a = {Relu6: 6.0, Leaky: getattr(op, "slope", 0.0), HardSigmoid: getattr(op, "slope", 0.0)}
    first = by_channel(a.get(type(op), 0.0), channels)
    second = by_channel(getattr(op, "offset", 0.0), channels)
    at = places.params.add(np.stack([first, second], axis=1))
    own = (BENDS[type(op)], at)
    return [
        call(
            activation.bent_back,
            task.parts,
            target,
            places.gradient,
            *own,
            other=saved(op, places),
        )
    ]


def curved_back(task: Task, places: BackPlaces) -> Calls:
    """The call of an activation that needs e to some power."""
    op, target = task.whole.base, places.gradients[0]
    if target is None:
        return []
    kind = CURVES[type(op)]
    if isinstance(op, Gelu) and op.form == "tanh":
        kind = GELU_TANH
    at = places.params.add(np.array([op.alpha if isinstance(op, Elu) else 0.0]))
    other = saved(op, places)
    return [
        call(activation.curved_back, task.parts, target, places.gradient, kind, at, other=other)
    ]


def prelu_back(task: Task, places: BackPlaces) -> Calls:
    """The slope's gradient, then the input's."""
    g, x, target = places.gradient, places.inputs[0], places.gradients[0]
    calls = [call(sums.slope_sums, task.threads, g, g, places.into["weight"], other=x)]
    if target is not None:
        at = places.weights["weight"]
        calls.append(call(activation.prelu_back, task.parts, target, g, at, other=x))
    return calls


def softmax_back(task: Task, places: BackPlaces) -> Calls:
    """The call of softmax, or its logarithm."""
    target, log = places.gradients[0], isinstance(task.whole.base, LogSoftmax)
    if target is None:
        return []
    y = places.output
    return [call(activation.softmax_back, task.parts, target, places.gradient, int(log), other=y)]


def norm_needs(task: Task) -> BackNeeds:
    """The sums of each sample's channels, and the table that stays for the way back."""
    padded = -(-task.node.shape[0] // 16) * 16
    samples = 1 if isinstance(task.whole.base, BatchNorm) else task.batch
    return BackNeeds(scratch=2 * task.batch * padded, kept=norm.ROWS * samples * padded)


def _norm_fields(task: Task, places: BackPlaces) -> tuple[int, ...]:
    op, channels = task.whole.base, task.node.shape[0]
    assert isinstance(op, Norm)
    groups = {BatchNorm: channels, InstanceNorm: channels}.get(type(op), 1)
    if isinstance(op, GroupNorm):
        groups = op.groups
    step = 0 if isinstance(op, BatchNorm) else norm.ROWS * -(-channels // 16) * 16
    momentum = op.momentum if isinstance(op, BatchNorm) else 0.0
    settings = places.params.add(np.array([op.eps, momentum]))
    weights, into = places.weights, places.into
    return (
        places.scratch,
        places.kept,
        step,
        channels // groups,
        weights.get("weight", -1),
        weights.get("bias", -1),
        weights.get("mean", -1),
        weights.get("var", -1),
        settings,
        into.get("weight", -1),
        into.get("bias", -1),
    )


def norm_forward(task: Task, places: BackPlaces) -> tuple[Calls, Calls]:
    """Measuring and normalising; a batch norm that is tried uses what it measured before."""
    own, y, x = _norm_fields(task, places), places.output, places.inputs[0]
    measure = [
        call(norm.moments, task.parts, y, x, *own),
        call(norm.statistics, 1, y, x, *own),
    ]
    apply = call(norm.normalise, task.parts, y, x, *own)
    training = [*measure, apply]
    if not isinstance(task.whole.base, BatchNorm):
        return training, training
    return training, [call(norm.running, 1, y, x, *own), apply]


def norm_back(task: Task, places: BackPlaces) -> Calls:
    """What each group pulls at; the scale's and shift's gradients; the input's."""
    own = _norm_fields(task, places)
    g, x, target = places.gradient, places.inputs[0], places.gradients[0]
    calls = [call(norm.pulls, task.parts, g, g, *own, other=x)]
    if "weight" in places.into:
        calls.append(call(norm.norm_gradients, 1, g, g, *own, other=x))
    if target is not None:
        calls.append(call(norm.slopes, 1, g, g, *own, other=x))
        calls.append(call(norm.combine, task.parts, target, g, *own, other=x))
    return calls


def response_needs(task: Task) -> BackNeeds:
    """Three tables of squares and the like for each thread."""
    op = task.whole.base
    assert isinstance(op, LocalResponseNorm)
    each = response.response_scratch(task.node.shape[0], op.size)
    return BackNeeds(scratch=task.parts * each)


def response_back(task: Task, places: BackPlaces) -> Calls:
    """The call of local response normalisation."""
    op, channels, target = task.whole.base, task.node.shape[0], places.gradients[0]
    assert isinstance(op, LocalResponseNorm)
    if target is None:
        return []
    at = places.params.add(np.array([op.alpha / op.size, op.k, op.beta]))
    each = response.response_scratch(channels, op.size)
    own = (op.size, int(op.beta == 0.75), at, places.scratch, each)
    x = places.inputs[0]
    return [call(response.response_back, task.parts, target, places.gradient, *own, other=x)]


def window_back(task: Task, places: BackPlaces) -> Calls:
    """The call of a pool, an enlarging or a padding."""
    op, target, x = task.whole.base, places.gradients[0], places.inputs[0]
    if target is None:
        return []
    axes = taps.taps_of(op, task.shapes[0], task.node.shape)
    table, shares = taps.flat(axes)
    if isinstance(op, MaxPool | GlobalMax):
        apart = all(taps.apart(axis) for axis in axes)
        cover = apart and all(map(taps.covers, axes, x.size))
        own = (window.APART * apart + window.COVER * cover, *table)
        return [call(window.max_back, task.threads, target, places.gradient, *own, other=x)]
    own = (places.params.add(np.array(shares)), *table)
    return [call(window.spread, task.threads, target, places.gradient, *own)]


def linear_needs(task: Task) -> BackNeeds:
    """Room for a tile that reaches past a row's end, a thread each."""
    return BackNeeds(scratch=task.threads * dense.scratch_floats(task.batch))


def _dense_fields(places: BackPlaces) -> tuple[int, ...]:
    weights, into = places.weights, places.into
    table = dense.ORIGIN_ROW + 1
    step = dense.scratch_floats(places.output.batch)
    own = (weights["weight"], weights.get("bias", -1), into["weight"], places.scratch, step, table)
    return (*own, 0, 0)


def linear_forward(task: Task, places: BackPlaces) -> tuple[Calls, Calls]:
    """A fully connected layer with its weights as they are."""
    own = _dense_fields(places)
    calls = [call(dense.forward, task.threads, places.output, places.inputs[0], *own)]
    return calls, calls


def linear_back(task: Task, places: BackPlaces) -> Calls:
    """The bias's gradient, the weight's, the input's."""
    own, g, x, target = (
        _dense_fields(places),
        places.gradient,
        places.inputs[0],
        places.gradients[0],
    )
    calls = []
    if "bias" in places.into:
        calls.append(call(sums.channel_sums, task.threads, g, g, places.into["bias"]))
    calls.append(call(dense.weight_gradient, task.threads, g, g, *own, other=x))
    if target is not None:
        calls.append(call(dense.input_gradient, task.threads, target, g, *own))
    return calls


def flatten_back(task: Task, places: BackPlaces) -> Calls:
    """A vector's gradient in the shape it came from."""
    target = places.gradients[0]
    return [call(arrange.unflatten, task.parts, target, places.gradient)] if target else []


def shuffle_back(task: Task, places: BackPlaces) -> Calls:
    """Each channel's gradient back to where the channel was."""
    op, channels, target = task.whole.base, task.node.shape[0], places.gradients[0]
    assert isinstance(op, Shuffle)
    if target is None:
        return []
    order = np.argsort(np.arange(channels).reshape(op.groups, -1).T.reshape(-1))
    table = [*map(int, order), *(-1,) * (-channels % 16)]
    return [call(mix, task.parts, target, places.gradient, *table)]


def concat_back(task: Task, places: BackPlaces) -> Calls:
    """A branch's channels of the gradient, where the branch does not lie there already."""
    calls, channel = [], 0
    for shape, target in zip(task.shapes, places.gradients, strict=True):
        start, channel = channel, channel + shape[0]
        if target is None:
            continue
        if start % 16 == 0 and target.offset == places.gradient.part(start, shape[0]).offset:
            continue
        table = [*range(start, channel), *(-1,) * (-shape[0] % 16)]
        calls.append(call(mix, task.parts, target, places.gradient, *table))
    return calls


def add_back(task: Task, places: BackPlaces) -> Calls:
    """The gradient itself for every branch."""
    targets = [t for t in places.gradients if t is not None and t != places.gradient]
    return [call(arrange.copy, task.parts, target, places.gradient) for target in targets]


def multiply_back(task: Task, places: BackPlaces) -> Calls:
    """Each factor's gradient: the product's times the other factor."""
    calls, out = [], places.output
    assert len(places.inputs) == 2
    for i, target in enumerate(places.gradients):
        if target is None:
            continue
        other = places.inputs[1 - i]
        over = [int(t == 1 < n) for t, n in _extents(target, out)]
        flat = [int(t == 1 < n) for t, n in _extents(other, out)]
        own = (*over, *flat)
        calls.append(
            call(arrange.multiply_back, task.parts, target, places.gradient, *own, other=other)
        )
    return calls


def _extents(buffer: Buffer, out: Buffer) -> list[tuple[int, int]]:
    return list(zip((buffer.channels, *buffer.size), (out.channels, *out.size), strict=True))


def _drop(task: Task, places: BackPlaces, target: Buffer, source: Buffer) -> Calls:
    op = task.whole.base
    assert isinstance(op, Dropout)
    kept = places.params.add(np.array([1.0 / (1.0 - op.rate)]))
    threshold = round(op.rate * 2**32)
    own = (crc32(task.node.name.encode()), 0, threshold, kept)
    return [call(arrange.drop, task.parts, target, source, *own)]


def dropout_forward(task: Task, places: BackPlaces) -> tuple[Calls, Calls]:
    """Dropping in training; a copy otherwise, or nothing where both lie in one place."""
    x, y = places.inputs[0], places.output
    idle = [] if x == y else [call(arrange.copy, task.parts, y, x)]
    return _drop(task, places, y, x), idle


def dropout_back(task: Task, places: BackPlaces) -> Calls:
    """The same elements dropped from the gradient."""
    target = places.gradients[0]
    return _drop(task, places, target, places.gradient) if target else []
