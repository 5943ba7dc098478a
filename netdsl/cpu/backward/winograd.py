"""Winograd's weight gradient: for each of the products, gradients times inputs over all tiles.

The tiles of all images stand in one row, and are taken a chunk at a time. Of each chunk the inputs
and gradients are transformed; then, product by product, a sum of outer products over its tiles is
added to what the chunks before gave. At the end the sums are transformed to taps. Of F(4x4, 3x3)
that is 36 multiply-adds a tile where the direct sum takes 144.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from netdsl.cpu.backward.outer import ADD, FRESH, outer
from netdsl.cpu.backward.sandwich import transform_gradient, transform_taps
from netdsl.cpu.launch import share, worker
from netdsl.cpu.layout import (
    BATCH_STRIDE,
    BLOCK_STRIDE,
    BLOCKS,
    CHANNELS,
    LANES,
    ORIGIN,
    ROW_STRIDE,
    Buffer,
    Call,
    Halo,
)
from netdsl.cpu.micro import transform_input
from netdsl.cpu.micro.fields import SIZES, Size
from netdsl.cpu.views import OTHER, OWN, SOURCE, call
from netdsl.cpu.winograd import tiling
from netdsl.ops import Conv, Shape

# The source is the output's gradient, OTHER the input. Then: the size's number, its outputs and
# products; tiles down and across an image; the chunk's first tile and its count; how far the first
# input of the first tile lies before the input's origin; where transformed inputs, gradients and
# sums start, the floats from one product's to the next, and from block to block of the first two;
# whether sums start at zero; taps; where the arena takes the gradient.
NUMBER, EACH, COUNT, ROWS, COLUMNS, FIRST, CHUNK, BEFORE = range(OWN, OWN + 8)
INPUTS, INPUTS_STEP, GRADIENTS, GRADIENTS_STEP, SUMS, SUMS_STEP, APART = range(OWN + 8, OWN + 15)
MODE, TAPS, INTO, LINE, SCRATCH = range(OWN + 15, OWN + 20)

outer_8x2 = outer((8, 2))


@worker
def transform_both(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """A chunk's inputs and gradients, transformed: a task is a block of either."""
    image, inputs = d[ROWS] * d[COLUMNS], d[OTHER + BLOCKS]
    chunk, apart = d[CHUNK], d[APART]
    work = (inputs + d[SOURCE + BLOCKS]) * chunk
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        b, i = item // chunk, item % chunk
        tile = d[FIRST] + i
        n, within = tile // image, tile % image
        y, x = d[EACH] * (within // d[COLUMNS]), d[EACH] * (within % d[COLUMNS])
        if b < inputs:
            at = d[OTHER + ORIGIN] - d[BEFORE] + n * d[OTHER + BATCH_STRIDE]
            at += b * d[OTHER + BLOCK_STRIDE] + y * d[OTHER + ROW_STRIDE] + 16 * x
            into = d[INPUTS] + b * apart + 16 * i
            transform_input(d[NUMBER], arena, at, d[OTHER + ROW_STRIDE], 16, into, d[INPUTS_STEP])
        else:
            b -= inputs
            at = d[SOURCE + ORIGIN] + n * d[SOURCE + BATCH_STRIDE]
            at += b * d[SOURCE + BLOCK_STRIDE] + y * d[SOURCE + ROW_STRIDE] + 16 * x
            into = d[GRADIENTS] + b * apart + 16 * i
            transform_gradient(
                d[NUMBER], arena, at, d[SOURCE + ROW_STRIDE], into, d[GRADIENTS_STEP]
            )


@worker
def multiply(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """Adds a chunk's outer products: a task is a product and two blocks of filters."""
    pairs = (d[SOURCE + BLOCKS] + 1) // 2
    channels, apart, chunk = d[OTHER + CHANNELS], d[APART], d[CHUNK]
    work = d[COUNT] * pairs
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        k, pair = item // pairs, item % pairs
        g = d[GRADIENTS] + k * d[GRADIENTS_STEP] + 2 * pair * apart
        # The last of an odd number of blocks is taken twice; nobody reads the second.
        other = apart if 2 * pair + 1 < d[SOURCE + BLOCKS] else 0
        into = d[SUMS] + k * d[SUMS_STEP] + pair * d[LINE]
        for c in range(0, channels, 8):
            a = d[INPUTS] + k * d[INPUTS_STEP] + c // 16 * apart + c % 16
            outer_8x2(
                *(0, arena, a, 1, 16, arena, g, other, 16, arena, into + 32 * c, 32, 16),
                *(d, SCRATCH + 1, 1, chunk, d[MODE]),
            )


@worker
def take_taps(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """The sums as taps, in the weights' own layout: a task is a channel and a filter block."""
    blocks, channels, filters = d[SOURCE + BLOCKS], d[OTHER + CHANNELS], d[SOURCE + CHANNELS]
    taps, scratch = d[TAPS], d[SCRATCH] + 16 * d[TAPS] * part
    work = channels * blocks
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        b, c = item // channels, item % channels
        source = d[SUMS] + b // 2 * d[LINE] + 32 * c + b % 2 * 16
        transform_taps(d[NUMBER], arena, source, d[SUMS_STEP], scratch, 16)
        for f in range(16 * b, min(16 * b + 16, filters)):
            into = d[INTO] + (f * channels + c) * taps
            for tap in range(taps):
                arena[into + tap] = arena[scratch + 16 * tap + f - 16 * b]


WORTH = 1.6
"""How many times fewer multiply-adds it must take to pay for its transforms."""
LEAST_TILES = 24
MOST = 1 << 20
"""Floats that a chunk's transformed inputs and gradients may take."""


@dataclass(frozen=True)
class Plan:
    """How a layer's weight gradient is made: the size, tiles down and across, tiles in all,
    tiles in a chunk."""

    size: Size
    rows: int
    columns: int
    tiles: int
    chunk: int


def planned(op: Conv, shape: Shape, out: Shape, batch: int) -> Plan | None:
    """The plan for a layer from `shape` to `out`; None where the direct sum is better."""
    w = op.window
    sizes = [size for size in SIZES if w.kernel == (size.taps, size.taps) and size.outputs == 4]
    plain = op.groups == 1 and set(w.stride) == set(w.dilation) == {1}
    if not sizes or not plain or min(shape[0], out[0]) < LANES:
        return None
    (size,) = sizes
    rows, columns = tiling(size, (out[1], out[2]))
    tiles = batch * rows * columns
    gain = prod(w.kernel) * out[1] * out[2] / (size.inputs**2 * rows * columns)
    if gain < WORTH or tiles < LEAST_TILES:
        return None
    blocks = -(-shape[0] // LANES) + -(-out[0] // LANES)
    most = max(48, MOST // (size.inputs**2 * LANES * blocks))
    count = -(-tiles // most)
    return Plan(size, rows, columns, tiles, -(-tiles // count))


def halos(plan: Plan, op: Conv, shape: Shape, out: Shape) -> tuple[Halo, Halo]:
    """What the tiles reach beyond the input and beyond the output's gradient."""
    (top, _), (left, _) = op.window.padding
    covered = plan.rows * plan.size.outputs, plan.columns * plan.size.outputs
    more = plan.size.taps - 1
    below, right = (
        max(0, n + more - lo - have)
        for n, lo, have in zip(covered, (top, left), shape[1:], strict=True)
    )
    over = Halo((0, 0, 0), (0, covered[0] - out[1], covered[1] - out[2]))
    return Halo((0, top, left), (0, below, right)), over


def _places(plan: Plan, channels: int, filters: int) -> tuple[int, int, int, int]:
    """Floats from one product's inputs, gradients and sums to the next's, and in all but taps."""
    blocks, filter_blocks = -(-channels // LANES), -(-filters // LANES)
    # An odd number of cache lines, so that products do not meet in the same cache set.
    inputs = LANES * (blocks * plan.chunk | 1)
    gradients = LANES * (filter_blocks * plan.chunk | 1)
    sums = LANES * (-(-filter_blocks // 2) * 2 * LANES * blocks | 1)
    return inputs, gradients, sums, plan.size.inputs**2 * (inputs + gradients + sums)


def scratch(plan: Plan, channels: int, filters: int, threads: int) -> int:
    """Floats of scratch."""
    return _places(plan, channels, filters)[3] + threads * LANES * plan.size.taps**2


def describe(
    plan: Plan, op: Conv, x: Buffer, g: Buffer, *, into: int, start: int, threads: int
) -> list[Call]:
    """The calls of a layer. into: where the arena takes the gradient; start: of the scratch."""
    inputs, gradients, sums, whole = _places(plan, x.channels, g.channels)
    products = plan.size.inputs**2
    (top, _), (left, _) = op.window.padding
    line = 32 * LANES * x.blocks

    def fields(first: int, count: int) -> tuple[int, ...]:
        return (
            *(SIZES.index(plan.size), plan.size.outputs, products, plan.rows, plan.columns),
            *(first, count, top * x.row_stride + left * LANES),
            *(start, inputs, start + products * inputs, gradients),
            *(start + products * (inputs + gradients), sums, plan.chunk * LANES),
            *(FRESH if first == 0 else ADD, plan.size.taps**2, into, line, start + whole, 0, 0),
        )

    calls = []
    for first in range(0, plan.tiles, plan.chunk):
        own = fields(first, min(plan.chunk, plan.tiles - first))
        calls.append(call(transform_both, threads, g, g, *own, other=x))
        calls.append(call(multiply, threads, g, g, *own, other=x))
    calls.append(call(take_taps, threads, g, g, *fields(0, plan.chunk), other=x))
    return calls
