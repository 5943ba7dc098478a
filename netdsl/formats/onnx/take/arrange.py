"""Operators that move values about: padding, resizing, reshapes and transposes."""

from __future__ import annotations

from fractions import Fraction
from math import prod

import numpy as np

from netdsl.formats.onnx import response
from netdsl.formats.onnx.call import Call, Value
from netdsl.formats.onnx.faults import Unsupported
from netdsl.formats.onnx.step import (
    Array,
    Step,
    Stretched,
    Tensor,
    axes,
    is_flat,
    ordered,
    plain,
    shuffle_groups,
    tensor,
)
from netdsl.formats.onnx.view import BATCH, View, constant, shown
from netdsl.ops import AdaptiveAveragePool, Pad, Shape, Upsample
from netdsl.ops.base import Pair


def identity(call: Call) -> Value:
    return call.tensor()


def cast(call: Call) -> Value:
    from onnx import TensorProto

    floats = (
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
        TensorProto.DOUBLE,
        TensorProto.BFLOAT16,
    )
    if call.attribute("to", 0) not in floats:
        raise Unsupported("it rounds the data to another type")
    return call.tensor()


def cast_like(call: Call) -> Value:
    """As functions write their constants; a tensor stays what it is."""
    value = call.inputs[0] if call.inputs else None
    if value is None:
        raise Unsupported("it has no input")
    return value


def shape(call: Call) -> Value:
    sizes = call.tensor().view.stated
    return constant(sizes[call.attribute("start", 0) : call.attribute("end", len(sizes))])


def reshape(call: Call) -> Value:
    target = call.ints("shape", 1)
    if target is None:
        raise Unsupported("it has no shape")
    if call.attribute("allowzero", 0) and 0 in target:
        raise Unsupported("it makes an empty tensor")
    return _viewed(call, list(target))


def flatten(call: Call) -> Value:
    sizes = call.tensor().view.sizes
    axis = int(call.attribute("axis", 1))
    axis = axis + len(sizes) if axis < 0 else axis
    return _viewed(call, [prod(sizes[:axis]), prod(sizes[axis:])])


def _viewed(call: Call, target: list[int]) -> Value:
    x = call.tensor()
    return settled(call, Tensor(x.step, x.view.reshaped(target)))


def settled(call: Call, x: Tensor) -> Tensor:
    """A view that is a flatten or a shuffle becomes one where the model says so, not where it is
    read.

    A flatten that our own writer put before a fully connected layer stays part of that layer.
    """
    flat = not call.part and is_flat(x) and len(x.step.shape) > 1
    if not flat and not shuffle_groups(x):
        return x
    step = plain(x)
    step.origin = step.origin or call.name
    return tensor(step, call.batch)


def squeeze(call: Call) -> Value:
    x = call.tensor()
    dropped = call.ints("axes", 1)
    if dropped is None:
        dropped = tuple(i for i, g in enumerate(x.view.groups) if not g)
    return settled(call, Tensor(x.step, x.view.squeezed(dropped)))


def unsqueeze(call: Call) -> Value:
    x = call.tensor()
    return Tensor(x.step, x.view.unsqueezed(call.ints("axes", 1) or ()))


def expand(call: Call) -> Value:
    """Repeats axes of size 1: left to the product that reads it."""
    x = call.tensor()
    target = call.ints("shape", 1) or ()
    sizes = x.view.stated
    if len(target) < len(sizes):
        target = (1,) * (len(sizes) - len(target)) + target
    if target[:1] in ((1,), sizes[:1]) and all(
        t in (1, s) for t, s in zip(target, sizes, strict=False)
    ):
        return x
    if axes(x) is None:
        x = tensor(plain(x), call.batch)
    order = axes(x)
    if order is None or len(target) != len(sizes) or target[0] not in (1, sizes[0]):
        raise Unsupported("it stretches a tensor to another rank or batch")
    shape = list(x.step.shape)
    for axis, size in zip(order[1:], target[1:], strict=True):
        if size != 1 and shape[axis - 1] not in (1, size):
            raise Unsupported(f"it stretches {shown(sizes)} to {shown(list(target))}")
        shape[axis - 1] = max(size, shape[axis - 1])
    step = call.new(Stretched(shape=tuple(shape)), x.step)
    return Tensor(step, View.of(step.shape, call.batch).transposed(order))


def transpose(call: Call) -> Value:
    x = call.tensor()
    order = call.ints("perm") or tuple(reversed(range(len(x.view.groups))))
    return Tensor(x.step, x.view.transposed(order))


def pad(call: Call) -> Value:
    rank = len(call.tensor().view.groups)
    mode = call.attribute("mode", "constant")
    if mode not in ("constant", "reflect", "edge"):
        raise Unsupported(f"the language has no padding by {mode!r}")
    amounts = call.ints("pads" if call.version >= 2 else "paddings", 1)
    if amounts is None:
        raise Unsupported("it has no pads")
    padded = call.ints("axes", 3) or tuple(range(rank))
    if len(amounts) != 2 * len(padded):
        raise Unsupported(f"its pads {list(amounts)} are not two for each of {len(padded)} axes")
    both = [(0, 0)] * rank
    for i, axis in enumerate(padded):
        both[axis % rank] = (amounts[i], amounts[i + len(padded)])
    if not any(map(any, both)):
        return call.tensor()
    if response.lies_apart(call.tensor()) and mode == "constant":
        return response.widened(call, call.tensor(), both)
    order = axes(call.tensor())
    own = [both[order.index(i)] for i in range(rank)] if order else both
    if order is None or own[0] != (0, 0) or own[1] != (0, 0):
        x, own, order = call.plain(), both, None
    else:
        x = call.tensor().step
    if own[0] != (0, 0) or own[1] != (0, 0):
        raise Unsupported("it pads the batch or the channels")
    value = call.scalar(2, "value", call.number("value", 0.0)) if mode == "constant" else 0.0
    amount: tuple[Pair, ...] = tuple(own[2:])
    return ordered(call.new(Pad(amount, mode, value), x), order, call.batch)


def upsample(call: Call) -> Value:
    """Upsample, which Resize replaced: cell i reads cell floor(i / scale)."""
    if call.attribute("mode", "nearest") != "nearest":
        raise Unsupported("its interpolation does not keep the cells' centres")
    scales = call.attribute("scales", None)
    values = call.constant(1, "scales") if scales is None else np.asarray(scales)
    return _enlarged(call, call.plain(), tuple(map(float, values.reshape(-1))), "nearest")


def resize(call: Call) -> Value:
    x = call.plain()
    mode = _interpolation(call)
    rank = len(x.shape) + 1
    chosen = tuple(a % rank for a in call.ints("axes") or range(rank))
    at = 1 if call.version < 11 else 2
    given = call.optional(at, "scales")
    scales = [1.0] * rank
    if given is not None and given.size:
        if given.size != len(chosen):
            raise Unsupported("its scales are not one an axis")
        for axis, scale in zip(chosen, given.reshape(-1), strict=True):
            scales[axis] = float(scale)
    else:
        sizes = call.constant(3, "sizes").reshape(-1)
        if sizes.size != len(chosen):
            raise Unsupported("its sizes are not one an axis")
        old = (call.batch or BATCH, *x.shape)
        policy = call.attribute("keep_aspect_ratio_policy", "stretch")
        ratios = [Fraction(int(n), old[axis]) for axis, n in zip(chosen, sizes, strict=True)]
        if policy != "stretch":
            choose = min if policy == "not_larger" else max
            ratios = [choose(ratios)] * len(ratios)
        for axis, ratio in zip(chosen, ratios, strict=True):
            scales[axis] = float(ratio) if ratio != BATCH else 1.0
    return _enlarged(call, x, tuple(scales), mode)


def _interpolation(call: Call) -> str:
    """ "nearest" or "bilinear" where the node's rule for coordinates gives what ours gives."""
    mode = call.attribute("mode", "nearest")
    if call.version < 11:
        if mode != "nearest":
            raise Unsupported("its interpolation does not keep the cells' centres")
        return "nearest"
    where = call.attribute("coordinate_transformation_mode", "half_pixel")
    centres = where in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric")
    rounding = call.attribute("nearest_mode", "round_prefer_floor")
    if mode == "linear" and centres:
        return "bilinear"
    if mode == "nearest" and centres and rounding.startswith("round"):
        return "nearest"
    if mode == "nearest" and where == "asymmetric" and rounding == "floor":
        return "nearest"
    raise Unsupported(f"its {mode} interpolation by {where} ({rounding}) is not the language's")


def _enlarged(call: Call, x: Step, scales: tuple[float, ...], mode: str) -> Value:
    if len(scales) != len(x.shape) + 1 or scales[:2] != (1.0, 1.0):
        raise Unsupported("it resizes the batch or the channels")
    factor: Shape = tuple(round(s) for s in scales[2:])
    if factor != scales[2:] or min(factor, default=0) < 1:
        said = ", ".join(f"{s:g}" for s in scales[2:])
        raise Unsupported(f"it scales by {said}; the language enlarges by whole factors")
    return call.step(Upsample(factor, mode), x)


def einsum(call: Call) -> Value:
    """The adaptive pool, as our writer spells it: a matrix of means for each spatial axis."""
    x = call.plain()
    matrices = [call.constant(i, "matrix") for i in range(1, len(call.inputs))]
    if call.attribute("equation", "") != equation(len(x.shape) - 1):
        raise Unsupported("it is no adaptive pool")
    op = AdaptiveAveragePool(tuple(len(m) for m in matrices))
    sizes = tuple(m.shape[1] if m.ndim == 2 else 0 for m in matrices)
    if sizes != x.shape[1:]:
        raise Unsupported("it is no adaptive pool")
    for found, wanted in zip(matrices, means(op, x.shape[1:]), strict=True):
        if not np.allclose(found, wanted, rtol=1e-6, atol=1e-9):
            raise Unsupported("it is no adaptive pool")
    return call.step(op, x)


def equation(rank: int) -> str:
    """The sum over spatial axes d, h, w, each with a matrix: nchw,ah,bw->ncab."""
    inner, outer = "xyz"[:rank], "abd"[:rank]
    matrices = ",".join(o + i for o, i in zip(outer, inner, strict=True))
    return f"nc{inner},{matrices}->nc{outer}"


def means(op: AdaptiveAveragePool, spatial: Shape) -> list[Array]:
    """For each spatial axis the matrix (to, size) that takes the means of its windows."""
    found = []
    for size, windows in zip(spatial, op.windows(spatial), strict=True):
        matrix = np.zeros((len(windows), size), np.float32)
        for i, (start, end) in enumerate(windows):
            matrix[i, start:end] = 1 / (end - start)
        found.append(matrix)
    return found


TAKE = {
    "Identity": identity,
    "Cast": cast,
    "CastLike": cast_like,
    "Shape": shape,
    "Reshape": reshape,
    "Flatten": flatten,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Transpose": transpose,
    "Pad": pad,
    "Upsample": upsample,
    "Resize": resize,
    "Einsum": einsum,
    "Expand": expand,
}
