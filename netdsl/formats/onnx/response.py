"""Local response normalisation as PyTorch's exporters write it, in eight nodes.

x / (k + alpha mean of squares over neighbouring channels)^beta: the mean is a pool over an axis
that the channels have become by a reshape to (N, 1, C, *spatial), after zeros were padded beside
them.
"""

from __future__ import annotations

from collections.abc import Sequence

from netdsl.formats.onnx import patterns
from netdsl.formats.onnx.call import Call, decimal
from netdsl.formats.onnx.faults import Unsupported
from netdsl.formats.onnx.step import SQUARE, Formula, Step, Tensor
from netdsl.formats.onnx.view import N, View
from netdsl.frozen import dataclass
from netdsl.ops import LocalResponseNorm, Shape
from netdsl.ops.base import Pair


@dataclass(frozen=True)
class Widened(Formula):
    """Zeros beside the channels."""

    text: str = "padding of channels"
    beside: Pair = (0, 0)

    def output(self, inputs: tuple[Shape, ...]) -> Shape:
        return (inputs[0][0] + sum(self.beside), *inputs[0][1:])


@dataclass(frozen=True)
class ChannelMean(Formula):
    """The mean over each channel and its neighbours, so many below and above."""

    text: str = "mean over neighbouring channels"
    beside: Pair = (0, 0)


@dataclass(frozen=True)
class Power(Formula):
    text: str = "power of any exponent"
    exponent: float = 1.0


def lies_apart(x: Tensor) -> bool:
    """Whether a tensor is its step's result with an axis of 1 before the channels."""
    return x.view.groups == _apart(x.step, None).groups


def _apart(step: Step, batch: int | None) -> View:
    own = View.of(step.shape, batch).groups
    return View(((N,), (), *own[1:]), batch)


def widened(call: Call, x: Tensor, pads: Sequence[Pair]) -> Tensor:
    """Zeros beside the channels of (N, 1, C, *spatial). Raises Unsupported for other padding."""
    if any(pair != (0, 0) for i, pair in enumerate(pads) if i != 2):
        raise Unsupported("it pads the batch or the channels")
    step = call.new(Widened(beside=pads[2]), x.step)
    return Tensor(step, _apart(step, call.batch))


def channel_mean(call: Call, x: Tensor, kernel: Shape) -> Tensor | None:
    """The average pool of such a tensor over its channels alone; None for any other."""
    strides, pads = call.ints("strides") or (1,), call.ints("pads") or (0,)
    simple = set(strides) == {1} and set(pads) == {0}
    if not isinstance(x.step.op, Widened) or not lies_apart(x) or not simple:
        return None
    beside = x.step.op.beside
    if kernel[0] != sum(beside) + 1 or set(kernel[1:]) != {1}:
        return None
    step = call.new(ChannelMean(beside=beside), x.step.inputs[0])
    return Tensor(step, _apart(step, call.batch))


def power(call: Call, x: Tensor, exponent: float) -> Tensor:
    return Tensor(call.new(Power(exponent=decimal(exponent)), x.step), x.view)


def normalised(x: Step, divisor: Step) -> LocalResponseNorm | None:
    """The norm that x / divisor is."""
    if not isinstance(divisor.op, Power):
        return None
    found = patterns.numbers(divisor.inputs[0])
    if found is None or not isinstance(found[2].op, ChannelMean):
        return None
    alpha, k, mean = found
    squares = mean.inputs[0]
    if squares.op != SQUARE or squares.inputs[0] is not x:
        return None
    assert isinstance(mean.op, ChannelMean)
    op = LocalResponseNorm(sum(mean.op.beside) + 1, decimal(alpha), divisor.op.exponent, decimal(k))
    return op if op.reach == mean.op.beside else None
