"""Max pools of tensors in bfloat16, 32 channels at once.

Whole numbers of 16 bits are compared, in which the bits of bfloat16 have their numbers' order
(half.py); what rounds to bfloat16 makes every NaN positive, so that it is larger than all others.
"""

from __future__ import annotations

from netdsl.cpu.lanes import larger, least_half, load_halves, store_halves
from netdsl.cpu.launch import share, worker
from netdsl.cpu.layout import PLANE_STRIDE, ROW_STRIDE
from netdsl.cpu.views import SOURCE, TARGET, row_at, row_count, row_width, striped_place
from netdsl.cpu.windows import STRIPES, window


@worker
def half_narrow_pool(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """The largest of each window of up to three rows and columns, which are taken as three: one
    taken twice changes no maximum."""
    work, columns = row_count(d), row_width(d)
    down, back = d[SOURCE + ROW_STRIDE], d[SOURCE + PLANE_STRIDE]
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, block, z, y = striped_place(d, item, d[STRIPES])
        plane, out = row_at(d, SOURCE, n, block, 0, 0), row_at(d, TARGET, n, block, z, y)
        first_z, end_z, step_z, _ = window(d, 0, z)
        first_y, end_y, step_y, _ = window(d, 1, y)
        top, bottom = plane + first_y * down, plane + (end_y - 1) * down
        middle = min(top + step_y * down, bottom)
        for x in range(columns):
            left, end, step, _ = window(d, 2, x)
            right = 16 * (end - 1)
            centre = min(16 * (left + step), right)
            left *= 16
            best = least_half()
            for i in range(first_z, end_z, step_z):
                a, b, c = top + i * back, middle + i * back, bottom + i * back
                for row in (a, b, c):
                    first = larger(load_halves(arena, row + left), load_halves(arena, row + centre))
                    best = larger(best, larger(first, load_halves(arena, row + right)))
            store_halves(arena, out + 16 * x, best)


@worker
def half_pool(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """The largest of each window, of any size."""
    work, columns = row_count(d), row_width(d)
    down, back = d[SOURCE + ROW_STRIDE], d[SOURCE + PLANE_STRIDE]
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, block, z, y = striped_place(d, item, d[STRIPES])
        plane, out = row_at(d, SOURCE, n, block, 0, 0), row_at(d, TARGET, n, block, z, y)
        first_z, end_z, step_z, _ = window(d, 0, z)
        first_y, end_y, step_y, _ = window(d, 1, y)
        for x in range(columns):
            first_x, end_x, step_x, _ = window(d, 2, x)
            best = least_half()
            for i in range(first_z, end_z, step_z):
                for j in range(first_y, end_y, step_y):
                    row = plane + i * back + j * down
                    for k in range(first_x, end_x, step_x):
                        best = larger(best, load_halves(arena, row + 16 * k))
            store_halves(arena, out + 16 * x, best)
