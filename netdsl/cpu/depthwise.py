"""Depthwise convolutions with kernels of a usual width, by rows of 16 channels (micro/rows.py).

Others, dilated along a row, of another width or stride, are sums like all (direct.py).
"""

from __future__ import annotations

from math import gcd

import numpy as np

from netdsl.cpu.direct import Sum, View, bits
from netdsl.cpu.late import njit
from netdsl.cpu.launch import BODY, share, worker
from netdsl.cpu.layout import LANES, Call
from netdsl.cpu.micro import Kind, past, run_row
from netdsl.cpu.micro.row_shapes import KERNELS, ROW_FIELDS, STRIDES, choose
from netdsl.ops import Window

# The way to do a row; planes of all samples, and of one; stripes of a plane, blocks of channels,
# rows of a stripe; where weights start, and the floats to the next block's; the biases; then input
# and output: where they start, and the floats to the next sample, plane, block and row; then the
# row's own fields.
WAY, PLANES, DEPTH, STRIPES, BLOCKS, HEIGHT = range(BODY, BODY + 6)
WEIGHTS, BLOCK, BIASES = range(BODY + 6, BODY + 9)
INPUT, OUTPUT = BODY + 9, BODY + 14
ROW = BODY + 19
PLACES = (INPUT, OUTPUT)
"""Where a descriptor says where things start."""


@njit(boundscheck=False, error_model="numpy")
def row_at(d, view, plane, block, y):  # type: ignore[no-untyped-def]
    """Where a row starts in the input or output."""
    n, z = plane // d[DEPTH], plane % d[DEPTH]
    apart, back, across, down = d[view + 1], d[view + 2], d[view + 3], d[view + 4]
    return d[view] + n * apart + z * back + block * across + y * down


@worker
def depthwise(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """Sums of each channel by itself. A stripe is done for all channels before the next."""
    stripes, blocks, height = d[STRIPES], d[BLOCKS], d[HEIGHT]
    work = d[PLANES] * stripes * blocks * height
    at, end = share(work, part, parts), share(work, part + 1, parts)
    while at < end:
        column, first = at // height, at % height
        stripe, block = column // blocks, column % blocks
        plane, y = stripe // stripes, stripe % stripes * height + first
        x_at, y_at = row_at(d, INPUT, plane, block, y), row_at(d, OUTPUT, plane, block, y)
        w, bias = d[WEIGHTS] + block * d[BLOCK], d[BIASES] + 16 * block
        count = min(height - first, end - at)
        for _ in range(count):
            run_row(d[WAY], arena, params, past(d, ROW), x_at, w, y_at, bias)
            x_at += d[INPUT + 4]
            y_at += d[OUTPUT + 4]
        at += count


def by_rows(kind: Kind, window: Window) -> bool:
    """Whether rows are written for such a kernel."""
    usual = window.kernel[-1] in KERNELS and window.stride[-1] in STRIDES
    return kind is Kind.DEPTHWISE and usual and window.dilation[-1] == 1


def describe(whole: Sum, kernel: int, parts: int) -> Call:
    """The call that computes a depthwise sum on `parts` threads, the kernel so wide, its taps row
    by row. The sum has biases, and no residual."""
    batch, depth, height, width = whole.counts
    taps = whole.taps[::kernel]
    # A thread takes the same rows that it takes of other layers, where threads share them evenly.
    stripes = gcd(height, parts)
    rows = batch * depth * len(whole.starts) * height
    fields = (
        (0, max(1, min(parts, rows))),
        (choose(width, kernel, whole.source.steps[3] // LANES), batch * depth, depth),
        (stripes, len(whole.starts), height // stripes),
        (whole.weights, whole.block, whole.biases or 0),
        _walk(whole.source),
        _walk(whole.target),
        (len(taps), ROW_FIELDS, width, *map(bits, whole.clamp)),
        taps,
    )
    return Call(depthwise, np.array([number for part in fields for number in part], np.int64))


def _walk(view: View) -> tuple[int, ...]:
    """A view's fields: where it starts, the floats to the next sample, plane, block and row."""
    apart, back, down, _ = view.steps
    return view.start, apart, back, view.block, down
