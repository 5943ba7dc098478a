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

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np

from netdsl.cpu import thirds
from netdsl.cpu.costs import CACHED, OWN_CACHE, SHARED, rates, turn
from netdsl.cpu.costs import read as bring
from netdsl.cpu.direct import block_floats
from netdsl.cpu.launch import launch
from netdsl.cpu.layout import LANES, Floats, Halo, Ints, Triple, aligned
from netdsl.cpu.micro import Kind, Tile
from netdsl.cpu.micro.fields import SIZES, Size
from netdsl.cpu.pack import Room, packed_weights
from netdsl.cpu.strides import Phases, spans, summed
from netdsl.cpu.tiling import product_tile
from netdsl.cpu.winograd_groups import Groups, groups
from netdsl.cpu.winograd_kernel import BY_TILES, PRODUCTS, transform_filters
from netdsl.cpu.winograd_quarters import transform_quarters


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


SHARED_CACHE = 8 * 1024 * 1024
"""Floats that a chunk's transformed inputs and products may take by products."""

NEAR_CACHE = 1024 * 1024
"""The same by products, where the weights stay in the shared cache and may pass often."""

APART = 1024
"""Floats that lie between what two threads write and read many times."""

WORTH, WORTH_FAR = 0.97, 0.93
"""The part of a layer's cycles below which Strassen's algorithm is worth 7/4 of its weights: those
that all threads' cache holds, and those that come from memory."""

SHORTEST = 16
"""Tiles at a time by Strassen's algorithm, even where the core's own cache has room for fewer: what
has no room there costs more than weights that pass often."""

LONGEST = 32
"""Pairs of tiles at a time where weights are too large for the cache that all share."""

FEWEST = 14
"""Tiles at a time below which a product of matrices is not worth its loads."""


class Layer(NamedTuple):
    """A convolution: samples, channels, filters, outputs per axis, threads.

    depth: the taps along depth, None where there is no depth. phases: of the other axes' stride.
    strassen, thirds: whether products may be made by Strassen's algorithm, or in AMX's registers.
    """

    batch: int
    channels: int
    filters: int
    outputs: Triple
    depth: int | None
    parts: int
    phases: Phases
    strassen: bool = False
    thirds: bool = False


@lru_cache(maxsize=1024)
def planned(size: Size, layer: Layer) -> Winograd:
    """The cheaper way through a layer. It is asked for many times while a net is planned, and nets
    repeat their layers."""
    plain = _cheapest(size, layer, _order(size, layer))
    found = [_cheapest(size, layer, order, thirds=True) for order in _thirds(size, layer)]
    plain = min([plain, *found], key=cycles)
    found = [_cheapest(size, layer, order, strassen=True) for order in _strassen(size, layer)]
    best = min(found, key=cycles, default=plain)
    far = 4 * best.weight_floats > SHARED
    return best if cycles(best) < (WORTH_FAR if far else WORTH) * cycles(plain) else plain


def ways(size: Size, layer: Layer, count: int) -> list[Winograd]:
    """Ways through a layer that are worth measuring, the one that `planned` takes first: both
    orders where both can be, each with the cheapest numbers of tiles at a time, `count` of them,
    and the same with products by Strassen's algorithm and in AMX's registers."""
    orders = [BY_TILES, PRODUCTS] if _can_go_by_tiles(size, layer) else [PRODUCTS]
    orders.sort(key=lambda order: order != _order(size, layer))
    found = [_by_cost(size, layer, order, 4).first() for order in orders]
    found += [_by_cost(size, layer, order, 4, True).first() for order in _strassen(size, layer)]
    found += [
        _by_cost(size, layer, order, 4, thirds=True).first() for order in _thirds(size, layer)
    ]
    found.sort(key=lambda plans: plans[0] != planned(size, layer))
    return [plan for plans in found for plan in _apart(plans, count)]


def _strassen(size: Size, layer: Layer) -> list[int]:
    """The orders in which Strassen's algorithm can make the products."""
    pairs = _tiles(size, layer) // 2
    if not layer.strassen or (layer.depth or 1) > 1 or pairs < FEWEST // 2:
        return []
    return [BY_TILES, PRODUCTS] if pairs >= FEWEST // 2 * layer.parts else [PRODUCTS]


def _thirds(size: Size, layer: Layer) -> list[int]:
    """The orders in which AMX's registers can make the products."""
    if rates().registers is None or not layer.thirds or (layer.depth or 1) > 1:
        return []
    if _tiles(size, layer) < LANES:
        return []
    return [BY_TILES, PRODUCTS] if _can_go_by_tiles(size, layer) else [PRODUCTS]


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
    return min((BY_TILES, PRODUCTS), key=lambda mode: cycles(_cheapest(size, layer, mode)))


class Alike(NamedTuple):
    """Plans that differ only in how many tiles are done at a time, and so in the tile of their
    products: one of them, and both of all."""

    one: Winograd
    each: Sequence[tuple[int, Tile]]

    def first(self, count: int | None = None) -> list[Winograd]:
        return [self.one._replace(chunk=chunk, tile=tile) for chunk, tile in self.each[:count]]


@lru_cache(maxsize=1024)
def _cheapest(
    size: Size, layer: Layer, mode: int, strassen: bool = False, thirds: bool = False
) -> Winograd:
    """The cheapest plan."""
    return _by_cost(size, layer, mode, strassen=strassen, thirds=thirds).first(1)[0]


def _by_cost(
    size: Size,
    layer: Layer,
    mode: int,
    more: int = 2,
    strassen: bool = False,
    thirds: bool = False,
) -> Alike:
    """Plans with several numbers of tiles at a time, the cheapest first."""
    parts, depth = layer.parts, layer.depth or 1
    walks, images = (1, layer.batch) if layer.depth is None else (layer.batch, layer.outputs[0])
    rows, columns = tiling(size, layer.outputs[1:])
    halves = 2 if strassen else 1
    image, products = -(-rows * columns // halves), size.inputs**2
    tiles = images * image
    blocks, filter_blocks = -(-layer.channels // LANES), -(-layer.filters // LANES)
    blocks *= len(layer.phases.order)
    if mode == BY_TILES:
        held = max(blocks, filter_blocks) if strassen or thirds else blocks + 2
        most = _most(OWN_CACHE, products, held, halves, SHORTEST if strassen else 28)
        if strassen and 4 * products * blocks * filter_blocks * LANES**2 > SHARED:
            most = max(most, LONGEST)
        lengths: Sequence[int] = range(min(7, tiles), min(tiles, most) + 1)
        if thirds:
            most = _most(2 * OWN_CACHE, products, held)
            lengths = [min(n, tiles) for n in range(LANES, most + 1, LANES)]
    else:
        weights = 4 * products * depth * blocks * filter_blocks * LANES**2
        room = NEAR_CACHE if weights <= CACHED and not thirds else SHARED_CACHE
        held = max(blocks, filter_blocks) if thirds else blocks + filter_blocks
        count = -(-tiles // _most(room, products, held, halves))
        # As few chunks as fit, or a few more where tiles then cover them better, or where what
        # passes from step to step does so nearer; a kernel with depth needs whole images.
        each = 1 if depth == 1 else image
        numbers = [*range(count, count + more), *((2 * count, 4 * count) if thirds else ())]
        lengths = [min(tiles, -(-tiles // (n * each)) * each) for n in numbers]
        lengths = [n for n in lengths if n >= min(tiles, FEWEST // halves)] or lengths[:1]

    spare = -layer.channels % LANES if depth == 1 and not strassen else 0

    # By tiles a thread does all products, so however many they are the same tile is best.
    shared = (products, parts) if mode == PRODUCTS else (1, 1)
    across = filter_blocks // halves
    pairs = [(n, product_tile(n, across, *shared, strassen)) for n in dict.fromkeys(lengths)]
    sizes = (layer.depth is not None, depth, blocks, filter_blocks, rows, columns, *pairs[0])
    one = Winograd(size, layer.phases, mode, walks, images, *sizes, parts, spare, strassen, thirds)
    cost = _cost(one)
    return Alike(one, sorted(pairs, key=lambda pair: cost(*pair)))


def _most(floats: int, products: int, blocks: int, halves: int = 1, least: int = 28) -> int:
    """Tiles, or pairs of them, of which so many blocks fit a cache; so many tiles at least."""
    return max(least, floats // (products * LANES * blocks)) // halves


def cycles(plan: Winograd) -> float:
    """Roughly, the cycles of a thread."""
    return _cost(plan)(plan.chunk, plan.tile)


def _cost(plan: Winograd) -> Callable[[int, Tile], float]:
    """The cycles of plans like this one, by their tiles at a time and the tile of their products:
    there are many of them, so what they share is worked out once."""
    if plan.thirds:
        return lambda chunk, tile: _cost_in_registers(plan._replace(chunk=chunk))
    known, parts, by_tiles, strassen = rates(), plan.parts, plan.mode == BY_TILES, plan.strassen
    products, blocks, terms, tiles = plan.products, plan.blocks, plan.terms, plan.tiles
    walks, halves, filter_blocks = plan.walks, plan.halves, plan.filter_blocks
    room = known.room
    more, inner_blocks, in_place = plan.read - plan.chunk, plan.inner_blocks, plan.in_place
    weights, miss = round(4 * products * filter_blocks * terms * LANES**2), known.missed
    beside = (known.turn, known.loads)
    if strassen:
        assert known.quarters is not None
        end, form, miss, room = known.quarters
        weights = 7 * weights // 4

    def cost(chunk: int, tile: Tile) -> float:
        (pixels, width), read = tile.shape, chunk + more
        across, along = -(-filter_blocks // halves // width), -(-chunk // pixels)
        # A tile's weights come from the second level, which is not hidden quite.
        each = turn(tile.shape, beside)
        product = along * (LANES * terms * each + known.tile)
        inside, outside = read * blocks, chunk * filter_blocks
        transforms = known.transform * (inside + outside)
        if strassen:
            product = along * 7 * (LANES * terms / 2 * each + end)
            inside, outside = 2 * inside, 2 * outside
            transforms = 2 * transforms + form * inside
        chunks = walks * -(-tiles // chunk)
        if by_tiles:
            turns = walks * -(-tiles // chunk // parts)
            share = float(turns * products)
            # Threads that wait less for weights do not read them side by side.
            waiting = bring(weights, chunks if known.apart else turns)
            held = step(inner_blocks, read)
            held += 0 if in_place else step(halves * width, chunk)
            over = missed(products * held, room)
            transforms += over * miss * (inside + outside)
            product += over * 4 * LANES * inside / known.again
        else:
            share = chunks * products / parts
            transforms += parts * 2 * 4 * LANES * (inside + outside) / known.passing
            waiting = bring(weights, chunks)
        sums = share * across * product
        if along >= known.alone or (strassen and weights <= SHARED):
            # Most of it hides, since tiles ask for weights ahead of time: see micro/product.py.
            # Those of quarters take long enough for it, where weights need not come from memory.
            sums, waiting = max(sums, waiting), known.unhidden * min(sums, waiting)
        steps = 1 if by_tiles else chunks * 3
        return share * transforms + sums + waiting + steps * known.wait

    return cost


def _cost_in_registers(plan: Winograd) -> float:
    """The cycles of a plan whose products are made in AMX's registers."""
    known, how = rates().registers, plan.groups
    assert known is not None
    chunks, sides = plan.walks * plan.chunks, plan.chunk * (plan.blocks + plan.filter_blocks)
    pairs = thirds.pairs(how.sixteens) * thirds.pairs(plan.filter_blocks)
    each = how.turns * (known.products * pairs + known.form * how.sixteens)
    each += known.transform * sides
    weights = 4 * plan.weight_floats
    waiting = weights / known.first
    if plan.mode == BY_TILES:
        turns: float = plan.walks * -(-plan.chunks // plan.parts)
        each += missed(plan.own, known.room) * known.missed * sides
        again = turns - 1 if weights > 4 * OWN_CACHE else 0
    else:
        turns = chunks / plan.parts
        passing = 1 + missed(plan.products * plan.inner_step, known.few) * known.more
        waiting += chunks * plan.products * 4 * LANES * sides * passing / known.passing
        again = chunks * how.passes - 1
    return turns * plan.products * each + waiting + again * weights / known.again


def missed(held: int, room: float) -> float:
    """The part of so many floats of a chunk that a core's own cache has no room for."""
    return max(0.0, 1 - room * OWN_CACHE / held)


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
