"""Winograd's convolution: tiles of inputs are transformed, multiplied and transformed back.

F(4x4, 3x3) makes 16 outputs with 36 products where the direct sum takes 144. The tiles of all
images stand in one row. Two ways through them:

- *by tiles*: a thread takes a chunk of tiles through all three steps, which stay in its cache,
  while the weights pass by once a chunk. For many tiles.
- *by products*: the threads do one step after the other, in the second a product at a time, so
  that every weight is read once. For few tiles and many weights. A long row of tiles is done in
  several chunks, that what passes from step to step stays in the cache that all share.

A kernel with depth is transformed slice by slice: each output slice sums over several slices of
transformed inputs, as it sums over channels. Its images are the slices of one sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf, prod

import numpy as np

from netdsl.cpu.costs import CACHED, OWN_CACHE, rates, read, turn
from netdsl.cpu.direct import bits
from netdsl.cpu.launch import launch
from netdsl.cpu.layout import LANES, Buffer, Call, Floats, Halo, Ints, Triple, aligned
from netdsl.cpu.micro import Kind, Tile, code
from netdsl.cpu.micro.fields import SIZES, TILE_FIELDS, Size, output_form, turns
from netdsl.cpu.tiling import product_tile
from netdsl.cpu.winograd_kernel import (
    BY_TILES,
    INPUTS,
    OUTPUTS,
    PRODUCTS,
    TILE,
    transform_filters,
    winograd,
)


@dataclass(frozen=True)
class Winograd:
    """The plan of one layer: channels and filters in blocks of 16.

    size: F(m x m, r x r). images: those whose tiles stand in one row, and walks: how many such
    rows there are. deep: the images are the slices of a sample, and depth: the kernel's taps along
    them. chunk: tiles at a time, of
    which there are `chunks`, the last one overlapping. tile: the micro-kernel of the products.
    spare: lanes at the end of a sum that hold no channel.
    """

    size: Size
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

    @property
    def name(self) -> str:
        """What tuning calls this way, see choices.py."""
        order = "tiles" if self.mode == BY_TILES else "products"
        return f"winograd{self.size.outputs} by {order} of {self.chunk}"

    @property
    def tiles(self) -> int:
        """Tiles in a row."""
        return self.images * self.tile_rows * self.tile_columns

    @property
    def read(self) -> int:
        """Tiles of inputs that a chunk reads."""
        return self.chunk + (self.depth - 1) * self.tile_rows * self.tile_columns

    @property
    def chunks(self) -> int:
        return -(-self.tiles // self.chunk)

    @property
    def filter_tiles(self) -> int:
        return -(-self.filter_blocks // self.tile.shape.blocks)

    @property
    def products(self) -> int:
        return self.size.inputs**2

    @property
    def inner_step(self) -> int:
        """Floats from one product's inputs to the next's, an odd number of cache lines."""
        return LANES * (self.blocks * self.read | 1)

    @property
    def made_step(self) -> int:
        """The same of the products made."""
        held = self.tile.shape.blocks if self.mode == BY_TILES else self.filter_blocks
        return LANES * (held * self.chunk | 1)

    @property
    def strides(self) -> tuple[int, int]:
        """Floats from one block of filters to the next and from one product to the next, in the
        transformed weights: those read one after the other lie so. See `direct.block_floats`."""
        panel = self.depth * self.blocks * LANES**2
        if self.mode == BY_TILES:
            return self.products * panel + 3 * LANES, panel
        return panel + 3 * LANES, self.filter_blocks * (panel + 3 * LANES)

    @property
    def weight_floats(self) -> int:
        """Floats of all transformed weights."""
        return max(
            n * stride
            for n, stride in zip((self.filter_blocks, self.products), self.strides, strict=True)
        )

    @property
    def scratch(self) -> int:
        """Floats of scratch for transformed inputs and products."""
        held = self.parts if self.mode == BY_TILES else 1
        return self.products * held * (self.inner_step + self.made_step)


def tiling(size: Size, lengths: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of tiles that cover an output of so many rows and columns."""
    rows, columns = (-(-n // size.outputs) for n in lengths)
    return rows, columns


def halo(plan: Winograd, before: Triple, lengths: Triple, outputs: Triple) -> Halo:
    """The halo of an input of such lengths, wide enough for the last tiles' overhang."""
    each, taps = plan.size
    reach = (
        outputs[0] + plan.depth - 1,
        plan.tile_rows * each + taps - 1,
        plan.tile_columns * each + taps - 1,
    )
    d, h, w = (max(0, end - lo - n) for end, lo, n in zip(reach, before, lengths, strict=True))
    return Halo(before, (d, h, w))


SHARED_CACHE = 8 * 1024 * 1024
"""Floats that a chunk's transformed inputs and products may take by products."""

NEAR_CACHE = 1024 * 1024
"""The same by products, where the weights stay in the shared cache and may pass often."""

FEWEST = 14
"""Tiles at a time below which a product of matrices is not worth its loads."""


@dataclass(frozen=True)
class Layer:
    """A convolution of stride 1: samples, channels, filters, outputs per axis, threads.

    depth: the taps along depth, None where there is no depth.
    """

    batch: int
    channels: int
    filters: int
    outputs: Triple
    depth: int | None
    parts: int


@lru_cache(maxsize=1024)
def planned(size: Size, layer: Layer) -> Winograd:
    """The cheaper way through a layer. It is asked for many times while a net is planned, and nets
    repeat their layers."""
    return _cheapest(size, layer, _order(size, layer))[0]


def ways(size: Size, layer: Layer, count: int) -> list[Winograd]:
    """Ways through a layer that are worth measuring, the one that `planned` takes first: both
    orders where both can be, each with the cheapest numbers of tiles at a time, `count` of them."""
    first = _order(size, layer)
    other = BY_TILES + PRODUCTS - first
    orders = [first, *([other] if other == PRODUCTS or _can_go_by_tiles(size, layer) else [])]
    return [
        plan for order in orders for plan in _apart(_cheapest(size, layer, order, more=4), count)
    ]


def _apart(plans: Iterable[Winograd], count: int) -> list[Winograd]:
    """The first few that differ in more than a tile or two."""
    found: list[Winograd] = []
    for plan in plans:
        if len(found) < count and all(
            abs(plan.chunk - other.chunk) > other.chunk // 6 for other in found
        ):
            found.append(plan)
    return found


def _tiles(size: Size, layer: Layer) -> int:
    """Tiles in a row."""
    images = layer.batch if layer.depth is None else layer.outputs[0]
    return images * prod(tiling(size, layer.outputs[1:]))


def _can_go_by_tiles(size: Size, layer: Layer) -> bool:
    return (layer.depth or 1) == 1 and _tiles(size, layer) >= 14 * layer.parts


def _order(size: Size, layer: Layer) -> int:
    """The cheaper order, by tiles only where there are many of them."""
    if not _can_go_by_tiles(size, layer):
        return PRODUCTS
    return min((BY_TILES, PRODUCTS), key=lambda mode: cycles(_cheapest(size, layer, mode)[0]))


@lru_cache(maxsize=1024)
def _cheapest(size: Size, layer: Layer, mode: int, more: int = 2) -> tuple[Winograd, ...]:
    """Plans with several numbers of tiles at a time, the cheapest first."""
    parts, depth = layer.parts, layer.depth or 1
    walks, images = (1, layer.batch) if layer.depth is None else (layer.batch, layer.outputs[0])
    rows, columns = tiling(size, layer.outputs[1:])
    image, products = rows * columns, size.inputs**2
    tiles = images * image
    blocks, filter_blocks = -(-layer.channels // LANES), -(-layer.filters // LANES)
    if mode == BY_TILES:
        lengths: Sequence[int] = range(
            min(7, tiles), min(tiles, _most(OWN_CACHE, products, blocks + 2)) + 1
        )
    else:
        weights = 4 * products * depth * blocks * filter_blocks * LANES**2
        room = NEAR_CACHE if weights <= CACHED else SHARED_CACHE
        count = -(-tiles // _most(room, products, blocks + filter_blocks))
        # As few chunks as fit, or a few more where tiles then cover them better; a kernel with
        # depth needs whole images.
        each = 1 if depth == 1 else image
        lengths = [min(tiles, -(-tiles // (n * each)) * each) for n in range(count, count + more)]
        lengths = [n for n in lengths if n >= min(tiles, FEWEST)] or lengths[:1]

    spare = -layer.channels % LANES if depth == 1 else 0

    def made(chunk: int) -> Winograd:
        share = parts if mode == PRODUCTS else 1
        tile = product_tile(chunk, products, filter_blocks, share)
        sizes = (layer.depth is not None, depth, blocks, filter_blocks, rows, columns, chunk)
        return Winograd(size, mode, walks, images, *sizes, tile, parts, spare)

    return tuple(sorted(map(made, dict.fromkeys(lengths)), key=cycles))


def _most(floats: int, products: int, blocks: int) -> int:
    """Tiles of which so many blocks fit a cache; some dozens at least."""
    return max(28, floats // (products * LANES * blocks))


def cycles(plan: Winograd) -> float:
    """Roughly, the cycles of a thread."""
    known, shape, chunk = rates(), plan.tile.shape, plan.chunk
    across, along = plan.filter_tiles, -(-chunk // shape.pixels)
    # A tile's weights come from the second level, which is not hidden quite.
    each = turn(shape, (known.turn, known.loads))
    product = along * (LANES * plan.depth * plan.blocks * each + known.tile)
    inside, outside = plan.read * plan.blocks, chunk * plan.filter_blocks
    transforms = known.transform * (inside + outside)
    weights = 4 * plan.products * plan.filter_blocks * plan.depth * plan.blocks * LANES**2
    chunks = plan.walks * plan.chunks
    if plan.mode == BY_TILES:
        turns = plan.walks * -(-plan.chunks // plan.parts)
        share = float(turns * plan.products)
        # Threads that wait less for weights do not read them side by side.
        waiting = read(weights, chunks if known.apart else turns)
        transforms += missed(plan) * known.missed * (inside + outside)
        product += missed(plan) * 4 * LANES * inside / known.again
    else:
        share = chunks * plan.products / plan.parts
        transforms += plan.parts * 2 * 4 * LANES * (inside + outside) / known.passing
        waiting = read(weights, chunks)
    products = share * across * product
    if known.unhidden is not None and along >= known.alone:
        # Most of it hides, since tiles ask for weights ahead of time: see micro/product.py.
        products, waiting = max(products, waiting), known.unhidden * min(products, waiting)
    steps = chunks * 3 if plan.mode == PRODUCTS else 1
    return share * transforms + products + waiting + steps * known.wait


def missed(plan: Winograd) -> float:
    """The part of a chunk that a core's own cache has no room for, by tiles."""
    held = plan.products * (plan.inner_step + plan.made_step)
    return max(0.0, 1 - rates().room * OWN_CACHE / held)


def transformed(weights: Floats, plan: Winograd, packed_block: int) -> Floats:
    """Weights as `packed_weights` gives them, transformed."""
    result = aligned(plan.weight_floats)
    launch(weights, result, filter_descriptor(plan, packed_block))
    return result


def filter_descriptor(plan: Winograd, packed_block: int) -> Ints:
    """What `launch` takes to transform packed weights; packed_block: floats of one block there."""
    block, step = plan.strides
    taps = plan.size.taps**2
    head = (transform_filters.address, plan.parts, SIZES.index(plan.size), taps)
    sizes = (plan.depth * plan.blocks, step, plan.filter_blocks, block, packed_block)
    return np.array((*head, *sizes), np.int64)


@dataclass(frozen=True)
class Ends:
    """What a layer reads and writes. before: the padding before, above and left; scratch,
    weights, biases: where they start; clamp: the least and the largest output; pooled: whether the
    target takes the largest of every 2x2 outputs."""

    source: Buffer
    before: Triple
    target: Buffer
    residual: Buffer | None
    scratch: int
    weights: int
    biases: int
    clamp: tuple[float, float]
    pooled: bool = False


def describe(plan: Winograd, ends: Ends) -> list[Call]:
    """The calls of a layer."""
    firsts = [min(c * plan.chunk, plan.tiles - plan.chunk) for c in range(plan.chunks)]
    if plan.mode == BY_TILES:
        return [_call(plan, ends, BY_TILES, walk, 0) for walk in range(plan.walks)]
    return [
        _call(plan, ends, mode, walk, first)
        for walk in range(plan.walks)
        for first in firsts
        for mode in (INPUTS, PRODUCTS, OUTPUTS)
    ]


def _work(plan: Winograd, mode: int) -> int:
    """Into how many pieces a call's work can be cut."""
    return {
        BY_TILES: plan.chunks,
        INPUTS: plan.read * plan.blocks,
        PRODUCTS: plan.products * plan.filter_tiles,
        OUTPUTS: plan.chunk * plan.filter_blocks,
    }[mode]


def _view(plan: Winograd, buffer: Buffer, walk: int, before: Triple = (0, 0, 0)) -> tuple[int, ...]:
    """Where a row's first image starts; the floats to the next image, block and row."""
    strides = (buffer.plane_stride, buffer.row_stride, buffer.lanes)
    start = buffer.origin - sum(a * b for a, b in zip(strides, before, strict=True))
    image = buffer.plane_stride if plan.deep else buffer.batch_stride
    start += walk * buffer.batch_stride
    return (start, image, buffer.block_stride, buffer.row_stride)


def _call(plan: Winograd, ends: Ends, mode: int, walk: int, first: int) -> Call:
    shape, image = plan.tile.shape, plan.tile_rows * plan.tile_columns
    columns = [min(i, plan.chunk - shape.pixels) for i in range(0, plan.chunk, shape.pixels)]
    taps = [b * plan.read + z * image for b in range(plan.blocks) for z in range(plan.depth)]
    block, step = plan.strides
    made_block = plan.chunk * LANES
    inner, made = plan.products * plan.inner_step, plan.products * plan.made_step
    held = plan.parts if plan.mode == BY_TILES else 1
    chunk = plan.read if mode == INPUTS else plan.chunk
    residual = _view(plan, ends.residual, walk) if ends.residual else (-1, 0, 0, 0)
    each = plan.size.outputs // 2 if ends.pooled else plan.size.outputs
    fields: tuple[Iterable[int], ...] = (
        (0, min(plan.parts, _work(plan, mode))),
        (mode, SIZES.index(plan.size), plan.size.outputs, plan.products),
        (plan.chunks, chunk, first, plan.tiles, plan.tile_rows, plan.tile_columns),
        (plan.blocks, plan.filter_tiles, plan.filter_blocks, shape.blocks),
        _view(plan, ends.source, walk, ends.before),
        _view(plan, ends.target, walk),
        residual,
        (*ends.target.size[1:], output_form(plan.size, ends.pooled), each),
        (ends.scratch, inner, plan.inner_step),
        (ends.scratch + held * inner, made, plan.made_step),
        (ends.weights, block, step, ends.biases, *map(bits, ends.clamp)),
        (code(plan.tile), len(columns), TILE + TILE_FIELDS + len(taps)),
        (turns(Kind.BLOCKED, len(taps), plan.spare), TILE_FIELDS, LANES, LANES, LANES),
        (block, made_block, made_block, 0, *map(bits, (-inf, inf))),
        (LANES * tap for tap in taps),
        columns,
    )
    return Call(winograd, np.array([v for part in fields for v in part], np.int64))
