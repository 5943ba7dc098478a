"""Direct sums of floats in AMX's registers, which multiply bfloat16: each float as three of them.

A bfloat16 has eight of a float's 24 digits, so a float is the sum of three (`micro/thirds.py`).
Six products of theirs make up one of floats, to what rounding loses anyway, and a register's
product makes 16 times as many as a multiply-add: 2.7 times the speed at best, in single precision.
A sum is then one of registers' sums of 32 terms each, so that it errs less than terms summed in
their order. What is lost: an infinity gives NaN, and where
products are below 1e-31 digits go, for AMX takes the smallest floats for zeros.

The parts of weights are made once, when a net is planned; they take one and a half times their
memory. Those of inputs are made for some places at a time, in the core's own cache, from wherever
their taps lie (`thirds_kernel.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod
from typing import NamedTuple

import numpy as np

from netdsl.cpu import direct
from netdsl.cpu.costs import OWN_CACHE, PLANAR, rates, read
from netdsl.cpu.direct import Sum, grid
from netdsl.cpu.launch import launch
from netdsl.cpu.layout import LANES, Call, Floats
from netdsl.cpu.micro import Kind, matrices
from netdsl.cpu.pack import Room, packed_biases, packed_weights
from netdsl.cpu.task import Places, Task
from netdsl.cpu.thirds_kernel import ALL, SUMS, TAPS, form_thirds, pack_thirds, thirds
from netdsl.ops import Conv, ConvTranspose

GROUP = 16
"""Sixteens of a group at most."""

ALONE = 0.8
"""The part of a pair's time that a sixteen or a block takes without another beside it: its sums
wait for each other."""

WHOLE, SPAN = 32, 16
"""Turns of 32 channels that are done at once, and those at a time of longer sums."""


class Tiling(NamedTuple):
    """How a sum is done: its turns of 32 channels, and those at a time; blocks of filters; sixteens
    of places in all and at a time; into how many parts filters are cut; threads."""

    turns: int
    span: int
    blocks: int
    sixteens: int
    together: int
    cut: int
    parts: int

    @property
    def made(self) -> int:
        """Floats of the parts of inputs that all threads share, if they do."""
        return self.sixteens * ALL * self.turns if self.cut > 1 else 0

    @property
    def own(self) -> int:
        """Floats of a thread's scratch."""
        tiles = -(-self.blocks // 2)
        kept = -(-tiles // self.cut) * -(-self.together // 2) if self.span < self.turns else 2
        return SUMS * kept + (self.together * ALL * self.span if self.cut == 1 else 0)

    @property
    def weights(self) -> int:
        """Bytes of the parts of weights."""
        return 4 * ALL * self.turns * self.blocks

    @property
    def scratch(self) -> int:
        """Floats of all threads' scratch."""
        return self.made + self.parts * self.own


def tiling(taps: int, blocks: int, places: int, threads: int) -> Tiling:
    """That of a sum of so many taps of 16 channels."""
    turns, sixteens = -(-taps // 2), -(-places // LANES)
    # With fewer sixteens than blocks of filters it is inputs that all threads read, not weights.
    few = sixteens < blocks and -(-blocks // 2) >= threads
    cut, parts = (threads, threads) if few else (1, min(threads, sixteens))
    share = -(-sixteens * cut // parts)
    whole = turns <= WHOLE or ALL * turns * share <= OWN_CACHE
    span = turns if whole else SPAN
    each = ALL * span + (0 if whole else LANES**2 * -(-blocks // cut))
    most = max(2, OWN_CACHE // each // 2 * 2)
    together = -(-share // -(-share // (most if few else min(GROUP, most))))
    return Tiling(turns, span, blocks, sixteens, together + together % 2, cut, parts)


def of(task: Task) -> Tiling:
    """That of a convolution."""
    op = task.whole.base
    assert isinstance(op, Conv)
    taps = prod(op.window.kernel) * -(-task.shapes[0][0] // LANES)
    places = task.batch * prod(task.made[1:])
    return tiling(taps, -(-op.filters // LANES), places, task.threads)


def suits(task: Task) -> bool:
    """Whether a layer can be done so: of floats in blocks of channels, without groups."""
    op = task.whole.base
    if not isinstance(op, Conv | ConvTranspose) or op.groups > 1 or task.shapes[0][0] <= PLANAR:
        return False
    return task.whole.pool is None and rates().thirds is not None and allowed(task)


def allowed(task: Task) -> bool:
    """Whether floats may be multiplied as three bfloat16 each: not where they are to be summed as
    they are, or weights packed anew."""
    return matrices() and task.fixed and not task.exact and task.precision == "fp32"


def cycles(task: Task) -> float:
    """What it costs a convolution: cycles of a thread, as costs.py counts them."""
    return cost(of(task), task.batch * prod(task.made[1:]), task.whole.residual)


def cost(how: Tiling, places: int, residual: bool) -> float:
    """The same of a sum of so many places."""
    known = rates().thirds
    if known is None:
        return inf
    tiles = -(-how.blocks // (2 * how.cut))
    sixteens = -(-how.sixteens * how.cut // how.parts)
    each = known.parts * how.turns + (known.end + known.residual * residual) * how.blocks
    passes = 1 if how.cut > 1 else -(-sixteens // how.together)
    waiting = known.weights * read(how.weights, passes) + known.shared * 4 * how.made
    products = 4 * known.products * pairs(sixteens) * tiles * how.turns
    return products + each * places / how.parts + waiting + known.call


def pairs(count: int) -> float:
    """So many sixteens of places, or blocks of filters, in the time of pairs of them."""
    return count // 2 + ALONE * (count % 2)


def block_floats(taps: int) -> int:
    """Floats of a block of filters' parts of weights."""
    return ALL * -(-taps // 2)


def packed(weights: Floats, block: int, blocks: int, taps: int, threads: int, room: Room) -> Floats:
    """The parts of weights packed for direct sums, `block` floats each block of filters."""
    made = room(blocks * block_floats(taps))
    sizes = (blocks, LANES * taps, block, block_floats(taps))
    d = np.array((pack_thirds.address, max(1, min(threads, blocks)), *sizes), np.int64)
    launch(weights, made, d)
    return made


def settings(clamp: tuple[float, float]) -> Floats:
    """What a call finds in params: the sizes of all registers, then the bounds, 16 times each."""
    said = np.zeros(64, np.uint8)
    said[0] = 1
    said[16:32].view(np.uint16)[:] = 64
    said[48:56] = 16
    return np.concatenate([said.view(np.float32), np.repeat(np.array(clamp, np.float32), 16)])


class Ends(NamedTuple):
    """Where a sum's outputs and its residual go, beside where the walks say: how far the first
    block of filters of each of its phases is from there, in floats. A phase has as many filters
    as the others, and its weights come behind theirs."""

    outputs: Sequence[int] = (0,)
    residual: Sequence[int] = (0,)


def plan(
    whole: Sum, weights: Floats, places: Places, threads: int, ends: Ends | None = None
) -> list[Call]:
    """The calls that compute a sum with such weights (filters of all phases, channels, taps) and
    the layer's biases; `whole` says neither."""
    params, taps, blocks = places.params, len(whole.taps), len(whole.starts)
    ends = ends or Ends()
    how = tiling(taps, blocks, prod(whole.counts), threads)
    block = direct.block_floats(taps, Kind.BLOCKED)
    plain = packed_weights(weights, Kind.BLOCKED, block, threads)
    made = params.add(packed(plain, block, blocks, taps, threads, params.room))
    each = blocks // len(ends.outputs)
    biases = packed_biases(places.weights.get("bias", np.zeros(0, np.float32)), each)
    biases_at = params.add(np.tile(biases, len(ends.outputs)))
    whole = whole._replace(weights=made, block=block_floats(taps), biases=biases_at)
    return describe(whole, how, ends, places.scratch, params.add(settings(whole.clamp)))


def describe(whole: Sum, how: Tiling, ends: Ends, scratch: int, sizes: int) -> list[Call]:
    """The calls that compute a sum. whole: with biases, its weights packed as `packed` does; sizes:
    where in params `settings` are."""
    over, taps = grid(whole), len(whole.taps)
    shared = how.cut > 1
    each = range(how.blocks // len(ends.outputs))
    tables = TAPS + 2 * how.turns
    fields = (
        over.counts[:3],
        (over.counts[3], prod(over.counts), how.together, how.cut),
        (how.turns, TAPS, how.span, how.blocks),
        *((view.start, *view.steps[:3]) for view in over[1:]),
        (view.steps[3] for view in over[1:]),
        (tables, tables + how.blocks),
        (int(whole.residual is not None), sizes, scratch + how.made, how.own),
        (whole.weights, whole.block, whole.biases or 0),
        (taps % 2, scratch if shared else -1),
        (*whole.taps, *whole.taps[-1:])[: 2 * how.turns],
        (start + b * over.target.block for start in ends.outputs for b in each),
        (start + b * over.residual.block for start in ends.residual for b in each),
    )
    numbers = [number for part in fields for number in part]
    sums = Call(thirds, np.array([0, how.parts, *numbers], np.int64))
    if not shared:
        return [sums]
    made = Call(form_thirds, np.array([0, min(how.parts, how.sixteens), *numbers], np.int64))
    return [made, sums]
