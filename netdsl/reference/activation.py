"""Activations, and softmax over the channels."""

from __future__ import annotations

from math import erf, pi, sqrt

import numpy as np

from netdsl.ops import (
    Elu,
    Gelu,
    HardSigmoid,
    HardSwish,
    Leaky,
    LogSoftmax,
    PRelu,
    Relu,
    Relu6,
    Sigmoid,
    Silu,
    Softmax,
    Tanh,
)
from netdsl.reference.table import Array, Params, Table, by_channel


def relu(op: Relu, params: Params, x: Array) -> Array:
    return np.maximum(x, 0)


def relu6(op: Relu6, params: Params, x: Array) -> Array:
    return np.clip(x, 0, 6)


def leaky(op: Leaky, params: Params, x: Array) -> Array:
    return np.where(x > 0, x, op.slope * x)


def prelu(op: PRelu, params: Params, x: Array) -> Array:
    return np.where(x > 0, x, by_channel(params["weight"], x) * x)


def elu(op: Elu, params: Params, x: Array) -> Array:
    return np.where(x > 0, x, op.alpha * np.expm1(np.minimum(x, 0)))


def gelu(op: Gelu, params: Params, x: Array) -> Array:
    if op.form == "tanh":
        return x * 0.5 * (1 + np.tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))
    return x * 0.5 * (1 + np.vectorize(erf, otypes=[np.float64])(x / sqrt(2)))


def silu(op: Silu, params: Params, x: Array) -> Array:
    return x * logistic(x)


def hard_swish(op: HardSwish, params: Params, x: Array) -> Array:
    return x * np.clip(x + 3, 0, 6) / 6


def sigmoid(op: Sigmoid, params: Params, x: Array) -> Array:
    return logistic(x)


def logistic(x: Array) -> Array:
    """1 / (1 + exp(-x)), the exponent kept below 0, where it cannot overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1) / (1 + small)


def hard_sigmoid(op: HardSigmoid, params: Params, x: Array) -> Array:
    return np.clip(op.slope * x + op.offset, 0, 1)


def tanh(op: Tanh, params: Params, x: Array) -> Array:
    return np.tanh(x)


def softmax(op: Softmax, params: Params, x: Array) -> Array:
    exponentials = np.exp(x - x.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def log_softmax(op: LogSoftmax, params: Params, x: Array) -> Array:
    shifted = x - x.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


FUNCTIONS: Table = {
    Relu: relu,
    Relu6: relu6,
    Leaky: leaky,
    PRelu: prelu,
    Elu: elu,
    Gelu: gelu,
    Silu: silu,
    HardSwish: hard_swish,
    Sigmoid: sigmoid,
    HardSigmoid: hard_sigmoid,
    Tanh: tanh,
    Softmax: softmax,
    LogSoftmax: log_softmax,
}
