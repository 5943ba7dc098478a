"""How much memory there is, and the error when a plan wants more."""

from __future__ import annotations

import os
from pathlib import Path

from netdsl.faults import error

CGROUP = Path("/sys/fs/cgroup")


def available() -> int | None:
    """Bytes that this process may still take; None where nobody says."""
    limits = [n for n in (_machine(), _container()) if n is not None]
    return min(limits) if limits else None


def _machine() -> int | None:
    """What the system has free, or could free."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return None
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _container() -> int | None:
    """What the container's limit leaves."""
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text())
        return None if limit == "max" else max(int(limit) - used, 0)
    except (OSError, ValueError):
        return None


def check(name: str, batch: int, wanted: int) -> None:
    """Raises NetError where a plan wants more bytes than there are."""
    room = available()
    if room is not None and wanted > room:
        raise error(
            "out-of-memory",
            f"{name} with {batch} samples at once needs {_size(wanted)}, "
            f"{_size(room)} are available",
            help="a smaller batch needs less" if batch > 1 else None,
        )


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
