"""Normalisation in training, and its gradient: one form for batch, layer, instance and group.

Four passes, each over a table of 16-channel blocks. `moments` sums each channel of each sample;
`statistics` puts the sums of a group together, in double precision; `normalise` is then
(x - mean) scale + shift. Back, `pulls` sums what each channel's gradient pulls at, `slopes` puts
these together, and the input's gradient is a g + b (x - mean) + c (`combine`).

A group is `group` channels of one sample, or of all samples (batch norm). A table has, for each
sample (batch norm: for all), rows of a float a channel: MEAN, RATE (1 / deviation), SCALE, SHIFT,
then A, B, C of the way back. Lanes past the last channel are zero in all of them.
"""

from __future__ import annotations

import math

import numpy as np

from netdsl.cpu.lanes import load, muladd, narrow, store, wide_splat, widen
from netdsl.cpu.late import njit
from netdsl.cpu.launch import share, worker
from netdsl.cpu.layout import BATCH, BLOCKS, CHANNELS, DEPTH, HEIGHT, WIDTH
from netdsl.cpu.views import (
    OTHER,
    OWN,
    SOURCE,
    TARGET,
    row_at,
    row_count,
    row_place,
    row_width,
)

# Where the arena holds the sums (two rows a sample) and the table; its samples' distance (0 for
# batch norm); channels in a group; where params hold scale and shift (-1: none) and, for batch
# norm, the running mean and variance, eps and momentum; where the arena takes the gradients.
(
    SUMS,
    TABLE,
    TABLE_STEP,
    GROUP,
    WEIGHT,
    BIAS,
    RUNNING,
    VARIANCE,
    SETTINGS,
    INTO_WEIGHT,
    INTO_BIAS,
) = range(OWN, OWN + 11)
MEAN, RATE, SCALE, SHIFT, A, B, C = range(7)
ROWS = 7
"""Rows of a table."""


@worker
def moments(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """Sums of x - pivot and of its square, the pivot being the channel's very first number.

    With a number of the channel's own size taken off, squares lose nothing to cancellation.
    """
    columns, rows, blocks = row_width(d), d[TARGET + HEIGHT], d[TARGET + BLOCKS]
    work = d[TARGET + BATCH] * blocks
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b = item // blocks, item % blocks
        pivot = load(arena, row_at(d, SOURCE, 0, b, 0, 0))
        sums, squares = wide_splat(0.0), wide_splat(0.0)
        for y in range(d[TARGET + DEPTH] * rows):
            source = row_at(d, SOURCE, n, b, y // rows, y % rows)
            off = load(arena, source) - pivot
            along, square = off, off * off
            for x in range(1, columns):
                off = load(arena, source + 16 * x) - pivot
                along += off
                square = muladd(off, off, square)
            sums += widen(along)
            squares += widen(square)
        at = d[SUMS] + 32 * (n * blocks + b)
        store(arena, at, narrow(sums))
        store(arena, at + 16, narrow(squares))


@njit(forceinline=True)
def _sum_at(d, n, c, row):  # type: ignore[no-untyped-def]
    return d[SUMS] + 32 * (n * d[TARGET + BLOCKS] + c // 16) + 16 * row + c % 16


@njit(forceinline=True)
def _table_at(d, n, c, row):  # type: ignore[no-untyped-def]
    return d[TABLE] + n * d[TABLE_STEP] + row * 16 * d[TARGET + BLOCKS] + c


@njit(forceinline=True)
def _scale(params, d, c):  # type: ignore[no-untyped-def]
    return np.float64(params[d[WEIGHT] + c]) if d[WEIGHT] >= 0 else 1.0


@njit(forceinline=True)
def _put(arena, params, d, n, c, mean, rate):  # type: ignore[no-untyped-def]
    arena[_table_at(d, n, c, MEAN)] = np.float32(mean)
    arena[_table_at(d, n, c, RATE)] = np.float32(rate)
    arena[_table_at(d, n, c, SCALE)] = np.float32(rate * _scale(params, d, c))
    shift = params[d[BIAS] + c] if d[BIAS] >= 0 else np.float32(0.0)
    arena[_table_at(d, n, c, SHIFT)] = shift


@worker
def statistics(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """Each group's mean and deviation from its channels' sums; batch norm's running ones move."""
    over_batch, group, channels = d[TABLE_STEP] == 0, d[GROUP], d[TARGET + CHANNELS]
    positions = d[TARGET + DEPTH] * d[TARGET + HEIGHT] * d[TARGET + WIDTH]
    batch, groups = d[TARGET + BATCH], channels // group
    several = 1 if over_batch else batch
    inner = batch if over_batch else 1
    count = np.float64(inner * group * positions)
    eps, momentum = np.float64(params[d[SETTINGS]]), np.float64(params[d[SETTINGS] + 1])
    work = several * groups
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        i, g = item // groups, item % groups
        whole = 0.0
        for c in range(g * group, (g + 1) * group):
            pivot = np.float64(arena[row_at(d, SOURCE, 0, c // 16, 0, 0) + c % 16])
            for j in range(inner):
                whole += arena[_sum_at(d, i + j, c, 0)] + positions * pivot
        mean = whole / count
        spread = 0.0
        for c in range(g * group, (g + 1) * group):
            off = np.float64(arena[row_at(d, SOURCE, 0, c // 16, 0, 0) + c % 16]) - mean
            for j in range(inner):
                spread += arena[_sum_at(d, i + j, c, 1)] + positions * off * off
                spread += 2.0 * off * arena[_sum_at(d, i + j, c, 0)]
        variance = max(spread / count, 0.0)
        rate = 1.0 / math.sqrt(variance + eps)
        for c in range(g * group, (g + 1) * group):
            _put(arena, params, d, i, c, mean, rate)
        if over_batch:
            at, fair = d[VARIANCE] + g, variance * count / (count - 1.0)
            moved = (1.0 - momentum) * params[d[RUNNING] + g] + momentum * mean
            params[d[RUNNING] + g] = np.float32(moved)
            params[at] = np.float32((1.0 - momentum) * params[at] + momentum * fair)


@worker
def running(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """Batch norm's table from the running mean and variance: when a net is tried, not trained."""
    channels, eps = d[TARGET + CHANNELS], np.float64(params[d[SETTINGS]])
    for c in range(share(channels, part, parts), share(channels, part + 1, parts)):
        variance = np.float64(params[d[VARIANCE] + c])
        mean = np.float64(params[d[RUNNING] + c])
        _put(arena, params, d, 0, c, mean, 1.0 / math.sqrt(variance + eps))


@worker
def normalise(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """(x - mean) scale + shift"""
    work, columns = row_count(d), row_width(d)
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b, z, y = row_place(d, item)
        source, out = row_at(d, SOURCE, n, b, z, y), row_at(d, TARGET, n, b, z, y)
        mean = load(arena, _table_at(d, n, 16 * b, MEAN))
        scale = load(arena, _table_at(d, n, 16 * b, SCALE))
        shift = load(arena, _table_at(d, n, 16 * b, SHIFT))
        for x in range(columns):
            v = load(arena, source + 16 * x) - mean
            store(arena, out + 16 * x, muladd(v, scale, shift))


@worker
def pulls(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """Sums of g and of g (x - mean): source g, OTHER x."""
    columns, rows, blocks = row_width(d), d[TARGET + HEIGHT], d[TARGET + BLOCKS]
    work = d[TARGET + BATCH] * blocks
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b = item // blocks, item % blocks
        mean = load(arena, _table_at(d, n, 16 * b, MEAN))
        sums, products = wide_splat(0.0), wide_splat(0.0)
        for y in range(d[TARGET + DEPTH] * rows):
            source = row_at(d, SOURCE, n, b, y // rows, y % rows)
            other = row_at(d, OTHER, n, b, y // rows, y % rows)
            along = load(arena, source)
            product = along * (load(arena, other) - mean)
            for x in range(1, columns):
                g = load(arena, source + 16 * x)
                along += g
                product = muladd(g, load(arena, other + 16 * x) - mean, product)
            sums += widen(along)
            products += widen(product)
        at = d[SUMS] + 32 * (n * blocks + b)
        store(arena, at, narrow(sums))
        store(arena, at + 16, narrow(products))


@worker
def slopes(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """A, B and C of each group: rate (w g - mean of w g - xhat mean of w g xhat), spelled out."""
    over_batch, group, channels = d[TABLE_STEP] == 0, d[GROUP], d[TARGET + CHANNELS]
    positions = d[TARGET + DEPTH] * d[TARGET + HEIGHT] * d[TARGET + WIDTH]
    batch, groups = d[TARGET + BATCH], channels // group
    several = 1 if over_batch else batch
    inner = batch if over_batch else 1
    count = np.float64(inner * group * positions)
    work = several * groups
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        i, g = item // groups, item % groups
        rate = np.float64(arena[_table_at(d, i, g * group, RATE)])
        pull, turn = 0.0, 0.0
        for c in range(g * group, (g + 1) * group):
            for j in range(inner):
                pull += _scale(params, d, c) * arena[_sum_at(d, i + j, c, 0)]
                turn += _scale(params, d, c) * rate * arena[_sum_at(d, i + j, c, 1)]
        for c in range(g * group, (g + 1) * group):
            arena[_table_at(d, i, c, A)] = np.float32(rate * _scale(params, d, c))
            arena[_table_at(d, i, c, B)] = np.float32(-rate * rate * turn / count)
            arena[_table_at(d, i, c, C)] = np.float32(-rate * pull / count)


@worker
def combine(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """The input's gradient, a g + b (x - mean) + c: source g (may be the target), OTHER x."""
    work, columns = row_count(d), row_width(d)
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b, z, y = row_place(d, item)
        source, out = row_at(d, SOURCE, n, b, z, y), row_at(d, TARGET, n, b, z, y)
        other = row_at(d, OTHER, n, b, z, y)
        mean = load(arena, _table_at(d, n, 16 * b, MEAN))
        of_g = load(arena, _table_at(d, n, 16 * b, A))
        of_x = load(arena, _table_at(d, n, 16 * b, B))
        alone = load(arena, _table_at(d, n, 16 * b, C))
        for x in range(columns):
            off = load(arena, other + 16 * x) - mean
            g = load(arena, source + 16 * x)
            store(arena, out + 16 * x, muladd(g, of_g, muladd(off, of_x, alone)))


@worker
def norm_gradients(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """The gradients of scale and shift, from the sums that `pulls` left."""
    channels = d[TARGET + CHANNELS]
    for c in range(share(channels, part, parts), share(channels, part + 1, parts)):
        scale, shift = 0.0, 0.0
        for n in range(d[TARGET + BATCH]):
            rate = np.float64(arena[_table_at(d, n, c, RATE)])
            scale += rate * arena[_sum_at(d, n, c, 1)]
            shift += arena[_sum_at(d, n, c, 0)]
        arena[d[INTO_WEIGHT] + c] = np.float32(scale)
        arena[d[INTO_BIAS] + c] = np.float32(shift)
