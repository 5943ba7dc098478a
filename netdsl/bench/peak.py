"""How fast the machine multiplies and adds at all: our widest tile on data that stays in L1."""

from __future__ import annotations

from time import perf_counter

import numpy as np

from netdsl.cpu import region, threads
from netdsl.cpu.direct import Sum, View, block_floats, describe
from netdsl.cpu.layout import LANES, aligned
from netdsl.cpu.micro import Kind, tiles
from netdsl.cpu.views import link

TAPS = 12
"""Taps of 16 channels: weights and inputs of a tile fill most of a 32 KiB cache."""

ROWS = 300
REPEATS = 300
"""Runs of a third of a millisecond: on a busy machine some find both cores free."""


def peak(count: int | None = None) -> float:
    """10^9 floating-point operations a second in single precision, two a multiply-add, on this
    many threads (all unless given); the best of some runs. Raises NetError below 1 thread."""
    parts = threads.count(count)
    pixels, blocks = tiles()[0].shape
    taps = [LANES * pixels * i for i in range(TAPS)]
    own = aligned_up(LANES * pixels * TAPS + LANES * pixels * blocks)
    block = block_floats(TAPS, Kind.BLOCKED)
    # Every row of a thread's own "sample" reads the same inputs and writes the same outputs.
    source = View(0, (own, 0, 0, LANES), 0)
    target = View(LANES * pixels * TAPS, (own, 0, 0, LANES), LANES * pixels)
    whole = Sum(
        Kind.BLOCKED, (parts, 1, ROWS, pixels), source, target, taps, (0,) * blocks, 0, block
    )
    kernel, d = link(describe(whole, parts))
    arena, params = aligned(parts * own), aligned(blocks * block)
    params[:] = np.random.default_rng(0).standard_normal(params.size, np.float32)
    arena[:] = 1.0
    region.use(parts)
    flops = 2 * parts * ROWS * pixels * blocks * LANES * TAPS * LANES
    return flops / min(_seconds(kernel, arena, params, d) for _ in range(REPEATS)) / 1e9


def aligned_up(floats: int) -> int:
    """At least so many floats, in whole pages, so that no two threads share a cache line."""
    return -(-floats // 1024) * 1024


def _seconds(kernel: object, *arrays: object) -> float:
    assert callable(kernel)
    start = perf_counter()
    kernel(*arrays)
    return perf_counter() - start
