"""What the processor is called, and how large its second-level cache is."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path


def cpu_name() -> str:
    """The processor as its maker calls it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


LEVEL = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
"""Where Linux tells the size of the second-level cache, as 512K."""

USUAL = 512 * 1024
"""Bytes of the second-level cache of most cores."""


@cache
def second_level() -> int:
    """Bytes of a core's second-level cache; the usual number where the system does not tell."""
    try:
        text = LEVEL.read_text().strip().removesuffix("K")
    except OSError:
        return USUAL
    return int(text) * 1024 if text.isdigit() and int(text) else USUAL
