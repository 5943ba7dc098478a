"""First layers by products of matrices: a tap is some neighbouring pixels of few channels.

A tap takes 32 numbers that lie side by side: so many as eight pixels of up to four channels have,
or four pixels of up to eight. So a row of the kernel is one tap, or some, their last pixels past
the kernel's end multiplied with zeros; where taps are dilated, each is its own.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from netdsl.cpu.layout import LANES, Buffer, Floats, axes3
from netdsl.cpu.micro import Kind
from netdsl.cpu.rounding import pixel_pairs
from netdsl.ops import Window


def together(source: Buffer) -> bool:
    """Whether all channels of a pixel lie together in this buffer, for such taps."""
    return source.pairs and 1 < source.lanes < LANES // 2


def firsts(window: Window, channels: int) -> list[int]:
    """Where along a kernel's row taps start, in steps of its dilation."""
    return list(range(0, window.kernel[-1], 1 if window.dilation[-1] > 1 else across(channels)))


def across(channels: int) -> int:
    """Pixels of a tap."""
    return LANES // pixel_pairs(channels)


def extent(window: Window, channels: int) -> tuple[int, ...]:
    """What a window reads along each axis."""
    last = firsts(window, channels)[-1] * window.dilation[-1]
    return (*window.extent[:-1], last + across(channels))


def by_pixels(weights: Floats, window: Window, source: Buffer) -> tuple[Floats, list[int]]:
    """Weights (filters, channels, *kernel) as (filters, 32, taps), and where the taps lie from the
    first, in floats."""
    filters, channels = weights.shape[:2]
    (depth, height, width), (by_z, by_y, by_x) = axes3(window.kernel), axes3(window.dilation)
    whole = weights.reshape(filters, channels, depth, height, width)
    begins, each = firsts(window, channels), across(channels) if by_x == 1 else 1
    places = list(product(range(depth), range(height), begins))
    spread = np.zeros((len(places), filters, LANES // source.lanes, 2 * source.lanes), np.float32)
    for tap, (z, y, x) in enumerate(places):
        row = whole[:, :, z, y, x : x + each]
        spread[tap, :, : row.shape[2], :channels] = np.swapaxes(row, 1, 2)
    planes, rows = source.plane_stride, source.row_stride
    taps = [z * by_z * planes + y * by_y * rows + x * by_x * source.lanes for z, y, x in places]
    return np.moveaxis(spread.reshape(len(places), filters, Kind.MATRIX.lanes), 0, 2), taps
