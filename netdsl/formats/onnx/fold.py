"""Arithmetic on constants: the sums of shapes that exporters leave in a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from math import prod
from typing import Any

import numpy as np

from netdsl.formats.onnx.call import Call
from netdsl.formats.onnx.faults import Unsupported, broken
from netdsl.formats.onnx.step import Array

MOST = 1 << 29
"""Elements that a model's constants may grow to by its own arithmetic, together."""

STRETCHING = ("Add", "Sub", "Mul", "Div", "Pow", "Mod", "Max", "Min", "Equal", "Where")
"""Operators whose inputs are stretched to one shape."""

Fold = Callable[[Call, Sequence[Array]], Array]


class Folder:
    """Folds constants, and keeps count of how much they have grown."""

    def __init__(self) -> None:
        self.left = MOST

    def __call__(self, call: Call) -> Array:
        """The result of a node of constants. Raises Unsupported, NetError."""
        if call.op not in TABLE:
            raise Unsupported("it computes with constants alone, in a way that is not known here")
        inputs = [np.asarray(call.constant(i, "input")) for i in range(len(call.inputs))]
        self._spend(call, inputs)
        try:
            with np.errstate(all="ignore"):
                return np.asarray(TABLE[call.op](call, inputs))
        except (ValueError, IndexError, TypeError, KeyError, OverflowError) as problem:
            raise broken(f"{call.op} at {call.name} computes nothing: {problem}") from None

    def _spend(self, call: Call, inputs: Sequence[Array]) -> None:
        size = sum(x.size for x in inputs)
        if call.op in STRETCHING:
            size = prod(map(max, *_axes([x.shape for x in inputs])))
        elif call.op in ("ConstantOfShape", "Expand"):
            sizes = inputs[-1].reshape(-1)
            size = max(prod(int(n) for n in sizes), size) if sizes.size < 20 else MOST + 1
        elif call.op == "Gather" and len(inputs) == 2:
            each = inputs[0].size // max(min(inputs[0].shape, default=1), 1)
            size = inputs[1].size * max(each, 1)
        self.left -= size
        if self.left < 0:
            raise broken(f"{call.op} at {call.name} makes constants of over {MOST:,} elements")


def _axes(shapes: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Shapes with axes of 1 before them, so that all have as many; and one of no elements more."""
    rank = max(map(len, shapes))
    return [(1,) * (rank - len(s)) + s for s in shapes] + [(0,) * rank]


def constant(call: Call, inputs: Sequence[Array]) -> Array:
    for name, kind in (("value", None), ("value_float", "f4"), ("value_int", "i8")):
        if name in call.attributes:
            return np.asarray(call.attributes[name], kind)
    for name, kind in (("value_floats", "f4"), ("value_ints", "i8")):
        if name in call.attributes:
            return np.asarray(call.attributes[name], kind)
    raise Unsupported("its value is of a kind that is not read")


def constant_of_shape(call: Call, inputs: Sequence[Array]) -> Array:
    value = np.asarray(call.attribute("value", np.zeros(1, np.float32))).reshape(())
    # A view: it takes no memory until a layer takes it for its weights.
    return np.broadcast_to(value, tuple(int(n) for n in inputs[0].reshape(-1)))


def cast(call: Call, inputs: Sequence[Array]) -> Array:
    from onnx import helper

    return inputs[0].astype(helper.tensor_dtype_to_np_dtype(call.attribute("to", 1)))


def reshape(call: Call, inputs: Sequence[Array]) -> Array:
    target = call.ints("shape", 1) or ()
    keep = not call.attribute("allowzero", 0)
    sizes = [inputs[0].shape[i] if n == 0 and keep else n for i, n in enumerate(target)]
    return inputs[0].reshape(sizes)


def flatten(call: Call, inputs: Sequence[Array]) -> Array:
    axis = int(call.attribute("axis", 1))
    return inputs[0].reshape(prod(inputs[0].shape[:axis]), -1)


def squeeze(call: Call, inputs: Sequence[Array]) -> Array:
    return np.asarray(np.squeeze(inputs[0], axis=call.ints("axes", 1)))


def unsqueeze(call: Call, inputs: Sequence[Array]) -> Array:
    return np.expand_dims(inputs[0], axis=call.ints("axes", 1) or ())


def cut(call: Call, inputs: Sequence[Array]) -> Array:
    """Slice: starts, ends, axes and steps, as attributes before version 10."""
    starts, ends = call.ints("starts", 1) or (), call.ints("ends", 2) or ()
    axes = call.ints("axes", 3) or tuple(range(len(starts)))
    steps = call.ints("steps", 4) or (1,) * len(starts)
    where: list[Any] = [slice(None)] * inputs[0].ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        lowest = step < 0 and end < -inputs[0].shape[axis]
        where[axis] = slice(start, None if lowest else end, step)
    return np.asarray(inputs[0][tuple(where)])


def gather(call: Call, inputs: Sequence[Array]) -> Array:
    return np.take(inputs[0], inputs[1], axis=int(call.attribute("axis", 0)))


def divide(call: Call, inputs: Sequence[Array]) -> Array:
    a, b = inputs
    if a.dtype.kind in "iu" and b.dtype.kind in "iu":
        if (b == 0).any():
            raise ValueError("a division by 0")
        return np.trunc(a / b).astype(a.dtype)
    return np.asarray(a / b)


def reduced(how: Callable[..., Any]) -> Fold:
    def fold(call: Call, inputs: Sequence[Array]) -> Array:
        axes = call.ints("axes", 1)
        if not axes and call.attribute("noop_with_empty_axes", 0):
            return inputs[0]
        keep = bool(call.attribute("keepdims", 1))
        return np.asarray(how(inputs[0], axis=axes or None, keepdims=keep), inputs[0].dtype)

    return fold


def length(x: Array, axis: Any, keepdims: bool) -> Any:
    return np.sqrt(np.square(x).sum(axis=axis, keepdims=keepdims))


def shape(call: Call, inputs: Sequence[Array]) -> Array:
    sizes = inputs[0].shape
    return np.array(sizes[call.attribute("start", 0) : call.attribute("end", None)], np.int64)


TABLE: dict[str, Fold] = {
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "Identity": lambda call, x: x[0],
    "Dropout": lambda call, x: x[0],
    "Cast": cast,
    "Shape": shape,
    "Size": lambda call, x: np.asarray(x[0].size),
    "Reshape": reshape,
    "Flatten": flatten,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Slice": cut,
    "Gather": gather,
    "Transpose": lambda call, x: x[0].transpose(call.ints("perm")),
    "Concat": lambda call, x: np.concatenate(x, axis=int(call.attribute("axis", 0))),
    "Expand": lambda call, x: x[0] * np.ones(tuple(map(int, x[1])), x[0].dtype),
    "Add": lambda call, x: x[0] + x[1],
    "Sub": lambda call, x: x[0] - x[1],
    "Mul": lambda call, x: x[0] * x[1],
    "Div": divide,
    "Pow": lambda call, x: x[0] ** x[1],
    "Equal": lambda call, x: x[0] == x[1],
    "Where": lambda call, x: np.where(x[0], x[1], x[2]),
    "Neg": lambda call, x: -x[0],
    "Abs": lambda call, x: np.abs(x[0]),
    "Sqrt": lambda call, x: np.sqrt(x[0]),
    "Exp": lambda call, x: np.exp(x[0]),
    "Reciprocal": lambda call, x: 1 / x[0],
    "Floor": lambda call, x: np.floor(x[0]),
    "Ceil": lambda call, x: np.ceil(x[0]),
    "Mod": lambda call, x: (np.fmod if call.attribute("fmod", 0) else np.mod)(x[0], x[1]),
    "Max": lambda call, x: reduce(np.maximum, x),
    "Min": lambda call, x: reduce(np.minimum, x),
    "ReduceProd": reduced(np.prod),
    "ReduceSum": reduced(np.sum),
    "ReduceMean": reduced(np.mean),
    "ReduceMax": reduced(np.max),
    "ReduceMin": reduced(np.min),
    "ReduceL2": reduced(length),
}
