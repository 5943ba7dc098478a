"""The direct convolution: every tile of outputs is one sum over a table of taps.

One worker (`direct_kernel.py`) serves convolutions of any rank, kernel, stride, dilation and
grouping, depthwise ones, the phases of transposed ones and fully connected layers; they differ in
the table and the strides (`Sum`). A fully connected layer's pixels are the samples of the batch.

What is done for a group of tiles before the next is a list of steps: the parts of a long sum, or
of the seven products of Strassen's algorithm (`strassen.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod
from struct import Struct
from typing import NamedTuple

import numpy as np

from netdsl.cpu.costs import OWN_CACHE
from netdsl.cpu.direct_kernel import direct, direct_short, direct_tight
from netdsl.cpu.launch import Worker
from netdsl.cpu.layout import LANES, Buffer, Call, Triple
from netdsl.cpu.micro import HALF, SCALED, SHORT, Kind, Shape, code, twice
from netdsl.cpu.micro.fields import ADD_RESIDUAL, FROM_BIAS, turns
from netdsl.cpu.tiling import Row, choose, starts
from netdsl.cpu.walks import OWN, STEP

Steps = tuple[int, int, int, int]


class View(NamedTuple):
    """How a sum walks through a buffer: where it starts, the floats to the next place along each
    of four axes (samples, depth, height, width), and to the next block of channels."""

    start: int
    steps: Steps
    block: int


def view(buffer: Buffer, first: Triple = (0, 0, 0), step: Triple = (1, 1, 1)) -> View:
    """The walk over a buffer from place `first` (which may lie in its halo) by `step`."""
    axes = (buffer.plane_stride, buffer.row_stride, buffer.lanes)
    d, h, w = (stride * by for stride, by in zip(axes, step, strict=True))
    start = buffer.origin + sum(a * b for a, b in zip(axes, first, strict=True))
    return View(start, (buffer.batch_stride, d, h, w), buffer.block_stride)


SHORTEST, NEAREST, LONGEST, LONGEST_HALF = 32, 256, 1024, 16384
"""Terms summed one after the other: where that costs nothing, in a small layer of few places; so
many that 16 filters' weights stay in a core's first cache for all tiles that read them; of weights
that were rounded, at most; and of those that were rounded to bfloat16, beside which errors of the
sums are small, unless many places read them again from memory."""

SHARED = 128
"""The same where tiles are four blocks wide and another thread may share the first cache."""

PASSING, OFTEN = 64, 2 / 3
"""The same where weights come from far away: at least, and for each place, as the more places read
weights the less it matters that a tile waits for the first of them. ResNet-50's 1x1 layers of 7x7
places take 25% longer by 256 than by 64 terms where these places are one sample's, and those of
14x14 places 10% less time where they are eight samples'."""

FEW, FAR = 16, 4 << 20
"""Places up to which weights are not read often enough to stay anywhere, and floats of weights that
no cache holds: such come from memory."""


class Sum(NamedTuple):
    """What the direct worker computes: output = clamp(bias + taps . weights + residual).

    counts: samples, planes, rows and columns of outputs. taps: where each tap lies from the first,
    in floats. starts: for each block of filters, where its first channels lie from the input's
    start. weights: where they start in params, block: the floats from one block of filters to the
    next; biases: None for none. scale: where that of tight weights is, whose sums start from what
    their output holds. spare: lanes of the last tap that hold no channel. clamp: the least and the
    largest output. fresh: floats of input that a place reads and its neighbours do not; all its
    taps' where that is 0.
    """

    kind: Kind
    counts: Steps
    source: View
    target: View
    taps: Sequence[int]
    starts: Sequence[int]
    weights: int
    block: int
    biases: int | None = None
    residual: View | None = None
    scale: int | None = None
    spare: int = 0
    clamp: tuple[float, float] = (-inf, inf)
    fresh: int = 0

    @property
    def longest(self) -> int:
        """Taps that are summed one after the other."""
        few, far = prod(self.counts) <= FEW, len(self.starts) * self.block > FAR
        if self.kind is Kind.BYTES:  # whose tiles sum in short parts by themselves
            return max(1, len(self.taps)) if few else LONGEST // self.kind.lanes
        if self.kind is Kind.MATRIX:  # which stays in its registers to the end
            return max(1, len(self.taps))
        if self.kind in HALF:
            again = self.kind is Kind.HALVED and far and not few
            return (LONGEST if again else LONGEST_HALF) // self.kind.lanes
        if few and (far or cached(self)):
            return (NEAREST if far else SHORTEST) // self.kind.lanes
        if self.kind is Kind.BLOCKED and twice():
            passing = max(PASSING, min(NEAREST, int(OFTEN * prod(self.counts))))
            return (SHARED if cached(self) else passing) // self.kind.lanes
        return NEAREST // self.kind.lanes

    @property
    def sums(self) -> int:
        """Parts of each sum."""
        return max(1, -(-len(self.taps) // self.longest))


def merged(counts: Steps, views: Sequence[View]) -> tuple[Steps, list[View]]:
    """The same walk with fewer, longer rows, where all views go on from row to row evenly."""
    axes = [(counts[3], [v.steps[3] for v in views])]
    for axis in (2, 1, 0):
        count, steps = counts[axis], [v.steps[axis] for v in views]
        size, inner = axes[-1]
        if steps == [size * step for step in inner]:
            axes[-1] = (size * count, inner)
        elif size == 1:
            axes[-1] = (count, steps)
        elif count > 1:
            axes.append((count, steps))
    axes += [(1, [0] * len(views))] * (4 - len(axes))
    (x, along), (y, down), (z, back), (n, apart) = axes
    walks = [v._replace(steps=(apart[i], back[i], down[i], along[i])) for i, v in enumerate(views)]
    return (n, z, y, x), walks


class Step(NamedTuple):
    """One step's sums for a group of tiles.

    tile: the fields of its tiles but for where the table of taps is. table: which taps are its own,
    of all that are listed. start, weights, to, beside: floats from where input, weights, output and
    residual start. again: whether it adds what is in the output to it. ahead: floats from its
    weights to those that come next, and lines: cache lines of them, of each block of filters, to
    ask for ahead of time.
    """

    tile: tuple[int, ...]
    table: int
    start: int = 0
    weights: int = 0
    to: int = 0
    beside: int = 0
    again: bool = False
    ahead: int = 0
    lines: int = 0


class Program(NamedTuple):
    """The steps of a sum, and what all of them read: the taps of all steps, one list behind the
    other; `halves`: Strassen's own fields, where it does them."""

    steps: Sequence[Step]
    taps: Sequence[int]
    halves: Sequence[int] = ()


class Grid(NamedTuple):
    """What a sum goes over: samples, planes, rows and columns, and the walks through input, output
    and residual."""

    counts: Steps
    source: View
    target: View
    residual: View


def grid(whole: Sum) -> Grid:
    """That of a sum, its rows as long as can be."""
    views = [whole.source, whole.target, whole.residual or whole.target]
    counts, walks = merged(whole.counts, views)
    return Grid(counts, *walks)


def describe(whole: Sum, parts: int, shape: Shape | None = None) -> Call:
    """The call that computes a sum on `parts` threads, by tiles of a shape where it fits."""
    over, kind = grid(whole), whole.kind
    runs = [count for _, count in filter_runs(whole.starts)]
    # What passes through the output, as a sum in parts does, may not belong to two tiles.
    overlap = len(whole.taps) <= whole.longest and kind is not Kind.TIGHT
    terms = max(1, len(whole.taps) * kind.lanes)
    rows = prod(over.counts[:3])
    row = choose(kind, over.counts[3], rows, runs, parts, overlap, shape, terms)
    together = group(whole, rows * row.length, row.shape.pixels, parts)
    program = _parts(whole, over, row.shape.blocks)
    work = direct_tight if kind is Kind.TIGHT else direct_short if kind in SHORT else direct
    return assembled(work, whole, over, row, together, program, parts)


def assembled(
    work: Worker, whole: Sum, over: Grid, row: Row, together: int, program: Program, parts: int
) -> Call:
    """The call of a worker that does a program, on rows of tiles; together: tiles of a group."""
    runs = filter_runs(whole.starts)
    filter_tiles = [
        (first + i, whole.starts[first])
        for first, count in runs
        for i in starts(count, row.shape.blocks)
    ]
    tiles = prod(over.counts[:3]) * row.length
    steps = program.steps
    each = len(steps[0].tile) + 1
    taps_at = OWN + each * len(steps)
    step_table = taps_at + len(program.taps)
    column_table = step_table + STEP * len(steps)
    filter_table = column_table + 2 * row.length + 1
    codes = [code(row.tile)] * row.whole + [code(tile) for tile in row.rest]
    at = [OWN + each * i for i in range(len(steps))]
    fields = (
        (0, max(1, min(parts, tiles * len(filter_tiles)))),
        over.counts[:3],
        (row.length, column_table, len(filter_tiles), filter_table),
        (together, whole.weights, whole.block),
        (whole.biases or whole.scale or 0,),
        *((view.start, *view.steps[:3]) for view in over[1:]),
        (len(steps), step_table, row.shape.blocks, filter_table + 2 * len(filter_tiles)),
        *((s.tile[0], taps_at + s.table - t, *s.tile[1:]) for s, t in zip(steps, at, strict=True)),
        program.taps,
        *((t, *s[2:]) for s, t in zip(steps, at, strict=True)),
        *zip(row.starts, codes, strict=True),
        (row.columns,),
        *filter_tiles,
        program.halves,
    )
    return Call(work, np.array([number for part in fields for number in part], np.int64))


NEAR = 4 * 1024
"""Floats that stay in a core's first cache while others pass."""


def cached(whole: Sum) -> bool:
    """Whether all weights stay in a core's second cache."""
    return len(whole.starts) * whole.block <= OWN_CACHE


def group(whole: Sum, tiles: int, pixels: int, parts: int) -> int:
    """Tiles along the rows to do for all filters before the next: as many as keep their input in
    the first cache where the second holds all weights, and in the second where it does not, so
    that weights pass by less often."""
    if len(set(whole.starts)) == len(whole.starts):
        return tiles  # No two blocks of filters read the same.
    room = NEAR if cached(whole) else OWN_CACHE
    fresh = max(1, (whole.fresh or len(whole.taps) * whole.kind.rows) // whole.sums)
    groups = -(-tiles // max(2, room // (fresh * pixels)))
    return -(-tiles // (-(-groups // parts) * parts if groups > 1 else 1))


def _parts(whole: Sum, over: Grid, across: int) -> Program:
    """A sum's parts, `longest` taps at most, so that rounding errors do not grow with its length.
    The first takes bias and residual, each later one adds what is in the output already, the last
    one clamps. across: blocks of filters of a tile."""
    taps, each, sums = len(whole.taps), whole.longest, whole.sums
    x_step, y_step, r_step = (view.steps[3] for view in over[1:])
    more, onward = over.residual.block, packed_floats(each, whole.kind)
    start = FROM_BIAS if whole.biases is not None else 0
    start |= ADD_RESIDUAL if whole.residual is not None else 0
    lines = 0 if cached(whole) else min(whole.block, onward) // LANES
    found = []
    for i in range(sums):
        last = i == sums - 1
        here = turns(whole.kind, min(each, taps - i * each), whole.spare if last else 0)
        clamp = whole.clamp if last else (-inf, inf)
        blocks = (whole.block, over.target.block, more)
        tile = (here, x_step, y_step, r_step, *blocks, start, *map(bits, clamp))
        step = Step(tile, i * each, weights=i * onward, again=i > 0)
        found.append(step._replace(ahead=across * whole.block, lines=lines))
        start, r_step, more = ADD_RESIDUAL, y_step, over.target.block
    return Program(found, whole.taps)


FLOAT, BITS = Struct("f"), Struct("i")


def bits(value: float) -> int:
    """A number's bits in single precision, as a descriptor holds it."""
    (found,) = BITS.unpack(FLOAT.pack(value))
    return int(found)


def filter_runs(starts: Sequence[int]) -> list[tuple[int, int]]:
    """Blocks of filters that read the same input: the first of each run, and how many."""
    runs: list[tuple[int, int]] = []
    for i, start in enumerate(starts):
        if i and start == starts[i - 1]:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((i, 1))
    return runs


def packed_floats(taps: int, kind: Kind) -> int:
    """Floats of so many taps' weights for 16 filters, their scales with them."""
    return taps * LANES * kind.rows + -(-taps * kind.lanes // SCALED) * kind.scales


def block_floats(taps: int, kind: Kind) -> int:
    """Floats of one block of filters' packed weights, an odd number of cache lines apart from
    multiples of 4096 bytes, so that blocks read side by side do not meet in the same cache set."""
    floats = packed_floats(taps, kind)
    return floats + 3 * LANES if floats % 1024 == 0 else floats
