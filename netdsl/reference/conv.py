"""Convolutions, one tap of the kernel at a time: each tap is a matrix product over channels."""

from __future__ import annotations

from math import prod

import numpy as np

from netdsl.ops import Conv, ConvTranspose
from netdsl.reference.table import Array, Params, Table, by_channel
from netdsl.reference.windows import met, padded, taps


def conv(op: Conv, params: Params, x: Array) -> Array:
    """y[n, f, o] = bias[f] + sum over c, t of weight[f, c, t] x[n, c, o stride + t dilation]."""
    batch, channels = x.shape[:2]
    count = op.window.output(x.shape[2:])
    x = padded(x, op.window, 0.0)
    weight = by_tap(params["weight"], op.groups, op.filters // op.groups)
    y = np.zeros((batch, op.groups, op.filters // op.groups, prod(count)))
    for matrix, tap in zip(weight, taps(op.window), strict=True):
        cells = x[met(tap, op.window, count)]
        cells = cells.reshape(batch, op.groups, channels // op.groups, prod(count))
        y += matrix @ cells
    return biased(op, params, y.reshape(batch, op.filters, *count))


def conv_transpose(op: ConvTranspose, params: Params, x: Array) -> Array:
    """What a convolution reads, this writes: y[n, f, i stride + t dilation] += weight x[n, c, i].

    The padding is cut off the result, `out_pad` cells are kept more at the end.
    """
    batch, channels = x.shape[:2]
    w, count = op.window, x.shape[2:]
    size = op.output((x.shape[1:],))[1:]
    whole = tuple(lo + n + hi for n, (lo, hi) in zip(size, w.padding, strict=True))
    weight = by_tap(params["weight"], op.groups, channels // op.groups)
    cells = x.reshape(batch, op.groups, channels // op.groups, prod(count))
    y = np.zeros((batch, op.filters, *whole))
    for matrix, tap in zip(weight, taps(w), strict=True):
        part = np.swapaxes(matrix, 1, 2) @ cells
        y[met(tap, w, count)] += part.reshape(batch, op.filters, *count)
    kept = (slice(lo, lo + n) for n, (lo, _) in zip(size, w.padding, strict=True))
    return biased(op, params, y[:, :, *kept])


def by_tap(weight: Array, groups: int, each: int) -> Array:
    """(groups x each, M, *kernel) -> (taps, groups, each, M): a matrix a group for each tap."""
    grouped = weight.reshape(groups, each, weight.shape[1], prod(weight.shape[2:]))
    return np.ascontiguousarray(np.moveaxis(grouped, -1, 0))


def biased(op: Conv | ConvTranspose, params: Params, y: Array) -> Array:
    return y + by_channel(params["bias"], y) if op.bias else y


FUNCTIONS: Table = {Conv: conv, ConvTranspose: conv_transpose}
