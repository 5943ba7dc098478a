"""Ops that move values about."""

from __future__ import annotations

from typing import Literal

import numpy as np

from netdsl.ops import Pad, Shuffle, Upsample
from netdsl.reference.table import Array, Params, Table


def upsample(op: Upsample, params: Params, x: Array) -> Array:
    for axis, factor in enumerate(op.factor, start=2):
        nearest = op.mode == "nearest"
        x = np.repeat(x, factor, axis) if nearest else between(x, factor, axis)
    return x


def between(x: Array, factor: int, axis: int) -> Array:
    """Linear interpolation along one axis. Output cell i lies at (i + 1/2) / factor - 1/2 between
    the inputs' centres, and no further out than the outermost of them."""
    size = x.shape[axis]
    at = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, size - 1)
    share = (at - low).reshape(-1, *(1 for _ in x.shape[axis + 1 :]))
    return np.take(x, low, axis) * (1 - share) + np.take(x, high, axis) * share


def pad(op: Pad, params: Params, x: Array) -> Array:
    """Widened where the amount is above 0, then cropped where it is below."""
    widths = [(0, 0), (0, 0)] + [(max(lo, 0), max(hi, 0)) for lo, hi in op.amount]
    if op.mode == "constant":
        x = np.pad(x, widths, constant_values=op.value)
    else:
        mode: Literal["reflect", "edge"] = "reflect" if op.mode == "reflect" else "edge"
        x = np.pad(x, widths, mode=mode)
    return x[:, :, *(slice(max(-lo, 0), min(hi, 0) or None) for lo, hi in op.amount)]


def shuffle(op: Shuffle, params: Params, x: Array) -> Array:
    """Channels as a table of `groups` rows, read by columns."""
    groups, each = op.groups, x.shape[1] // op.groups
    table = x.reshape(x.shape[0], groups, each, *x.shape[2:])
    return np.swapaxes(table, 1, 2).reshape(x.shape)


FUNCTIONS: Table = {Upsample: upsample, Pad: pad, Shuffle: shuffle}
