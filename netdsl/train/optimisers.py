"""Optimisers (lecture 4): how weights follow their gradients.

Each works on all parameters at once, as one flat vector: see `netdsl.train.vector`. Weight decay
is added to the gradient (L2) but for AdamW, which shrinks the weights apart from it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from netdsl.cpu.backward import update
from netdsl.faults import error

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Optimiser(ABC):
    """The settings of an optimiser. `slots` names the vectors that it keeps between steps."""

    name: ClassVar[str]
    slots: ClassVar[tuple[str, ...]] = ()
    rate: ClassVar[float]
    """The learning rate that suits it where none is given."""

    @abstractmethod
    def step(
        self,
        weights: Vector,
        gradient: Vector,
        slots: dict[str, Vector],
        *,
        rate: float,
        decay: Vector,
        scale: float,
        count: int,
        threads: int = 1,
    ) -> None:
        """Moves the weights in place, against the gradient times `scale`.

        decay: the weight decay of each block of 16 elements. count: steps so far, this one
        included. threads: how many work; the result does not depend on it.
        """


@dataclass(frozen=True)
class Sgd(Optimiser):
    """w <- w - rate g"""

    name: ClassVar = "sgd"
    rate: ClassVar = 0.05

    def step(self, weights, gradient, slots, *, rate, decay, scale, count, threads=1) -> None:  # type: ignore[no-untyped-def]
        update.descend(weights, gradient, decay, np.float32(scale), np.float32(rate), threads)


@dataclass(frozen=True)
class Momentum(Optimiser):
    """v <- keep v + g, w <- w - rate v (PyTorch's form; the rate is not inside v)."""

    keep: float = 0.9

    name: ClassVar = "momentum"
    slots: ClassVar = ("velocity",)
    rate: ClassVar = 0.01
    nesterov: ClassVar[bool] = False

    def step(self, weights, gradient, slots, *, rate, decay, scale, count, threads=1) -> None:  # type: ignore[no-untyped-def]
        update.momentum(
            weights,
            gradient,
            slots["velocity"],
            decay,
            np.float32(scale),
            np.float32(rate),
            np.float32(self.keep),
            self.nesterov,
            threads,
        )


@dataclass(frozen=True)
class Nesterov(Momentum):
    """Momentum that looks ahead: w <- w - rate (g + keep v)."""

    name: ClassVar = "nesterov"
    nesterov: ClassVar = True


@dataclass(frozen=True)
class AdaGrad(Optimiser):
    """Divides by the root of all squared gradients so far (Duchi et al. 2011)."""

    eps: float = 1e-10

    name: ClassVar = "adagrad"
    slots: ClassVar = ("squares",)
    rate: ClassVar = 0.01

    def step(self, weights, gradient, slots, *, rate, decay, scale, count, threads=1) -> None:  # type: ignore[no-untyped-def]
        update.adagrad(
            weights,
            gradient,
            slots["squares"],
            decay,
            np.float32(scale),
            np.float32(rate),
            np.float32(self.eps),
            threads,
        )


@dataclass(frozen=True)
class RmsProp(Optimiser):
    """AdaGrad with a memory that fades (Tieleman and Hinton 2012)."""

    keep: float = 0.99
    eps: float = 1e-8

    name: ClassVar = "rmsprop"
    slots: ClassVar = ("squares",)
    rate: ClassVar = 0.001

    def step(self, weights, gradient, slots, *, rate, decay, scale, count, threads=1) -> None:  # type: ignore[no-untyped-def]
        update.rmsprop(
            weights,
            gradient,
            slots["squares"],
            decay,
            np.float32(scale),
            np.float32(rate),
            np.float32(self.keep),
            np.float32(self.eps),
            threads,
        )


@dataclass(frozen=True)
class Adam(Optimiser):
    """Momentum over fading squares, both corrected for their start (Kingma and Ba 2015)."""

    keep: float = 0.9
    keep_squares: float = 0.999
    eps: float = 1e-8

    name: ClassVar = "adam"
    slots: ClassVar = ("velocity", "squares")
    rate: ClassVar = 0.001
    apart: ClassVar[bool] = False

    def step(self, weights, gradient, slots, *, rate, decay, scale, count, threads=1) -> None:  # type: ignore[no-untyped-def]
        update.adam(
            weights,
            gradient,
            slots["velocity"],
            slots["squares"],
            decay,
            np.float32(scale),
            np.float32(rate),
            np.float32(self.keep),
            np.float32(self.keep_squares),
            np.float32(1.0 / (1.0 - self.keep**count)),
            np.float32(1.0 / (1.0 - self.keep_squares**count)),
            np.float32(self.eps),
            self.apart,
            threads,
        )


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam whose weight decay leaves the moments alone (Loshchilov and Hutter 2019)."""

    name: ClassVar = "adamw"
    apart: ClassVar = True


OPTIMISERS: dict[str, type[Optimiser]] = {
    cls.name: cls for cls in (Sgd, Momentum, Nesterov, AdaGrad, RmsProp, Adam, AdamW)
}


def clip_scale(gradient: Vector, limit: float | None) -> float:
    """What to multiply a gradient by so that its norm is at most `limit`; 1 where it is."""
    if limit is None:
        return 1.0
    if limit <= 0:
        raise error("out-of-range", f"the gradient's limit must be above 0, not {limit}")
    norm = float(update.square_sum(gradient)) ** 0.5
    return limit / norm if norm > limit else 1.0
