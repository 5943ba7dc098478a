"""How the products of a chunk of tiles are done in AMX's registers (winograd_thirds.py)."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from netdsl.cpu.costs import OWN_CACHE
from netdsl.cpu.layout import LANES
from netdsl.cpu.micro.shapes import FORMINGS, Forming
from netdsl.cpu.thirds_kernel import ALL

FORMED, FORMED_FAR = OWN_CACHE // 4, OWN_CACHE * 5 // 4
"""Floats of parts of inputs that are formed at a time where a product's weights stay in the core's
own cache, and where they do not, so that they should pass through it once."""

SPAN = 4
"""Turns of 32 channels of which tiles find their weights in the first cache."""


class Groups(NamedTuple):
    """turns: of 32 channels, the last one perhaps with 16 alone, of which `span` are done for a
    group before the next; sixteens: of a chunk's tiles, the last one perhaps with fewer, of which
    `together` make a group; near: whether a product's weights stay in the core's own cache while
    groups pass; forming: by which tiles form the parts of the next group, if they do.
    """

    turns: int
    span: int
    sixteens: int
    together: int
    near: bool
    forming: Forming | None

    @property
    def room(self) -> int:
        """Tiles that a block of a product has room for."""
        return LANES * self.sixteens

    @property
    def block(self) -> int:
        """Floats of the weights' parts of a block of filters."""
        return ALL * self.turns

    @property
    def formed(self) -> int:
        """Floats of a group's parts."""
        return ALL * self.turns * self.together

    @property
    def ahead(self) -> int:
        """Floats from one group's parts to the next's, which are formed meanwhile; 0 where they are
        formed when those of before are done with."""
        return self.formed if self.forming else 0

    @property
    def passes(self) -> int:
        """How often a chunk has a product's weights come from far."""
        return 1 if self.near else -(-self.sixteens // self.together)


@cache
def groups(blocks: int, filter_blocks: int, chunk: int) -> Groups:
    """Those of so many blocks of channels and filters, and tiles."""
    turns, sixteens = -(-blocks // 2), -(-chunk // LANES)
    near = ALL * turns * filter_blocks <= OWN_CACHE
    count = -(-sixteens // max(2, (FORMED if near else FORMED_FAR) // (ALL * turns)))
    together, span = -(-sixteens // count), min(SPAN, turns) if near else turns
    forming = _forming(turns, span, together, filter_blocks) if near and blocks % 2 == 0 else None
    return Groups(turns, span, sixteens, together, near, forming)


def _forming(turns: int, span: int, together: int, filter_blocks: int) -> Forming | None:
    """What each whole tile forms of the next group, so that all is formed in time, or most."""
    tiles = together // 2 * (filter_blocks // 2) * turns // span
    fit = [f for f in FORMINGS if f.rows * span == LANES and turns % f.turns == 0]
    if turns % span or not tiles or not fit:
        return None
    return next((f for f in fit if f.turns * tiles >= together * turns), fit[-1])
