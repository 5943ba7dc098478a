"""The gradient of local response normalisation.

With s = k + alpha/n (sum of squares in the window) and y = x / s^beta,

    dx[j] = g[j] / s[j]^beta - 2 alpha beta / n x[j] (sum of g[i] y[i] / s[i]), over the channels i
    whose window holds j.
"""

from __future__ import annotations

import numpy as np

from netdsl.cpu.lanes import keep, load, muladd, splat, store
from netdsl.cpu.launch import share, worker
from netdsl.cpu.layout import BATCH, BLOCK_STRIDE, BLOCKS, DEPTH, HEIGHT
from netdsl.cpu.response import (
    CHUNK,
    SCRATCH,
    SCRATCH_STEP,
    SETTINGS,
    SIZE,
    THREE_QUARTERS,
    less_power,
)
from netdsl.cpu.response import response_scratch as forward_scratch
from netdsl.cpu.views import OTHER, SOURCE, TARGET, lanes_of, row_at, row_width


def response_scratch(channels: int, size: int) -> int:
    """Floats of scratch that each thread of response_back wants."""
    return 3 * forward_scratch(channels, size)


@worker
def response_back(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """The input's gradient: source g, OTHER x; the rest as for local_response."""
    blocks, columns, size = d[TARGET + BLOCKS], row_width(d), d[SIZE]
    rows, depth = d[TARGET + HEIGHT], d[TARGET + DEPTH]
    of_g, of_dx, of_x = d[SOURCE + BLOCK_STRIDE], d[TARGET + BLOCK_STRIDE], d[OTHER + BLOCK_STRIDE]
    alpha, k, beta = params[d[SETTINGS]], params[d[SETTINGS] + 1], params[d[SETTINGS] + 2]
    side = 16 * ((size + 31) // 32)
    step = 16 * blocks + 2 * side
    below, above = (size - 1) // 2, size // 2
    squares = d[SCRATCH] + part * d[SCRATCH_STEP]
    pulls = squares + CHUNK * step
    rates = pulls + CHUNK * step
    zero = splat(np.float32(0.0))
    for x in range(min(columns, CHUNK)):
        for i in range(0, side, 16):
            for at in (squares + x * step, pulls + x * step):
                store(arena, at + i, zero)
                store(arena, at + side + 16 * blocks + i, zero)
    work = d[TARGET + BATCH] * depth * rows
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, z, y = item // (rows * depth), item // rows % depth, item % rows
        for start in range(0, columns, CHUNK):
            width = min(columns - start, CHUNK)
            source = row_at(d, SOURCE, n, 0, z, y) + 16 * start
            other = row_at(d, OTHER, n, 0, z, y) + 16 * start
            out = row_at(d, TARGET, n, 0, z, y) + 16 * start
            for b in range(blocks):
                for x in range(width):
                    v = load(arena, other + b * of_x + 16 * x)
                    store(arena, squares + x * step + side + 16 * b, v * v)
            for b in range(blocks):
                for x in range(width):
                    around = squares + x * step + side + 16 * b - below
                    sums = load(arena, around)
                    for i in range(1, size):
                        sums += load(arena, around + i)
                    base = muladd(sums, alpha, k)
                    rate = less_power(base, beta, d[THREE_QUARTERS])
                    g = load(arena, source + b * of_g + 16 * x)
                    v = load(arena, other + b * of_x + 16 * x)
                    store(arena, rates + x * step + 16 * b, rate)
                    store(arena, pulls + x * step + side + 16 * b, g * v * rate / base)
            twice = np.float32(-2.0) * alpha * beta
            for b in range(blocks):
                lanes = lanes_of(d, b)
                for x in range(width):
                    around = pulls + x * step + side + 16 * b - above
                    sums = load(arena, around)
                    for i in range(1, size):
                        sums += load(arena, around + i)
                    g = load(arena, source + b * of_g + 16 * x)
                    v = load(arena, other + b * of_x + 16 * x)
                    direct = g * load(arena, rates + x * step + 16 * b)
                    back = muladd(v * sums, splat(twice), direct)
                    store(arena, out + b * of_dx + 16 * x, keep(back, 0, lanes))
