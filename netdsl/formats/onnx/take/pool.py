"""Pools, and means and maxima over whole axes."""

from __future__ import annotations

from collections.abc import Callable

from netdsl.formats.onnx.call import Call, Value
from netdsl.formats.onnx.faults import Unsupported
from netdsl.formats.onnx.step import MEAN, Step, Tensor, axes, tensor
from netdsl.formats.onnx.take.windows import window
from netdsl.ops import AveragePool, GlobalAverage, GlobalMax, MaxPool, Op, Window


def max_pool(call: Call) -> Value:
    x, w = _window(call)
    return call.step(MaxPool(w), x)


def average_pool(call: Call) -> Value:
    x, w = _window(call)
    return call.step(AveragePool(w, bool(call.attribute("count_include_pad", 0))), x)


def _window(call: Call) -> tuple[Step, Window]:
    kernel = call.ints("kernel_shape")
    if not kernel:
        raise Unsupported("it has no kernel_shape")
    x = call.plain(rank=len(kernel) + 1)
    w = window(call, kernel, x.shape[1:], ceil=bool(call.attribute("ceil_mode", 0)))
    for extent, pair in zip(w.extent, w.padding, strict=True):
        if max(pair) >= extent:
            raise Unsupported(f"its padding {max(pair)} is as wide as its kernel {extent}")
    return x, w


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
    order = axes(x)
    if order is None:
        raise Unsupported("its input is rearranged as the language cannot say")
    inner = {order[a] for a in chosen}
    rest = set(range(1, len(x.step.shape) + 1)) - {
        i for i, n in enumerate(x.step.shape, 1) if n == 1
    }
    if isinstance(every, GlobalAverage) and 0 not in inner and rest <= inner and 1 in inner:
        return Tensor(call.new(MEAN, x.step), x.view)  # a part of a layer norm, or nothing we know
    if not inner or min(inner) < 2:
        raise Unsupported("it reduces the batch or the channels, not space alone")
    spatial = x.step.shape[1:]
    if len(inner) == len(spatial):
        step = call.new(every, x.step)
    else:
        kernel = tuple(n if i in inner else 1 for i, n in enumerate(spatial, 2))
        ones = (1,) * len(kernel)
        step = call.new(some(Window(kernel, kernel, ((0, 0),) * len(kernel), ones)), x.step)
    result = tensor(step, call.batch)
    view = result.view.transposed(order)
    if not call.attribute("keepdims", 1):
        view = view.squeezed(tuple(chosen))
    return Tensor(step, view)


TAKE = {
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": whole(GlobalAverage()),
    "GlobalMaxPool": whole(GlobalMax()),
    "ReduceMean": mean,
    "ReduceMax": largest,
}
