"""How long the parts of a graph took."""

from __future__ import annotations

from typing import NamedTuple


class Timing(NamedTuple):
    """How long a node took, in ms of one run: the median and the least; macs of the batch.

    way: how a convolution is done, where a device has several ways.
    """

    name: str
    word: str
    macs: int
    ms: float
    least_ms: float
    way: str = ""
