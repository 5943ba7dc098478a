"""Max pools of packed tensors (see pack.py) by the windows of strips.py: a thread an output's unit,
the channels that lie in 16 bytes. The largest of rounded values is the largest value rounded.

Cells are clamped to the input, as in strips.py, so that a plane's loads are under way together.
"""

from __future__ import annotations

from typing import Any

from numba import cuda, int32, uint32, uint64

from netdsl.cuda.arith import divided, reciprocal
from netdsl.cuda.layout import Call, axes, spread
from netdsl.cuda.rows import place
from netdsl.cuda.strips import WINDOWS, Window, clamped, strips_of
from netdsl.cuda.task import Task
from netdsl.cuda.warp import float_of, larger, larger_bf16, load4, store4
from netdsl.ops import MaxPool

PLACES, CELLS, SIZE, BEFORE, OUT, MORE = range(0, 24, 4)
"""Where fours of the descriptor's fields begin, each read at once. PLACES: the input, how far apart
its samples lie, and the same of the output. CELLS: how far apart positions of either lie; units of
the output in a sample, and in a position. SIZE: the input's axes, a window's depth. BEFORE: padding
before each axis, the stride along the first. OUT: the output's height and width, and the reciprocal
of the units of a position. MORE: those of the width and height."""

LEAST = {"tf32": 0xFF800000, "bf16": 0xFF80FF80}
"""Words of minus infinity."""


def largest_by(window: Window, precision: str) -> Any:
    """The kernel for one window and precision."""
    K, S, HALVES, FIRST = window.size, window.stride, precision == "bf16", LEAST[precision]

    @cuda.jit(device=True)
    def larger_of(a, b):  # type: ignore[no-untyped-def]
        return larger_bf16(a, b) if HALVES else larger(a, b)

    @cuda.jit
    def max_units(arena, params, ints, at):  # type: ignore[no-untyped-def]
        """The largest of windows: grid (units of a sample / threads, samples)."""
        i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
        n = int32(cuda.blockIdx.y)
        source_cell, target_cell, count, units = load4(ints, uint64(at + CELLS))
        if i >= count:
            return
        source, source_batch, target, target_batch = load4(ints, uint64(at + PLACES))
        depth, height, width, deep = load4(ints, uint64(at + SIZE))
        before, above, left, stride = load4(ints, uint64(at + BEFORE))
        out_height, out_width, by_units, units_shift = load4(ints, uint64(at + OUT))
        by_width, width_shift, by_height, height_shift = load4(ints, uint64(at + MORE))
        p = divided(i, by_units, units_shift)
        lines = divided(p, by_width, width_shift)
        planes = divided(lines, by_height, height_shift)
        word = int32(4 * (i - p * units))
        x0 = int32((p - lines * out_width) * S - left)
        y0 = int32((lines - planes * out_height) * S - above)
        z0 = int32(planes * stride - before)
        source = int32(source + n * source_batch + word)
        a = b = c = d = float_of(uint32(FIRST))
        for z in range(max(z0, int32(0)), min(int32(z0 + deep), depth)):
            for r in range(K):
                row = int32((z * height + clamped(int32(y0 + r), height)) * width)
                for k in range(K):
                    cell = int32(row + clamped(int32(x0 + k), width))
                    e, f, g, h = load4(arena, uint32(source + cell * source_cell))
                    a, b = larger_of(a, e), larger_of(b, f)
                    c, d = larger_of(c, g), larger_of(d, h)
        store4(arena, uint32(target + n * target_batch + p * target_cell + word), a, b, c, d)

    return max_units


UNITS: dict[tuple[Window, str], Any] = {
    (window, precision): largest_by(window, precision)
    for window in WINDOWS
    for precision in ("tf32", "bf16")
}


def plan_units(task: Task) -> Call:
    """The call of a max pool of a packed tensor."""
    op, source, target = task.whole.base, task.packed_input, task.packed_output
    window = strips_of(task)
    assert isinstance(op, MaxPool)
    assert window is not None
    assert source is not None
    assert target is not None
    w, (_, height, width) = op.window, task.output.size
    units = target.shape[-1] // 4
    count = task.output.plane * units
    d = [*place(source), *place(target), source.cell, target.cell, count, units]
    d += [*task.inputs[0].size, axes(w.kernel, 1)[0]]
    d += [*axes((lo for lo, _ in w.padding), 0), axes(w.stride, 1)[0]]
    d += [height, width, *reciprocal(units), *reciprocal(width), *reciprocal(height)]
    kernel = UNITS[window, task.precision]
    return spread(kernel, count, task.ints.add(d, align=4), target.batch)
