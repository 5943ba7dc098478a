"""Winograd's steps as compiled code; `winograd.py` says what they are for and plans them."""

from __future__ import annotations

from netdsl.cpu.late import njit
from netdsl.cpu.launch import BODY, share, worker
from netdsl.cpu.layout import LANES
from netdsl.cpu.micro import (
    past,
    run_product,
    transform_filter,
    transform_input,
    transform_output,
)
from netdsl.cpu.micro.fields import LINES

BY_TILES, INPUTS, PRODUCTS, OUTPUTS = range(4)
"""What a call does: everything chunk by chunk, or one of the three steps for one chunk."""

MODE, SIZE, EACH, COUNT = range(BODY, BODY + 4)
CHUNKS, CHUNK, FIRST, TILES, TILE_ROWS, TILE_COLUMNS = range(BODY + 4, BODY + 10)
BLOCKS, FILTERS, FILTER_BLOCKS, TILE_BLOCKS = range(BODY + 10, BODY + 14)
# Where tensors start, then floats to the next sample, block, row and pixel; for the input's blocks
# that of a phase too, so where a table of their places starts.
INPUT, OUTPUT, RESIDUAL = BODY + 14, BODY + 19, BODY + 24
# The output's size; which function makes it, and how many rows and columns a tile has of it.
HEIGHT, WIDTH, FORM, MADE_EACH = range(BODY + 29, BODY + 33)
# Transformed inputs and products: where they start, floats to the next thread's and product's.
INNER, MADE = BODY + 33, BODY + 36
WEIGHTS, BLOCK, BIASES, LOW, HIGH = range(BODY + 39, BODY + 44)
# The micro-kernel's number, its places along a chunk, and the table of all products: where the
# fields of its tile start, and how far its weights lie.
NUMBER, COLUMNS, COLUMN_TABLE, PRODUCT_TABLE = range(BODY + 44, BODY + 48)
# Where tiles are done in pairs (winograd_quarters.py): the pairs of an image, the floats of a
# quarter of a product's inputs, and where sums of quarters start, with floats to the next thread's.
PAIRS, QUARTER, FORMED = BODY + 48, BODY + 49, BODY + 50
# Tiles that a block of transformed inputs or products has room for.
ROOM = BODY + 52
TILE = BODY + 53


@njit(boundscheck=False, error_model="numpy")
def place(d, view, each, n, y, x):  # type: ignore[no-untyped-def]
    """Where a tile's first output, or the first input that it reads, lies in block 0."""
    return d[view] + n * d[view + 1] + each * (y * d[view + 3] + x * d[view + 4])


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
        source = place(d, INPUT, d[EACH], n, y, x) + d[d[INPUT + 2] + block]
        target = inner + 16 * (block * d[ROOM] + i)
        transform_input(d[SIZE], arena, source, d[INPUT + 3], d[INPUT + 4], target, d[INNER + 2])
        n, y, x = step_on(d, n, y, x)


@njit(boundscheck=False, error_model="numpy")
def weights_of(d, k, f):  # type: ignore[no-untyped-def]
    """Where the weights of product k for a tile of filter blocks start."""
    block = min(f * d[TILE_BLOCKS], d[FILTER_BLOCKS] - d[TILE_BLOCKS])
    return d[WEIGHTS] + block * d[BLOCK] + d[d[PRODUCT_TABLE] + 2 * k + 1]


@njit(boundscheck=False, error_model="numpy")
def multiply(arena, params, d, k, inner, made, weights, following):  # type: ignore[no-untyped-def]
    """Product k of a whole chunk with weights of a tile of filter blocks. The first two tiles ask
    for the weights that follow, a half of them each; the others ask for the last of these again."""
    step, tile = LANES * LINES, d[d[PRODUCT_TABLE] + 2 * k]
    half = d[tile] * step
    for i in range(d[COLUMNS]):
        at = 16 * d[d[COLUMN_TABLE] + i]
        x, y = inner + k * d[INNER + 2] + at, made + k * d[MADE + 2] + at
        ahead = following + min(i, 2) * half
        each = step if i < 2 else 0
        run_product(d[NUMBER], arena, params, past(d, tile), x, weights, y, ahead, each)


@njit(boundscheck=False, error_model="numpy")
def transform_outputs(  # type: ignore[no-untyped-def]
    arena, params, d, first, block, start, end, made
):
    """Tiles start to end of the chunk at `first`, for one block of filters."""
    n, y, x = find(d, first + start)
    each = d[MADE_EACH]
    for i in range(start, end):
        residual = d[RESIDUAL]
        if residual >= 0:
            residual = place(d, RESIDUAL, each, n, y, x) + block * d[RESIDUAL + 2]
        transform_output(
            d[FORM],
            arena,
            made + 16 * i,
            d[MADE + 2],
            place(d, OUTPUT, each, n, y, x) + block * d[OUTPUT + 2],
            d[OUTPUT + 3],
            d[HEIGHT] - each * y,
            d[WIDTH] - each * x,
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
                following = (
                    weights_of(d, k + 1, f)
                    if k + 1 < d[COUNT]
                    else weights_of(d, 0, (f + 1) % d[FILTERS])
                )
                multiply(arena, params, d, k, inner, made, weights_of(d, k, f), following)
            for b in range(blocks):
                transform_outputs(
                    arena, params, d, first, block + b, 0, chunk, made + 16 * b * chunk
                )


@njit(boundscheck=False, error_model="numpy")
def transform(arena, params, d, part, parts, width, inputs, outputs):  # type: ignore[no-untyped-def]
    """A part's share of the inputs or outputs of a chunk, by MODE, each done by its function.
    width: tiles that the chunk counts as one, and parts that filters are cut in."""
    mode, chunk = d[MODE], d[CHUNK]
    work = chunk * (d[BLOCKS] if mode == INPUTS else width * d[FILTER_BLOCKS])
    start, end = share(work, part, parts), share(work, part + 1, parts)
    while start < end:
        b, i = start // chunk, start % chunk
        stop = min(chunk, i + end - start)
        if mode == INPUTS:
            inputs(arena, d, d[FIRST], b, i, stop, d[INNER])
        else:
            made = d[MADE] + 16 * width * b * d[ROOM]
            outputs(arena, params, d, d[FIRST], b, i, stop, made)
        start += stop - i


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
            following = weights_of(d, (item + 1) // d[FILTERS], (item + 1) % d[FILTERS])
            multiply(arena, params, d, k, d[INNER], made, weights_of(d, k, f), following)
    else:
        transform(arena, params, d, part, parts, 1, transform_inputs, transform_outputs)


@worker
def transform_filters(packed, weights, d, part, parts):  # type: ignore[no-untyped-def]
    """G g G' of weights packed for the direct sum: [block][channel block][tap][16][16] becomes
    [product][block][channel block][16][16], or [block][product]... where all is done by tiles.

    The slices of a kernel with depth stand for more channel blocks."""
    size, taps, blocks, step = d[BODY], d[BODY + 1], d[BODY + 2], d[BODY + 3]
    work, block, packed_block = d[BODY + 4], d[BODY + 5], d[BODY + 6]
    for f in range(share(work, part, parts), share(work, part + 1, parts)):
        for b in range(blocks):
            source = f * packed_block + b * taps * 256
            target = f * block + b * 256
            for channel in range(16):
                at = 16 * channel
                transform_filter(size, packed, source + at, 256, weights, target + at, step)
