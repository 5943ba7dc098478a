"""The activations on a float32, as device functions. A NaN stays one."""

from __future__ import annotations

import math

import numpy as np
from numba import cuda, float32

NONE, RELU, CLIP, LEAKY, HARD_SIGMOID, HARD_SWISH = range(6)
ELU, GELU, GELU_TANH, SILU, SIGMOID, TANH = range(6, 12)

ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)
THREE, SIX = np.float32(3), np.float32(6)
FAR = np.float32(88)
ROOT_HALF = np.float32(math.sqrt(0.5))
ROOT_TWO_OVER_PI = np.float32(math.sqrt(2 / math.pi))
CUBIC = np.float32(0.044715)


@cuda.jit(device=True)
def clip(x, top):  # type: ignore[no-untyped-def]
    """x between 0 and top."""
    if x < ZERO:
        return ZERO
    if x > top:
        return top
    return x


@cuda.jit(device=True)
def bend(kind, x, a, b):  # type: ignore[no-untyped-def]
    """The activations made of straight pieces; a and b are the kind's numbers."""
    if kind == RELU:
        return ZERO if x < ZERO else x
    if kind == CLIP:
        return clip(x, a)
    if kind == LEAKY:
        return x * a if x < ZERO else x
    if kind == HARD_SIGMOID:
        return clip(x * a + b, ONE)
    if kind == HARD_SWISH:
        return x * clip(x + THREE, SIX) / SIX
    return x


@cuda.jit(device=True)
def sigmoid(x):  # type: ignore[no-untyped-def]
    """1 / (1 + e^-x); e^88 is about the largest float32."""
    if x < -FAR:
        x = -FAR
    if x > FAR:
        x = FAR
    return ONE / (ONE + float32(math.exp(-x)))


@cuda.jit(device=True)
def curve(kind, x, a):  # type: ignore[no-untyped-def]
    """The other activations; a is the kind's number."""
    if kind == ELU:
        return x if x > ZERO else a * float32(math.expm1(x))
    if kind == GELU:
        return x * HALF * float32(math.erfc(-x * ROOT_HALF))
    if kind == GELU_TANH:
        inner = ROOT_TWO_OVER_PI * (x + CUBIC * x * x * x)
        return HALF * x * (ONE + float32(math.tanh(inner)))
    if kind == SILU:
        return x * sigmoid(x)
    if kind == SIGMOID:
        return sigmoid(x)
    return float32(math.tanh(x))
