"""Activations that exporters spell in arithmetic, recognised while the arithmetic is read.

A constant factor and addend are an AFFINE step: `x scale + shift`. A GELU is written
x (1 + erf(x / √2)) / 2, in any order of the factors, so a product takes the constant factors out of
its operands first, looks whether the rest is an activation it knows, and puts the factor after it.
AFFINE steps that are left at the end become biases and batch norms: see `finish`.
"""

from __future__ import annotations

from math import isclose, pi, sqrt

import numpy as np
import numpy.typing as npt

from netdsl.formats.onnx.call import decimal
from netdsl.formats.onnx.faults import Unsupported
from netdsl.formats.onnx.step import (
    AFFINE,
    CENTRED,
    CUBE,
    ERF,
    MEAN,
    ROOT,
    SQUARE,
    Step,
    make,
)
from netdsl.ops import (
    Add,
    Gelu,
    HardSigmoid,
    HardSwish,
    Multiply,
    Op,
    Relu,
    Relu6,
    Sigmoid,
    Silu,
    Tanh,
)

MOST_CHANNELS = 1 << 24
"""Channels whose scale is filled in from one number."""

Doubles = npt.NDArray[np.float64]


def affine(x: Step, scale: Doubles | float, shift: Doubles | float, origin: str) -> Step:
    """x scale + shift, each one number or one a channel; merged with what x is already."""
    scale, shift = np.asarray(scale, np.float64), np.asarray(shift, np.float64)
    if x.op == AFFINE:
        shift = x.params["shift"] * scale + shift
        scale = x.params["scale"] * scale
        x = x.inputs[0]
    if np.allclose(scale, 1, rtol=1e-6, atol=0) and np.allclose(shift, 0, rtol=0, atol=1e-9):
        return x
    if x.shape[0] > MOST_CHANNELS:
        raise Unsupported(f"it scales more than {MOST_CHANNELS:,} channels")
    gate = _gate(x, scale, shift, origin)
    return gate or make(AFFINE, x, params={"scale": scale, "shift": shift}, origin=origin)


def _gate(x: Step, scale: Doubles, shift: Doubles, origin: str) -> Step | None:
    """relu6(x + 3) / 6 is hsigmoid."""
    if x.op == Relu6() and scale.ndim == 0 and shift == 0 and near(float(scale), 1 / 6):
        inner = numbers(x.inputs[0])
        if inner is not None and near(inner[0], 1) and near(inner[1], 3):
            return make(HardSigmoid(), inner[2], origin=origin)
    return None


def numbers(x: Step) -> tuple[float, float, Step] | None:
    """Scale, shift and what they act on; None where they differ by channel."""
    if x.op != AFFINE:
        return 1.0, 0.0, x
    scale, shift = x.params["scale"], x.params["shift"]
    if scale.size != 1 or shift.size != 1:
        return None
    return float(scale.reshape(())), float(shift.reshape(())), x.inputs[0]


def clip(x: Step, low: float, high: float, origin: str) -> Step:
    """min(max(x, low), high): relu, relu6, hsigmoid or one of them scaled."""
    if (low, high) == (0, 6):
        return make(Relu6(), x, origin=origin)
    if low == -np.inf and high == np.inf:
        return x
    if high == np.inf:
        return affine(make(Relu(), affine(x, 1, -low, origin), origin=origin), 1, low, origin)
    if low == -np.inf:
        return affine(make(Relu(), affine(x, -1, high, origin), origin=origin), -1, high, origin)
    size = high - low
    inner = numbers(x) if (low, high) == (0, 1) else None
    if inner is not None:
        op: Op = HardSigmoid(_sixth(inner[0]), inner[1])
        return make(op, inner[2], origin=origin)
    gate = make(HardSigmoid(1 / size, -low / size), x, origin=origin)
    return affine(gate, size, low, origin)


def _sixth(slope: float) -> float:
    return 1 / 6 if near(slope, 1 / 6) else slope


def product(a: Step, b: Step, origin: str) -> Step:
    """a b, as an activation where it is one."""
    factor_a, core_a = _factored(a)
    factor_b, core_b = _factored(b)
    for x, gate in ((core_a, core_b), (core_b, core_a)):
        found = _gated(x, gate, origin)
        if found is not None:
            step, factor = found
            return affine(step, factor * factor_a * factor_b, 0, origin)
    if core_a is core_b:
        return affine(make(SQUARE, core_a, origin=origin), factor_a * factor_b, 0, origin)
    for x, square in ((core_a, core_b), (core_b, core_a)):
        if square.op == SQUARE and square.inputs[0] is x:
            return affine(make(CUBE, x, origin=origin), factor_a * factor_b, 0, origin)
    if a.op == Multiply() and a.origin.startswith(f"{origin}/"):
        return make(Multiply(), *a.inputs, b, origin=origin)  # as our own writer spells it
    return make(Multiply(), a, b, origin=origin)


def _factored(x: Step) -> tuple[float, Step]:
    """A number and a step whose product x is; k (1 + f) has the factor k too."""
    found = numbers(x)
    if found is None or x.op != AFFINE:
        return 1.0, x
    scale, shift, inner = found
    if shift == 0:
        return scale, inner
    if inner.op in (ERF, Tanh()) and near(scale, shift):
        return scale, affine(inner, 1, 1, x.origin)
    return 1.0, x


def _gated(x: Step, gate: Step, origin: str) -> tuple[Step, float] | None:
    """x gate as an activation of x and a number: x sigmoid(x) = silu(x)."""
    source = gate.inputs[0] if gate.inputs else None
    if gate.op == Sigmoid() and source is x:
        return make(Silu(), x, origin=origin), 1.0
    if isinstance(gate.op, HardSigmoid) and source is x and near(gate.op.slope, 1 / 6):
        return (make(HardSwish(), x, origin=origin), 1.0) if near(gate.op.offset, 0.5) else None
    if gate.op == Relu6() and source is not None:
        inner = numbers(source)
        if inner is not None and inner[2] is x and near(inner[0], 1) and near(inner[1], 3):
            return make(HardSwish(), x, origin=origin), 6.0
    outer = numbers(gate)
    if gate.op == AFFINE and outer is not None and near(outer[0], 1) and near(outer[1], 1):
        form = _gelu_form(x, outer[2])
        return (make(Gelu(form), x, origin=origin), 2.0) if form else None
    return None


def _gelu_form(x: Step, f: Step) -> str | None:
    """Which GELU x (1 + f) / 2 is."""
    inner = numbers(f.inputs[0]) if f.inputs else None
    if inner is None or inner[1] != 0:
        return None
    scale, _, core = inner
    if f.op == ERF and core is x and near(scale, sqrt(0.5)):
        return "erf"
    if f.op == Tanh() and near(scale, sqrt(2 / pi)) and _is_cubic(core, x):
        return "tanh"
    return None


def _is_cubic(core: Step, x: Step) -> bool:
    """x + 0.044715 x^3"""
    if core.op != Add() or len(core.inputs) != 2:
        return False
    a, b = core.inputs
    for one, other in ((a, b), (b, a)):
        found = numbers(other)
        if one is x and found is not None and found[1] == 0 and near(found[0], 0.044715):
            return found[2].op == CUBE and found[2].inputs[0] is x
    return False


def normalised(x: Step, deviation: Step) -> float | None:
    """The eps of the layer norm that x / deviation is: (x - mean) / sqrt(mean square + eps)."""
    if x.op != CENTRED or deviation.op != ROOT:
        return None
    found = numbers(deviation.inputs[0])
    if found is None or not near(found[0], 1) or found[1] <= 0:
        return None
    mean = found[2]
    fits = mean.op == MEAN and mean.inputs[0].op == SQUARE and mean.inputs[0].inputs[0] is x
    return decimal(found[1]) if fits else None


def near(a: float, b: float) -> bool:
    """Equal but for the rounding of an exporter."""
    return isclose(a, b, rel_tol=1e-5, abs_tol=1e-9)
