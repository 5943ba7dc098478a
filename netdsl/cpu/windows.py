"""The windows of a pool, as a descriptor lists them."""

from __future__ import annotations

from netdsl.cpu.late import njit
from netdsl.cpu.layout import DEPTH, HEIGHT
from netdsl.cpu.views import OWN, TARGET

STEPS, WINDOWS = OWN, OWN + 3
"""The axes' steps from tap to tap; the windows of all axes."""


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
