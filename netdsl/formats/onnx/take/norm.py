"""Normalisations."""

from __future__ import annotations

from math import prod

import numpy as np

from netdsl.formats.onnx.call import Call, Value
from netdsl.formats.onnx.faults import Unsupported
from netdsl.formats.onnx.step import Array, Tensor
from netdsl.formats.onnx.view import Atom, N, View
from netdsl.ops import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, LocalResponseNorm


def batch_norm(call: Call) -> Value:
    trains = call.attribute("training_mode", 0)
    if call.version < 7:
        trains = not call.attribute("is_test", 0)
    if trains or call.uses > 1:
        raise Unsupported("it is in training mode")
    if not call.attribute("spatial", 1):
        raise Unsupported("it normalises each position apart (spatial=0)")
    x = call.plain()
    names = ("weight", "bias", "mean", "var")
    params = {n: call.parameter(i, n, x.shape[:1]) for i, n in enumerate(names, 1)}
    # ONNX's momentum is what is kept, ours what is added.
    momentum = round(1 - call.number("momentum", 0.9), 9)
    return call.step(BatchNorm(call.number("epsilon", 1e-5), True, momentum), x, **params)


def instance_norm(call: Call) -> Value:
    x, eps = call.tensor(), call.number("epsilon", 1e-5)
    groups = _grouped(x)
    if groups is not None:
        return _ungrouped_scale(call, x, groups, eps)
    step = call.plain()
    params = _affine(call, step.shape[0])
    return call.step(InstanceNorm(eps, True), step, **params)


def _grouped(x: Tensor) -> int | None:
    """How many groups of channels (N, groups, rest) makes of a step's (N, C, *spatial)."""
    step, groups = x.step, x.view.groups
    if len(step.shape) < 2 or len(groups) < 3 or groups[0] != (N,) or len(groups[1]) != 1:
        return None
    first = groups[1][0]
    if first.axis != 1 or first.size == step.shape[0] or first.stride * first.size != step.shape[0]:
        return None
    inner = (Atom(1, 1, first.stride), *View.of(step.shape, None).atoms[2:])
    return first.size if tuple(a for g in groups[2:] for a in g) == inner else None


def _ungrouped_scale(call: Call, x: Tensor, groups: int, eps: float) -> Value:
    """A group norm, as exporters wrote it before ONNX had one: an instance norm of the groups."""
    params = _affine(call, groups)
    if (params["weight"] == 1).all() and (params["bias"] == 0).all():
        return Tensor(call.new(GroupNorm(eps, False, groups), x.step), x.view)
    each = x.step.shape[0] // groups
    params = {name: np.repeat(values, each) for name, values in params.items()}
    return Tensor(call.new(GroupNorm(eps, True, groups), x.step, params=params), x.view)


def _affine(call: Call, count: int) -> dict[str, Array]:
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
    if groups == 1:
        return call.step(LayerNorm(eps, True), x, **params)
    return call.step(GroupNorm(eps, True, groups), x, **params)


def layer_norm(call: Call) -> Value:
    x = call.tensor()
    if call.axis("axis", -1, len(x.view.groups)) != 1:
        raise Unsupported("it normalises over other axes than channels and space")
    step = call.plain()
    params = {"weight": _by_channel(call, 1, "scale", step.shape)}
    params["bias"] = (
        _by_channel(call, 2, "bias", step.shape) if call.given(2) else 0 * params["weight"]
    )
    return call.step(LayerNorm(call.number("epsilon", 1e-5), True), step, **params)


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
    return call.step(op, call.plain())


TAKE = {
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "GroupNormalization": group_norm,
    "LayerNormalization": layer_norm,
    "LRN": local_response_norm,
}
