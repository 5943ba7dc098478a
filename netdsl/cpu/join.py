"""The product of two tensors, of which either may be stretched along an axis of size 1."""

from __future__ import annotations

from netdsl.cpu.lanes import first, keep, load, splat, store
from netdsl.cpu.launch import share, worker
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

# How far each operand's next column is (0 where stretched), and whether it has one channel alone,
# which then stands for all. Other stretched axes have a stride of 0.
SOURCE_STEP, OTHER_STEP, SOURCE_SINGLE, OTHER_SINGLE = range(OWN, OWN + 4)


@worker
def multiply(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """The product of two tensors."""
    columns, step, other_step = row_width(d), d[SOURCE_STEP], d[OTHER_STEP]
    single, other_single = d[SOURCE_SINGLE], d[OTHER_SINGLE]
    work = row_count(d)
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b, z, y = row_place(d, item)
        out = row_at(d, TARGET, n, b, z, y)
        source, other = row_at(d, SOURCE, n, b, z, y), row_at(d, OTHER, n, b, z, y)
        lanes = lanes_of(d, b)
        for x in range(columns):
            v, w = load(arena, source + step * x), load(arena, other + other_step * x)
            if single:
                v = splat(first(v))
            if other_single:
                w = splat(first(w))
            store(arena, out + 16 * x, keep(v * w, 0, lanes))
