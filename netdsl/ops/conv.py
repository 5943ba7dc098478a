"""Convolution, depthwise and transposed convolution, in 1D, 2D and 3D (lecture 7)."""

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
    Pair,
    Parameter,
    Setting,
    Shape,
    Spelling,
    ratio,
    show,
    spell,
)
from netdsl.ops.window import (
    LARGEST,
    Window,
    kernel_axes,
    pad_end,
    pads,
    positive,
    spatial_axes,
    window,
    window_options,
)

FILTERS = Setting("filters", "int", None, positional=True, low=1, high=LARGEST)
BIAS = Setting("bias", "bool", True)
PAD_END = Setting("pad_end", "size")


def filters(bound: Bound, channels: int) -> int:
    """The number of filters; left out, the channels that come in times the width factor."""
    given = bound.settings["filters"]
    if isinstance(given, int):
        return given
    count = channels * bound.width
    if count.denominator != 1 or count < 1:
        raise OpFault(
            "uneven-width",
            f"{channels} channels times {bound.width} is not a whole number of filters",
            help="halve only an even number of channels, or give the number of filters",
            part="head",
        )
    return int(count)


def groups_fit(channels: int, count: int, groups: int) -> None:
    """Channels and filters must both divide by the groups. Raises OpFault."""
    for number, what in ((channels, "input channels"), (count, "filters")):
        if number % groups:
            raise OpFault(
                "uneven-groups",
                f"{number} {what} do not divide into {groups} groups",
                part="g",
            )


@dataclass(frozen=True)
class Conv(Op):
    """A convolution: (C, *spatial) -> (filters, *output).

    Weight (filters, C/groups, *kernel), bias (filters). `depthwise` only says how it is spelled.
    """

    filters: int
    window: Window
    groups: int = 1
    bias: bool = True
    depthwise: bool = False

    heads: ClassVar = ("conv", "dwconv")
    spelling: ClassVar = Spelling(
        kernel="axes",
        required=True,
        options=frozenset({"s", "p", "d", "g", "same"}),
        settings=(FILTERS, BIAS, PAD_END),
    )
    gradient: ClassVar = Gradient(frozenset({"input"}))
    doc: ClassVar = "convolution; dwconv is depthwise, a filter a channel"

    @property
    def head(self) -> str:
        return "dwconv" if self.depthwise else "conv"

    @classmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> Conv:
        w = window(bound, inputs, stride_is_kernel=False)
        channels = inputs[0][0]
        count = filters(bound, channels)
        groups = group_count(bound, channels)
        groups_fit(channels, count, groups)
        return cls(count, w, groups, bound.flag("bias"), bound.head == "dwconv")

    def output(self, inputs: tuple[Shape, ...]) -> Shape:
        return (self.filters, *self.window.output(spatial_axes(self.head, inputs[0])))

    def parameters(self, inputs: tuple[Shape, ...]) -> tuple[Parameter, ...]:
        inside = inputs[0][0] // self.groups
        area = prod(self.window.kernel)
        fan_in, fan_out = inside * area, self.filters // self.groups * area
        shape = (self.filters, inside, *self.window.kernel)
        weight = Parameter("weight", shape, "weight", "he", fan_in, fan_out)
        return (weight, *biases(self.bias, self.filters))

    def counts(self, inputs: tuple[Shape, ...]) -> Counts:
        outputs = prod(self.output(inputs))
        each = inputs[0][0] // self.groups * prod(self.window.kernel)
        return Counts(macs=outputs * each, bias=outputs if self.bias else 0)

    def field(self, inputs: tuple[Shape, ...]) -> Field:
        return Field(self.window.extent, tuple(map(ratio, self.window.stride)))

    def word(self) -> str:
        options = window_options(self.window, stride=(1,) * len(self.window.kernel))
        if self.groups != 1 and not self.depthwise:
            options["g"] = (self.groups,)
        settings = pad_end(self.window) | ({} if self.bias else {"bias": False})
        return spell(
            self.head,
            kernel=self.window.kernel,
            options=options,
            positional=(self.filters,),
            settings=settings,
        )


def biases(present: bool, count: int) -> tuple[Parameter, ...]:
    """A bias of `count` zeros, or none."""
    return (Parameter("bias", (count,), "bias", 0.0),) if present else ()


def group_count(bound: Bound, channels: int) -> int:
    """The groups of a word: gN, or a group a channel for dwconv."""
    if bound.head != "dwconv":
        return single(bound, "g")
    if "g" in bound.options:
        raise OpFault(
            "unknown-option", "dwconv has a group a channel already", help="leave gN out", part="g"
        )
    return channels


def single(bound: Bound, option: str) -> int:
    """An option that takes one number, not one per axis."""
    values = positive(bound.options.get(option, (1,)), "groups", option)
    if len(values) != 1:
        raise OpFault("wrong-rank", f"groups take one number, not {show(values)}", part=option)
    return values[0]


@dataclass(frozen=True)
class ConvTranspose(Op):
    """A transposed convolution: (C, *spatial) -> (filters, *output).

    Output size (W - 1)S - before - after + D(K-1) + 1 + out_pad per axis. Weight
    (C, filters/groups, *kernel), PyTorch's layout; bias (filters).
    """

    filters: int
    window: Window
    out_pad: tuple[int, ...]
    groups: int = 1
    bias: bool = True

    heads: ClassVar = ("tconv",)
    spelling: ClassVar = Spelling(
        kernel="axes",
        required=True,
        options=frozenset({"s", "p", "d", "g", "same"}),
        settings=(FILTERS, BIAS, Setting("out_pad", "size"), PAD_END),
    )
    gradient: ClassVar = Gradient(frozenset({"input"}))
    doc: ClassVar = "transposed convolution, the one that enlarges"

    @classmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> ConvTranspose:
        rank = len(spatial_axes(bound.head, inputs[0]))
        kernel = kernel_axes(bound, rank)
        stride = positive(bound.axes("s", rank, 1), "stride", "s")
        dilation = positive(bound.axes("d", rank, 1), "dilation", "d")
        out_pad = bound.size("out_pad", rank) or (0,) * rank
        if "same" in bound.options:
            padding, out_pad = _same(kernel, stride, dilation)
        else:
            padding = pads(bound, rank)
        _out_pad_fits(out_pad, stride, dilation)
        channels, groups = inputs[0][0], single(bound, "g")
        count = filters(bound, channels)
        groups_fit(channels, count, groups)
        w = Window(kernel, stride, padding, dilation)
        return cls(count, w, out_pad, groups, bound.flag("bias"))

    def output(self, inputs: tuple[Shape, ...]) -> Shape:
        spatial = spatial_axes(self.head, inputs[0])
        w = self.window
        sizes = tuple(
            (size - 1) * w.stride[i] - sum(w.padding[i]) + w.extent[i] + self.out_pad[i]
            for i, size in enumerate(spatial)
        )
        if min(sizes) < 1:
            raise OpFault(
                "kernel-too-large",
                f"the padding leaves nothing of the output: {show(spatial)} becomes {show(sizes)}",
                part="p",
            )
        return (self.filters, *sizes)

    def parameters(self, inputs: tuple[Shape, ...]) -> tuple[Parameter, ...]:
        channels, each = inputs[0][0], self.filters // self.groups
        area = prod(self.window.kernel)
        shape = (channels, each, *self.window.kernel)
        fan_in = channels // self.groups * area // max(prod(self.window.stride), 1)
        weight = Parameter("weight", shape, "weight", "he", max(fan_in, 1), each * area)
        return (weight, *biases(self.bias, self.filters))

    def counts(self, inputs: tuple[Shape, ...]) -> Counts:
        each = self.filters // self.groups * prod(self.window.kernel)
        bias = prod(self.output(inputs)) if self.bias else 0
        return Counts(macs=prod(inputs[0]) * each, bias=bias)

    def field(self, inputs: tuple[Shape, ...]) -> Field:
        w = self.window
        extent = tuple(-(-e // s) for e, s in zip(w.extent, w.stride, strict=True))
        return Field(extent, tuple(ratio(1, s) for s in w.stride))

    def word(self) -> str:
        rank = len(self.window.kernel)
        options = window_options(self.window, stride=(1,) * rank)
        if self.groups != 1:
            options["g"] = (self.groups,)
        settings = pad_end(self.window) | ({} if self.bias else {"bias": False})
        if any(self.out_pad):
            even = len(set(self.out_pad)) == 1
            settings["out_pad"] = self.out_pad[0] if even else self.out_pad
        return spell(
            self.head,
            kernel=self.window.kernel,
            options=options,
            positional=(self.filters,),
            settings=settings,
        )


def _same(
    kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[Pair, ...], tuple[int, ...]]:
    """Padding and output padding for an output of input x stride."""
    padding, extra = [], []
    for k, s, d in zip(kernel, stride, dilation, strict=True):
        total = d * (k - 1) + 1 - s
        padding.append((max(total, 0) // 2, max(total, 0) - max(total, 0) // 2))
        extra.append(max(-total, 0))
    return tuple(padding), tuple(extra)


def _out_pad_fits(
    out_pad: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> None:
    for value, s, d in zip(out_pad, stride, dilation, strict=True):
        if not 0 <= value < max(s, d):
            raise OpFault(
                "out-of-range",
                f"out_pad {value} must be 0 or more and below the stride {s} or dilation {d}",
                part="setting:out_pad",
            )
