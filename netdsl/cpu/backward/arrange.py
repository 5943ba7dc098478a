"""Gradients of what moves values about, of products; dropout; sums of gradients."""

from __future__ import annotations

import numpy as np

from netdsl.cpu.lanes import first, keep, load, splat, store, total
from netdsl.cpu.late import njit
from netdsl.cpu.launch import share, worker
from netdsl.cpu.layout import (
    BATCH_STRIDE,
    BLOCKS,
    DEPTH,
    HEIGHT,
    ORIGIN,
    WIDTH,
)
from netdsl.cpu.views import (
    OTHER,
    OWN,
    SOURCE,
    TARGET,
    lanes_of,
    row_at,
    row_count,
    row_place,
    row_width,
)


@worker
def add_to(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """target <- target + source"""
    work, columns = row_count(d), row_width(d)
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b, z, y = row_place(d, item)
        source, out = row_at(d, SOURCE, n, b, z, y), row_at(d, TARGET, n, b, z, y)
        for x in range(columns):
            v = load(arena, out + 16 * x) + load(arena, source + 16 * x)
            store(arena, out + 16 * x, v)


@worker
def copy(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """target <- source"""
    work, columns = row_count(d), row_width(d)
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b, z, y = row_place(d, item)
        source, out = row_at(d, SOURCE, n, b, z, y), row_at(d, TARGET, n, b, z, y)
        for x in range(columns):
            store(arena, out + 16 * x, load(arena, source + 16 * x))


@worker
def unflatten(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """A vector, channel by channel, as (C, *spatial): the source is the vector."""
    depth, rows, columns = d[TARGET + DEPTH], d[TARGET + HEIGHT], row_width(d)
    plane = depth * rows * columns
    work = row_count(d)
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b, z, y = row_place(d, item)
        out = row_at(d, TARGET, n, b, z, y)
        source = d[SOURCE + ORIGIN] + n * d[SOURCE + BATCH_STRIDE]
        source += 16 * b * plane + (z * rows + y) * columns
        lanes = lanes_of(d, b)
        for x in range(columns):
            for lane in range(16):
                if lane < lanes:
                    arena[out + 16 * x + lane] = arena[source + lane * plane + x]
                else:
                    arena[out + 16 * x + lane] = np.float32(0.0)


# Of multiply_back: 1 for each axis of the target (channels, depth, height, width) that the product
# stretched; whether OTHER is stretched along each, and its number of lanes that count.
STRETCHED, OTHER_FLAT = OWN, OWN + 4


@worker
def multiply_back(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """The gradient of one factor: the source times OTHER, summed where the target is stretched."""
    over_c, over_z, over_y, over_x = (
        d[STRETCHED],
        d[STRETCHED + 1],
        d[STRETCHED + 2],
        d[STRETCHED + 3],
    )
    flat_c, flat_z, flat_y, flat_x = (
        d[OTHER_FLAT],
        d[OTHER_FLAT + 1],
        d[OTHER_FLAT + 2],
        d[OTHER_FLAT + 3],
    )
    work, columns = row_count(d), row_width(d)
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b, z, y = row_place(d, item)
        out = row_at(d, TARGET, n, b, z, y)
        from_z, to_z = (0, d[SOURCE + DEPTH]) if over_z else (z, z + 1)
        from_y, to_y = (0, d[SOURCE + HEIGHT]) if over_y else (y, y + 1)
        from_b, to_b = (0, d[SOURCE + BLOCKS]) if over_c else (b, b + 1)
        for x in range(columns):
            from_x, to_x = (0, d[SOURCE + WIDTH]) if over_x else (x, x + 1)
            sums = splat(np.float32(0.0))
            for c in range(from_b, to_b):
                for i in range(from_z, to_z):
                    for j in range(from_y, to_y):
                        source = row_at(d, SOURCE, n, c, i, j)
                        other = row_at(
                            d, OTHER, n, 0 if flat_c else c, 0 if flat_z else i, 0 if flat_y else j
                        )
                        for k in range(from_x, to_x):
                            w = load(arena, other + (0 if flat_x else 16 * k))
                            if flat_c:
                                w = splat(first(w))
                            sums += load(arena, source + 16 * k) * w
            if over_c:
                sums = splat(total(sums))
            store(arena, out + 16 * x, keep(sums, 0, lanes_of(d, b)))


# Of drop: the seed of this node, the step (which the plan sets anew), the rate's threshold in
# 2^32, and where params hold the scale of what stays.
SEED, STEP, THRESHOLD, KEPT = range(OWN, OWN + 4)


@njit(forceinline=True)
def _mixed(x):  # type: ignore[no-untyped-def]
    """A good 64-bit hash of a counter (splitmix64's finish)."""
    x = np.uint64(x) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@worker
def drop(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """Dropout, and its gradient: zeroes the same elements whenever seed and step are the same.

    An element's fate is a hash of the seed, the step and its place, so no mask is kept and no
    order of threads matters.
    """
    work, columns = row_count(d), row_width(d)
    scale, threshold = params[d[KEPT]], np.uint64(d[THRESHOLD])
    stream = _mixed(np.uint64(d[SEED]) ^ _mixed(np.uint64(d[STEP])))
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b, z, y = row_place(d, item)
        source, out = row_at(d, SOURCE, n, b, z, y), row_at(d, TARGET, n, b, z, y)
        start = np.uint64(item * columns * 16)
        for i in range(16 * columns):
            fate = _mixed(stream + start + np.uint64(i)) >> np.uint64(32)
            v = arena[source + i] * scale
            arena[out + i] = v if fate >= threshold else np.float32(0.0)
