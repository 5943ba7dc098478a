"""Gradients of everything that reads windows of positions: max pools, and all that is linear.

Average pools of any kind, enlarging and padding are weighted sums of positions, and the weight of
a position is a product over the axes. So one kernel, `spread`, takes all of them back: a table
says for each output index of an axis which input indices it read, and with what weight.
"""

from __future__ import annotations

import numpy as np

from netdsl.cpu.lanes import load, maximum, splat, store, where_less
from netdsl.cpu.late import njit
from netdsl.cpu.launch import share, worker
from netdsl.cpu.layout import BATCH, BLOCKS, DEPTH, HEIGHT, WIDTH
from netdsl.cpu.views import OTHER, OWN, SOURCE, TARGET, row_at, row_width

# The target is the input's gradient, the source the output's. TABLE: for the depths, heights and
# widths of the output one after the other, where its taps begin (and, one further on, end) in the
# list of taps that follows. SHARES: where params hold the weight of each tap in the list.
SHARES, TABLE = OWN, OWN + 1
APART, COVER = 1, 2
LOWEST = np.float32(-np.inf)


@njit(forceinline=True)
def _clear(arena, d, n, b):  # type: ignore[no-untyped-def]
    """Zeroes a block of the target."""
    zero = splat(np.float32(0.0))
    for y in range(d[TARGET + DEPTH] * d[TARGET + HEIGHT]):
        out = row_at(d, TARGET, n, b, y // d[TARGET + HEIGHT], y % d[TARGET + HEIGHT])
        for x in range(row_width(d)):
            store(arena, out + 16 * x, zero)


@worker
def spread(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """Hands each output's gradient to the positions that it was summed from."""
    depth, rows, columns = d[SOURCE + DEPTH], d[SOURCE + HEIGHT], d[SOURCE + WIDTH]
    blocks = d[TARGET + BLOCKS]
    of_rows, of_columns = TABLE + depth, TABLE + depth + rows
    taps = TABLE + depth + rows + columns + 1
    work = d[TARGET + BATCH] * blocks
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b = item // blocks, item % blocks
        _clear(arena, d, n, b)
        for z in range(depth):
            for y in range(rows):
                source = row_at(d, SOURCE, n, b, z, y)
                for x in range(columns):
                    g = load(arena, source + 16 * x)
                    for i in range(d[TABLE + z], d[TABLE + z + 1]):
                        for j in range(d[of_rows + y], d[of_rows + y + 1]):
                            out = row_at(d, TARGET, n, b, d[taps + i], d[taps + j])
                            by = params[d[SHARES] + i] * params[d[SHARES] + j]
                            for k in range(d[of_columns + x], d[of_columns + x + 1]):
                                at = out + 16 * d[taps + k]
                                weight = by * params[d[SHARES] + k]
                                store(arena, at, load(arena, at) + g * weight)


@worker
def max_back(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """Hands each output's gradient to the first of its window's positions with the maximum.

    OTHER is the pool's input. TABLE as for `spread`; in place of SHARES stands whether windows
    lie apart (APART), so that nothing has to be added up, and cover all (COVER), so that nothing
    has to be zeroed first.
    """
    apart, cover = d[SHARES] & APART, d[SHARES] & COVER
    depth, rows, columns = d[SOURCE + DEPTH], d[SOURCE + HEIGHT], d[SOURCE + WIDTH]
    blocks = d[TARGET + BLOCKS]
    of_rows, of_columns = TABLE + depth, TABLE + depth + rows
    taps = TABLE + depth + rows + columns + 1
    work = d[TARGET + BATCH] * blocks
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b = item // blocks, item % blocks
        if not cover:
            _clear(arena, d, n, b)
        for z in range(depth):
            for y in range(rows):
                source = row_at(d, SOURCE, n, b, z, y)
                for x in range(columns):
                    from_k, to_k = d[of_columns + x], d[of_columns + x + 1]
                    best = splat(LOWEST)
                    for i in range(d[TABLE + z], d[TABLE + z + 1]):
                        for j in range(d[of_rows + y], d[of_rows + y + 1]):
                            row = row_at(d, OTHER, n, b, d[taps + i], d[taps + j])
                            for k in range(from_k, to_k):
                                best = maximum(load(arena, row + 16 * d[taps + k]), best)
                    g = load(arena, source + 16 * x)
                    zero = splat(np.float32(0.0))
                    for i in range(d[TABLE + z], d[TABLE + z + 1]):
                        for j in range(d[of_rows + y], d[of_rows + y + 1]):
                            row = row_at(d, OTHER, n, b, d[taps + i], d[taps + j])
                            out = row_at(d, TARGET, n, b, d[taps + i], d[taps + j])
                            for k in range(from_k, to_k):
                                v = load(arena, row + 16 * d[taps + k])
                                at = out + 16 * d[taps + k]
                                mine = where_less(v, best, zero, g)
                                if not apart:
                                    mine = load(arena, at) + mine
                                store(arena, at, mine)
                                g = where_less(v, best, g, zero)
