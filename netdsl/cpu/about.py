"""What the CPU engine has to work with, for `netdsl info`."""

from __future__ import annotations

import platform
from typing import Any

from netdsl.cpu import cache, threads, tuned
from netdsl.cpu.factors import floats_pay
from netdsl.cpu.host import features
from netdsl.cpu.micro import dots, matrices
from netdsl.cpu.processor import cpu_name as cpu_name

ISAS = (
    ("avx512f", "AVX-512"),
    ("avx2", "AVX2"),
    ("avx", "AVX"),
    ("sse2", "SSE2"),
    ("neon", "NEON"),
)


def info() -> dict[str, Any]:
    """The CPU's name, its vectors, what it does in single precision and in bfloat16, threads and
    their layer, and where compiled kernels lie."""
    found: dict[str, Any] = {
        "cpu": cpu_name(),
        "isa": isa(),
        "fp32": fp32(),
        "bf16": bf16(),
        "threads": threads.available(),
        "threading_layer": threads.layer(),
        "cache": str(cache.folder()),
        "tuned": tuned.about() or "nothing: netdsl tune NET measures a net's layers here",
    }
    advice = threads.advice()
    return found | ({"advice": advice} if advice else {})


def fp32() -> str:
    """What sums in single precision are made of."""
    more = ", and products of matrices, floats as three bfloat16" if matrices() else ""
    return f"multiply-adds{more}"


def bf16() -> str:
    """What is done in bfloat16 where that is asked for."""
    if matrices():
        return "products of matrices"
    if floats_pay():
        return "weights alone, where few places read them"
    return "products of pairs" if dots() else "weights alone"


def isa() -> str:
    """The widest vectors that kernels are compiled for."""
    there = features()
    return next((name for feature, name in ISAS if feature in there), platform.machine())
