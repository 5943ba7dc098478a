"""Strided convolutions as ones of stride 1: each phase of the stride is so many channels more.

Of a kernel of 5 with stride 2, the even taps meet the even inputs alone and the odd taps the odd
ones. So an axis has a phase of 3 taps and one of 2, both of stride 1. In two dimensions:

          even columns    odd columns
    even     3 x 3           3 x 2         4 convolutions of stride 1, whose sum is the strided one
    odd      2 x 3           2 x 2

Winograd's algorithm takes them for one of 3 x 3 on four times the channels. A phase that has no
last tap along an axis needs none of the products at the point infinity of that axis, which is
multiplied with the last tap alone. Phases are ordered so that those which a product sums over lie
side by side.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np

from netdsl.cpu.layout import LANES, Floats
from netdsl.ops import Window

Pair = tuple[int, int]


class Phases(NamedTuple):
    """The phases of a kernel of so many rows and columns, and its stride along both."""

    kernel: Pair
    stride: Pair = (1, 1)

    @property
    def taps(self) -> Pair:
        """Rows and columns of the longest phase."""
        rows, columns = (-(-k // s) for k, s in zip(self.kernel, self.stride, strict=True))
        return rows, columns

    def _long(self, axis: int, phase: int) -> bool:
        """Whether a phase has as many taps along an axis as the longest."""
        return phase + (self.taps[axis] - 1) * self.stride[axis] < self.kernel[axis]

    @property
    @cache  # noqa: B019 - there are few
    def order(self) -> tuple[Pair, ...]:
        """The phases' first rows and columns: those long across, in both, down, in neither."""

        def place(phase: Pair) -> int:
            down, across = (self._long(axis, first) for axis, first in enumerate(phase))
            return (1 if across else 2) if down else (0 if across else 3)

        down, across = self.stride
        return tuple(sorted(product(range(down), range(across)), key=place))

    def span(self, down: bool, across: bool) -> range:
        """The phases that a product sums over, in their order: at infinity down, across, those that
        are long there."""
        needed = [
            i
            for i, (y, x) in enumerate(self.order)
            if (self._long(0, y) or not down) and (self._long(1, x) or not across)
        ]
        return range(needed[0], needed[-1] + 1)

    def apart(self, weights: Floats) -> Floats:
        """(filters, channels, ..., rows, columns) weights as those of stride 1: channels of each
        phase in whole blocks, zeros for the taps that it has not."""
        (down, across), taps = self.stride, self.taps
        if down == across == 1:
            return weights
        filters, channels, *depth = weights.shape[:-2]
        held = -(-channels // LANES) * LANES
        found = np.zeros((filters, len(self.order), held, *depth, *taps), np.float32)
        for i, (y, x) in enumerate(self.order):
            part = weights[..., y::down, x::across]
            found[:, i, :channels, ..., : part.shape[-2], : part.shape[-1]] = part
        return found.reshape(filters, -1, *depth, *taps)


def of(window: Window) -> Phases:
    """The phases of a window's rows and columns."""
    (*_, rows, columns), (*_, down, across) = window.kernel, window.stride
    return Phases((rows, columns), (down, across))


@cache
def spans(phases: Phases, inputs: int) -> tuple[range, ...]:
    """Of so many by so many products, row by row, the phases that each sums over."""
    last = [i == inputs - 1 for i in range(inputs)]
    return tuple(phases.span(down, across) for down, across in product(last, last))


@cache
def summed(phases: Phases, inputs: int) -> float:
    """The part of all phases that a product sums over, on average."""
    found = spans(phases, inputs)
    return sum(map(len, found)) / (len(found) * len(phases.order))
