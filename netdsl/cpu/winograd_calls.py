"""The calls of a layer that Winograd's algorithm does, by its plan (winograd.py)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from netdsl.cpu.direct import bits
from netdsl.cpu.layout import LANES, Buffer, Call, Triple
from netdsl.cpu.micro import Kind, code
from netdsl.cpu.micro.fields import LINES, SIZES, TILE_FIELDS, output_form, turns
from netdsl.cpu.micro.shapes import FORMINGS
from netdsl.cpu.winograd import APART, Winograd
from netdsl.cpu.winograd_kernel import BY_TILES, INPUTS, OUTPUTS, PRODUCTS, TILE, winograd
from netdsl.cpu.winograd_quarters import winograd_quarters
from netdsl.cpu.winograd_thirds import FURTHER, winograd_thirds


class Ends(NamedTuple):
    """What a layer reads and writes. before: the padding before, above and left; scratch,
    weights, biases: where they start; clamp: the least and the largest output; pooled: whether the
    target takes the largest of every 2x2 outputs; settings: where those of AMX's registers are, if
    a plan uses them."""

    source: Buffer
    before: Triple
    target: Buffer
    residual: Buffer | None
    scratch: int
    weights: int
    biases: int
    clamp: tuple[float, float]
    pooled: bool = False
    settings: int = 0


def describe(plan: Winograd, ends: Ends) -> list[Call]:
    """The calls of a layer."""
    firsts = [min(c * plan.chunk, plan.tiles - plan.chunk) for c in range(plan.chunks)]
    kinds = list(dict.fromkeys(plan.spans))
    tables = _tables(plan, ends.source, kinds)
    if plan.mode == BY_TILES:
        return [_call(plan, ends, kinds, tables, BY_TILES, walk, 0) for walk in range(plan.walks)]
    return [
        _call(plan, ends, kinds, tables, mode, walk, first)
        for walk in range(plan.walks)
        for first in firsts
        for mode in (INPUTS, PRODUCTS, OUTPUTS)
    ]


def _work(plan: Winograd, mode: int) -> int:
    """Into how many pieces a call's work can be cut."""
    return {
        BY_TILES: plan.chunks,
        INPUTS: plan.read * plan.blocks,
        PRODUCTS: plan.products * (plan.groups.sixteens if plan.thirds else plan.filter_tiles),
        OUTPUTS: plan.chunk * plan.filter_blocks,
    }[mode]


def _view(plan: Winograd, buffer: Buffer, walk: int) -> tuple[int, ...]:
    """Where a row's first image starts; the floats to the next image, block, row and pixel."""
    image = buffer.plane_stride if plan.deep else buffer.batch_stride
    start = buffer.origin + walk * buffer.batch_stride
    return (start, image, buffer.block_stride, buffer.row_stride, buffer.lanes)


def _input_view(plan: Winograd, ends: Ends, walk: int, table: int) -> tuple[int, ...]:
    """The same of the input: its first image starts with the padding, rows and pixels are those of
    a phase. table: where the places of its blocks stand."""
    (start, image, _, row, pixel), source = _view(plan, ends.source, walk), ends.source
    steps = (source.plane_stride, row, pixel)
    start -= sum(step * n for step, n in zip(steps, ends.before, strict=True))
    down, across = plan.phases.stride
    return (start, image, table, down * row, across * pixel)


def _block_places(plan: Winograd, source: Buffer) -> list[int]:
    """Where the first tile's inputs lie in each block of channels, of one phase after the other."""
    blocks = range(plan.blocks // len(plan.phases.order))
    return [
        y * source.row_stride + x * source.lanes + b * source.block_stride
        for y, x in plan.phases.order
        for b in blocks
    ]


class Tables(NamedTuple):
    """What a descriptor lists: where a sum's taps and a chunk's tiles lie; for each product the
    tile that sums what it does, and its weights; where blocks of inputs start."""

    taps: list[int]
    columns: list[int]
    products: list[int]
    blocks: list[int]


def _tables(plan: Winograd, source: Buffer, kinds: list[range]) -> Tables:
    """The lists of a layer. kinds: the blocks that products sum over, each once."""
    if plan.thirds:
        return Tables([], [], [], _block_places(plan, source))
    pixels, image = plan.tile.shape.pixels, plan.tile_rows * plan.tile_columns
    taps = [b * plan.read + z * image for b in range(plan.blocks) for z in range(plan.depth)]
    taps = [LANES * tap for tap in taps]
    panel, step = plan.depth * LANES**2, plan.strides[1]
    products = [
        (TILE + kinds.index(span) * TILE_FIELDS, k * step + span.start * panel)
        for k, span in enumerate(plan.spans)
    ]
    return Tables(
        _quarter_taps(plan) if plan.strassen else taps,
        [min(i, plan.chunk - pixels) for i in range(0, plan.chunk, pixels)],
        [number for pair in products for number in pair],
        _block_places(plan, source),
    )


def _quarter_taps(plan: Winograd) -> list[int]:
    """The taps of B11, T2, T1, B22, T3, T4 and B21, one after the other, as weights lie. An odd
    number is of a sum, see `micro/quarters.py`."""
    parts = ((0, 0), (1, 1), (0, 1), (3, 0), (2, 1), (3, 1), (2, 0))
    blocks = range(plan.blocks // 2)
    step = LANES * plan.chunk
    return [part * plan.quarter + b * step + formed for part, formed in parts for b in blocks]


def _tile_fields(plan: Winograd, blocks: range, table: int) -> tuple[int, ...]:
    """A tile's fields, to sum over these blocks. table: how far from here the taps are listed."""
    if plan.strassen:
        made, down = plan.chunk * LANES, plan.filter_blocks * plan.chunk * LANES
        head = (turns(Kind.BLOCKED, plan.blocks // 2), table, LANES, LANES, made)
        further = LANES * LINES if plan.chunk <= plan.tile.shape.pixels else 0
        return (*head, plan.strides[0], 2 * made, down, further, *plan.part(plan.blocks // 2))
    first, count = plan.depth * blocks.start, plan.depth * len(blocks)
    made = plan.chunk * LANES
    return (
        *(turns(Kind.BLOCKED, count, plan.spare), table + first, LANES, LANES, LANES),
        *(plan.strides[0], made, made, 0, *plan.part(count)),
    )


def _further(
    plan: Winograd, ends: Ends, kinds: list[range], taps_at: int
) -> Iterable[tuple[int, ...]]:
    """What a kernel reads besides: the fields of tiles, or of products in AMX's registers."""
    if plan.thirds:
        return [_group_fields(plan, ends)]
    return [
        _tile_fields(plan, kind, taps_at - TILE - i * TILE_FIELDS) for i, kind in enumerate(kinds)
    ]


def _group_fields(plan: Winograd, ends: Ends) -> tuple[int, ...]:
    """How products are done in AMX's registers."""
    how = plan.groups
    number = FORMINGS.index(how.forming) if how.forming else 0
    beside = (how.ahead, number, how.forming.turns if how.forming else 0)
    return (how.turns, plan.strides[1], how.together, how.span, ends.settings, *beside)


def _formed(plan: Winograd, scratch: int) -> tuple[int, int]:
    """Where the first thread's sums of quarters start, and how far on the next one's."""
    if plan.in_place and plan.mode == BY_TILES:
        return scratch + plan.own - plan.formed + APART, plan.own
    return scratch + plan.scratch - plan.parts * plan.formed + APART, plan.formed


def _call(
    plan: Winograd,
    ends: Ends,
    kinds: list[range],
    tables: Tables,
    mode: int,
    walk: int,
    first: int,
) -> Call:
    """kinds: the blocks that products sum over, each once."""
    before = FURTHER if plan.thirds else TILE + len(kinds) * TILE_FIELDS
    starts = accumulate(map(len, tables), initial=before)
    taps_at, columns_at, products_at, blocks_at, _ = starts
    inner, made = plan.products * plan.inner_step, plan.products * plan.made_step
    held = plan.parts if plan.mode == BY_TILES else 1
    if plan.in_place and plan.mode == BY_TILES:
        inner = made = plan.own
    chunk = plan.read if mode == INPUTS else plan.chunk
    residual = _view(plan, ends.residual, walk) if ends.residual else (-1, 0, 0, 0, 0)
    each = plan.size.outputs // 2 if ends.pooled else plan.size.outputs
    inner_at, made_at = ends.scratch, ends.scratch + held * inner
    if plan.in_place:
        inner_at, made_at = ends.scratch + plan.strassen * plan.inner_step, ends.scratch
    fields: tuple[Iterable[int], ...] = (
        (0, min(plan.parts, _work(plan, mode))),
        (mode, SIZES.index(plan.size), plan.size.outputs, plan.products),
        (plan.chunks, chunk, first, plan.tiles, plan.tile_rows, plan.tile_columns),
        (plan.blocks, plan.filter_tiles, plan.filter_blocks // plan.halves),
        (plan.tile.shape.blocks,),
        _input_view(plan, ends, walk, blocks_at),
        _view(plan, ends.target, walk),
        residual,
        (*ends.target.size[1:], output_form(plan.size, ends.pooled), each),
        (inner_at, inner, plan.inner_step),
        (made_at, made, plan.made_step),
        (ends.weights, plan.strides[0], ends.biases, *map(bits, ends.clamp)),
        (code(plan.tile), len(tables.columns), columns_at, products_at),
        (plan.columns, plan.quarter, *_formed(plan, ends.scratch)),
        (plan.groups.room if plan.thirds else chunk,),
        *_further(plan, ends, kinds, taps_at),
        *tables,
    )
    kernel = winograd_quarters if plan.strassen else winograd
    if plan.thirds and mode in (BY_TILES, PRODUCTS):
        kernel = winograd_thirds
    return Call(kernel, np.array([v for part in fields for v in part], np.int64))
