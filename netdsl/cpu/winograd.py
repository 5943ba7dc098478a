"""Winograd's convolution: tiles of inputs are transformed, multiplied and transformed back.

F(4x4, 3x3) makes 16 outputs with 36 products where the direct sum takes 144. The tiles of all
images stand in one row. Two ways through them:

- *by tiles*: a thread takes a chunk of tiles through all three steps, which stay in its cache,
  while the weights pass by once a chunk. For many tiles and few weights.
- *by products*: the threads do one step after the other, in the second a product at a time, so
  that every weight is read once. For few tiles and many weights. A long row of tiles is done in
  several chunks, that what passes from step to step stays in the cache that all share.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

import numpy as np
from numba import njit

from netdsl.cpu.direct import bits, choose
from netdsl.cpu.launch import BODY, launch, share, worker
from netdsl.cpu.layout import LANES, Buffer, Call, Floats, Halo, Ints, aligned
from netdsl.cpu.micro import Kind, Tile, code, run_product, turns
from netdsl.cpu.micro.cook_toom import SIZES, Size
from netdsl.cpu.micro.sandwich import transform_filter, transform_input, transform_output
from netdsl.cpu.micro.tile import TILE_FIELDS, past

BY_TILES, INPUTS, PRODUCTS, OUTPUTS = range(4)
"""What a call does: everything chunk by chunk, or one of the three steps for one chunk."""

MODE, SIZE, EACH, COUNT = range(BODY, BODY + 4)
CHUNKS, CHUNK, FIRST, TILES, TILE_ROWS, TILE_COLUMNS = range(BODY + 4, BODY + 10)
BLOCKS, FILTERS, FILTER_BLOCKS, TILE_BLOCKS = range(BODY + 10, BODY + 14)
# Where tensors start, then floats to the next sample, block and row.
INPUT, OUTPUT, RESIDUAL = BODY + 14, BODY + 18, BODY + 22
HEIGHT, WIDTH = BODY + 26, BODY + 27
# Transformed inputs and products: where they start, floats to the next thread's and product's.
INNER, MADE = BODY + 28, BODY + 31
WEIGHTS, BLOCK, STEP, BIASES, LOW, HIGH = range(BODY + 34, BODY + 40)
NUMBER, COLUMNS, COLUMN_TABLE = range(BODY + 40, BODY + 43)
TILE = BODY + 43


@njit(boundscheck=False, error_model="numpy")
def place(d, view, n, y, x):  # type: ignore[no-untyped-def]
    """Where a tile's first output, or the first input that it reads, lies in block 0."""
    return d[view] + n * d[view + 1] + d[EACH] * (y * d[view + 3] + 16 * x)


@njit(boundscheck=False, error_model="numpy")
def step_on(d, n, y, x):  # type: ignore[no-untyped-def]
    """The tile after tile (y, x) of image n."""
    x += 1
    if x == d[TILE_COLUMNS]:
        x, y = 0, y + 1
        if y == d[TILE_ROWS]:
            y, n = 0, n + 1
    return n, y, x


@njit(boundscheck=False, error_model="numpy")
def find(d, tile):  # type: ignore[no-untyped-def]
    """Image, row and column of a tile."""
    row = tile // d[TILE_COLUMNS]
    return row // d[TILE_ROWS], row % d[TILE_ROWS], tile % d[TILE_COLUMNS]


@njit(boundscheck=False, error_model="numpy")
def transform_inputs(arena, d, first, block, start, end, inner):  # type: ignore[no-untyped-def]
    """Tiles start to end of the chunk at `first`, in one block of channels."""
    n, y, x = find(d, first + start)
    for i in range(start, end):
        source = place(d, INPUT, n, y, x) + block * d[INPUT + 2]
        target = inner + 16 * (block * d[CHUNK] + i)
        transform_input(d[SIZE], arena, source, d[INPUT + 3], target, d[INNER + 2])
        n, y, x = step_on(d, n, y, x)


@njit(boundscheck=False, error_model="numpy")
def multiply(arena, params, d, k, block, inner, made):  # type: ignore[no-untyped-def]
    """Product k of a whole chunk for a tile of filter blocks."""
    weights = d[WEIGHTS] + block * d[BLOCK] + k * d[STEP]
    for i in range(d[COLUMNS]):
        at = 16 * d[d[COLUMN_TABLE] + i]
        x, y = inner + k * d[INNER + 2] + at, made + k * d[MADE + 2] + at
        run_product(d[NUMBER], arena, params, past(d, TILE), x, weights, y, 0, 0)


@njit(boundscheck=False, error_model="numpy")
def transform_outputs(  # type: ignore[no-untyped-def]
    arena, params, d, first, block, start, end, made
):
    """Tiles start to end of the chunk at `first`, for one block of filters."""
    n, y, x = find(d, first + start)
    for i in range(start, end):
        residual = d[RESIDUAL]
        if residual >= 0:
            residual = place(d, RESIDUAL, n, y, x) + block * d[RESIDUAL + 2]
        transform_output(
            d[SIZE],
            arena,
            made + 16 * i,
            d[MADE + 2],
            place(d, OUTPUT, n, y, x) + block * d[OUTPUT + 2],
            d[OUTPUT + 3],
            d[HEIGHT] - d[EACH] * y,
            d[WIDTH] - d[EACH] * x,
            params,
            d[BIASES] + 16 * block,
            residual,
            d[RESIDUAL + 3],
            d[LOW],
            d[HIGH],
        )
        n, y, x = step_on(d, n, y, x)


@njit(boundscheck=False, error_model="numpy")
def chunk_by_chunk(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """All steps of this thread's chunks; the last chunk overlaps the one before."""
    chunk, blocks = d[CHUNK], d[TILE_BLOCKS]
    inner, made = d[INNER] + part * d[INNER + 1], d[MADE] + part * d[MADE + 1]
    for c in range(share(d[CHUNKS], part, parts), share(d[CHUNKS], part + 1, parts)):
        first = min(c * chunk, d[TILES] - chunk)
        for b in range(d[BLOCKS]):
            transform_inputs(arena, d, first, b, 0, chunk, inner)
        for f in range(d[FILTERS]):
            block = min(f * blocks, d[FILTER_BLOCKS] - blocks)
            for k in range(d[COUNT]):
                multiply(arena, params, d, k, block, inner, made)
            for b in range(blocks):
                transform_outputs(
                    arena, params, d, first, block + b, 0, chunk, made + 16 * b * chunk
                )


@worker
def winograd(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """One of the calls, by MODE."""
    mode, chunk, blocks = d[MODE], d[CHUNK], d[TILE_BLOCKS]
    if mode == BY_TILES:
        chunk_by_chunk(arena, params, d, part, parts)
    elif mode == PRODUCTS:
        work = d[COUNT] * d[FILTERS]
        for item in range(share(work, part, parts), share(work, part + 1, parts)):
            k, f = item // d[FILTERS], item % d[FILTERS]
            block = min(f * blocks, d[FILTER_BLOCKS] - blocks)
            made = d[MADE] + 16 * block * chunk
            multiply(arena, params, d, k, block, d[INNER], made)
    else:
        work = chunk * d[BLOCKS] if mode == INPUTS else chunk * d[FILTER_BLOCKS]
        start, end = share(work, part, parts), share(work, part + 1, parts)
        while start < end:
            b, i = start // chunk, start % chunk
            stop = min(chunk, i + end - start)
            if mode == INPUTS:
                transform_inputs(arena, d, d[FIRST], b, i, stop, d[INNER])
            else:
                made = d[MADE] + 16 * b * chunk
                transform_outputs(arena, params, d, d[FIRST], b, i, stop, made)
            start += stop - i


@worker
def transform_filters(packed, weights, d, part, parts):  # type: ignore[no-untyped-def]
    """G g G' of weights packed for the direct sum: [block][channel block][tap][16][16] becomes
    [product][block][channel block][16][16], or [block][product]... where all is done by tiles."""
    size, taps, blocks, step = d[BODY], d[BODY + 1], d[BODY + 2], d[BODY + 3]
    work, block, packed_block = d[BODY + 4], d[BODY + 5], d[BODY + 6]
    for f in range(share(work, part, parts), share(work, part + 1, parts)):
        for b in range(blocks):
            source = f * packed_block + b * taps * 256
            target = f * block + b * 256
            for channel in range(16):
                at = 16 * channel
                transform_filter(size, packed, source + at, 256, weights, target + at, step)


@dataclass(frozen=True)
class Winograd:
    """The plan of one layer: channels and filters in blocks of 16.

    size: F(m x m, r x r). chunk: tiles at a time, of which there are `chunks`, the last one
    overlapping. tile: the micro-kernel of the products.
    """

    size: Size
    mode: int
    batch: int
    blocks: int
    filter_blocks: int
    tile_rows: int
    tile_columns: int
    chunk: int
    tile: Tile
    parts: int

    @property
    def tiles(self) -> int:
        return self.batch * self.tile_rows * self.tile_columns

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
        return LANES * (self.blocks * self.chunk | 1)

    @property
    def made_step(self) -> int:
        """The same of the products made."""
        held = self.tile.shape.blocks if self.mode == BY_TILES else self.filter_blocks
        return LANES * (held * self.chunk | 1)

    @property
    def strides(self) -> tuple[int, int]:
        """Floats from one block of filters to the next and from one product to the next, in the
        transformed weights: those read one after the other lie so. See `direct.block_floats`."""
        panel = self.blocks * LANES**2
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


def tiling(size: Size, lengths: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of tiles that cover an output of so many rows and columns."""
    rows, columns = (-(-n // size.outputs) for n in lengths)
    return rows, columns


def halo(
    size: Size, before: tuple[int, int], lengths: tuple[int, int], outputs: tuple[int, int]
) -> Halo:
    """The halo of an input of such lengths, wide enough for the last tiles' overhang."""
    counts = tiling(size, outputs)
    hi = [
        max(0, count * size.outputs + size.taps - 1 - lo - n)
        for count, lo, n in zip(counts, before, lengths, strict=True)
    ]
    return Halo((0, *before), (0, hi[0], hi[1]))


OWN_CACHE, SHARED_CACHE = 128 * 1024, 2 * 1024 * 1024
"""Floats that a chunk's transformed inputs and products may take, by tiles and by products."""

FEW_WEIGHTS = 640 * 1024
"""Floats of transformed weights up to which passing them by every chunk costs little."""


def planned(
    size: Size, batch: int, channels: int, filters: int, outputs: tuple[int, int], parts: int
) -> Winograd:
    """The cheaper way through a layer with `outputs` rows and columns."""
    rows, columns = tiling(size, outputs)
    tiles, products = batch * rows * columns, size.inputs**2
    blocks, filter_blocks = -(-channels // LANES), -(-filters // LANES)
    few = products * blocks * filter_blocks * LANES**2 <= FEW_WEIGHTS
    mode = BY_TILES if few and tiles >= 14 * parts else PRODUCTS
    if mode == BY_TILES:
        lengths = range(min(7, tiles), min(tiles, _most(OWN_CACHE, products, blocks + 2)) + 1)
    else:
        count = -(-tiles // _most(SHARED_CACHE, products, blocks + filter_blocks))
        lengths = range(-(-tiles // count), -(-tiles // count) + 1)

    def made(chunk: int) -> Winograd:
        share = parts if mode == PRODUCTS else 1
        tile = choose(Kind.BLOCKED, chunk, products, [filter_blocks], share)
        return Winograd(size, mode, batch, blocks, filter_blocks, rows, columns, chunk, tile, parts)

    return min(map(made, lengths), key=_cycles)


def _most(floats: int, products: int, blocks: int) -> int:
    """Tiles of which so many blocks fit a cache; some dozens at least."""
    return max(28, floats // (products * LANES * blocks))


def _cycles(plan: Winograd) -> float:
    """Roughly, the cycles of a thread that works by tiles."""
    shape, chunk = plan.tile.shape, plan.chunk
    across = -(-plan.filter_blocks // shape.blocks)
    along = -(-chunk // shape.pixels)
    product = along * (LANES * plan.blocks * shape.cycles(Kind.BLOCKED) + 40)
    transforms = 4 * chunk * (plan.blocks + across * shape.blocks)
    weights = plan.filter_blocks * plan.blocks * LANES**2 / 8
    each = plan.products * (across * product + transforms + weights)
    return -(-plan.chunks // plan.parts) * each


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
    sizes = (plan.blocks, step, plan.filter_blocks, block, packed_block)
    return np.array((*head, *sizes), np.int64)


@dataclass(frozen=True)
class Ends:
    """What a layer reads and writes. before: the padding above and left; scratch, weights,
    biases: where they start; clamp: the least and the largest output."""

    source: Buffer
    before: tuple[int, int]
    target: Buffer
    residual: Buffer | None
    scratch: int
    weights: int
    biases: int
    clamp: tuple[float, float]


def describe(plan: Winograd, ends: Ends) -> list[Call]:
    """The calls of a layer."""
    if plan.mode == BY_TILES:
        return [_call(plan, ends, BY_TILES, 0, plan.chunks)]
    work = {
        INPUTS: plan.chunk * plan.blocks,
        PRODUCTS: plan.products * plan.filter_tiles,
        OUTPUTS: plan.chunk * plan.filter_blocks,
    }
    firsts = [min(c * plan.chunk, plan.tiles - plan.chunk) for c in range(plan.chunks)]
    return [_call(plan, ends, mode, first, work[mode]) for first in firsts for mode in work]


def _call(plan: Winograd, ends: Ends, mode: int, first: int, work: int) -> Call:
    source, target, shape = ends.source, ends.target, plan.tile.shape
    start = source.origin - ends.before[0] * source.row_stride - ends.before[1] * source.lanes
    columns = [min(i, plan.chunk - shape.pixels) for i in range(0, plan.chunk, shape.pixels)]
    tap, (block, step) = plan.chunk * LANES, plan.strides
    inner, made = plan.products * plan.inner_step, plan.products * plan.made_step
    held = plan.parts if plan.mode == BY_TILES else 1
    fields: tuple[Iterable[int], ...] = (
        (0, min(plan.parts, work)),
        (mode, SIZES.index(plan.size), plan.size.outputs, plan.products),
        (plan.chunks, plan.chunk, first, plan.tiles, plan.tile_rows, plan.tile_columns),
        (plan.blocks, plan.filter_tiles, plan.filter_blocks, shape.blocks),
        (start, source.batch_stride, source.block_stride, source.row_stride),
        (target.origin, target.batch_stride, target.block_stride, target.row_stride),
        _residual(ends.residual),
        target.size[1:],
        (ends.scratch, inner, plan.inner_step),
        (ends.scratch + held * inner, made, plan.made_step),
        (ends.weights, block, step, ends.biases, *map(bits, ends.clamp)),
        (code(plan.tile), len(columns), TILE + TILE_FIELDS + plan.blocks),
        (turns(Kind.BLOCKED, plan.blocks), TILE_FIELDS, LANES, LANES, LANES, block, tap, tap),
        (0, *map(bits, (-inf, inf))),
        (b * tap for b in range(plan.blocks)),
        columns,
    )
    return Call(winograd, np.array([v for part in fields for v in part], np.int64))


def _residual(buffer: Buffer | None) -> tuple[int, ...]:
    if buffer is None:
        return (-1, 0, 0, 0)
    return (buffer.origin, buffer.batch_stride, buffer.block_stride, buffer.row_stride)
