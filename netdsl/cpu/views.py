"""What a worker's descriptor holds, and how the worker finds its rows in it.

A descriptor `d` (int64) begins with the worker's address and its parts, then come the fields of
three buffers (layout.py), TARGET, SOURCE and OTHER, and from OWN on what this worker alone wants.
A worker writes the target row by row: a row is the columns of one sample, block, depth and height.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

from netdsl.cpu.late import njit
from netdsl.cpu.launch import BODY, WORKER, Worker, launch
from netdsl.cpu.layout import (
    BATCH,
    BATCH_STRIDE,
    BLOCK_STRIDE,
    BLOCKS,
    CHANNELS,
    DEPTH,
    FIELDS,
    HEIGHT,
    ORIGIN,
    PLANE_STRIDE,
    ROW_STRIDE,
    WIDTH,
    Buffer,
    Call,
)

TARGET = BODY
SOURCE = TARGET + FIELDS
OTHER = SOURCE + FIELDS
OWN = OTHER + FIELDS


def call(
    work: Worker,
    parts: int,
    target: Buffer,
    source: Buffer | Sequence[int],
    *own: int,
    other: Buffer | Sequence[int] | None = None,
) -> Call:
    """The call of a worker on these buffers, or fields of buffers; `own` is what it wants besides.

    The worker's address is filled in when the plan is complete (`link`).
    """
    views = (target, source, source if other is None else other)
    fields = (view.fields() if isinstance(view, Buffer) else view for view in views)
    return Call(work, np.array((0, parts, *chain(*fields), *own), np.int64))


def link(call: Call) -> Call:
    """The call as it is made: a worker, compiled if need be, by its address through `launch`."""
    if not isinstance(call.kernel, Worker):
        return call
    d = call.d.copy()
    d[WORKER] = call.kernel.address
    return Call(launch, d)


@njit(forceinline=True)
def row_count(d):  # type: ignore[no-untyped-def]
    """Rows there are to write."""
    return d[TARGET + BATCH] * d[TARGET + BLOCKS] * d[TARGET + DEPTH] * d[TARGET + HEIGHT]


@njit(forceinline=True)
def row_width(d):  # type: ignore[no-untyped-def]
    """Columns in each row."""
    return d[TARGET + WIDTH]


@njit(forceinline=True)
def row_place(d, item):  # type: ignore[no-untyped-def]
    """Which row the item-th is: sample, block, depth and height."""
    rows, depth, blocks = d[TARGET + HEIGHT], d[TARGET + DEPTH], d[TARGET + BLOCKS]
    planes = item // rows
    cubes = planes // depth
    return cubes // blocks, cubes % blocks, planes % depth, item % rows


@njit(forceinline=True)
def striped_place(d, item, stripes):  # type: ignore[no-untyped-def]
    """The same where each plane is so many stripes of rows, which are done for all blocks before
    the next: so a thread reads the rows that it wrote itself, in layers that share them so."""
    rows, depth, blocks = d[TARGET + HEIGHT] // stripes, d[TARGET + DEPTH], d[TARGET + BLOCKS]
    columns, y = item // rows, item % rows
    planes, block = columns // blocks, columns % blocks
    cubes, stripe = planes // stripes, planes % stripes
    return cubes // depth, block, cubes % depth, stripe * rows + y


@njit(forceinline=True)
def row_at(d, view, n, b, z, y):  # type: ignore[no-untyped-def]
    """Where a row begins in one of the three buffers."""
    return (
        d[view + ORIGIN]
        + n * d[view + BATCH_STRIDE]
        + b * d[view + BLOCK_STRIDE]
        + z * d[view + PLANE_STRIDE]
        + y * d[view + ROW_STRIDE]
    )


@njit(forceinline=True)
def lanes_of(d, b):  # type: ignore[no-untyped-def]
    """How many lanes of block b hold channels: 16 in all but the last."""
    return min(d[TARGET + CHANNELS] - 16 * b, 16)
