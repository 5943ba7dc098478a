"""Fully connected layers, flatten, and dropout, which does nothing outside training."""

from __future__ import annotations

from math import prod

from netdsl.ops import Dropout, Flatten, Linear
from netdsl.reference.table import Array, Params, Table


def linear(op: Linear, params: Params, x: Array) -> Array:
    """x W^T + bias, x flattened channel by channel."""
    y = flat(x) @ params["weight"].T
    return y + params["bias"] if op.bias else y


def flatten(op: Flatten, params: Params, x: Array) -> Array:
    return flat(x)


def flat(x: Array) -> Array:
    """(N, C, *spatial) -> (N, F); a -1 in place of F would not do for no samples."""
    return x.reshape(x.shape[0], prod(x.shape[1:]))


def dropout(op: Dropout, params: Params, x: Array) -> Array:
    return x


FUNCTIONS: Table = {Linear: linear, Flatten: flatten, Dropout: dropout}
