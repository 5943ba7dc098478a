"""The three joins of a bracket: side by side, sum, product."""

from __future__ import annotations

from math import prod
from typing import ClassVar

from netdsl.faults import OpFault
from netdsl.frozen import dataclass
from netdsl.ops.base import Bound, Counts, Gradient, Op, Shape, show


@dataclass(frozen=True)
class Join(Op):
    """An op of several inputs, spelled by the sign between a bracket's branches."""

    sign: ClassVar[str]

    @classmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> Op:
        return cls()


class Concat(Join):
    """[a | b]: (C1, *s), (C2, *s) -> (C1 + C2, *s), joined along the channels."""

    heads: ClassVar = ("concat",)
    sign: ClassVar = "|"

    def output(self, inputs: tuple[Shape, ...]) -> Shape:
        first = inputs[0]
        for other in inputs[1:]:
            if other[1:] != first[1:]:
                raise OpFault(
                    "shape-mismatch",
                    f"branches joined by | must agree in all but their channels: "
                    f"{show(first)} and {show(other)}",
                    help="padding keeps a convolution's size: conv3p1, conv5p2, maxpool3s1p1",
                )
        return (sum(shape[0] for shape in inputs), *first[1:])


class Add(Join):
    """[a + b]: the sum of tensors of one shape."""

    heads: ClassVar = ("add",)
    sign: ClassVar = "+"

    def output(self, inputs: tuple[Shape, ...]) -> Shape:
        for other in inputs[1:]:
            if other != inputs[0]:
                raise OpFault(
                    "shape-mismatch",
                    f"branches joined by + must have one shape: "
                    f"{show(inputs[0])} and {show(other)}",
                    help="a 1x1 convolution on the shortcut changes channels and stride",
                )
        return inputs[0]

    def counts(self, inputs: tuple[Shape, ...]) -> Counts:
        return Counts(adds=prod(inputs[0]) * (len(inputs) - 1))


class Multiply(Join):
    """[a * b]: the product of tensors; an axis of size 1 is stretched."""

    heads: ClassVar = ("mul",)
    sign: ClassVar = "*"
    gradient: ClassVar = Gradient(frozenset({"input"}))

    def output(self, inputs: tuple[Shape, ...]) -> Shape:
        result = inputs[0]
        for other in inputs[1:]:
            fits = len(other) == len(result) and all(
                a == b or 1 in (a, b) for a, b in zip(result, other, strict=True)
            )
            if not fits:
                raise OpFault(
                    "shape-mismatch",
                    f"branches joined by * must agree, or be 1, on every axis: "
                    f"{show(inputs[0])} and {show(other)}",
                )
            result = tuple(max(a, b) for a, b in zip(result, other, strict=True))
        return result

    def counts(self, inputs: tuple[Shape, ...]) -> Counts:
        return Counts(elementwise=prod(self.output(inputs)) * (len(inputs) - 1))


JOINS: dict[str, type[Join]] = {cls.sign: cls for cls in (Concat, Add, Multiply)}
