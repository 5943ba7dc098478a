"""Pools: the largest or the mean of each window, of a grid of windows, or of everything."""

from __future__ import annotations

import numpy as np

from netdsl.ops import (
    AdaptiveAveragePool,
    AveragePool,
    GlobalAverage,
    GlobalMax,
    MaxPool,
    Shape,
    Window,
)
from netdsl.reference.table import Array, Params, Table
from netdsl.reference.windows import met, padded, taps


def max_pool(op: MaxPool, params: Params, x: Array) -> Array:
    """The largest of each window; padding is -inf, so it never wins. NaN wins over all."""
    count = op.window.output(x.shape[2:])
    x = padded(x, op.window, -np.inf)
    y = np.full((*x.shape[:2], *count), -np.inf)
    for tap in taps(op.window):
        y = np.maximum(y, x[met(tap, op.window, count)])
    return y


def average_pool(op: AveragePool, params: Params, x: Array) -> Array:
    """The sum of each window over how many of its cells count: those of the input, and of the
    padding if it is said to count. What a ceil window has beyond the padding never does."""
    count = op.window.output(x.shape[2:])
    counted = padded(np.ones((1, 1, *x.shape[2:])), op.window, 0.0)
    if op.count_pad:
        ends = (lo + n + hi for n, (lo, hi) in zip(x.shape[2:], op.window.padding, strict=True))
        counted[:, :, *(slice(end) for end in ends)] = 1.0
    return sums(padded(x, op.window, 0.0), op.window, count) / sums(counted, op.window, count)


def sums(x: Array, window: Window, count: Shape) -> Array:
    """The sum of each window of a padded x."""
    y = np.zeros((*x.shape[:2], *count))
    for tap in taps(window):
        y += x[met(tap, window, count)]
    return y


def adaptive_average_pool(op: AdaptiveAveragePool, params: Params, x: Array) -> Array:
    """The mean of each window of the grid."""
    y = np.empty((*x.shape[:2], *op.to))
    windows = op.windows(x.shape[2:])
    for at in np.ndindex(*op.to):
        edges = [axis[i] for axis, i in zip(windows, at, strict=True)]
        cells = x[:, :, *(slice(lo, hi) for lo, hi in edges)]
        y[:, :, *at] = cells.mean(axis=spatial(x))
    return y


def global_average(op: GlobalAverage, params: Params, x: Array) -> Array:
    return np.mean(x, axis=spatial(x), keepdims=True)


def global_max(op: GlobalMax, params: Params, x: Array) -> Array:
    return np.max(x, axis=spatial(x), keepdims=True)


def spatial(x: Array) -> tuple[int, ...]:
    """The numbers of the spatial axes."""
    return tuple(range(2, x.ndim))


FUNCTIONS: Table = {
    MaxPool: max_pool,
    AveragePool: average_pool,
    AdaptiveAveragePool: adaptive_average_pool,
    GlobalAverage: global_average,
    GlobalMax: global_max,
}
