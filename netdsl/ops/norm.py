"""Normalisation: batch, layer, instance, group (lecture 7), and AlexNet's local response."""

from __future__ import annotations

from math import prod
from typing import ClassVar

from netdsl.faults import OpFault
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

EPS = Setting("eps", "float", 1e-5, low=0.0, above=True)
AFFINE = Setting("affine", "bool", True)
STATISTICS = Gradient(frozenset({"input", "statistics"}))


def scale_and_shift(count: int) -> tuple[Parameter, ...]:
    """The learned scale (ones) and shift (zeros) of a normalisation, one a channel."""
    return (
        Parameter("weight", (count,), "weight", 1.0),
        Parameter("bias", (count,), "bias", 0.0),
    )


@dataclass(frozen=True)
class Norm(Op):
    """What the four normalisations share: shape kept, an eps, a scale and shift per channel."""

    eps: float = 1e-5
    affine: bool = True

    def output(self, inputs: tuple[Shape, ...]) -> Shape:
        return inputs[0]

    def parameters(self, inputs: tuple[Shape, ...]) -> tuple[Parameter, ...]:
        return scale_and_shift(inputs[0][0]) if self.affine else ()

    def counts(self, inputs: tuple[Shape, ...]) -> Counts:
        return Counts(elementwise=prod(inputs[0]))

    def _settings(self) -> dict[str, object]:
        settings: dict[str, object] = {} if self.eps == 1e-5 else {"eps": self.eps}
        return settings | ({} if self.affine else {"affine": False})

    def word(self) -> str:
        return spell(self.head, settings=self._settings())


@dataclass(frozen=True)
class BatchNorm(Norm):
    """(x - mean) / sqrt(var + eps) x weight + bias, per channel over the batch and space.

    Runs with the running mean and variance; trains with the batch's (biased) and keeps
    running <- (1 - momentum) running + momentum batch, the variance unbiased (PyTorch).
    """

    momentum: float = 0.1

    heads: ClassVar = ("bn",)
    spelling: ClassVar = Spelling(
        settings=(EPS, Setting("momentum", "float", 0.1, low=0.0, high=1.0), AFFINE)
    )
    gradient: ClassVar = STATISTICS
    doc: ClassVar = "batch normalisation"

    @classmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> BatchNorm:
        return cls(bound.number("eps"), bound.flag("affine"), bound.number("momentum"))

    def parameters(self, inputs: tuple[Shape, ...]) -> tuple[Parameter, ...]:
        channels = (inputs[0][0],)
        return (
            *super().parameters(inputs),
            Parameter("mean", channels, "statistic", 0.0),
            Parameter("var", channels, "statistic", 1.0),
        )

    def _settings(self) -> dict[str, object]:
        return super()._settings() | ({} if self.momentum == 0.1 else {"momentum": self.momentum})


class LayerNorm(Norm):
    """Normalises each sample over all its channels and positions; scale and shift a channel."""

    heads: ClassVar = ("ln",)
    spelling: ClassVar = Spelling(settings=(EPS, AFFINE))
    gradient: ClassVar = STATISTICS
    doc: ClassVar = "layer normalisation, over channels and space"

    @classmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> LayerNorm:
        return cls(bound.number("eps"), bound.flag("affine"))


class InstanceNorm(Norm):
    """Normalises each channel of each sample over space."""

    heads: ClassVar = ("in",)
    spelling: ClassVar = Spelling(settings=(EPS, AFFINE))
    gradient: ClassVar = STATISTICS
    doc: ClassVar = "instance normalisation, over space"

    @classmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> InstanceNorm:
        if len(inputs[0]) < 2:
            raise OpFault(
                "needs-axes",
                f"in normalises over space, but its input is a vector of {inputs[0][0]}",
                help="ln normalises a vector",
                part="head",
            )
        return cls(bound.number("eps"), bound.flag("affine"))


@dataclass(frozen=True)
class GroupNorm(Norm):
    """Normalises each group of channels of each sample; one group is ln, C groups are in."""

    groups: int = 32

    heads: ClassVar = ("gn",)
    spelling: ClassVar = Spelling("number", required=True, settings=(EPS, AFFINE))
    gradient: ClassVar = STATISTICS
    doc: ClassVar = "group normalisation; gn32 has 32 groups"

    @classmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> GroupNorm:
        assert bound.kernel is not None
        groups, channels = bound.kernel[0], inputs[0][0]
        if channels % groups:
            raise OpFault(
                "uneven-groups",
                f"{channels} channels do not divide into {groups} groups",
                part="kernel",
            )
        return cls(bound.number("eps"), bound.flag("affine"), groups)

    def word(self) -> str:
        return spell(self.head, kernel=(self.groups,), settings=self._settings())


@dataclass(frozen=True)
class LocalResponseNorm(Op):
    """x / (k + alpha/size x sum of squares over `size` neighbouring channels)^beta.

    alpha is divided by the window, as Caffe, ONNX and PyTorch do (Krizhevsky et al. 2012 do
    not). The window of an even size reaches one further up than down, as in ONNX.
    """

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 2.0

    heads: ClassVar = ("lrn",)
    spelling: ClassVar = Spelling(
        "number",
        settings=(
            Setting("alpha", "float", 1e-4),
            Setting("beta", "float", 0.75),
            Setting("k", "float", 2.0),
        ),
    )
    gradient: ClassVar = Gradient(frozenset({"input", "output"}))
    doc: ClassVar = "local response normalisation across channels; lrn is lrn5"

    @classmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> LocalResponseNorm:
        size = bound.kernel[0] if bound.kernel else 5
        return cls(size, bound.number("alpha"), bound.number("beta"), bound.number("k"))

    @property
    def reach(self) -> tuple[int, int]:
        """Neighbours below and above that the window takes in."""
        return (self.size - 1) // 2, self.size // 2

    def output(self, inputs: tuple[Shape, ...]) -> Shape:
        return inputs[0]

    def counts(self, inputs: tuple[Shape, ...]) -> Counts:
        return Counts(elementwise=prod(inputs[0]))

    def word(self) -> str:
        defaults = {"alpha": 1e-4, "beta": 0.75, "k": 2.0}
        given = {n: getattr(self, n) for n, d in defaults.items() if getattr(self, n) != d}
        return spell(self.head, kernel=(self.size,), settings=given)
