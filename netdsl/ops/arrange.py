"""Ops that move values about: enlarging, padding, shuffling channels; and the input itself."""

from __future__ import annotations

from dataclasses import field
from math import prod
from typing import ClassVar, Literal, NamedTuple

from netdsl.faults import OpFault
from netdsl.frozen import dataclass
from netdsl.ops.base import (
    Bound,
    Counts,
    Field,
    Gradient,
    Op,
    Pair,
    Setting,
    Shape,
    Spelling,
    ratio,
    show,
    spell,
)
from netdsl.ops.window import LARGEST, kernel_axes, spatial_axes


class Picture(NamedTuple):
    """How `run` turns a picture into an input: see `input` in the language's page.

    resize: the shorter side in pixels (None: the input's size); then the centre is cut out,
    channels put in `order`, and (pixel / scale - mean) / std taken, mean and std a channel.
    """

    resize: int | None = None
    order: Literal["rgb", "bgr"] = "rgb"
    scale: float = 255.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


@dataclass(frozen=True)
class Input(Op):
    """Where a tensor comes in. Not a word of a chain: the `input` statement makes it."""

    shape: Shape
    picture: Picture = field(default_factory=Picture)

    heads: ClassVar = ("input",)

    @classmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> Input:
        raise OpFault("misplaced-input", "input is a statement, not a step of a chain")

    def output(self, inputs: tuple[Shape, ...]) -> Shape:
        return self.shape

    def field(self, inputs: tuple[Shape, ...]) -> Field:
        rank = len(self.shape) - 1
        return Field((1,) * rank, (ratio(1),) * rank)


@dataclass(frozen=True)
class Upsample(Op):
    """Enlarges every spatial axis by a whole factor: up2, up2(bilinear).

    "nearest" repeats; "bilinear" interpolates linearly on every axis between cell centres
    (half-pixel, PyTorch's align_corners=False).
    """

    factor: tuple[int, ...]
    mode: str = "nearest"

    heads: ClassVar = ("up",)
    spelling: ClassVar = Spelling(
        "axes",
        required=True,
        settings=(
            Setting("mode", "name", "nearest", positional=True, choices=("nearest", "bilinear")),
        ),
    )
    doc: ClassVar = "enlarges by a whole factor"

    @classmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> Upsample:
        rank = len(spatial_axes(bound.head, inputs[0]))
        return cls(kernel_axes(bound, rank), bound.name("mode"))

    def output(self, inputs: tuple[Shape, ...]) -> Shape:
        sizes = zip(inputs[0][1:], self.factor, strict=True)
        return (inputs[0][0], *(size * f for size, f in sizes))

    def counts(self, inputs: tuple[Shape, ...]) -> Counts:
        taps = 1 if self.mode == "nearest" else 2 ** len(self.factor)
        return Counts(elementwise=prod(self.output(inputs)) * taps)

    def field(self, inputs: tuple[Shape, ...]) -> Field:
        extent = 1 if self.mode == "nearest" else 2
        return Field(
            tuple(1 if f == 1 else extent for f in self.factor),
            tuple(ratio(1, f) for f in self.factor),
        )

    def word(self) -> str:
        even = len(set(self.factor)) == 1
        return spell(
            self.head,
            kernel=self.factor[:1] if even else self.factor,
            positional=() if self.mode == "nearest" else (self.mode,),
        )


@dataclass(frozen=True)
class Pad(Op):
    """Adds cells around the spatial axes; a negative amount crops.

    mode: "constant" fills with `value`, "reflect" mirrors without the edge, "edge" repeats it.
    """

    amount: tuple[Pair, ...]
    mode: str = "constant"
    value: float = 0.0

    heads: ClassVar = ("pad",)
    spelling: ClassVar = Spelling(
        settings=(
            Setting("amount", "size", positional=True, low=-LARGEST, high=LARGEST),
            Setting("end", "size", low=-LARGEST, high=LARGEST),
            Setting("mode", "name", "constant", choices=("constant", "reflect", "edge")),
            Setting("value", "float", 0.0),
        )
    )
    doc: ClassVar = "adds cells around the spatial axes; below 0 it crops"

    @classmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> Pad:
        rank = len(spatial_axes(bound.head, inputs[0]))
        before = bound.size("amount", rank)
        if before is None:
            raise OpFault("missing-setting", "pad needs an amount, as in pad(1)", part="head")
        after = bound.size("end", rank) or before
        amount = tuple(zip(before, after, strict=True))
        return cls(amount, bound.name("mode"), bound.number("value"))

    def output(self, inputs: tuple[Shape, ...]) -> Shape:
        spatial = spatial_axes(self.head, inputs[0])
        sizes = tuple(s + lo + hi for s, (lo, hi) in zip(spatial, self.amount, strict=True))
        if min(sizes) < 1:
            raise OpFault(
                "out-of-range",
                f"cropping {show(spatial)} that far leaves {show(sizes)}",
                part="setting:amount",
            )
        if self.mode == "reflect":
            self._reflects(spatial)
        return (inputs[0][0], *sizes)

    def _reflects(self, spatial: Shape) -> None:
        for size, pair in zip(spatial, self.amount, strict=True):
            if max(pair) >= size:
                raise OpFault(
                    "out-of-range",
                    f"reflecting {max(pair)} cells needs an axis longer than {size}",
                    part="setting:amount",
                )

    def field(self, inputs: tuple[Shape, ...]) -> Field:
        rank = len(self.amount)
        return Field((1,) * rank, (ratio(1),) * rank)

    def word(self) -> str:
        before, after = (tuple(p[i] for p in self.amount) for i in (0, 1))
        settings: dict[str, object] = {} if before == after else {"end": _size(after)}
        if self.mode != "constant":
            settings["mode"] = self.mode
        if self.value != 0.0:
            settings["value"] = self.value
        return spell(self.head, positional=(_size(before),), settings=settings)


def _size(values: tuple[int, ...]) -> int | tuple[int, ...]:
    return values[0] if len(set(values)) == 1 else values


@dataclass(frozen=True)
class Shuffle(Op):
    """Channel shuffle (ShuffleNet): (G, C/G) channels transposed to (C/G, G)."""

    groups: int

    heads: ClassVar = ("shuffle",)
    spelling: ClassVar = Spelling(
        settings=(Setting("groups", "int", positional=True, low=1, high=LARGEST),)
    )
    gradient: ClassVar = Gradient()
    doc: ClassVar = "mixes the channels of G groups"

    @classmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> Shuffle:
        if bound.settings["groups"] is None:
            raise OpFault(
                "missing-setting", "shuffle needs its groups, as in shuffle(4)", part="head"
            )
        groups = bound.integer("groups")
        if inputs[0][0] % groups:
            raise OpFault(
                "uneven-groups",
                f"{inputs[0][0]} channels do not divide into {groups} groups",
                part="setting:groups",
            )
        return cls(groups)

    def output(self, inputs: tuple[Shape, ...]) -> Shape:
        return inputs[0]

    def word(self) -> str:
        return spell(self.head, positional=(self.groups,))
