"""What kernels are compiled for: this CPU as LLVM knows it.

Asking LLVM means to load it, so its answer is kept beside the kernels, by what the system says of
the CPU. Where the system says nothing, or nothing can be kept, LLVM is asked each time.
"""

from __future__ import annotations

import contextlib
import json
import os
from functools import cache as once
from pathlib import Path
from typing import NamedTuple

from netdsl import kept
from netdsl.cpu import cache

INDIFFERENT = {"NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS", "NUMBA_THREADING_LAYER"}
"""Settings of Numba that leave machine code as it is."""

CPUINFO = Path("/proc/cpuinfo")
TELLING = (
    "vendor_id",
    *("cpu family", "model", "model name", "stepping", "flags"),
    *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features"),
)
"""The lines of /proc/cpuinfo from which LLVM's answer follows, on x86 and on ARM."""


class Host(NamedTuple):
    """The CPU: LLVM's triple, name and features of it, and the features that Numba compiles for,
    which NUMBA_CPU_FEATURES may set; as `+avx2,-sse4a`."""

    triple: str
    name: str
    features: str
    compiled_for: str


@once
def host() -> Host:
    """This CPU."""
    said = system()
    path = cache.folder() / f"host-{_digest(said, settings())}.json"
    return (said and told(path)) or _asked(path if said else None)


@once
def features() -> frozenset[str]:
    """What kernels may use, by LLVM's names."""
    listed = host().compiled_for.split(",")
    return frozenset(name[1:] for name in listed if name.startswith("+"))


@once
def digest() -> str:
    """What machine code hangs on beside its source and its compilers."""
    return _digest(host()[:3], settings())


def settings() -> list[tuple[str, str]]:
    """The settings of Numba that change machine code."""
    return sorted(
        (k, v) for k, v in os.environ.items() if k.startswith("NUMBA_") and k not in INDIFFERENT
    )


def system() -> list[str]:
    """What the system says of the first CPU; nothing where it does not say."""
    found = []
    with contextlib.suppress(OSError), CPUINFO.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if not line.strip():
                break
            if line.partition(":")[0].strip() in TELLING:
                found.append(line)
    return found


def told(path: Path) -> Host | None:
    """The answer that was kept; None where there is none."""
    content = kept.read(path)
    return None if content is None else Host(*json.loads(content))


def _asked(path: Path | None) -> Host:
    """LLVM's answer, kept where it can be."""
    import llvmlite.binding as llvm
    from numba.core import config
    from numba.core.codegen import get_host_cpu_features

    given = config.CPU_FEATURES
    found = Host(
        llvm.get_process_triple(),
        llvm.get_host_cpu_name(),
        llvm.get_host_cpu_features().flatten(),
        get_host_cpu_features() if given is None else str(given),
    )
    if path is not None:
        kept.write(path, json.dumps(found).encode())
    return found


def _digest(*facts: object) -> str:
    return kept.called(repr(facts).encode())
