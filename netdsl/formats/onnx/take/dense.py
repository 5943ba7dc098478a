"""Gemm and MatMul."""

from __future__ import annotations

import numpy as np

from netdsl.formats.onnx.call import Call, Value
from netdsl.formats.onnx.faults import Unsupported
from netdsl.formats.onnx.step import Array, Tensor, axes, features, tensor
from netdsl.formats.onnx.view import Group
from netdsl.ops import Conv, Linear, Shape, Window


def gemm(call: Call) -> Value:
    """alpha A B + beta C, A the data."""
    if call.attribute("transA", 0):
        raise Unsupported("it transposes the batch")
    step, order = features(call.tensor())
    weight = _matrix(call, transposed=not call.attribute("transB", 0))
    weight = _scaled(weight, call.number("alpha", 1.0))
    count = weight.shape[0]
    weight = _in_order(weight, order, step.shape)
    if not call.given(2):
        return call.step(Linear(count, False), step, weight=weight)
    bias = call.parameter(2, "bias")
    if bias.size not in (1, count) or (bias.size == count and bias.shape[-1:] not in ((count,),)):
        raise Unsupported(f"its bias has shape {bias.shape}, not {count}")
    bias = np.ascontiguousarray(np.broadcast_to(bias.reshape(-1), (count,)))
    bias = _scaled(bias, call.number("beta", 1.0))
    return call.step(Linear(count, True), step, weight=weight, bias=bias)


def matmul(call: Call) -> Value:
    x = call.tensor()
    weight = _matrix(call, transposed=True)
    if len(x.view.groups) == 2:
        step, order = features(x)
        weight = _in_order(weight, order, step.shape)
        return call.step(Linear(weight.shape[0], False), step, weight=weight)
    return _by_position(call, x, weight)


def _by_position(call: Call, x: Tensor, weight: Array) -> Value:
    """A matrix for the channels of each position, where they are the last axis: conv1x1."""
    order = axes(x)
    if order is None or order[0] != 0 or order[-1] != 1 or weight.shape[1] != x.step.shape[0]:
        raise Unsupported("it multiplies matrices other than a vector a sample")
    rank = len(x.step.shape) - 1
    ones = (1,) * rank
    op = Conv(weight.shape[0], Window(ones, ones, ((0, 0),) * rank, ones), 1, False)
    params = {"weight": weight.reshape(*weight.shape, *ones)}
    result = tensor(call.new(op, x.step, params=params), call.batch)
    return Tensor(result.step, result.view.transposed(order))


def _matrix(call: Call, *, transposed: bool) -> Array:
    """The weight as (outputs, inputs)."""
    weight = call.parameter(1, "weight")
    if weight.ndim != 2 or 0 in weight.shape:
        raise Unsupported(f"its weight has shape {weight.shape}, which is no matrix")
    return np.ascontiguousarray(weight.T) if transposed else weight


def _scaled(values: Array, factor: float) -> Array:
    return values if factor == 1 else (values * factor).astype(np.float32)


def _in_order(weight: Array, order: Group, shape: Shape) -> Array:
    """The columns in the order of the step's own elements, channel by channel."""
    sizes = tuple(atom.size for atom in order)
    if weight.shape[1] != int(np.prod(sizes)):
        raise Unsupported(f"its weight takes {weight.shape[1]} values, its input has {shape}")
    own = sorted(range(len(order)), key=lambda i: (order[i].axis, -order[i].stride))
    if own == list(range(len(order))):
        return weight
    split = weight.reshape(weight.shape[0], *sizes)
    moved = split.transpose(0, *(i + 1 for i in own))
    return np.ascontiguousarray(moved.reshape(weight.shape))


TAKE = {"Gemm": gemm, "MatMul": matmul}
