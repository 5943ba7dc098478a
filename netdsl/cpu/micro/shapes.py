"""Which tiles fit a CPU's registers, and what each costs."""

from __future__ import annotations

from enum import IntEnum
from functools import cache, cached_property
from typing import NamedTuple

from netdsl.cpu import amx
from netdsl.cpu.host import features


class Kind(IntEnum):
    """What a tap of a tile's table is: how many input channels, and who reads them."""

    BLOCKED = 16  # 16 channels, each for all filters
    PLANAR = 1  # one channel, for all filters
    DEPTHWISE = 0  # 16 channels, each for the filter of its own number
    POINTS = 48  # 16 channels, each for all filters, of quarters of a 1x1 layer (points.py)
    # With numbers of half the bits (bfloat16), two neighbouring channels in the place of a float:
    PAIRED = 8  # 16 channels as 8 pairs, and weights so too
    PLANAR_PAIR = 2  # a pair of channels, and weights so too
    HALVED = 24  # 16 channels as they are, and weights as 8 pairs
    # With numbers of a quarter of the bits (int8), those of four channels in the place of a float:
    BYTES = 20  # 16 channels as they are, and weights as bytes, to be scaled
    # With all digits of a float in 28 bits, those of eight channels in the place of seven floats:
    TIGHT = 14  # 16 channels as they are, and weights so, to be scaled (tight.py)
    # In registers that hold matrices (AMX):
    MATRIX = 32  # 32 channels as 16 pairs, and weights so too

    @cached_property
    def lanes(self) -> int:
        """Input channels that a tap's weights are for, 16 filters each."""
        sixteen = (Kind.PAIRED, Kind.HALVED, Kind.BYTES, Kind.TIGHT, Kind.POINTS)
        return 16 if self in sixteen else max(self.value, 1)

    @cached_property
    def rows(self) -> int:
        """Vectors of weights that a tap has for a block of 16 filters."""
        if self is Kind.TIGHT:
            return self.lanes * 7 // 8
        return self.lanes // (4 if self is Kind.BYTES else 2 if self in HALF else 1)

    @cached_property
    def unroll(self) -> int:
        """Of these, those that a turn of a tile's loop takes."""
        four = (Kind.BLOCKED, Kind.PAIRED, Kind.POINTS)
        return 4 if self in four else {Kind.HALVED: 2, Kind.TIGHT: 7}.get(self, 1)

    @cached_property
    def scales(self) -> int:
        """Floats that stand before the weights of every `SCALED` channels: the filters' scales."""
        return 16 if self is Kind.BYTES else 0


HALF = (Kind.PAIRED, Kind.PLANAR_PAIR, Kind.HALVED, Kind.MATRIX)
"""The kinds with weights in bfloat16."""
SHORT = (*HALF, Kind.BYTES)
"""The kinds with weights of fewer bits than a float has."""
SCALED = 128
"""Channels, one tap's after the other's, whose weights in bytes share a scale in each filter."""


class Shape(NamedTuple):
    """A tile: so many pixels by so many blocks of 16 filters, all held in registers."""

    pixels: int
    blocks: int

    def cycles(self, kind: Kind) -> float:
        """Roughly, cycles of one input channel's turn: multiply-adds, their latency, loads."""
        sums = self.pixels * self.blocks
        if kind.value > 0:
            # In planes a pixel's load does not hide quite: 6x4 beats 28x1 on VGG's first layer.
            unhidden = 0.1 * (self.pixels + self.blocks) if kind is Kind.PLANAR else 0.0
            return max(sums, 4, self.blocks + self.pixels / 2) + unhidden
        return max(sums, 4, 2 * self.pixels)

    @property
    def pace(self) -> float:
        """How many times its cycles a blocked tile takes where little is cached, as in a net."""
        paces = PACES_OF_TWO if twice() else PACES
        return paces.get((self.pixels, self.blocks), 1.5 if self.pixels < 3 else 1.1)

    @property
    def end(self) -> float:
        """Cycles of a tile's end, where its sums are bounded and stored, that do not hide behind
        the sums of the next tile: those of all but a few of its own."""
        return 0.0 if twice() else ENDING * max(0, self.pixels * self.blocks - HIDDEN)


HIDDEN, ENDING = 16, 8.0
"""Sums whose ends hide, and cycles of each more: measured with `PACES`."""

PACES = {
    (14, 2): 1.0,
    (13, 2): 1.0,
    (12, 2): 1.0,
    (7, 4): 1.0,
    (6, 4): 1.01,
    (9, 3): 1.01,
    (8, 3): 1.01,
    (7, 3): 1.01,
    (5, 3): 1.01,
    (5, 4): 1.02,
    (4, 4): 1.02,
    (4, 6): 1.05,
    (7, 1): 1.05,
    (14, 1): 1.06,
    (16, 1): 1.08,
    (3, 2): 1.2,
}
"""By the least regret over 73 layers by direct sums of ResNet-50 and GoogLeNet on a Zen 4 with two
threads, each by all shapes within its net, rounded by hand: the shapes that these take need 1%
more time than the best, in the geometric mean; before the tiles were written out 7x1 was the
fastest, and now takes 4% longer."""

PACES_OF_TWO = {
    (7, 4): 1.0,
    (6, 4): 1.02,
    (5, 4): 1.04,
    (14, 2): 1.05,
    (13, 2): 1.05,
    (12, 2): 1.05,
    (4, 4): 1.06,
    (9, 3): 1.08,
    (8, 3): 1.08,
    (7, 3): 1.08,
    (3, 3): 1.2,
    (14, 1): 1.25,
    (16, 1): 1.25,
    (7, 1): 1.28,
    (3, 2): 1.28,
    (2, 8): 1.3,
    (28, 1): 1.4,
}
"""The same where a core issues two multiply-adds a cycle, over ResNet-50's layers on an Emerald
Rapids whose cores others' threads share: there instructions count, so tall tiles of one block, of
which each multiply-add needs a load, are slow."""


class Tile(NamedTuple):
    """A shape and the kind of its taps."""

    shape: Shape
    kind: Kind


def _tiles(kind: Kind, *sizes: tuple[int, int]) -> tuple[Tile, ...]:
    return tuple(Tile(Shape(*size), kind) for size in sizes)


# A tile needs a register (two of AVX2, four of NEON) for each pixel and block, one for each block's
# weights and one for a pixel, and four sums or more to hide the latency of a multiply-add. Shapes
# that would fit are left out where LLVM keeps sums in memory instead (tests/cpu/test_micro.py).
AVX512 = (
    *_tiles(Kind.BLOCKED, (14, 2), (13, 2), (12, 2), (8, 3), (7, 3), (6, 4), (5, 3)),
    *_tiles(Kind.BLOCKED, (7, 4), (9, 3), (5, 4), (4, 6), (4, 4), (3, 3), (2, 8), (1, 8)),
    *_tiles(Kind.BLOCKED, (28, 1), (16, 1), (14, 1), (7, 1), (3, 2), (1, 4), (1, 3), (1, 1)),
    *_tiles(Kind.POINTS, (14, 2), (7, 4), (6, 4), (5, 4), (4, 4), (1, 4), (7, 1), (1, 1)),
    *_tiles(Kind.PLANAR, (10, 2), (9, 3), (6, 4), (4, 2), (28, 1), (14, 1), (4, 1)),
    *_tiles(Kind.PLANAR, (1, 8), (1, 4), (1, 1)),
    *_tiles(Kind.DEPTHWISE, (28, 1), (14, 1), (7, 1), (4, 1), (1, 1)),
    *_tiles(Kind.HALVED, (7, 3), (4, 4), (3, 3), (2, 4), (1, 8), (1, 4), (1, 1)),
    *_tiles(Kind.BYTES, (7, 3), (6, 4), (4, 4), (3, 3), (2, 4), (1, 8), (1, 4), (1, 3), (1, 1)),
    *_tiles(Kind.TIGHT, (8, 2), (4, 4), (3, 4), (2, 4), (1, 4), (1, 1)),
)
DOTS = (
    *_tiles(Kind.PAIRED, (14, 2), (13, 2), (12, 2), (7, 3), (6, 4), (5, 3)),
    *_tiles(Kind.PAIRED, (4, 6), (4, 4), (3, 3), (2, 8), (1, 8)),
    *_tiles(Kind.PAIRED, (28, 1), (14, 1), (7, 1), (3, 2), (1, 4), (1, 1)),
    *_tiles(Kind.PLANAR_PAIR, (10, 2), (9, 3), (6, 4), (4, 2), (28, 1), (14, 1), (4, 1), (1, 1)),
)
"""Those of AVX512-BF16, besides."""
SAMPLES = _tiles(Kind.HALVED, (8, 3), (6, 3), (5, 4))
"""Those of CPUs that issue two multiply-adds a cycle, besides: where weights alone are rounded for
five samples of a fully connected layer and more, which a Zen 4 sums up in pairs."""
MATRICES = _tiles(Kind.MATRIX, (2, 2), (4, 1), (1, 4), (3, 1), (1, 3), (2, 1), (1, 2), (1, 1))
"""Those of AMX, a table of its own (matrix.py); their pixels are counted in sixteens. Three sums or
more hide the latency of a product."""
THIRDS = (Shape(2, 2), Shape(1, 2), Shape(2, 1), Shape(1, 1))
"""The same where they sum floats (micro/thirds.py)."""


class Forming(NamedTuple):
    """What such a tile of 2x2 forms beside its products: in each of its turns so many rows of the
    parts of so many turns' inputs."""

    rows: int
    turns: int


FORMINGS = (Forming(8, 1), Forming(8, 2), Forming(4, 1), Forming(4, 2), Forming(4, 4))
"""Those that there are; a tile's number at run time is its place here."""

NARROW = (
    *_tiles(Kind.BLOCKED, (6, 1), (5, 1), (4, 1), (3, 1), (2, 1), (2, 2), (1, 4), (1, 1)),
    *_tiles(Kind.PLANAR, (5, 1), (4, 1), (2, 2), (1, 4), (1, 1)),
    *_tiles(Kind.DEPTHWISE, (7, 1), (4, 1), (1, 1)),
    *_tiles(Kind.HALVED, (4, 1), (1, 2), (1, 1)),
    *_tiles(Kind.BYTES, (6, 1), (4, 1), (2, 2), (1, 4), (1, 3), (1, 2), (1, 1)),
    *_tiles(Kind.TIGHT, (1, 2), (1, 1)),
)


def _has(feature: str) -> bool:
    """Whether code is compiled for a CPU that has this."""
    return feature in features()


@cache
def wide() -> bool:
    """Whether code is compiled for 32 registers of 16 floats (AVX-512)."""
    return _has("avx512f")


@cache
def dots() -> bool:
    """Whether code is compiled for products of bfloat16 pairs (AVX512-BF16)."""
    return wide() and _has("avx512bf16")


@cache
def twice() -> bool:
    """Whether a core issues two multiply-adds of 16 floats a cycle: Intel's since Sapphire Rapids,
    which have a feature that no other CPU has. Older ones of Intel's are taken for one of AMD's."""
    return wide() and _has("avx512fp16")


@cache
def asks() -> bool:
    """Whether what a layer's end reads and writes is asked for ahead of time. Where a core waits
    for instructions (`twice`) and with AVX2 it was not tried."""
    return wide() and not twice()


@cache
def matrices() -> bool:
    """Whether code is compiled for products of matrices of bfloat16 (AMX), and may use them."""
    return dots() and _has("amx-tile") and _has("amx-bf16") and amx.granted()


@cache
def tiles() -> tuple[Tile, ...]:
    """The tiles that kernels are compiled with, on this CPU."""
    more = (*(DOTS if dots() else ()), *(SAMPLES if twice() else ()))
    return (*AVX512, *more) if wide() else NARROW


QUARTERED = ((14, 2), (13, 2), (12, 2), (8, 3), (7, 3), (7, 4), (6, 4), (5, 4), (4, 4), (7, 1))
"""Those that also make products of quarters, few of them, for a shorter compilation."""


@cache
def quartered() -> tuple[Tile, ...]:
    """Those that also make the products of quarters of matrices, see `quarters.py`: their sums
    stay in registers that LLVM has no say in (`turn.py`)."""
    blocked = (tile for tile in AVX512 if tile.kind is Kind.BLOCKED)
    return tuple(tile for tile in blocked if tuple(tile.shape) in QUARTERED) if wide() else ()


def code(tile: Tile) -> int:
    """The number by which a kernel asks for a tile at run time."""
    return tiles().index(tile)
