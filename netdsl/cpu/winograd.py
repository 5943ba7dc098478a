"""Winograd's convolution: tiles of inputs are transformed, multiplied and transformed back.

F(4x4, 3x3) makes 16 outputs with 36 products where the direct sum takes 144. The tiles of all
images stand in one row. Two ways through them:

- *by tiles*: a thread takes a chunk of tiles through all three steps, which stay in its cache,
  while the weights pass by once a chunk. For many tiles.
- *by products*: the threads do one step after the other, in the second a product at a time, so
  that every weight is read once. For few tiles and many weights. A long row of tiles is done in
  several chunks, that what passes from step to step stays in the cache that all share.

Both also with products by Strassen's algorithm, seven in place of eight of half the size, for pairs
of tiles (winograd_quarters.py), and with products of floats as three bfloat16 each, in AMX's
registers (winograd_thirds.py).

A kernel with depth is transformed slice by slice: each output slice sums over several slices of
transformed inputs, as it sums over channels. Its images are the slices of one sample. Each phase of
a stride is so many channels more (strides.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from netdsl.cpu import thirds
from netdsl.cpu.direct import block_floats
from netdsl.cpu.launch import launch
from netdsl.cpu.layout import LANES, Floats, Halo, Ints, Triple, aligned
from netdsl.cpu.micro import Kind, Tile
from netdsl.cpu.micro.fields import SIZES, Size, turns
from netdsl.cpu.pack import Room, packed_weights
from netdsl.cpu.strides import Phases, spans, summed
from netdsl.cpu.winograd_groups import Groups, groups
from netdsl.cpu.winograd_kernel import BY_TILES, PRODUCTS, transform_filters
from netdsl.cpu.winograd_quarters import transform_quarters

PART = 4
"""Blocks of channels that a product sums up one after the other: errors of long sums are most of
what Winograd's algorithm errs by. Of 512 channels in one sum it errs 2.5 times as much."""

APART = 1024
"""Floats that lie between what two threads write and read many times."""


class Winograd(NamedTuple):
    """The plan of one layer: channels and filters in blocks of 16.

    size: F(m x m, r x r). phases: of the layer's stride, whose channels are blocks side by side.
    images: those whose tiles stand in one row, and walks: how many such rows there are. deep: the
    images are the slices of a sample, and depth: the kernel's taps along them. chunk: tiles at a
    time, of which there are `chunks`, the last one overlapping. tile: the micro-kernel of the
    products. spare: lanes at the end of a sum that hold no channel. strassen: whether products are
    made by Strassen's algorithm: then a chunk counts pairs of tiles, and a tile of the products
    makes the same of four quarters. thirds: whether they are made in AMX's registers, each float as
    three of bfloat16.
    """

    size: Size
    phases: Phases
    mode: int
    walks: int
    images: int
    deep: bool
    depth: int
    blocks: int
    filter_blocks: int
    tile_rows: int
    tile_columns: int
    chunk: int
    tile: Tile
    parts: int
    spare: int
    strassen: bool = False
    thirds: bool = False

    @property
    def name(self) -> str:
        """What tuning calls this way, see choices.py."""
        order = "tiles" if self.mode == BY_TILES else "products"
        more = " strassen" if self.strassen else " thirds" if self.thirds else ""
        return f"winograd{self.size.outputs}{more} by {order} of {self.halves * self.chunk}"

    @property
    def halves(self) -> int:
        """Into how many parts filters, channels and tiles are cut."""
        return 2 if self.strassen else 1

    @property
    def columns(self) -> int:
        """Tiles of an image, or pairs of them."""
        return -(-self.tile_rows * self.tile_columns // self.halves)

    @property
    def tiles(self) -> int:
        """Tiles, or pairs of them, in a row."""
        return self.images * self.columns

    @property
    def read(self) -> int:
        """Tiles of inputs that a chunk reads."""
        return self.chunk + (self.depth - 1) * self.tile_rows * self.tile_columns

    @property
    def chunks(self) -> int:
        return -(-self.tiles // self.chunk)

    @property
    def filter_tiles(self) -> int:
        return -(-self.filter_blocks // self.halves // self.tile.shape.blocks)

    @property
    def products(self) -> int:
        return self.size.inputs**2

    @property
    def spans(self) -> tuple[range, ...]:
        """The blocks that each product sums over."""
        each = self.blocks // len(self.phases.order)
        found = spans(self.phases, self.size.inputs)
        return tuple(range(each * span.start, each * span.stop) for span in found)

    @property
    def terms(self) -> float:
        """Blocks that a product sums over, slices of a kernel with depth for themselves, on
        average."""
        return summed(self.phases, self.size.inputs) * self.depth * self.blocks

    def part(self, count: int) -> tuple[int, int]:
        """How a sum over so many blocks is cut into parts: turns of a tile for each, and how many.
        Those by Strassen's algorithm are all as long; five or seven blocks are not cut, since that
        would be into single ones."""
        parts = -(-count // PART)
        if self.strassen:
            parts = next(n for n in range(parts, count + 1) if count % n == 0)
            parts = 1 if parts == count <= 2 * PART else parts
        return turns(Kind.BLOCKED, -(-count // parts)), parts

    @property
    def inner_blocks(self) -> int:
        """Blocks of a product's inputs, which its outputs may take the place of."""
        held = max(self.blocks, self.filter_blocks) if self.in_place else self.blocks
        return self.halves * held

    @property
    def groups(self) -> Groups:
        """How its products are done in AMX's registers."""
        return groups(self.blocks, self.filter_blocks, self.chunk)

    @property
    def inner_step(self) -> int:
        """Floats from one product's inputs to the next's, an odd number of cache lines."""
        return step(self.inner_blocks, self.groups.room if self.thirds else self.read)

    @property
    def made_step(self) -> int:
        """The same of the products made."""
        if self.in_place:
            return self.inner_step
        held = self.tile.shape.blocks if self.mode == BY_TILES else self.filter_blocks
        return step(self.halves * held, self.chunk)

    @property
    def in_place(self) -> bool:
        """Whether a product is written where the inputs of the one before lay, or its own."""
        return self.thirds or (self.strassen and self.mode == BY_TILES)

    @property
    def quarter(self) -> int:
        """Floats of a quarter of a product's inputs."""
        return LANES * (self.blocks // 2) * self.chunk

    @property
    def formed(self) -> int:
        """Floats of scratch for the sums of a thread's quarters, or for the parts of its inputs.
        They lie apart from all else: past what a core reads in a row it asks for more, which
        another core may be writing."""
        if self.thirds:
            return self.groups.formed + self.groups.ahead + 2 * APART
        return 4 * self.quarter + 2 * APART if self.strassen else 0

    @property
    def strides(self) -> tuple[int, int]:
        """Floats from one block of filters to the next and from one product to the next, in the
        transformed weights: those read one after the other lie so. See `direct.block_floats`."""
        panel = self.depth * self.blocks * LANES**2
        if self.thirds:
            return self.groups.block, self.filter_blocks * self.groups.block
        if self.strassen:
            panel = 7 * panel // 2
        elif self.mode == BY_TILES:
            return self.products * panel + 3 * LANES, panel
        return panel + 3 * LANES, self.filter_blocks // self.halves * (panel + 3 * LANES)

    @property
    def weight_floats(self) -> int:
        """Floats of all transformed weights."""
        counts = (self.filter_blocks // self.halves, self.products)
        return max(n * stride for n, stride in zip(counts, self.strides, strict=True))

    @property
    def scratch(self) -> int:
        """Floats of scratch for transformed inputs and products."""
        if self.in_place and self.mode == BY_TILES:
            return self.parts * self.own
        held = self.parts if self.mode == BY_TILES else 1
        each = self.inner_step if self.in_place else self.inner_step + self.made_step
        return self.products * held * each + self.parts * self.formed

    @property
    def own(self) -> int:
        """Of these, a thread's where products are written in place by tiles; one product's more
        where that is the place of the one before."""
        return (self.products + self.strassen) * self.inner_step + self.formed


def step(blocks: int, tiles: int) -> int:
    """Floats from one product's blocks of so many tiles to the next's."""
    return LANES * (blocks * tiles | 1)


def tiling(size: Size, lengths: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of tiles that cover an output of so many rows and columns."""
    rows, columns = (-(-n // size.outputs) for n in lengths)
    return rows, columns


def halo(plan: Winograd, before: Triple, lengths: Triple, outputs: Triple) -> Halo:
    """The halo of an input of such lengths, wide enough for the last tiles' overhang."""
    (each, taps), (down, across) = plan.size, plan.phases.stride
    reach = (
        outputs[0] + plan.depth - 1,
        down * (plan.tile_rows * each + taps - 1),
        across * (plan.tile_columns * each + taps - 1),
    )
    d, h, w = (max(0, end - lo - n) for end, lo, n in zip(reach, before, lengths, strict=True))
    return Halo(before, (d, h, w))


def transformed(weights: Floats, plan: Winograd, room: Room = aligned) -> Floats:
    """A layer's weights, transformed."""
    if plan.thirds:
        plain = plan._replace(thirds=False, mode=PRODUCTS)
        blocks, (block, _) = plan.products * plan.filter_blocks, plain.strides
        taps = plan.blocks
        return thirds.packed(transformed(weights, plain), block, blocks, taps, plan.parts, room)
    result = room(plan.weight_floats)
    launch(packed(weights, plan), result, filter_descriptor(plan))
    return result


def packed(weights: Floats, plan: Winograd) -> Floats:
    """A layer's weights as they are transformed, the channels of all phases side by side."""
    apart = plan.phases.apart(weights)
    taps = apart.reshape(*apart.shape[:2], -1)
    return packed_weights(taps, Kind.BLOCKED, packed_block(plan), plan.parts)


def packed_block(plan: Winograd) -> int:
    """Floats of a block of packed weights."""
    return block_floats(plan.depth * plan.blocks * plan.size.taps**2, Kind.BLOCKED)


def filter_descriptor(plan: Winograd) -> Ints:
    """What `launch` takes to transform packed weights."""
    block, step = plan.strides
    taps = plan.size.taps**2
    work = transform_quarters if plan.strassen else transform_filters
    head = (work.address, plan.parts, SIZES.index(plan.size), taps, plan.depth * plan.blocks, step)
    sizes = (plan.filter_blocks // plan.halves, block, packed_block(plan), plan.products)
    return np.array((*head, *sizes), np.int64)
