"""Concat, and sums and products: of tensors, or of a tensor and constants."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np

from netdsl.formats.onnx import patterns, response
from netdsl.formats.onnx.call import Call, Value
from netdsl.formats.onnx.faults import Unsupported
from netdsl.formats.onnx.patterns import Doubles
from netdsl.formats.onnx.step import (
    CENTRED,
    MEAN,
    Array,
    Stretched,
    Tensor,
    aligned,
    axes,
    channel_axis,
    ordered,
)
from netdsl.ops import Add, Concat, LayerNorm


def concat(call: Call) -> Value:
    xs = call.tensors()
    steps, order = aligned(xs)
    axis = call.axis("axis", 1, len(xs[0].view.groups))
    if (order[axis] if order else axis) != 1:
        raise Unsupported(f"it joins along axis {axis}, not along the channels")
    if len(steps) == 1:
        return xs[0]
    return ordered(call.new(Concat(), *steps), order, call.batch)


def total(call: Call) -> Value:
    """Add and Sum."""
    xs = [x for x in call.inputs if isinstance(x, Tensor)]
    constants = [x for x in call.inputs if x is not None and not isinstance(x, Tensor)]
    if not xs:
        raise Unsupported("it computes with constants alone")
    result = xs[0]
    if len(xs) > 1:
        if len({x.shape for x in xs}) > 1:
            raise Unsupported("it stretches one tensor to the shape of another")
        steps, order = aligned(xs)
        result = ordered(call.new(Add(), *steps), order, call.batch)
    for values in constants:
        result = shifted(call, result, values)
    return result


def shifted(call: Call, x: Tensor, values: Array) -> Tensor:
    shift = by_channel(call, x, values)
    return Tensor(patterns.affine(x.step, 1.0, shift, call.name), x.view)


def difference(call: Call) -> Value:
    a, b = _two(call)
    if not isinstance(b, Tensor):
        assert isinstance(a, Tensor)
        return shifted(call, a, -np.asarray(b, np.float64))
    if isinstance(a, Tensor) and b.step.op == MEAN and b.step.inputs[0] is a.step:
        return Tensor(call.new(CENTRED, a.step), a.view)
    negative = Tensor(patterns.affine(b.step, -1.0, 0.0, call.name), b.view)
    if not isinstance(a, Tensor):
        return shifted(call, negative, a)
    return total(_with(call, a, negative))


def product(call: Call) -> Value:
    a, b = _two(call)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return _multiplied(call, a, b)
    x, values = (a, b) if isinstance(a, Tensor) else (b, a)
    assert isinstance(x, Tensor)
    assert not isinstance(values, Tensor)
    scale = by_channel(call, x, values)
    return Tensor(patterns.affine(x.step, scale, 0.0, call.name), x.view)


def _multiplied(call: Call, a: Tensor, b: Tensor) -> Value:
    a, b = _unstretched(call, a), _unstretched(call, b)
    if a.view == b.view and a.step.shape == b.step.shape:
        return Tensor(patterns.product(a.step, b.step, call.name), a.view)
    if len(a.view.groups) != len(b.view.groups):
        raise Unsupported("it stretches a tensor of fewer axes")
    (first, second), order = aligned([a, b])
    return ordered(patterns.product(first, second, call.name), order, call.batch)


def _unstretched(call: Call, x: Tensor) -> Tensor:
    """A product stretches what it multiplies by itself."""
    order = axes(x)
    if not isinstance(x.step.op, Stretched) or order is None:
        return x
    return ordered(x.step.inputs[0], order, call.batch)


def quotient(call: Call) -> Value:
    a, b = _two(call)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        eps = patterns.normalised(a.step, b.step)
        if eps is not None:
            return Tensor(call.new(LayerNorm(eps, False), a.step.inputs[0]), a.view)
        norm = response.normalised(a.step, b.step)
        if norm is not None and a.view == b.view:
            return Tensor(call.new(norm, a.step), a.view)
    if not isinstance(a, Tensor) or isinstance(b, Tensor):
        raise Unsupported("it divides by a tensor")
    with np.errstate(divide="ignore"):
        values = 1 / np.asarray(b, np.float64)
    if not np.isfinite(values).all():
        raise Unsupported("it divides by 0")
    return product(_with(call, a, values))


def negative(call: Call) -> Value:
    x = call.tensor()
    return Tensor(patterns.affine(x.step, -1.0, 0.0, call.name), x.view)


def by_channel(call: Call, x: Tensor, values: Array) -> Doubles:
    """A constant that is broadcast over a tensor, as one number or one a channel."""
    values = np.asarray(values, np.float64)
    if values.size == 1:
        return values.reshape(())
    rank = len(x.view.groups)
    shape = (1,) * (rank - values.ndim) + values.shape
    if call.version < 7 and "axis" in call.attributes:
        start = call.axis("axis", 0, rank)
        shape = (1,) * start + values.shape + (1,) * (rank - start - values.ndim)
    channels = x.step.shape[0]
    axis = channel_axis(x)
    if axis is None or len(shape) != rank or values.size != channels or shape[axis] != channels:
        raise Unsupported(
            f"its constant has shape {values.shape}, which is not one value a channel"
        )
    return values.reshape(channels)


def _two(call: Call) -> tuple[Value, Value]:
    if len(call.inputs) != 2 or not (call.given(0) and call.given(1)):
        raise Unsupported("it has not two inputs")
    a, b = call.inputs
    assert a is not None
    assert b is not None
    return a, b


def _with(call: Call, *inputs: Value) -> Call:
    return Call(call.op, call.name, inputs, call.attributes, call.version, call.batch)


def folded(pair: Callable[[Call], Value]) -> Callable[[Call], Value]:
    """An operator of two or more inputs by its form for two."""

    def take(call: Call) -> Value:
        values = [v for v in call.inputs if v is not None]
        return reduce(lambda a, b: pair(_with(call, a, b)), values)

    return take


TAKE = {
    "Concat": concat,
    "Add": total,
    "Sum": total,
    "Sub": difference,
    "Mul": folded(product),
    "Div": quotient,
    "Neg": negative,
}
