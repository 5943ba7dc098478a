"""How a pass over elements is laid out: few rows, four elements a thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from netdsl.cuda.layout import Buffer, Call
from netdsl.cuda.sizes import THREADS
from netdsl.cuda.wide import EACH, FEW, WARPS


@dataclass(frozen=True)
class Rows:
    """Rows of `count` elements, and whether all tensors' rows begin at multiples of four.

    Of tensors whose samples lie next to each other all samples are one row.
    """

    count: int
    rows: int
    wide: bool

    @property
    def fields(self) -> list[int]:
        """What a descriptor holds of it: COUNT and WIDE."""
        return [self.count, int(self.wide)]

    def call(self, kernel: Any, at: int) -> Call:
        """A launch of a thread for each four elements: grid (elements of a row, rows)."""
        return Call(kernel, (-(-self.count // (EACH * THREADS)), self.rows, 1), THREADS, at)


def rows_of(*buffers: Buffer, apart: bool = False) -> Rows:
    """The rows of tensors of one size that a pass goes over together. apart: a row a sample."""
    first = buffers[0]
    whole = not apart and all(b.batch_stride == b.sample for b in buffers)
    count = first.sample * (first.batch if whole else 1)
    starts = [n for b in buffers for n in (b.offset, 0 if whole else b.batch_stride)]
    return Rows(count, 1 if whole else first.batch, fits(count, *starts))


def fits(*numbers: int) -> bool:
    """Whether all are multiples of four."""
    return all(n % EACH == 0 for n in numbers)


def place(buffer: Buffer) -> list[int]:
    """What a descriptor holds of a tensor: its offset, and how far apart its samples lie."""
    return [buffer.offset, buffer.batch_stride]


def teams(kernel: Any, items: int, numbers: int, at: int, rows: int = 1) -> Call:
    """A launch of a team for each item, which has so many numbers to sum: a warp, or a block."""
    count = -(-items // WARPS) if small(numbers) else items
    return Call(kernel, (count, rows, 1), THREADS, at)


def small(numbers: int) -> bool:
    """Whether a warp sums so many numbers alone."""
    return numbers <= FEW
