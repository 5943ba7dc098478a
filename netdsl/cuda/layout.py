"""How tensors lie in the device's memory: as they are handed over, (N, C, *spatial), in float32.

A sample is one stretch; samples may lie further apart than they are long, where a tensor is a
part of a larger one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netdsl.cuda.sizes import THREADS
from netdsl.ops import Shape

Floats = NDArray[np.float32]

ALIGN = 64
"""Tensors begin at multiples of so many floats: 256 bytes, as the device's own allocations."""

NOWHERE = -(1 << 30)
"""The offset of what is not written: below 0 with any place in a sample added."""


@dataclass(frozen=True)
class Buffer:
    """A tensor's place in the arena: its first float, its samples, how far apart they lie."""

    offset: int
    batch: int
    shape: Shape
    batch_stride: int

    @property
    def channels(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> tuple[int, int, int]:
        """Depth, height and width; 1 for axes that the data lacks."""
        return axes(self.shape[1:], 1)

    @property
    def plane(self) -> int:
        """Positions of a channel."""
        return prod(self.shape[1:])

    @property
    def sample(self) -> int:
        """Floats of a sample."""
        return prod(self.shape)

    @property
    def floats(self) -> int:
        return self.batch * self.batch_stride

    @property
    def cell(self) -> int:
        """Of a packed tensor, whose shape is (*spatial, words), how far apart positions lie."""
        return self.batch_stride // prod(self.shape[:-1])

    @property
    def there(self) -> bool:
        """Whether it lies anywhere."""
        return self.offset >= 0

    def part(self, start: int, shape: Shape) -> Buffer:
        """The tensor of this shape that begins `start` floats into each sample."""
        return replace(self, offset=self.offset + start, shape=shape)


def fresh(batch: int, shape: Shape) -> Buffer:
    """A tensor of its own, at 0."""
    return Buffer(0, batch, shape, prod(shape))


def nowhere(batch: int, shape: Shape) -> Buffer:
    """A tensor of which there are no floats."""
    return Buffer(NOWHERE, batch, shape, 0)


def axes(values: Iterable[int], missing: int) -> tuple[int, int, int]:
    """A number for each spatial axis of the data as depth, height and width."""
    found = tuple(values)
    z, y, x = (missing,) * (3 - len(found)) + found
    return z, y, x


class Call(NamedTuple):
    """One launch: kernel[grid, block](arena, params, ints, at).

    at: where in `ints` what it works on is described. outputs: how many threads want work.
    """

    kernel: Any
    grid: tuple[int, int, int]
    block: int
    at: int


def spread(kernel: Any, count: int, at: int, rows: int = 1) -> Call:
    """A launch of a thread for each of `count` items, in each of `rows`."""
    return Call(kernel, (-(-count // THREADS), rows, 1), THREADS, at)


def blocks(kernel: Any, count: int, at: int, rows: int = 1) -> Call:
    """A launch of a block for each of `count` items, in each of `rows`."""
    return Call(kernel, (count, rows, 1), THREADS, at)
