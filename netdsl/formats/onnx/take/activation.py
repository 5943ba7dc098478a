"""Activations, and softmax."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import numpy as np

from netdsl.formats.onnx import patterns, response
from netdsl.formats.onnx.call import Call, Value, decimal
from netdsl.formats.onnx.faults import Unsupported
from netdsl.formats.onnx.step import (
    CUBE,
    ERF,
    ROOT,
    SQUARE,
    Tensor,
    channel_axis,
    elementwise,
    plain,
)
from netdsl.formats.onnx.step import tensor as whole
from netdsl.formats.onnx.view import N, View
from netdsl.ops import (
    Dropout,
    Elu,
    Gelu,
    HardSigmoid,
    HardSwish,
    Leaky,
    LogSoftmax,
    Op,
    PRelu,
    Relu,
    Sigmoid,
    Silu,
    Softmax,
    Tanh,
)


def each(make: Callable[[Call], Op]) -> Callable[[Call], Value]:
    """An op that looks at each element alone."""

    def take(call: Call) -> Value:
        return elementwise(make(call), call.tensor(), call.name)

    return take


def gelu(call: Call) -> Op:
    form = call.attribute("approximate", "none")
    if form not in ("none", "tanh"):
        raise Unsupported(f"its approximation {form!r} is unknown")
    return Gelu("tanh" if form == "tanh" else "erf")


def swish(call: Call) -> Op:
    if call.number("alpha", 1.0) != 1:
        raise Unsupported("its alpha is not 1")
    return Silu()


def hard_sigmoid(call: Call) -> Op:
    slope, offset = call.number("alpha", 0.2), call.number("beta", 0.5)
    return HardSigmoid(1 / 6 if patterns.near(slope, 1 / 6) else slope, offset)


def dropout(call: Call) -> Op:
    trains = call.optional(2, "training_mode")
    if call.uses > 1:
        raise Unsupported("its mask is read")
    if trains is not None and trains.any():
        raise Unsupported("it is in training mode")
    rate = call.number("ratio", 0.5) if call.version < 12 else call.scalar(1, "ratio", 0.5)
    return Dropout(min(max(decimal(rate), 0.0), 0.999999))


def prelu(call: Call) -> Value:
    x, slope = call.plain(), call.parameter(1, "slope")
    channels, rank = x.shape[0], len(x.shape)
    if slope.size == 1 and channels <= patterns.MOST_CHANNELS:
        return call.step(PRelu(), x, weight=np.full(channels, slope.reshape(()), np.float32))
    shape = (1,) * (rank + 1 - slope.ndim) + slope.shape
    by_name = call.version < 7 and slope.shape == (channels,)
    if slope.size == channels and (by_name or (len(shape) == rank + 1 and shape[1] == channels)):
        return call.step(PRelu(), x, weight=slope.reshape(channels))
    raise Unsupported(f"its slope has shape {slope.shape}, not one value a channel")


def clip(call: Call) -> Value:
    x = call.tensor()
    if call.version < 11:
        low, high = call.number("min", -inf), call.number("max", inf)
    else:
        low, high = call.scalar(1, "minimum", -inf), call.scalar(2, "maximum", inf)
    largest = float(np.finfo(np.float32).max)
    low, high = (-inf if low <= -largest else low), (inf if high >= largest else high)
    if low >= high or np.isnan(low) or np.isnan(high):
        raise Unsupported(f"its minimum {low:g} is not below its maximum {high:g}")
    return Tensor(patterns.clip(x.step, low, high, call.name), x.view)


def bounded(call: Call) -> Value:
    """Max and Min of a tensor and numbers: a clip to one side."""
    x = next(v for v in call.inputs if isinstance(v, Tensor))
    bounds = [v for v in call.inputs if v is not None and not isinstance(v, Tensor)]
    if len(bounds) != len(call.inputs) - 1 or any(v.size != 1 for v in bounds):
        raise Unsupported("it compares tensors")
    values = [float(v.reshape(())) for v in bounds]
    low, high = (max(values), inf) if call.op == "Max" else (-inf, min(values))
    return Tensor(patterns.clip(x.step, low, high, call.name), x.view)


def power(call: Call) -> Value:
    exponent = call.scalar(1, "exponent", 1.0)
    if exponent not in (2, 3):
        return response.power(call, call.tensor(), exponent)
    return elementwise(SQUARE if exponent == 2 else CUBE, call.tensor(), call.name)


def softmax(op: Op) -> Callable[[Call], Value]:
    def take(call: Call) -> Value:
        x = call.tensor()
        rank = len(x.view.groups)
        if call.version < 13:
            axis = call.axis("axis", 1, rank)
            if any(x.view.groups[axis + 1 :]) or N in x.view.groups[axis]:
                return _coerced(call, op, x, axis)
        else:
            axis = call.axis("axis", -1, rank)
        if channel_axis(x) != axis:
            raise Unsupported(f"it normalises over axis {axis}, not over the channels")
        return elementwise(op, x, call.name)

    return take


def _coerced(call: Call, op: Op, x: Tensor, axis: int) -> Value:
    """Before version 13 the axes from `axis` on were one: each sample's elements together."""
    if x.view.groups[:axis] != ((N,),):
        raise Unsupported(f"it normalises over all axes from {axis} on")
    features = plain(Tensor(x.step, x.view.reshaped([0, -1])))
    step = call.new(op, features)
    flat = whole(step, call.batch)
    sizes = [0, *x.view.sizes[1:]]
    return Tensor(step, View(flat.view.groups, call.batch).reshaped(sizes))


TAKE = {
    "Relu": each(lambda call: Relu()),
    "LeakyRelu": each(lambda call: Leaky(call.number("alpha", 0.01))),
    "Elu": each(lambda call: Elu(call.number("alpha", 1.0))),
    "Gelu": each(gelu),
    "Swish": each(swish),
    "Sigmoid": each(lambda call: Sigmoid()),
    "HardSigmoid": each(hard_sigmoid),
    "HardSwish": each(lambda call: HardSwish()),
    "Tanh": each(lambda call: Tanh()),
    "Erf": each(lambda call: ERF),
    "Sqrt": each(lambda call: ROOT),
    "Dropout": each(dropout),
    "PRelu": prelu,
    "Clip": clip,
    "Max": bounded,
    "Min": bounded,
    "Pow": power,
    "Softmax": softmax(Softmax()),
    "LogSoftmax": softmax(LogSoftmax()),
}
