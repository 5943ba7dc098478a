"""How much memory there is, the error when a plan wants more, and how to do with less."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


def lent(array: NDArray[Any]) -> NDArray[np.float32]:
    """The same numbers as a flat float32 array that compiled code takes for reading.

    To compiled code an array that may not be written, as one mapped from a file, is another type.
    The result does not keep the array alive. It is a copy only where the numbers are not float32
    in one stretch.
    """
    flat = np.ascontiguousarray(array, np.float32).reshape(-1)
    if flat.flags.writeable or not flat.size:
        return flat
    if not np.may_share_memory(flat, array):
        return flat.copy()
    content = (ctypes.c_char * flat.nbytes).from_address(flat.ctypes.data)
    return np.frombuffer(memoryview(content), np.float32)


ROOMY = 64 << 20
"""Bytes of weights that stay in memory from when they are checked until they are packed: to read
them once more takes time, and is worth it where they take much of the memory."""

LARGE = 1 << 20
"""Bytes of an array whose memory is worth giving back."""


def let_go(array: NDArray[Any]) -> None:
    """Frees the memory of a large array that is mapped from a file for reading, and lies there in
    one stretch; it is read again if needed again."""
    file = _file(array)
    if array.nbytes >= LARGE and array.flags.c_contiguous and file is not None:
        start = array.ctypes.data - np.frombuffer(file, np.uint8).ctypes.data
        first = start - start % mmap.PAGESIZE
        file.madvise(mmap.MADV_DONTNEED, first, start - first + array.nbytes)


def let_go_files(arrays: Iterable[NDArray[Any]]) -> None:
    """Frees the memory of all of the files that arrays are mapped from for reading."""
    files = {id(file): file for file in map(_file, arrays) if file is not None}
    for file in files.values():
        file.madvise(mmap.MADV_DONTNEED)


def _file(array: NDArray[Any]) -> mmap.mmap | None:
    """What an array is mapped from. None for memory that was written, which would be lost."""
    holder: object = array
    while isinstance(holder, np.ndarray):
        holder = holder.base
    if not isinstance(holder, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED"):
        return None
    with memoryview(holder) as content:
        return holder if content.readonly else None
