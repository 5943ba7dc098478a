"""What the planning of one node knows, asks for, and is given."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from netdsl.cpu.layout import LANES, Buffer, Halo, aligned
from netdsl.frozen import dataclass
from netdsl.graph import Node
from netdsl.graph.fused import Fused, parts
from netdsl.ops import Shape

Floats = NDArray[np.float32]

SMALL = 2048
"""Floats below which a second thread costs more than it saves."""


@dataclass(frozen=True)
class Task:
    """A node to be planned, and with what: shapes without the batch, threads, exactness.

    choice: the name of the way to do it that was measured to be best, see choices.py.
    precision: what factors are rounded to, fp32 or bf16. fc_weights: what weights of fully
    connected layers are kept in (fp32, bf16 or int8), where that is not as `precision` says.
    shallow: whether the net has too few layers for the errors of rough sizes, see choices.py;
    layers: how many it has, and points: whether Strassen's algorithm does enough of the net to make
    products, or AMX's registers to make those of Winograd's. fixed: whether weights stay as they
    are, and so may be packed as sums or parts of their numbers; training packs the numbers anew
    after each step.
    """

    node: Node
    shapes: tuple[Shape, ...]
    batch: int
    threads: int
    exact: bool
    choice: str | None = None
    precision: str = "fp32"
    fc_weights: str | None = None
    shallow: bool = False
    layers: int = 0
    points: bool = True
    fixed: bool = True

    @cached_property
    def whole(self) -> Fused:
        """The node's op with what is fused into it."""
        return parts(self.node)

    @cached_property
    def made(self) -> Shape:
        """The shape of what the op itself gives, before a pool that is fused into it."""
        return self.whole.made(self.shapes)

    @property
    def parts(self) -> int:
        """The threads worth starting for a pass over the output."""
        return self.threads if self.batch * prod(self.node.shape) >= SMALL else 1


class Needs(NamedTuple):
    """What a node asks of memory: a halo around each input, scratch, planes in place of blocks."""

    halos: tuple[Halo, ...] = ()
    scratch: int = 0
    planar: bool = False


class Places(NamedTuple):
    """What a node is given: where its tensors lie, its scratch, its weights by parameter name.

    rounding: where it says by how much it rounded a parameter, see `short.shortened`.
    """

    inputs: tuple[Buffer, ...]
    output: Buffer
    scratch: int
    weights: Mapping[str, Floats]
    params: Params
    rounding: dict[str, float]


class Params:
    """The packed parameters of a plan while it is made: pieces, each on a cache line."""

    def __init__(self) -> None:
        self._pieces: list[tuple[int, Floats]] = []
        self.floats = 0

    def room(self, count: int) -> Floats:
        """So many zeros, for what is to be added once it is packed there."""
        return aligned(count)

    def add(self, values: NDArray[np.floating]) -> int:
        """Where in `params` these values will lie."""
        flat = np.ascontiguousarray(values, np.float32).reshape(-1)
        start = self.floats
        self._pieces.append((start, flat))
        self.floats += -(-flat.size // 16) * 16
        return start

    def joined(self) -> Floats:
        """All pieces in one array. Each is let go once copied, so that memory holds them once."""
        whole = aligned(self.floats)
        while self._pieces:
            start, piece = self._pieces.pop()
            whole[start : start + piece.size] = piece
        return whole


SLAB = 8 << 20
"""Floats of memory that are asked for at once: much more than the system's large pages, which take
a fifth of the time of small ones to come by."""


class LooseParams(Params):
    """Params whose pieces stay where they were packed, so that no weight is copied or held twice.

    A place is how far a piece lies from `base` in floats, which may be any number: kernels add it
    to base's address. So the pieces live as long as this object.
    """

    def __init__(self) -> None:
        super().__init__()
        self.base = aligned(LANES)
        self._free = aligned(0)

    def room(self, count: int) -> Floats:
        size = -(-count // LANES) * LANES
        if size > SLAB // 4:
            return aligned(count)  # in large pages of its own
        if size > self._free.size:
            self._free = aligned(SLAB)
        found, self._free = self._free[:count], self._free[size:]
        return found

    def add(self, values: NDArray[np.floating]) -> int:
        flat = np.ascontiguousarray(values, np.float32).reshape(-1)
        if flat.ctypes.data % 64:
            copied = aligned(flat.size)
            copied[:] = flat
            flat = copied
        place = (flat.ctypes.data - self.base.ctypes.data) // 4
        self._pieces.append((place, flat))
        self.floats += flat.size
        return place

    def joined(self) -> Floats:
        """The base, from which kernels reach all pieces."""
        return self.base


def by_channel(values: NDArray[np.floating] | float, channels: int) -> Floats:
    """One value a channel (or one for all) as (blocks, 16), zeros past the last channel."""
    padded = np.zeros(-(-channels // 16) * 16, np.float32)
    padded[:channels] = values
    return padded.reshape(-1, 16)
