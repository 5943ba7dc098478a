"""How many threads a block has, and the tiles of the matrix kernels.

Numba's simulator starts a Python thread for each thread of a block, so there all is small. The
kernels are the same source: sizes are constants to them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import config

SIMULATED = bool(config.ENABLE_CUDASIM)

THREADS = 8 if SIMULATED else 256
"""Threads of a block in all kernels but the tiled ones; a power of 2."""

WARP = 4 if SIMULATED else 32
"""Threads that sums take together by shuffles: a warp, or half a block in the simulator."""


MOST_REGISTERS = 128
"""Of a thread of the tiled kernels: 512 threads then share a multiprocessor."""

LIMITED: dict[str, Any] = {} if SIMULATED else {"max_registers": MOST_REGISTERS}
"""What such kernels are compiled with."""


class Tile(NamedTuple):
    """What a block of the tiled convolution computes: m positions by n filters, k products deep at
    a time; each thread rm by rn of them, `vector` neighbours at a time."""

    m: int
    n: int
    k: int
    rm: int
    rn: int
    vector: int

    @property
    def threads(self) -> int:
        return (self.m // self.rm) * (self.n // self.rn)


NARROW = Tile(8, 4, 2, 2, 2, 2) if SIMULATED else Tile(128, 32, 8, 8, 4, 4)
MEDIUM = Tile(8, 8, 2, 2, 4, 2) if SIMULATED else Tile(128, 64, 8, 8, 8, 4)
WIDE = Tile(8, 16, 4, 4, 4, 4) if SIMULATED else Tile(128, 128, 8, 8, 8, 4)
SQUARE = Tile(4, 4, 4, 1, 2, 1) if SIMULATED else Tile(64, 64, 8, 4, 4, 4)
CUBE = Tile(4, 4, 4, 1, 2, 1) if SIMULATED else Tile(64, 64, 16, 4, 4, 4)
"""Of layers of few tiles, where blocks wait for each slice: these have more in a slice."""
TALL = Tile(8, 8, 2, 2, 4, 2) if SIMULATED else Tile(128, 64, 8, 8, 4, 4)
"""Of the products that go back, whose loads take more registers."""
TILES = (NARROW, MEDIUM, WIDE, CUBE)
"""Of the ways forward."""

BROAD = Tile(8, 8, 2, 4, 4, 4) if SIMULATED else Tile(128, 64, 8, 8, 8, 4)
EVEN = Tile(8, 4, 2, 4, 4, 4) if SIMULATED else Tile(64, 64, 8, 8, 4, 4)
FLAT = Tile(4, 16, 2, 4, 4, 4) if SIMULATED else Tile(32, 64, 8, 4, 4, 4)
"""Of the products of Winograd's algorithm, whose m are its tiles of outputs."""
WINOGRAD_TILES = (BROAD, EVEN, FLAT)
