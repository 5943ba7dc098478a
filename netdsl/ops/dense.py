"""Fully connected layers, and what goes with them: flatten and dropout."""

from __future__ import annotations

from math import prod
from typing import ClassVar

from netdsl.frozen import dataclass
from netdsl.ops.base import (
    Bound,
    Counts,
    Gradient,
    Op,
    Parameter,
    Setting,
    Shape,
    Spelling,
    spell,
)
from netdsl.ops.conv import BIAS, biases, filters
from netdsl.ops.window import LARGEST


@dataclass(frozen=True)
class Linear(Op):
    """Fully connected: any shape, flattened channel by channel, -> (filters,).

    Weight (filters, inputs), bias (filters).
    """

    filters: int
    bias: bool = True

    heads: ClassVar = ("fc",)
    spelling: ClassVar = Spelling(
        settings=(
            Setting("filters", "int", positional=True, low=1, high=LARGEST),
            BIAS,
        )
    )
    gradient: ClassVar = Gradient(frozenset({"input"}))
    doc: ClassVar = "fully connected; flattens what comes in"

    @classmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> Linear:
        return cls(filters(bound, prod(inputs[0])), bound.flag("bias"))

    def output(self, inputs: tuple[Shape, ...]) -> Shape:
        return (self.filters,)

    def parameters(self, inputs: tuple[Shape, ...]) -> tuple[Parameter, ...]:
        size = prod(inputs[0])
        weight = Parameter("weight", (self.filters, size), "weight", "he", size, self.filters)
        return (weight, *biases(self.bias, self.filters))

    def counts(self, inputs: tuple[Shape, ...]) -> Counts:
        return Counts(macs=self.filters * prod(inputs[0]), bias=self.filters if self.bias else 0)

    def field(self, inputs: tuple[Shape, ...]) -> None:
        return None

    def word(self) -> str:
        return spell(
            self.head,
            positional=(self.filters,),
            settings={} if self.bias else {"bias": False},
        )


@dataclass(frozen=True)
class Flatten(Op):
    """(C, *spatial) -> (C x positions,), channel by channel; computes nothing."""

    heads: ClassVar = ("flatten",)
    doc: ClassVar = "every axis into one"

    @classmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> Flatten:
        return cls()

    def output(self, inputs: tuple[Shape, ...]) -> Shape:
        return (prod(inputs[0]),)

    def field(self, inputs: tuple[Shape, ...]) -> None:
        return None


@dataclass(frozen=True)
class Dropout(Op):
    """In training, zeroes each element with this rate and scales the rest by 1/(1 - rate)."""

    rate: float = 0.5

    heads: ClassVar = ("dropout",)
    spelling: ClassVar = Spelling(
        settings=(Setting("rate", "float", 0.5, positional=True, low=0.0, high=0.999999),)
    )
    gradient: ClassVar = Gradient(frozenset({"mask"}))
    doc: ClassVar = "in training, zeroes that share of the elements"

    @classmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> Dropout:
        return cls(bound.number("rate"))

    def output(self, inputs: tuple[Shape, ...]) -> Shape:
        return inputs[0]

    def counts(self, inputs: tuple[Shape, ...]) -> Counts:
        return Counts()

    def word(self) -> str:
        return spell(self.head, positional=() if self.rate == 0.5 else (self.rate,))
