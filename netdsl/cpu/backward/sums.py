"""Sums over samples and positions, a channel each: a bias's gradient, a learned slope's."""

from __future__ import annotations

from netdsl.cpu.lanes import load, narrow, store, where_less, wide_splat, widen
from netdsl.cpu.launch import share, worker
from netdsl.cpu.layout import BATCH, BLOCKS, DEPTH, HEIGHT
from netdsl.cpu.views import OTHER, OWN, SOURCE, TARGET, row_at, row_width

INTO = OWN
"""Where the arena takes the sums: a block of 16 for each block of channels, zeros past the last."""


@worker
def channel_sums(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """The sum of each channel of the target buffer (which is only read)."""
    columns, rows, depth = row_width(d), d[TARGET + HEIGHT], d[TARGET + DEPTH]
    blocks = d[TARGET + BLOCKS]
    for b in range(share(blocks, part, parts), share(blocks, part + 1, parts)):
        sums = wide_splat(0.0)
        for item in range(d[TARGET + BATCH] * depth * rows):
            at = row_at(d, TARGET, item // (depth * rows), b, item // rows % depth, item % rows)
            along = load(arena, at)
            for x in range(1, columns):
                along += load(arena, at + 16 * x)
            sums += widen(along)
        store(arena, d[INTO] + 16 * b, narrow(sums))


@worker
def slope_sums(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """The sum of g x over x < 0, a channel each: source g, OTHER x, the target as either."""
    columns, rows, depth = row_width(d), d[TARGET + HEIGHT], d[TARGET + DEPTH]
    blocks = d[TARGET + BLOCKS]
    for b in range(share(blocks, part, parts), share(blocks, part + 1, parts)):
        sums = wide_splat(0.0)
        for item in range(d[TARGET + BATCH] * depth * rows):
            n, z, y = item // (depth * rows), item // rows % depth, item % rows
            source, saved = row_at(d, SOURCE, n, b, z, y), row_at(d, OTHER, n, b, z, y)
            for x in range(columns):
                g, v = load(arena, source + 16 * x), load(arena, saved + 16 * x)
                sums += widen(where_less(v, 0.0, g * v, 0.0))
        store(arena, d[INTO] + 16 * b, narrow(sums))
