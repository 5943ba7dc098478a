"""The windows of a pool, as a descriptor lists them."""

from __future__ import annotations

from netdsl.cpu.late import njit
from netdsl.cpu.layout import DEPTH, HEIGHT
from netdsl.cpu.views import OWN, TARGET
from netdsl.graph.taps import Axis

STRIPES, EVEN, STEPS, WINDOWS = OWN, OWN + 1, OWN + 5, OWN + 8
"""Stripes of an image, see `striped_place`; how a row's windows are alike, see `even`; the axes'
steps from tap to tap; the windows of all axes."""


def even(axis: Axis, step: int) -> tuple[int, int, int, int]:
    """How a row's windows are alike: they have three neighbouring columns and start one or two
    apart, or two and lie side by side. The columns, how far apart they start, and how many columns
    of the first lie before the image, and of the last behind it. Zeros for any others.
    """
    size, spans = max(end for _, end, _ in axis), [(first, end) for first, end, _ in axis]
    for columns, apart, before in ((3, 1, 0), (3, 1, 1), (3, 2, 0), (3, 2, 1), (2, 2, 0)):
        starts = [i * apart - before for i in range(len(axis))]
        after = starts[-1] + columns - size
        alike = spans == [(max(s, 0), min(s + columns, size)) for s in starts]
        if step == 1 and alike and after <= apart * (columns - 2):
            return columns, apart, before, after
    return 0, 0, 0, 0


@njit(forceinline=True)
def window(d, axis, i):  # type: ignore[no-untyped-def]
    """First tap, end, step and count of the i-th window of an axis (depth, rows, columns)."""
    at = i
    if axis > 0:
        at += d[TARGET + DEPTH]
    if axis > 1:
        at += d[TARGET + HEIGHT]
    at = WINDOWS + 3 * at
    return d[at], d[at + 1], d[STEPS + axis], d[at + 2]
