"""Which ways there are to do a row of a depthwise convolution (`rows.py`), and what each costs."""

from __future__ import annotations

from typing import NamedTuple

from netdsl.cpu.micro.shapes import wide

# What a row's function reads from `t` on in the descriptor: the rows of the kernel, and where the
# table of their places starts; the outputs of a row; the bits of the floats between which results
# are clamped.
TURNS, TABLE, WIDTH, LOW, HIGH = range(5)
ROW_FIELDS = 5

KERNELS, STRIDES = (3, 5), (1, 2)
"""The widths of kernels, and the pixels from one output to the next, that rows are written for."""


class Row(NamedTuple):
    """A way to do a row: outputs at once, and channels; how wide the kernel is, and its stride."""

    pixels: int
    lanes: int
    kernel: int
    stride: int


def _rows(lanes: int, *pixels: int) -> tuple[Row, ...]:
    return tuple(Row(p, lanes, kernel, s) for kernel in KERNELS for s in STRIDES for p in pixels)


# A register for each pixel, for each tap of a kernel's row and for an input. Sizes of images are
# often multiples of 7.
AVX512_ROWS = _rows(16, 14, 8, 7, 4, 1)
NARROW_ROWS = _rows(8, 8, 7, 4, 1)


def rows() -> tuple[Row, ...]:
    """The ways that kernels are compiled with, on this CPU."""
    return AVX512_ROWS if wide() else NARROW_ROWS


def choose(width: int, kernel: int, stride: int) -> int:
    """The number of the way that takes the least for a row of so many outputs."""

    def cost(row: Row) -> int:
        # What a tile takes besides its pixels is about a pixel's time.
        return -(-width // row.pixels) * (row.pixels + 1)

    fit = [r for r in rows() if (r.kernel, r.stride) == (kernel, stride) and r.pixels <= width]
    return rows().index(min(fit, key=cost))
