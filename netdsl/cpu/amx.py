"""Leave to use the CPU's matrix registers (AMX), which Linux gives a process that asks for it.

The registers are 8 KB, so the system makes room for them only where they are wanted. Leave holds
for all threads of a process and its children, and cannot be given back.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import cache

ARCH_PRCTL = 158
"""The number of the call on x86-64."""

REQUEST, TILE_DATA = 0x1023, 18
"""Asks for leave to use a part of the registers; the part that holds the matrices."""


@cache
def granted() -> bool:
    """Whether this process may use the matrix registers; asks for them the first time."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    try:
        return bool(ctypes.CDLL(None).syscall(ARCH_PRCTL, REQUEST, TILE_DATA) == 0)
    except (OSError, AttributeError):
        return False
