"""Sliding windows: the cells of every window that one tap of the kernel meets."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from types import EllipsisType

import numpy as np

from netdsl.ops import Shape, Window
from netdsl.reference.table import Array

Tap = tuple[int, ...]


def taps(window: Window) -> Iterator[Tap]:
    """Every position in the kernel, the last axis fastest."""
    return product(*(range(k) for k in window.kernel))


def padded(x: Array, window: Window, fill: float) -> Array:
    """x with `fill` around its spatial axes, wide enough for every window to read.

    At the end that is the padding or, for the windows of a ceil pool, some cells more.
    """
    output = window.output(x.shape[2:])
    widths = [(0, 0), (0, 0)]
    for i, (lo, hi) in enumerate(window.padding):
        read = (output[i] - 1) * window.stride[i] + window.extent[i]
        widths.append((lo, max(hi, read - lo - x.shape[2 + i])))
    return np.pad(x, widths, constant_values=fill)


def met(tap: Tap, window: Window, count: Shape) -> tuple[slice | EllipsisType, ...]:
    """Where in the padded input this tap lies, for `count` windows per axis."""
    starts = (t * d for t, d in zip(tap, window.dilation, strict=True))
    return (
        ...,
        *(
            slice(start, start + (n - 1) * stride + 1, stride)
            for start, n, stride in zip(starts, count, window.stride, strict=True)
        ),
    )
