"""What the CPU engine has to work with, for `netdsl info`."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from netdsl.cpu import cache, threads

ISAS = (
    ("avx512f", "AVX-512"),
    ("avx2", "AVX2"),
    ("avx", "AVX"),
    ("sse2", "SSE2"),
    ("neon", "NEON"),
)


def info() -> dict[str, Any]:
    """The CPU's name, its vectors, threads and their layer, and where compiled kernels lie."""
    found: dict[str, Any] = {
        "cpu": cpu_name(),
        "isa": isa(),
        "threads": threads.available(),
        "threading_layer": threads.layer(),
        "cache": str(cache.folder()),
    }
    advice = threads.advice()
    return found | ({"advice": advice} if advice else {})


def cpu_name() -> str:
    """The processor as its maker calls it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def features() -> dict[str, bool]:
    """What the CPU can do, or what NUMBA_CPU_FEATURES says it can."""
    given = os.environ.get("NUMBA_CPU_FEATURES")
    if given is not None:
        return {name[1:]: name[0] == "+" for name in given.split(",") if name}
    return dict(llvm.get_host_cpu_features())


def isa() -> str:
    """The widest vectors that kernels are compiled for."""
    there = features()
    return next((name for feature, name in ISAS if there.get(feature)), platform.machine())
