"""This machine's own roof: peak arithmetic and bandwidth, measured once and remembered."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from time import perf_counter

from netdsl.cost.roofline import Machine

SIZE = 1024
COPY = 1 << 25
TRIES = 5


def this_machine() -> Machine:
    """The machine's roof from the cache file, measured and written there if it is not."""
    file = _file()
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        found = Machine(float(known["flops"]), float(known["bandwidth"]))
    except (OSError, ValueError, KeyError, TypeError):
        found = measure()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            figures = {"flops": found.flops, "bandwidth": found.bandwidth}
            file.write_text(json.dumps(figures) + "\n", encoding="utf-8")
        except OSError:
            pass  # a home that cannot be written to: it is measured again next time
    name = f"this machine ({found.flops / 1e9:.0f} GFLOP/s, {found.bandwidth / 1e9:.1f} GB/s)"
    return Machine(found.flops, found.bandwidth, name)


def measure() -> Machine:
    """Peak from a product of float32 matrices, bandwidth from a copy; the best of a few tries."""
    import numpy as np

    a = np.ones((SIZE, SIZE), np.float32)
    product = _fastest(lambda: a @ a)
    source = np.ones(COPY, np.float32)
    target = np.empty_like(source)
    copy = _fastest(lambda: np.copyto(target, source))
    return Machine(2 * SIZE**3 / product, 2 * source.nbytes / copy)


def _fastest(work: object) -> float:
    assert callable(work)
    work()
    best = float("inf")
    for _ in range(TRIES):
        start = perf_counter()
        work()
        best = min(best, perf_counter() - start)
    return best


def _file() -> Path:
    """Where the figures lie: one file a processor, so that a shared home holds several."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    processor = f"{platform.machine()}-{platform.node()}-{os.cpu_count()}"
    return Path(cache) / "netdsl" / f"roof-{processor}.json"
