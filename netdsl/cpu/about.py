"""What the CPU engine has to work with, for `netdsl info`."""

from __future__ import annotations

import platform
from typing import Any

import llvmlite.binding as llvm
from numba.core import config

from netdsl.cpu import cache, threads, tuned
from netdsl.cpu.micro import dots
from netdsl.cpu.processor import cpu_name as cpu_name

ISAS = (
    ("avx512f", "AVX-512"),
    ("avx2", "AVX2"),
    ("avx", "AVX"),
    ("sse2", "SSE2"),
    ("neon", "NEON"),
)


def info() -> dict[str, Any]:
    """The CPU's name, its vectors, what it does in bfloat16, threads and their layer, and where
    compiled kernels lie."""
    found: dict[str, Any] = {
        "cpu": cpu_name(),
        "isa": isa(),
        "bf16": "products of pairs" if dots() else "weights alone",
        "threads": threads.available(),
        "threading_layer": threads.layer(),
        "cache": str(cache.folder()),
        "tuned": tuned.about() or "nothing: netdsl tune NET measures a net's layers here",
    }
    advice = threads.advice()
    return found | ({"advice": advice} if advice else {})


def features() -> frozenset[str]:
    """What kernels may use: of this CPU, or of the one that Numba is told to compile for."""
    given = config.CPU_FEATURES
    if given is None:
        given = "" if config.CPU_NAME else llvm.get_host_cpu_features().flatten()
    return frozenset(name[1:] for name in given.split(",") if name.startswith("+"))


def isa() -> str:
    """The widest vectors that kernels are compiled for."""
    there = features()
    return next((name for feature, name in ISAS if feature in there), platform.machine())
