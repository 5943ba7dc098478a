"""Pools, and means and maxima over whole axes."""

from __future__ import annotations

from collections.abc import Callable

from netdsl.formats.onnx import response
from netdsl.formats.onnx.call import Call, Value
from netdsl.formats.onnx.faults import Unsupported
from netdsl.formats.onnx.step import MEAN, Step, Tensor
from netdsl.formats.onnx.take.windows import window
from netdsl.formats.onnx.view import View
from netdsl.ops import AveragePool, GlobalAverage, GlobalMax, MaxPool, Op, Shape, Window


def max_pool(call: Call) -> Value:
    x, w = _window(call)
    return call.step(MaxPool(w), x)


def average_pool(call: Call) -> Value:
    mean = response.channel_mean(call, call.tensor(), call.ints("kernel_shape") or (0,))
    if mean is not None:
        return mean
    x, w = _window(call)
    return call.step(AveragePool(w, bool(call.attribute("count_include_pad", 0))), x)


def _window(call: Call) -> tuple[Step, Window]:
    kernel = call.ints("kernel_shape")
    if not kernel:
        raise Unsupported("it has no kernel_shape")
    x = call.plain(rank=len(kernel) + 1)
    w = window(call, kernel, x.shape[1:], ceil=bool(call.attribute("ceil_mode", 0)))
    w = _reached(w, x.shape[1:])
    for extent, pair in zip(w.extent, w.padding, strict=True):
        if max(pair) >= extent:
            raise Unsupported(f"its padding {max(pair)} is as wide as its kernel {extent}")
    return x, w


def _reached(w: Window, spatial: Shape) -> Window:
    """A window without the end padding that none of its places reaches, where that is absurdly
    wide: before pools had ceil_mode, exporters padded to the same effect."""
    padding = list(w.padding)
    for i, (size, extent, stride) in enumerate(zip(spatial, w.extent, w.stride, strict=True)):
        before, after = padding[i]
        room = size + before + after - extent
        if after >= extent and room >= 0:
            padding[i] = (before, max(0, room // stride * stride + extent - size - before))
    return w._replace(padding=tuple(padding))


def whole(op: Op) -> Callable[[Call], Value]:
    """A pool of every spatial axis."""

    def take(call: Call) -> Value:
        return call.step(op, call.plain())

    return take


def mean(call: Call) -> Value:
    return _reduced(call, GlobalAverage(), lambda w: AveragePool(w))


def largest(call: Call) -> Value:
    return _reduced(call, GlobalMax(), lambda w: MaxPool(w))


def _reduced(call: Call, every: Op, some: Callable[[Window], Op]) -> Value:
    """A reduction over all spatial axes is a global pool, over some a pool as long as they are."""
    x = call.tensor()
    rank = len(x.view.groups)
    given = call.ints("axes", 1)
    if not given and call.attribute("noop_with_empty_axes", 0):
        return x
    chosen = {a % rank for a in given} if given else set(range(rank))
    own = View.of(x.step.shape, None).groups
    whole = {group: i for i, group in enumerate(own) if group}
    reduced = [atom for a in chosen for atom in x.view.groups[a]]
    inner = {axis for group, axis in whole.items() if set(group) <= set(reduced)}
    if len(reduced) != len(inner):
        raise Unsupported("its input is rearranged as the language cannot say")
    rest = set(whole.values()) - inner
    if isinstance(every, GlobalAverage) and rest == {0} and 1 in inner:
        return Tensor(call.new(MEAN, x.step), x.view)  # a part of a layer norm, or nothing we know
    if inner and min(inner) < 2:
        raise Unsupported("it reduces the batch or the channels, not space alone")
    step = x.step
    if inner and max(rest, default=0) < 2:
        step = call.new(every, x.step)
    elif inner:
        kernel = tuple(n if i in inner else 1 for i, n in enumerate(x.step.shape[1:], 2))
        ones = (1,) * len(kernel)
        step = call.new(some(Window(kernel, kernel, ((0, 0),) * len(kernel), ones)), x.step)
    groups = [() if i in chosen else g for i, g in enumerate(x.view.groups)]
    if not call.attribute("keepdims", 1):
        groups = [g for i, g in enumerate(groups) if i not in chosen]
    return Tensor(step, View(tuple(groups), x.view.batch))


TAKE = {
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": whole(GlobalAverage()),
    "GlobalMaxPool": whole(GlobalMax()),
    "ReduceMean": mean,
    "ReduceMax": largest,
}
