"""Normalisations."""

from __future__ import annotations

from math import prod

import numpy as np

from netdsl.formats.onnx.call import Call, Value
from netdsl.formats.onnx.faults import Unsupported
from netdsl.formats.onnx.step import Array, Tensor, channel_axis
from netdsl.formats.onnx.view import Atom, N, View
from netdsl.ops import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, LocalResponseNorm, Op


def batch_norm(call: Call) -> Value:
    trains = call.attribute("training_mode", 0)
    if call.version < 7:
        trains = not call.attribute("is_test", 0)
    if trains or call.uses > 1:
        raise Unsupported("it is in training mode")
    if not call.attribute("spatial", 1):
        raise Unsupported("it normalises each position apart (spatial=0)")
    x = call.plain()
    params = _affine(call, x.shape[0])
    params["mean"] = call.parameter(3, "mean", x.shape[:1])
    params["var"] = call.parameter(4, "variance", x.shape[:1])
    # ONNX's momentum is what is kept, ours what is added.
    momentum = round(1 - call.number("momentum", 0.9), 9)
    return call.step(
        BatchNorm(call.number("epsilon", 1e-5), 1 not in call.implied, momentum), x, **params
    )


def instance_norm(call: Call) -> Value:
    x, eps = call.tensor(), call.number("epsilon", 1e-5)
    groups = _grouped(x)
    if groups is not None:
        return _ungrouped_scale(call, x, groups, eps)
    step = call.plain()
    params = _affine(call, step.shape[0])
    return call.step(InstanceNorm(eps, bool(params)), step, **params)


def _grouped(x: Tensor) -> int | None:
    """How many groups of channels (N, groups, rest) makes of a step's (N, C, *spatial)."""
    step, groups = x.step, x.view.groups
    own = View.of(step.shape, None)
    if len(step.shape) < 2 or len(groups) < 3 or groups[0] != (N,) or groups == own.groups:
        return None
    channels, spatial = step.shape[0], own.atoms[1 + bool(own.groups[1]) :]
    count = prod(a.size for a in groups[1])
    each = (Atom(1, 1, channels // count),) if channels > count else ()
    fits = not groups[1] or groups[1] == (Atom(1, channels // count, count),)
    rest = tuple(a for g in groups[2:] for a in g)
    return count if fits and channels % count == 0 and rest == (*each, *spatial) else None


def _ungrouped_scale(call: Call, x: Tensor, groups: int, eps: float) -> Value:
    """A group norm, as exporters wrote it before ONNX had one: an instance norm of the groups."""
    params = _affine(call, groups)
    channels = x.step.shape[0]
    if (params["weight"] == 1).all() and (params["bias"] == 0).all():
        params = {}
    params = {name: np.repeat(values, channels // groups) for name, values in params.items()}
    op = _group_norm(groups, eps, bool(params))
    return Tensor(call.new(op, x.step, params=params), x.view)


def _group_norm(groups: int, eps: float, affine: bool) -> Op:
    """One group is a layer norm."""
    if groups == 1:
        return LayerNorm(eps, affine)
    return GroupNorm(eps, affine, groups)


def _affine(call: Call, count: int) -> dict[str, Array]:
    """The scale and shift; none where our own writer only filled them in."""
    if 1 in call.implied:
        return {}
    return {
        "weight": call.parameter(1, "scale", (count,)),
        "bias": call.parameter(2, "bias", (count,)),
    }


def group_norm(call: Call) -> Value:
    x, groups = call.plain(), int(call.attribute("num_groups", 1))
    channels, eps = x.shape[0], call.number("epsilon", 1e-5)
    if groups < 1 or channels % groups:
        raise Unsupported(f"{channels} channels do not divide into {groups} groups")
    params = _affine(call, groups if call.version < 21 else channels)
    if call.version < 21:
        params = {n: np.repeat(values, channels // groups) for n, values in params.items()}
    return call.step(_group_norm(groups, eps, bool(params)), x, **params)


def layer_norm(call: Call) -> Value:
    x = call.tensor()
    if call.axis("axis", -1, len(x.view.groups)) != 1:
        raise Unsupported("it normalises over other axes than channels and space")
    step = call.plain()
    op = LayerNorm(call.number("epsilon", 1e-5), 1 not in call.implied)
    if not op.affine:
        return call.step(op, step)
    weight = _by_channel(call, 1, "scale", step.shape)
    bias = _by_channel(call, 2, "bias", step.shape) if call.given(2) else 0 * weight
    return call.step(op, step, weight=weight, bias=bias)


def _by_channel(call: Call, i: int, what: str, shape: tuple[int, ...]) -> Array:
    """A value for every element that is the same at every position."""
    values = call.parameter(i, what)
    try:
        values = np.broadcast_to(values, shape)
    except ValueError:
        raise Unsupported(f"its {what} has shape {values.shape}, not {shape}") from None
    table = values.reshape(shape[0], prod(shape[1:]))
    if (table != table[:, :1]).any():
        raise Unsupported(f"its {what} differs from position to position")
    return np.ascontiguousarray(table[:, 0])


def local_response_norm(call: Call) -> Value:
    size = int(call.attribute("size", 0))
    if size < 1:
        raise Unsupported("its size is missing or below 1")
    op = LocalResponseNorm(
        size, call.number("alpha", 1e-4), call.number("beta", 0.75), call.number("bias", 1.0)
    )
    x = call.tensor()
    if channel_axis(x) != 1:
        raise Unsupported("it normalises over other axes than the channels")
    return Tensor(call.new(op, x.step), x.view)


TAKE = {
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "GroupNormalization": group_norm,
    "LayerNormalization": layer_norm,
    "LRN": local_response_norm,
}
