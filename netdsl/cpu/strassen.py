"""Strassen's algorithm for 1x1 convolutions: a product of matrices with an eighth fewer
multiply-adds.

A 1x1 convolution is the product of weights A (filters x channels) and inputs B (channels x places).
Both are cut in quarters: halves of the filters, of the channels and of the places of each image.
The channels' halves are every other block, for in a joined tensor the first half may be another
layer's than the second, and much larger, which would cost digits.
The plain way multiplies quarters eight times; Strassen (1969) found that seven products of sums of
quarters do, and Winograd the fewest sums to make:

    S1 = A21 + A22    T1 = B12 - B11        Y11 =            A11 B11
    S2 = S1 - A11     T2 = B22 - T1         Y12 = Y11 + S2 T2 + S1 T1 + S4 B22
    S3 = A11 - A21    T3 = B22 - B12        Y21 = Y11 + S2 T2 + S3 T3 + A22 T4
    S4 = A12 - S2     T4 = B21 - T2         Y22 = Y11 + S2 T2 + S3 T3 + S1 T1
                                            and then Y11 += A12 B21

Sums of weights are made once, when a net is planned; they take 7/4 of the weights' memory. Sums of
inputs are made for a group of tiles at a time, in the core's own cache. Then a tile makes the same
places and filters of all four quarters (`micro/points.py`), and writes each once. Products of many
channels are summed up in parts, as direct sums are: a tile does all of some channels before the
next, and adds what it finds in the outputs.

The halves of the places are those of an image, never two samples: a NaN of one stays in it. A row
or a place that is left over has no like: it goes by direct sums, with weights of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from math import inf, prod
from typing import NamedTuple

import numpy as np

from netdsl.cpu import direct
from netdsl.cpu.direct import (
    NEAREST,
    Grid,
    Program,
    Step,
    Sum,
    View,
    assembled,
    bits,
    cached,
    merged,
)
from netdsl.cpu.layout import LANES, Call, Floats, Triple
from netdsl.cpu.micro import Kind, Shape, quartered
from netdsl.cpu.micro.fields import ADD_RESIDUAL, FROM_BIAS, turns
from netdsl.cpu.strassen_kernel import strassen
from netdsl.cpu.task import Task
from netdsl.cpu.tiling import choose
from netdsl.ops import Conv


def quarters(weights: Floats, lengths: Sequence[int]) -> Floats:
    """(filters, channels, 1) weights as (filters / 2, 7 channels / 2, 1): for each part of a sum,
    of so many blocks of channels, what the seven products take, in the order in which tiles make
    them. Sums are rounded once."""
    filters, channels = weights.shape[:2]
    wide = weights.astype(np.float64).reshape(2, filters // 2, -1, 2, LANES)
    shape = (filters // 2, channels // 2, 1)
    a11, a12, a21, a22 = (wide[i, :, :, j].reshape(shape) for i in range(2) for j in range(2))
    s1 = a21 + a22
    s2 = s1 - a11
    made = [a11, s2, s1, a12 - s2, a11 - a21, a22, a12]
    ends = [LANES * n for n in accumulate(lengths, initial=0)]
    parts = [one[:, start:end] for start, end in pairwise(ends) for one in made]
    return np.concatenate(parts, axis=1).astype(np.float32)


def suits(task: Task) -> bool:
    """Whether a convolution can be done so: 1x1, without groups, with whole blocks of channels and
    filters in each half."""
    op = task.whole.base
    if not isinstance(op, Conv) or op.groups > 1 or prod(op.window.kernel) > 1:
        return False
    if not quartered() or not task.fixed or task.exact or task.precision != "fp32":
        return False
    if task.whole.pool is not None:
        return False
    whole = task.shapes[0][0] % (2 * LANES) == op.filters % (2 * LANES) == 0
    return whole and prod(task.made[1:]) > 1


SHARED_BY_FILTERS = 16
"""Blocks of filters in each half from which on threads share the filters of a small layer rather
than its places, so that a thread reads its own weights alone."""

PLACES, FEWER = 56, 28
"""Places of a group, with as many likes: four tiles to read a panel of weights, or two where a
layer has more channels than filters, whose sums of inputs then leave the second cache more room."""

APART = 1024
"""Floats before and behind a thread's sums of inputs. A core asks for more than it reads, and takes
them from the other core that writes there."""


class Halves(NamedTuple):
    """Half a layer: blocks of channels and of filters."""

    channels: int
    filters: int

    @property
    def lengths(self) -> list[int]:
        """Blocks of channels that are summed up one after the other, see `direct.NEAREST`."""
        count = -(-self.channels * LANES // NEAREST)
        return [self.channels * (i + 1) // count - self.channels * i // count for i in range(count)]

    @property
    def places(self) -> int:
        """Places of a group at most."""
        return FEWER if self.channels > self.filters else PLACES

    @property
    def made_block(self) -> int:
        """Floats from one block of a sum of inputs to the next, an odd number of cache lines."""
        return LANES * (self.places | 1)

    @property
    def made(self) -> int:
        """Floats of a sum of inputs, of which there are four."""
        return self.channels * self.made_block

    @property
    def own(self) -> int:
        """Floats of a thread's scratch."""
        return 4 * self.made + 2 * APART


def halves_of(channels: int, filters: int) -> Halves:
    """Those of a layer."""
    return Halves(channels // (2 * LANES), filters // (2 * LANES))


def scratch(task: Task) -> int:
    """Floats of scratch for all threads' sums of inputs."""
    return task.threads * halves_of(task.shapes[0][0], task.made[0]).own


def describe(whole: Sum, plain: Plain, scratch: int, parts: int, shape: Shape | None) -> list[Call]:
    """The calls of a sum, whose weights are packed `quarters`, on `parts` threads, by tiles of a
    shape where it fits. whole: the sum as if they were not; plain: packs the weights themselves,
    for places that have no like; scratch: where sums of inputs may lie."""
    half = Halves(len(whole.taps) // 2, len(whole.starts) // 2)
    cut = _cut(whole)
    calls = [_call(whole, half, cut.over, cut.apart, scratch, parts, shape)]
    if cut.left is not None:
        weights, block = plain()
        sizes, source, target, residual = cut.left
        added = None if whole.residual is None else residual
        alone = whole._replace(kind=Kind.BLOCKED, weights=weights, block=block, counts=sizes)
        alone = alone._replace(source=source, target=target, residual=added)
        calls.append(direct.describe(alone, parts))
    return calls


Plain = Callable[[], tuple[int, int]]
"""Gives where packed weights lie in params, and the floats of a block of filters."""


class Cut(NamedTuple):
    """A layer's places: a walk over those of the first half; the floats to a place's like in input,
    output and residual; a walk over the places that have none, if there are any."""

    over: Grid
    apart: Triple
    left: Grid | None


def _cut(whole: Sum) -> Cut:
    """Halves are those of the longest rows of an image, or of its rows, or of its planes."""
    views = [whole.source, whole.target, whole.residual or whole.target]
    counts, walks = merged((1, *whole.counts[1:]), views)
    axis = next(i for i in (1, 2, 3) if counts[i] > 1)
    half, left = divmod(counts[axis], 2)

    def some(first: int, count: int) -> Grid:
        z, y, x = (count if i == axis else counts[i] for i in (1, 2, 3))
        moved = [
            View(
                walk.start + first * walk.steps[axis], (all_.steps[0], *walk.steps[1:]), all_.block
            )
            for walk, all_ in zip(walks, views, strict=True)
        ]
        sizes, (source, target, residual) = merged((whole.counts[0], z, y, x), moved)
        return Grid(sizes, source, target, residual)

    right, across, beside = (half * walk.steps[axis] for walk in walks)
    return Cut(some(0, half), (right, across, beside), some(2 * half, 1) if left else None)


def _call(
    whole: Sum,
    half: Halves,
    over: Grid,
    apart: Triple,
    scratch: int,
    parts: int,
    shape: Shape | None,
) -> Call:
    """The call for the places that have a like."""
    rows, terms = prod(over.counts[:3]), half.channels * LANES
    row = choose(whole.kind, over.counts[3], rows, [half.filters], parts, False, shape, terms)
    each = _together(
        [tile.shape.pixels for tile in (*[row.tile] * row.whole, *row.rest)], half.places
    )
    groups = -(-rows * row.length // each)
    if groups > 1 or half.filters < SHARED_BY_FILTERS:
        groups = -(-groups // parts) * parts
    together = min(each, -(-rows * row.length // groups))
    some = whole._replace(starts=whole.starts[: half.filters])
    program = _program(some, half, over, apart, scratch)
    return assembled(strassen, some, over, row, together, program, parts)


def _together(widths: list[int], places: int) -> int:
    """The most neighbouring tiles that never have more places than that, in rows of such widths."""
    row = widths * (places // sum(widths) + 2)
    ends = [0, *accumulate(row)]

    def fits(count: int) -> bool:
        return all(ends[i + count] - ends[i] <= places for i in range(len(row) - count + 1))

    return next(count for count in range(places, 0, -1) if count <= len(row) and fits(count))


def _program(some: Sum, half: Halves, over: Grid, apart: Triple, scratch: int) -> Program:
    """The parts of the sum, one after the other. some: that for the first half of the filters."""
    source, right = over.source, apart[0]
    fields = (
        *(half.channels, scratch + APART, half.own, half.made, half.made_block),
        *(4 * half.channels, source.block // 2),
        *(right, source.block, 2 * source.block, source.steps[3]),
    )
    ends = accumulate(half.lengths, initial=0)
    spans = [range(*pair) for pair in pairwise(ends)]
    taps = [tap for span in spans for tap in _taps(half, source, right, span)]
    return Program([_step(some, half, over, apart, span) for span in spans], taps, fields)


def _taps(half: Halves, source: View, right: int, span: range) -> Iterator[int]:
    """Those of the products in their order: of B11, T2, T1, B22, T3, T4 and B21, some blocks of
    channels of each. An odd number is of a sum, see `micro/quarters.py`."""
    for quarter in ((0, 0), 1, 0, (1, 1), 2, 3, (1, 0)):
        for b in span:
            if isinstance(quarter, int):
                yield quarter * half.made + b * half.made_block + 1
            else:
                yield (2 * b + quarter[0]) * source.block + quarter[1] * right


def _step(some: Sum, half: Halves, over: Grid, apart: Triple, span: range) -> Step:
    """A part of the sum, of some blocks of channels: the first takes biases and residual, later
    ones add what is there, the last one's results are bounded."""
    _, source, target, added = over
    _, across, beside = apart
    start = FROM_BIAS | (ADD_RESIDUAL if some.residual is not None else 0)
    if span.start > 0:
        start, added, beside = ADD_RESIDUAL, target, across
    clamp = some.clamp if span.stop == half.channels else (-inf, inf)
    return Step(
        tile=(
            *(turns(some.kind, len(span)), source.steps[3], target.steps[3], added.steps[3]),
            *(some.block, target.block, added.block, start, *map(bits, clamp)),
            *(across, half.filters * target.block, beside, half.filters * added.block),
            *(half.filters * LANES, source.block // 2),
        ),
        table=7 * span.start,
        weights=7 * span.start * LANES * LANES,
        again=span.start > 0,
        ahead=int(not cached(some)),
    )
