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
inputs are made for a group of tiles at a time, in the core's own cache. The products are the tiles
of direct sums, and everything is summed up where the outputs lie, in two passes:

    Y11 = A11 B11, Y22 = S2 T2, Y12 = S1 T1, Y21 = S3 T3    each sum part by part (direct.py)
    mix: the sums above, with biases and residual
    Y11 += A12 B21, Y12 += S4 B22, Y21 += A22 T4

The halves of the places are those of an image, never two samples: a NaN of one stays in it. A row
or a place that is left over has no like: it takes Y1 = A11 B1 + A12 B2 and Y2 = S1 B1 + A22 (B2 -
B1), four products with the same weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from math import inf, prod
from typing import NamedTuple

import numpy as np

from netdsl.cpu.costs import SHARED_BY_FILTERS
from netdsl.cpu.direct import (
    NEAREST,
    Grid,
    Program,
    Step,
    Sum,
    View,
    assembled,
    bits,
    block_floats,
    cached,
    merged,
)
from netdsl.cpu.layout import LANES, Call, Floats
from netdsl.cpu.micro import Kind, Shape
from netdsl.cpu.micro.fields import ADD_RESIDUAL, ASK_RESIDUAL, turns
from netdsl.cpu.strassen_kernel import strassen
from netdsl.cpu.task import Task
from netdsl.cpu.tiling import choose
from netdsl.ops import Conv

A11, S2, S1, S3, A12, S4, A22 = range(7)
"""The order of the weights."""


def quarters(weights: Floats) -> Floats:
    """(filters, channels, 1) weights as (filters / 2, 7 channels / 2, 1): what the seven products
    take, side by side. Sums are rounded once."""
    filters, channels = weights.shape[:2]
    wide = weights.astype(np.float64).reshape(2, filters // 2, -1, 2, LANES)
    shape = (filters // 2, channels // 2, 1)
    a11, a12, a21, a22 = (wide[i, :, :, j].reshape(shape) for i in range(2) for j in range(2))
    s1 = a21 + a22
    s2 = s1 - a11
    found = {A11: a11, S2: s2, S1: s1, S3: a11 - a21, A12: a12, S4: a12 - s2, A22: a22}
    return np.concatenate([found[i] for i in range(7)], axis=1).astype(np.float32)


def suits(task: Task) -> bool:
    """Whether a convolution can be done so: 1x1, without groups, with whole blocks of channels and
    filters in each half."""
    op = task.whole.base
    if not isinstance(op, Conv) or op.groups > 1 or prod(op.window.kernel) > 1:
        return False
    if task.exact or task.precision != "fp32" or task.whole.pool is not None:
        return False
    whole = task.shapes[0][0] % (2 * LANES) == op.filters % (2 * LANES) == 0
    return whole and prod(task.made[1:]) > 1


PLACES = 56
"""Places of a group, with as many likes: four tiles to read a panel of weights. With fewer the
weights pass more often, and of twice as many the sums of inputs fill the second cache."""


MADE_BLOCK = LANES * (PLACES | 1)
"""Floats from one block of a sum of inputs to the next, an odd number of cache lines."""


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
    def made(self) -> int:
        """Floats of a sum of inputs, of which there are four."""
        return self.channels * MADE_BLOCK

    @property
    def panel(self) -> int:
        """Floats of a block of filters' weights for one product."""
        return self.channels * LANES * LANES


def halves_of(channels: int, filters: int) -> Halves:
    """Those of a layer."""
    return Halves(channels // (2 * LANES), filters // (2 * LANES))


def scratch(task: Task) -> int:
    """Floats of scratch for all threads' sums of inputs."""
    return task.threads * 4 * halves_of(task.shapes[0][0], task.made[0]).made


def block(half: Halves) -> int:
    """Floats of a block of filters' packed quarters."""
    return block_floats(7 * half.channels, Kind.ASKING)


class Ends(NamedTuple):
    """Where a layer keeps sums of inputs, and in params the bounds of its result, 16 times each."""

    scratch: int
    bounds: int


def describe(whole: Sum, ends: Ends, parts: int, shape: Shape | None = None) -> list[Call]:
    """The calls of a sum, whose weights are packed `quarters`, on `parts` threads, by tiles of a
    shape where it fits. whole: the sum as if they were not."""
    half = Halves(len(whole.taps) // 2, len(whole.starts) // 2)
    return [_call(whole, half, part, ends, parts, shape) for part in _parts(whole)]


class Part(NamedTuple):
    """Some of a sum's places: a walk over those of the first half, and the floats to a place's like
    in input, output and residual, 0 where places have none."""

    over: Grid
    apart: tuple[int, ...]

    @property
    def paired(self) -> bool:
        return any(self.apart)


def _parts(whole: Sum) -> Iterator[Part]:
    """The places that have a like, then the ones left over, if any. Halves are those of the longest
    rows of an image, or of its rows, or of its planes."""
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

    yield Part(some(0, half), tuple(half * walk.steps[axis] for walk in walks))
    if left:
        yield Part(some(2 * half, 1), (0, 0, 0))


def _call(
    whole: Sum, half: Halves, part: Part, ends: Ends, parts: int, shape: Shape | None
) -> Call:
    """The call for some of the places."""
    over, terms = part.over, half.channels * LANES
    rows = prod(over.counts[:3])
    row = choose(whole.kind, over.counts[3], rows, [half.filters], parts, False, shape, terms)
    each = _together([tile.shape.pixels for tile in (*[row.tile] * row.whole, *row.rest)])
    groups = -(-rows * row.length // each)
    if groups > 1 or half.filters < SHARED_BY_FILTERS:
        groups = -(-groups // parts) * parts
    together = min(each, -(-rows * row.length // groups))
    some = whole._replace(starts=whole.starts[: half.filters])
    program = _program(some, half, part, ends)
    return assembled(strassen, some, over, row, together, program, parts)


def _together(widths: list[int]) -> int:
    """The most neighbouring tiles that never have more than PLACES, in rows of such widths."""
    row = widths * (PLACES // sum(widths) + 2)
    ends = [0, *accumulate(row)]

    def fits(count: int) -> bool:
        return all(ends[i + count] - ends[i] <= PLACES for i in range(len(row) - count + 1))

    return next(count for count in range(PLACES, 0, -1) if count <= len(row) and fits(count))


class Product(NamedTuple):
    """One of the seven products: which weights and which quarter of the inputs, or which of their
    sums, it takes, and the quarter of the outputs that it is added to. A quarter is a half of the
    channels or filters (0, 1), and a half of the places."""

    weights: int
    inputs: tuple[int, int] | int
    outputs: tuple[int, int]


T1, T2, T3, T4 = range(4)
BEFORE = (
    Product(A11, (0, 0), (0, 0)),
    Product(S2, T2, (1, 1)),
    Product(S1, T1, (0, 1)),
    Product(S3, T3, (1, 0)),
)
AFTER = (
    Product(A12, (1, 0), (0, 0)),
    Product(S4, (1, 1), (0, 1)),
    Product(A22, T4, (1, 0)),
)
"""Those before the outputs' quarters are mixed, and after."""

ALONE = (Product(A11, (0, 0), (0, 0)), Product(S1, (0, 0), (1, 0)))
ALONE_AFTER = (Product(A12, (1, 0), (0, 0)), Product(A22, T1, (1, 0)))
"""The same for places that have no like."""


def _program(some: Sum, half: Halves, part: Part, ends: Ends) -> Program:
    """All products, each part by part. some: the sum for the first half of the filters."""
    before, after = (BEFORE, AFTER) if part.paired else (ALONE, ALONE_AFTER)
    lengths = half.lengths
    source, target, residual = part.over[1:]
    right, across, beside = part.apart
    asked = turns(some.kind, max(lengths)) * LANES
    taps = [*some.taps[: 2 * max(lengths) : 2], *(b * MADE_BLOCK for b in range(max(lengths)))]
    fields = (
        *(int(part.paired), len(before) * len(lengths), half.channels),
        *(ends.scratch, 4 * half.made, half.made, MADE_BLOCK),
        *(half.filters * LANES, int(some.residual is not None), ends.bounds),
        *(4 * half.channels, source.block // 2, asked),
        *(right, source.block, 2 * source.block, source.steps[3]),
        *(across, half.filters * target.block, target.block, target.steps[3]),
        *(beside, half.filters * residual.block, residual.block, residual.steps[3]),
    )
    steps = [
        _step(some, half, part, product, k)
        for product in (*before, *after)
        for k in range(len(lengths))
    ]
    return Program(steps, taps, fields)


def _step(some: Sum, half: Halves, part: Part, product: Product, k: int) -> Step:
    """The k-th part of a product."""
    source, target, residual = part.over[1:]
    first, count = sum(half.lengths[:k]), half.lengths[k]
    after, formed = product.weights in (A12, S4, A22), isinstance(product.inputs, int)
    last = after and first + count == half.channels
    again = after or k > 0
    start, added = ADD_RESIDUAL if again else 0, target
    if some.residual is not None and not again:
        start, added = ASK_RESIDUAL, residual

    def quarter(view: View, blocks: int, apart: int, which: tuple[int, int]) -> int:
        return which[0] * blocks * view.block + which[1] * apart

    if isinstance(product.inputs, int):
        read = product.inputs * half.made + first * MADE_BLOCK
    else:
        read = quarter(source, 1, part.apart[0], product.inputs) + 2 * first * source.block
    return Step(
        tile=(
            *(turns(some.kind, count), LANES if formed else source.steps[3]),
            *(target.steps[3], added.steps[3], some.block, target.block, added.block, start),
            *map(bits, some.clamp if last else (-inf, inf)),
        ),
        table=max(half.lengths) if formed else 0,
        start=read,
        weights=product.weights * half.panel + first * LANES * LANES,
        to=quarter(target, half.filters, part.apart[1], product.outputs),
        beside=quarter(residual, half.filters, part.apart[2], product.outputs),
        formed=formed,
        again=again,
        ahead=count * LANES * LANES,
        lines=0 if cached(some) else count * LANES,
    )
