"""Activations, element by element, and softmax across the channels."""

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

FROM_INPUT = Gradient(frozenset({"input"}))
FROM_OUTPUT = Gradient(frozenset({"output"}))


@dataclass(frozen=True)
class Activation(Op):
    """An op that keeps the shape and passes once over the elements."""

    gradient: ClassVar = FROM_INPUT

    @classmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> Op:
        return cls()

    def output(self, inputs: tuple[Shape, ...]) -> Shape:
        return inputs[0]

    def counts(self, inputs: tuple[Shape, ...]) -> Counts:
        return Counts(elementwise=prod(inputs[0]))


class Relu(Activation):
    """max(x, 0)"""

    heads: ClassVar = ("relu",)
    gradient: ClassVar = FROM_OUTPUT
    doc: ClassVar = "max(x, 0)"


class Relu6(Activation):
    """min(max(x, 0), 6)"""

    heads: ClassVar = ("relu6",)
    gradient: ClassVar = FROM_OUTPUT
    doc: ClassVar = "min(max(x, 0), 6)"


@dataclass(frozen=True)
class Leaky(Activation):
    """x where positive, slope x elsewhere"""

    slope: float = 0.01

    heads: ClassVar = ("leaky",)
    spelling: ClassVar = Spelling(settings=(Setting("slope", "float", 0.01, positional=True),))
    doc: ClassVar = "x where positive, slope x elsewhere"

    @classmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> Leaky:
        return cls(bound.number("slope"))

    def word(self) -> str:
        return spell(self.head, positional=() if self.slope == 0.01 else (self.slope,))


class PRelu(Activation):
    """Leaky with a learned slope, one a channel (He et al. 2015)."""

    heads: ClassVar = ("prelu",)
    doc: ClassVar = "leaky with a learned slope a channel"

    def parameters(self, inputs: tuple[Shape, ...]) -> tuple[Parameter, ...]:
        return (Parameter("weight", (inputs[0][0],), "weight", 0.25),)


@dataclass(frozen=True)
class Elu(Activation):
    """x where positive, alpha (exp(x) - 1) elsewhere"""

    alpha: float = 1.0

    heads: ClassVar = ("elu",)
    spelling: ClassVar = Spelling(settings=(Setting("alpha", "float", 1.0, positional=True),))
    doc: ClassVar = "x where positive, alpha (exp(x) - 1) elsewhere"

    @classmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> Elu:
        return cls(bound.number("alpha"))

    def word(self) -> str:
        return spell(self.head, positional=() if self.alpha == 1.0 else (self.alpha,))


@dataclass(frozen=True)
class Gelu(Activation):
    """x Phi(x), Phi the normal distribution's; `gelu(tanh)` is the usual approximation."""

    form: str = "erf"

    heads: ClassVar = ("gelu",)
    spelling: ClassVar = Spelling(
        settings=(Setting("form", "name", "erf", positional=True, choices=("erf", "tanh")),)
    )
    doc: ClassVar = "x times the normal distribution of x"

    @classmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> Gelu:
        return cls(bound.name("form"))

    def word(self) -> str:
        return spell(self.head, positional=() if self.form == "erf" else (self.form,))


class Silu(Activation):
    """x sigmoid(x)"""

    heads: ClassVar = ("silu",)
    doc: ClassVar = "x sigmoid(x)"


class HardSwish(Activation):
    """x hsigmoid(x) = x min(max(x + 3, 0), 6) / 6"""

    heads: ClassVar = ("hswish",)
    doc: ClassVar = "x min(max(x + 3, 0), 6) / 6"


class Sigmoid(Activation):
    """1 / (1 + exp(-x))"""

    heads: ClassVar = ("sigmoid",)
    gradient: ClassVar = FROM_OUTPUT
    doc: ClassVar = "1 / (1 + exp(-x))"


@dataclass(frozen=True)
class HardSigmoid(Activation):
    """min(max(slope x + offset, 0), 1); 1/6 and 1/2 unless given (PyTorch's)"""

    slope: float = 1 / 6
    offset: float = 0.5

    heads: ClassVar = ("hsigmoid",)
    spelling: ClassVar = Spelling(
        settings=(Setting("slope", "float", 1 / 6), Setting("offset", "float", 0.5))
    )
    doc: ClassVar = "min(max(x / 6 + 1/2, 0), 1)"

    @classmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> HardSigmoid:
        return cls(bound.number("slope"), bound.number("offset"))

    def word(self) -> str:
        settings = {} if self.slope == 1 / 6 else {"slope": self.slope}
        return spell(
            self.head, settings=settings | ({} if self.offset == 0.5 else {"offset": self.offset})
        )


class Tanh(Activation):
    """The hyperbolic tangent."""

    heads: ClassVar = ("tanh",)
    gradient: ClassVar = FROM_OUTPUT
    doc: ClassVar = "the hyperbolic tangent"


class Softmax(Activation):
    """exp(x - max) over its sum, across the channels of each position."""

    heads: ClassVar = ("softmax",)
    gradient: ClassVar = FROM_OUTPUT
    doc: ClassVar = "probabilities across the channels"


class LogSoftmax(Activation):
    """The logarithm of softmax, computed without it."""

    heads: ClassVar = ("log_softmax",)
    gradient: ClassVar = FROM_OUTPUT
    doc: ClassVar = "the logarithm of softmax"
