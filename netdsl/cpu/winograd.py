"""Winograd's convolution: tiles of inputs are transformed, multiplied and transformed back.

F(4x4, 3x3) makes 16 outputs with 36 products where the direct sum takes 144. The tiles of all
images stand in one row. Two ways through them:

- *by tiles*: a thread takes a chunk of tiles through all three steps, which stay in its cache,
  while the weights pass by once a chunk. For many tiles and few weights.
- *by filters*: first all tiles are transformed, then each thread takes its filters through all
  tiles, so that every weight is read once. For few tiles and many weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from netdsl.cpu.direct import choose
from netdsl.cpu.launch import BODY, launch, share, worker
from netdsl.cpu.layout import LANES, Buffer, Call, Floats, Halo, aligned
from netdsl.cpu.micro import Kind, Shape, Tile, code, run_tile
from netdsl.cpu.micro.cook_toom import SIZES, Size
from netdsl.cpu.micro.sandwich import transform_filter, transform_input, transform_output
from netdsl.cpu.micro.tile import TILE_FIELDS, past

BY_TILES, INPUTS, BY_FILTERS = range(3)
"""What a call does: everything chunk by chunk, the inputs alone, the rest filter by filter."""

MODE, SIZE, OUTPUTS, PRODUCTS = range(BODY, BODY + 4)
CHUNKS, CHUNK, TILES, TILE_ROWS, TILE_COLUMNS = range(BODY + 4, BODY + 9)
BLOCKS, FILTERS, FILTER_BLOCKS, TILE_BLOCKS = range(BODY + 9, BODY + 13)
# Where tensors start, then floats to the next sample, block and row.
INPUT, OUTPUT, RESIDUAL = BODY + 13, BODY + 17, BODY + 21
HEIGHT, WIDTH = BODY + 25, BODY + 26
# Transformed inputs and products: where they start, floats to the next thread's and product's.
INNER, MADE = BODY + 27, BODY + 30
WEIGHTS, BLOCK, STEP, BIASES, LOW, HIGH = range(BODY + 33, BODY + 39)
NUMBER, COLUMNS, COLUMN_TABLE = range(BODY + 39, BODY + 42)
TILE = BODY + 42


@worker
def winograd(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """One of the three calls, by MODE."""
    t = past(d, TILE)
    mode, size, outputs, products = d[MODE], d[SIZE], d[OUTPUTS], d[PRODUCTS]
    chunks, chunk, tiles, across = d[CHUNKS], d[CHUNK], d[TILES], d[TILE_COLUMNS]
    image = d[TILE_ROWS] * across
    blocks, filters = d[BLOCKS], d[FILTERS]
    inner, made = d[INNER], d[MADE]
    inner_step, made_step = d[INNER + 2], d[MADE + 2]
    work = chunks
    if mode == INPUTS:
        work = chunks * blocks
    elif mode == BY_FILTERS:
        work = filters
        made += part * d[MADE + 1]
    else:
        inner += part * d[INNER + 1]
        made += part * d[MADE + 1]
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        first_chunk, end_chunk = item, item + 1
        first_block, end_block = 0, blocks
        first_filter, end_filter = 0, filters
        if mode == INPUTS:
            first_chunk, first_block = item % chunks, item // chunks
            end_chunk, end_block = first_chunk + 1, first_block + 1
        elif mode == BY_FILTERS:
            first_chunk, end_chunk = 0, chunks
            first_filter, end_filter = item, item + 1
        for c in range(first_chunk, end_chunk):
            first = min(c * chunk, tiles - chunk)
            here = inner
            if mode != BY_TILES:
                here += c * d[INNER + 1]
            if mode != BY_FILTERS:
                for b in range(first_block, end_block):
                    for i in range(chunk):
                        n, within = (first + i) // image, (first + i) % image
                        y, x = within // across, within % across
                        source = d[INPUT] + n * d[INPUT + 1] + b * d[INPUT + 2]
                        source += outputs * (y * d[INPUT + 3] + 16 * x)
                        target = here + 16 * (b * chunk + i)
                        transform_input(size, arena, source, d[INPUT + 3], target, inner_step)
            if mode == INPUTS:
                continue
            for f in range(first_filter, end_filter):
                block = min(f * d[TILE_BLOCKS], d[FILTER_BLOCKS] - d[TILE_BLOCKS])
                for k in range(products):
                    weights = d[WEIGHTS] + block * d[BLOCK] + k * d[STEP]
                    for i in range(d[COLUMNS]):
                        at = 16 * d[d[COLUMN_TABLE] + i]
                        run_tile(
                            d[NUMBER],
                            arena,
                            params,
                            t,
                            here + k * inner_step + at,
                            weights,
                            made + k * made_step + at,
                            0,
                            0,
                        )
                for b in range(d[TILE_BLOCKS]):
                    for i in range(chunk):
                        n, within = (first + i) // image, (first + i) % image
                        y, x = outputs * (within // across), outputs * (within % across)
                        target = d[OUTPUT] + n * d[OUTPUT + 1] + (block + b) * d[OUTPUT + 2]
                        target += y * d[OUTPUT + 3] + 16 * x
                        residual = d[RESIDUAL]
                        if residual >= 0:
                            residual += n * d[RESIDUAL + 1] + (block + b) * d[RESIDUAL + 2]
                            residual += y * d[RESIDUAL + 3] + 16 * x
                        transform_output(
                            size,
                            arena,
                            made + 16 * (b * chunk + i),
                            made_step,
                            target,
                            d[OUTPUT + 3],
                            d[HEIGHT] - y,
                            d[WIDTH] - x,
                            params,
                            d[BIASES] + 16 * (block + b),
                            residual,
                            d[RESIDUAL + 3],
                            d[LOW],
                            d[HIGH],
                        )


@worker
def transform_filters(packed, weights, d, part, parts):  # type: ignore[no-untyped-def]
    """G g G' of weights packed for the direct sum: [block][channel block][tap][16][16] becomes
    [block][product][channel block][16][16]."""
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
    def products(self) -> int:
        return self.size.inputs**2

    @property
    def inner_step(self) -> int:
        """Floats from one product's inputs to the next's, an odd number of cache lines."""
        return LANES * (self.blocks * self.chunk | 1)

    @property
    def made_step(self) -> int:
        """The same of the products made."""
        return LANES * (self.tile.shape.blocks * self.chunk | 1)

    @property
    def block(self) -> int:
        """Floats of a block of filters' transformed weights; see `direct.block_floats`."""
        return self.products * self.blocks * LANES**2 + 3 * LANES

    @property
    def scratch(self) -> int:
        """Floats of scratch for transformed inputs and products."""
        held = self.parts if self.mode == BY_TILES else self.chunks
        return self.products * (held * self.inner_step + self.parts * self.made_step)


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


CACHE = 128 * 1024
"""Floats that a chunk's transformed inputs and products may take: half a core's cache."""

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
    mode = BY_TILES if few and tiles >= 14 * parts else BY_FILTERS
    widest = max(blocks if mode == BY_TILES else 2, 4)
    most = max(14, CACHE // (products * LANES * widest))

    def made(chunk: int) -> Winograd:
        count = -(-tiles // chunk)
        even = -(-tiles // count)
        share = parts if mode == BY_FILTERS else 1
        tile = choose(Kind.BLOCKED, even, 1, [filter_blocks], share)
        return Winograd(size, mode, batch, blocks, filter_blocks, rows, columns, even, tile, parts)

    options = [made(chunk) for chunk in range(min(7, tiles), min(most, tiles) + 1)]
    return min(options, key=_cycles)


def _cycles(plan: Winograd) -> float:
    """Roughly, the cycles of the busier thread."""
    shape, chunk = plan.tile.shape, plan.chunk
    across = -(-plan.filter_blocks // shape.blocks)
    along = -(-chunk // shape.pixels)
    one = plan.products * along * (LANES * plan.blocks * shape.cycles(Kind.BLOCKED) + 40)
    back = 4 * plan.products * chunk * shape.blocks
    into = 4 * plan.products * chunk * plan.blocks
    weights = plan.products * plan.blocks * LANES**2 / 8
    if plan.mode == BY_TILES:
        each = into + across * (one + back) + plan.filter_blocks * weights
        return -(-plan.chunks // plan.parts) * each
    each = plan.chunks * (one + back) + shape.blocks * weights
    return -(-across // plan.parts) * each + plan.chunks * into / plan.parts


def transformed(weights: Floats, plan: Winograd, packed_block: int) -> Floats:
    """Weights as `packed_weights` gives them, transformed."""
    result = aligned(plan.filter_blocks * plan.block)
    step = plan.blocks * LANES**2
    d = (
        *(transform_filters.address, plan.parts, SIZES.index(plan.size), plan.size.taps**2),
        *(plan.blocks, step, plan.filter_blocks, plan.block, packed_block),
    )
    launch(weights, result, np.array(d, np.int64))
    return result


def describe(
    plan: Winograd,
    source: Buffer,
    before: tuple[int, int],
    target: Buffer,
    residual: Buffer | None,
    *,
    scratch: int,
    weights: int,
    biases: int,
    clamp: tuple[float, float],
) -> list[Call]:
    """The calls of a layer. before: the padding above and left; scratch: where it starts."""
    start = source.origin - before[0] * source.row_stride - before[1] * source.lanes
    shape: Shape = plan.tile.shape
    columns = [min(i, plan.chunk - shape.pixels) for i in range(0, plan.chunk, shape.pixels)]
    table = TILE + TILE_FIELDS + plan.blocks
    step, tap = LANES, plan.chunk * LANES
    inner, made = plan.products * plan.inner_step, plan.products * plan.made_step
    held = plan.parts if plan.mode == BY_TILES else plan.chunks
    low, high = (int(np.float32(v).view(np.int32)) for v in clamp)
    filters = -(-plan.filter_blocks // shape.blocks)
    limits = [int(np.float32(v).view(np.int32)) for v in (-np.inf, np.inf)]

    def call(mode: int, work: int) -> Call:
        fields = (
            (0, min(plan.parts, work)),
            (mode, SIZES.index(plan.size), plan.size.outputs, plan.products),
            (plan.chunks, plan.chunk, plan.tiles, plan.tile_rows, plan.tile_columns),
            (plan.blocks, filters, plan.filter_blocks, shape.blocks),
            (start, source.batch_stride, source.block_stride, source.row_stride),
            (target.origin, target.batch_stride, target.block_stride, target.row_stride),
            _residual(residual),
            target.size[1:],
            (scratch, inner, plan.inner_step),
            (scratch + held * inner, made, plan.made_step),
            (weights, plan.block, plan.blocks * LANES**2, biases, low, high),
            (code(plan.tile), len(columns), table),
            (plan.blocks, TILE_FIELDS, step, step, step, plan.block, tap, tap, 0, *limits),
            (b * tap for b in range(plan.blocks)),
            columns,
        )
        return Call(winograd, np.array([v for part in fields for v in part], np.int64))

    if plan.mode == BY_TILES:
        return [call(BY_TILES, plan.chunks)]
    return [call(INPUTS, plan.chunks * plan.blocks), call(BY_FILTERS, filters)]


def _residual(buffer: Buffer | None) -> tuple[int, ...]:
    if buffer is None:
        return (-1, 0, 0, 0)
    return (buffer.origin, buffer.batch_stride, buffer.block_stride, buffer.row_stride)
