"""What Winograd's algorithm costs a layer, in the cycles of `costs.py`."""

from __future__ import annotations

from collections.abc import Callable

from netdsl.cpu import thirds
from netdsl.cpu.costs import OWN_CACHE, SHARED, rates, turn
from netdsl.cpu.costs import read as bring
from netdsl.cpu.layout import LANES
from netdsl.cpu.micro import Tile
from netdsl.cpu.winograd import Winograd, step
from netdsl.cpu.winograd_kernel import BY_TILES


def cycles(plan: Winograd) -> float:
    """Roughly, the cycles of a thread."""
    return cycles_by(plan)(plan.chunk, plan.tile)


def cycles_by(plan: Winograd) -> Callable[[int, Tile], float]:
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
