"""The ways through a layer by Winograd's algorithm: which of its two orders, how many tiles at a
time, and what makes the products."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import prod
from typing import NamedTuple

from netdsl.cpu.costs import CACHED, OWN_CACHE, SHARED, rates
from netdsl.cpu.layout import LANES, Triple
from netdsl.cpu.micro import Tile
from netdsl.cpu.micro.fields import Size
from netdsl.cpu.strides import Phases
from netdsl.cpu.tiling import product_tile
from netdsl.cpu.winograd import Winograd, tiling
from netdsl.cpu.winograd_costs import cycles, cycles_by
from netdsl.cpu.winograd_kernel import BY_TILES, PRODUCTS

SHARED_CACHE = 8 * 1024 * 1024
"""Floats that a chunk's transformed inputs and products may take by products."""

NEAR_CACHE = 1024 * 1024
"""The same by products, where the weights stay in the shared cache and may pass often."""

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
    cost = cycles_by(one)
    return Alike(one, sorted(pairs, key=lambda pair: cost(*pair)))


def _most(floats: int, products: int, blocks: int, halves: int = 1, least: int = 28) -> int:
    """Tiles, or pairs of them, of which so many blocks fit a cache; so many tiles at least."""
    return max(least, floats // (products * LANES * blocks)) // halves
