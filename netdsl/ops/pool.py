"""Pooling: max and average windows, adaptive average, and global pools (lectures 7 and 8)."""

from __future__ import annotations

from math import prod
from typing import ClassVar

from netdsl.faults import OpFault
from netdsl.frozen import dataclass
from netdsl.ops.base import (
    Bound,
    Counts,
    Field,
    Gradient,
    Op,
    Setting,
    Shape,
    Spelling,
    ratio,
    spell,
)
from netdsl.ops.window import Window, pad_end, spatial_axes, window, window_options

WINDOW = frozenset({"s", "p", "d", "same", "ceil"})
PAD_END = Setting("pad_end", "size")


def pooled(bound: Bound, inputs: tuple[Shape, ...]) -> Window:
    """A pool's window; padding as wide as the kernel would make windows of nothing but padding."""
    w = window(bound, inputs, stride_is_kernel=True)
    for extent, (lo, hi) in zip(w.extent, w.padding, strict=True):
        if max(lo, hi) >= extent:
            raise OpFault(
                "pool-padding",
                f"padding {max(lo, hi)} must be smaller than the pool's kernel {extent}",
                part="p",
            )
    return w


def window_word(head: str, w: Window, settings: dict[str, object] | None = None) -> str:
    """The word of a windowed pool."""
    return spell(
        head,
        kernel=w.kernel[:1] if len(set(w.kernel)) == 1 else w.kernel,
        options=window_options(w, stride=w.kernel),
        marks=("ceil",) if w.ceil else (),
        settings={**pad_end(w), **(settings or {})},
    )


def window_field(w: Window) -> Field:
    return Field(w.extent, tuple(map(ratio, w.stride)))


@dataclass(frozen=True)
class MaxPool(Op):
    """The largest value of each window: (C, *spatial) -> (C, *output). Pads with -inf."""

    window: Window

    heads: ClassVar = ("maxpool",)
    spelling: ClassVar = Spelling("axes", required=True, options=WINDOW, settings=(PAD_END,))
    gradient: ClassVar = Gradient(frozenset({"input"}))
    doc: ClassVar = "max pooling; the stride is the kernel unless given"

    @classmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> MaxPool:
        return cls(pooled(bound, inputs))

    def output(self, inputs: tuple[Shape, ...]) -> Shape:
        return (inputs[0][0], *self.window.output(spatial_axes(self.head, inputs[0])))

    def counts(self, inputs: tuple[Shape, ...]) -> Counts:
        return Counts(compares=prod(self.output(inputs)) * prod(self.window.kernel))

    def field(self, inputs: tuple[Shape, ...]) -> Field:
        return window_field(self.window)

    def word(self) -> str:
        return window_word(self.head, self.window)


@dataclass(frozen=True)
class AveragePool(Op):
    """The mean of each window: (C, *spatial) -> (C, *output).

    count_pad: padding counts in the divisor (PyTorch's default; ours and ONNX's is no). What a
    ceil window has beyond the padding never counts.
    """

    window: Window
    count_pad: bool = False

    heads: ClassVar = ("avgpool",)
    spelling: ClassVar = Spelling(
        "axes",
        options=WINDOW,
        settings=(Setting("count_pad", "bool", False), Setting("to", "size", low=1), PAD_END),
    )
    doc: ClassVar = "average pooling; avgpool(to=7x7) is adaptive"

    @classmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> Op:
        if bound.settings["to"] is not None:
            return _adaptive(bound, inputs)
        if bound.kernel is None:
            raise OpFault(
                "missing-kernel",
                "avgpool needs a kernel, as in avgpool2, or a size to pool to, as in "
                "avgpool(to=7x7)",
                part="head",
            )
        return cls(pooled(bound, inputs), bound.flag("count_pad"))

    def output(self, inputs: tuple[Shape, ...]) -> Shape:
        return (inputs[0][0], *self.window.output(spatial_axes(self.head, inputs[0])))

    def counts(self, inputs: tuple[Shape, ...]) -> Counts:
        return Counts(adds=prod(self.output(inputs)) * prod(self.window.kernel))

    def field(self, inputs: tuple[Shape, ...]) -> Field:
        return window_field(self.window)

    def word(self) -> str:
        settings: dict[str, object] = {"count_pad": True} if self.count_pad else {}
        return window_word(self.head, self.window, settings)


def _adaptive(bound: Bound, inputs: tuple[Shape, ...]) -> AdaptiveAveragePool:
    if bound.kernel is not None or bound.options:
        raise OpFault(
            "unknown-option",
            "an adaptive pool chooses its own windows: avgpool(to=…) takes no kernel or options",
            part="kernel" if bound.kernel is not None else next(iter(bound.options)),
        )
    size = bound.size("to", len(spatial_axes(bound.head, inputs[0])))
    assert size is not None
    return AdaptiveAveragePool(size)


@dataclass(frozen=True)
class AdaptiveAveragePool(Op):
    """Means over a grid of `to` windows that cover the input: (C, *spatial) -> (C, *to).

    Window i of n on an axis of length L runs from floor(iL/n) to ceil((i+1)L/n) (PyTorch).
    """

    to: tuple[int, ...]

    heads: ClassVar = ("avgpool",)
    doc: ClassVar = "average pooling to a given size"

    @classmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> Op:
        return AveragePool.resolve(bound, inputs)

    def output(self, inputs: tuple[Shape, ...]) -> Shape:
        return (inputs[0][0], *self.to)

    def windows(self, spatial: Shape) -> tuple[tuple[tuple[int, int], ...], ...]:
        """Start and end of every window, per axis."""
        return tuple(
            tuple((i * size // n, -(-(i + 1) * size // n)) for i in range(n))
            for size, n in zip(spatial, self.to, strict=True)
        )

    def counts(self, inputs: tuple[Shape, ...]) -> Counts:
        reads = prod(sum(hi - lo for lo, hi in axis) for axis in self.windows(inputs[0][1:]))
        return Counts(adds=inputs[0][0] * reads)

    def field(self, inputs: tuple[Shape, ...]) -> Field:
        spatial = inputs[0][1:]
        extent = tuple(max(hi - lo for lo, hi in axis) for axis in self.windows(spatial))
        return Field(extent, tuple(ratio(s, n) for s, n in zip(spatial, self.to, strict=True)))

    def word(self) -> str:
        even = len(set(self.to)) == 1
        return spell(self.head, settings={"to": self.to[0] if even else self.to})


@dataclass(frozen=True)
class GlobalAverage(Op):
    """The mean of every channel: (C, *spatial) -> (C, 1, …)."""

    heads: ClassVar = ("gap",)
    doc: ClassVar = "global average pooling: every spatial axis to 1"

    @classmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> Op:
        return cls()

    def output(self, inputs: tuple[Shape, ...]) -> Shape:
        return (inputs[0][0], *(1 for _ in spatial_axes(self.head, inputs[0])))

    def counts(self, inputs: tuple[Shape, ...]) -> Counts:
        return Counts(adds=prod(inputs[0]))

    def field(self, inputs: tuple[Shape, ...]) -> None:
        return None


class GlobalMax(GlobalAverage):
    """The largest value of every channel: (C, *spatial) -> (C, 1, …)."""

    heads: ClassVar = ("gmp",)
    gradient: ClassVar = Gradient(frozenset({"input"}))
    doc: ClassVar = "global max pooling: every spatial axis to 1"

    def counts(self, inputs: tuple[Shape, ...]) -> Counts:
        return Counts(compares=prod(inputs[0]))
