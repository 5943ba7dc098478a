"""Strided convolutions of few channels as convolutions of stride 1, for Winograd's algorithm.

Every s-th pixel along both axes, from one of s x s first ones on, is a *phase* of an image. With
each phase of each channel as a channel of its own, a kernel of k taps and stride s is one of
ceil(k / s) taps and stride 1: AlexNet's 11x11 of stride 4 on 3 channels is 3x3 on 48.

    pixels of a channel      stride 2: four channels          taps of a row of 7: 4 and 3
      a b a b a b              a a a   b b b                    w0 w1 w2 w3 w4 w5 w6
      c d c d c d      ──▶     a a a   b b b                 a: w0    w2    w4    w6
      a b a b a b              c c c   d d d                 b:    w1    w3    w5     0
      c d c d c d              c c c   d d d

A step of its own writes the phases, in blocks, into the layer's scratch.
"""

from __future__ import annotations

from math import prod

import numpy as np

from netdsl.cpu import strides
from netdsl.cpu.lanes import move2, move4, splat, store
from netdsl.cpu.launch import share, worker
from netdsl.cpu.layout import (
    BLOCK_STRIDE,
    LANE_COUNT,
    LANES,
    Buffer,
    Call,
    Floats,
    Halo,
    Triple,
    fresh,
)
from netdsl.cpu.task import Task
from netdsl.cpu.views import (
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
from netdsl.cpu.winograd import Winograd
from netdsl.ops import Conv, Window

MOST = 8
"""Channels up to which a step of its own is cheap beside the layer."""


def suit(op: Conv, channels: int) -> bool:
    """Whether a convolution of so many channels can be done by phases: a strided one, whose kernel
    is a square then."""
    window = op.window
    plain = op.groups == 1 and set(window.dilation) == {1} and len(window.kernel) == 2
    if not plain or channels > MOST or max(window.stride) == 1:
        return False
    rows, columns = strides.of(window).taps
    return rows == columns


def count(window: Window) -> int:
    """Phases of a channel."""
    return prod(window.stride)


def size(plan: Winograd) -> tuple[int, int]:
    """Rows and columns of a phase, as many as the plan's tiles read."""
    each, along = plan.size
    return plan.tile_rows * each + along - 1, plan.tile_columns * each + along - 1


def halo(plan: Winograd, window: Window, before: Triple, lengths: Triple) -> Halo:
    """The halo of an image of such lengths, wide enough for all that its phases hold."""
    reach = (1, *(n * s for n, s in zip(size(plan), window.stride, strict=True)))
    d, h, w = (max(0, end - lo - n) for end, lo, n in zip(reach, before, lengths, strict=True))
    return Halo(before, (d, h, w))


def buffer(plan: Winograd, window: Window, source: Buffer | Task, offset: int = 0) -> Buffer:
    """Where the phases of an image lie."""
    channels = source.channels if isinstance(source, Buffer) else source.shapes[0][0]
    return fresh(source.batch, (channels * count(window), *size(plan)), offset=offset)


def weights(weight: Floats, window: Window) -> Floats:
    """Weights (filters, channels, rows, columns) of the phases: a filter's rows and columns by
    stride, zeros where the last phases have fewer."""
    filters, channels = weight.shape[:2]
    (rows, columns), (down, along) = strides.of(window).taps, window.stride
    spare = (rows * down - weight.shape[2], columns * along - weight.shape[3])
    whole = np.pad(weight, ((0, 0), (0, 0), (0, spare[0]), (0, spare[1])))
    whole = whole.reshape(filters, channels, rows, down, columns, along)
    return whole.transpose(0, 1, 3, 5, 2, 4).reshape(filters, -1, rows, columns)


CYCLES = 1.0
"""Of a float of the phases, roughly."""

DOWN, ALONG, CORNER = range(OWN, OWN + 3)
"""The strides; how far the first pixel that is read lies before the image's."""


def split(target: Buffer, source: Buffer, window: Window, before: Triple, parts: int) -> Call:
    """The call that writes an image's phases."""
    corner = before[1] * source.row_stride + before[2] * source.lanes
    return call(split_phases, parts, target, source, *window.stride, corner)


@worker
def split_phases(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """Rows of all phases from an image in planes or in one block, zeros past the last phase."""
    down, along, columns = d[DOWN], d[ALONG], row_width(d)
    planar = d[SOURCE + LANE_COUNT] == 1
    channel, pixel = d[SOURCE + BLOCK_STRIDE] if planar else 1, d[SOURCE + LANE_COUNT]
    # Phases of a row of pixels that stand side by side in both.
    run = along if planar and (along == 2 or along == 4) else 1
    work = row_count(d)
    for item in range(share(work, part, parts), share(work, part + 1, parts)):
        n, b, _, y = row_place(d, item)
        out, lanes = row_at(d, TARGET, n, b, 0, y), lanes_of(d, b)
        if lanes < LANES:
            for x in range(columns):
                store(arena, out + LANES * x, splat(np.float32(0.0)))
        for lane in range(0, lanes, run):
            c, place = (LANES * b + lane) // (down * along), (LANES * b + lane) % (down * along)
            source = row_at(d, SOURCE, n, 0, 0, y * down + place // along) - d[CORNER]
            source += c * channel + place % along * pixel
            step, target = along * pixel, out + lane
            if run == 4:
                for x in range(columns):
                    move4(arena, target + LANES * x, source + x * step)
            elif run == 2:
                for x in range(columns):
                    move2(arena, target + LANES * x, source + x * step)
            else:
                for x in range(columns):
                    arena[target + LANES * x] = arena[source + x * step]
