"""The product of two tensors, of which either may be stretched along an axis of size 1."""

from __future__ import annotations

from netdsl.cpu.lanes import first, keep, load, splat, store
from netdsl.cpu.launch import share, worker
from netdsl.cpu.layout import BLOCK_STRIDE, PLANE_STRIDE, ROW_STRIDE, Buffer, Call
from netdsl.cpu.task import Places, Task
from netdsl.cpu.views import (
    OTHER,
    OWN,
    SOURCE,
    TARGET,
    call,
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


def plan_multiply(task: Task, places: Places) -> list[Call]:
    """A product of any number of tensors, two at a time."""
    out, (first, *others) = places.output, places.inputs
    calls = []
    for i, other in enumerate(others):
        a, step_a, single_a = stretched(out if i else first, out)
        b, step_b, single_b = stretched(other, out)
        own = (step_a, step_b, int(single_a), int(single_b))
        calls.append(call(multiply, task.parts, out, a, *own, other=b))
    return calls


def stretched(buffer: Buffer, out: Buffer) -> tuple[list[int], int, bool]:
    """A buffer's fields with no way to go along stretched axes, its column step, and whether its
    one channel stands for all."""
    fields = list(buffer.fields())
    depth, height, width = (a == 1 and b > 1 for a, b in zip(buffer.size, out.size, strict=True))
    single = buffer.channels == 1 and out.channels > 1
    for still, stride in ((depth, PLANE_STRIDE), (height, ROW_STRIDE), (single, BLOCK_STRIDE)):
        if still:
            fields[stride] = 0
    return fields, 0 if width else 16, single
