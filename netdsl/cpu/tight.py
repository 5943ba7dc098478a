"""Weights of fully connected layers in 28 bits in place of 32, with all of their digits.

A large layer of few samples waits for its weights from memory, so an eighth fewer bytes are an
eighth less time. Of a float's 8 bits of exponent 4 tell 15 exponents apart, beside zero, and the
weights of a layer seldom have others: of normally distributed ones one or two in ten thousand,
which are too small.
Such *misfits* are zeros among the packed weights, and what they add to a sum is written to the
output before (`begin`); the tiles add the rest, as to the first part of a sum in parts. So every
weight is what it was, bit by bit, and an infinity or NaN, which is always a misfit, spoils its
filter alone. An infinite input makes NaN of the filters that have a misfit there, by that zero.

`micro/tight.py` says how the bits lie.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from netdsl.cpu.direct import Sum, View
from netdsl.cpu.lanes import load, misfits, splat, store, tighten
from netdsl.cpu.late import njit
from netdsl.cpu.launch import BODY, WORKER, launch, share, worker
from netdsl.cpu.layout import LANES, Call, Floats, aligned
from netdsl.cpu.memory import let_go
from netdsl.cpu.pack import transpose
from netdsl.cpu.task import Params

FILTERS, CHANNELS, TAPS, BLOCKS, BLOCK, BASE, SCRATCH, ROOM, FOUND = range(BODY, BODY + 9)
"""Filters, channels, taps and blocks of filters; floats from block to block; the exponent before
the least; where the scratch lies, each part's; how many misfits of a block there is room for. From
FOUND on, for each block: how many there are, and where each stands, row by row."""

SAMPLES, OF_BLOCKS, INPUT, X_NEXT, OUTPUT, Y_NEXT, Y_BLOCK = range(BODY, BODY + 7)
RESIDUAL, R_NEXT, R_BLOCK, BIASED, BIASES, VALUES, PLACES, STARTS = range(BODY + 7, BODY + 15)
"""Samples and blocks of filters; where inputs, outputs and residuals start, and the floats to the
next sample and block, a residual's 0 where there is none; whether there are biases, and where; the
misfits' values and places in params, filter by filter. From STARTS on: the first of each filter,
and their end."""

RANGE = 15
"""Exponents that 4 bits tell apart beside zero's."""

RAREST = 256
"""One in so many weights may be a misfit: 8 bytes each, where packed weights save half of one."""

AT_ONCE = 32
"""Blocks of filters that are packed at once, before the file's pages are let go."""

SAMPLED = 16
"""Filters by whose weights the exponents are chosen."""

EXACT = 1 << 24
"""Whole numbers up to which a float has all: where misfits' inputs lie is kept in floats."""

LARGEST = 127
"""The largest exponent before the least, whose power of two is a float."""


class Misfits(NamedTuple):
    """Those of some filters, one filter's after the other's: whose they are, their rows (tap by
    tap, 16 channels each) and what they are."""

    filters: NDArray[np.int64]
    rows: NDArray[np.int64]
    values: Floats


class Tight(NamedTuple):
    """Packed weights, the power of two that they are multiplied by, and the misfits."""

    packed: Floats
    scale: float
    misfits: Misfits


def tightened(
    weights: Floats, block: int, parts: int, room: Callable[[int], Floats] = aligned
) -> Tight | None:
    """(filters, channels, taps) weights packed for tight tiles, each block of filters `block`
    floats from the last; None where too many do not fit."""
    filters, _, taps = weights.shape
    base = base_exponent(weights)
    if base is None:
        return None
    packed, scratch = room(-(-filters // LANES) * block), aligned(parts * LANES * LANES * taps)
    found = []
    for first in range(0, filters, AT_ONCE * LANES):
        some = weights[first : first + AT_ONCE * LANES]
        table = _pack(some, packed[first // LANES * block :], block, base, scratch, parts)
        if table is None:
            return None
        found.append(_listed(some, table, first))
        let_go(some)
    each = zip(*found, strict=True)
    return Tight(packed, 2.0**base, Misfits(*(np.concatenate(values) for values in each)))


def _pack(
    weights: Floats, packed: Floats, block: int, base: int, scratch: Floats, parts: int
) -> NDArray[np.int64] | None:
    """Packs some filters; for each block of them how many misfits it has and where they stand."""
    filters, channels, taps = weights.shape
    blocks, away = -(-filters // LANES), (scratch.ctypes.data - packed.ctypes.data) // 4
    room = -(-channels // LANES) * LANES * taps * LANES // RAREST
    sizes = (filters, channels, taps, blocks, block, base, away, room)
    d = np.zeros(FOUND + blocks * (1 + room), np.int64)
    d[:FOUND] = (pack_tight.address, parts, *sizes)
    assert WORKER == 0
    launch(np.ascontiguousarray(weights, np.float32).reshape(-1), packed, d)
    table = d[FOUND:].reshape(blocks, 1 + room)
    return None if (table[:, 0] > room).any() else table


def _listed(weights: Floats, table: NDArray[np.int64], first: int) -> Misfits:
    """The misfits of some filters, `first` the first of these."""
    block, at = np.nonzero(np.arange(table.shape[1] - 1) < table[:, :1])
    row, lane = np.divmod(table[block, 1 + at], LANES)
    order = np.argsort(block * LANES + lane, kind="stable")
    filters, row = (block * LANES + lane)[order], row[order]
    (tap, channel), taps = np.divmod(row, LANES), weights.shape[2]
    values = weights[filters, tap // taps * LANES + channel, tap % taps]
    return Misfits(first + filters, row, values.astype(np.float32))


def base_exponent(weights: Floats) -> int | None:
    """The exponent, as floats count them, before the 15 that most weights have; None where too many
    have others. By the weights of some filters."""
    some = weights[:: max(1, len(weights) // SAMPLED)]
    bits = np.ascontiguousarray(some, np.float32).reshape(-1).view(np.uint32) << 1
    known = np.bincount(bits[bits > 0] >> 24, minlength=256)
    sums = np.convolve(known, np.ones(RANGE, np.int64))[RANGE : RANGE + LARGEST + 1]
    if known.sum() - sums.max() > bits.size // RAREST:
        return None
    best = np.flatnonzero(sums == sums.max())
    return int(best[len(best) // 2])


def begun(
    found: Misfits,
    whole: Sum,
    params: Params,
    biases: int | None,
    residual: View | None,
    parts: int,
) -> Call:
    """The call that writes what sums start from. biases: where they are, None for none."""
    source, target, beside = whole.source, whole.target, residual or whole.target
    blocks = len(whole.starts)
    at = np.array(whole.taps)[found.rows // LANES] + found.rows % LANES
    firsts = np.searchsorted(found.filters, np.arange(blocks * LANES + 1))
    fields = (
        (0, max(1, min(parts, blocks)), whole.counts[3], blocks),
        (source.start, source.steps[3], target.start, target.steps[3], target.block),
        (beside.start, beside.steps[3], beside.block if residual else 0, int(biases is not None)),
        (biases or 0, params.add(found.values), params.add(at.astype(np.float32))),
        firsts.tolist(),
    )
    return Call(begin, np.array([number for part in fields for number in part], np.int64))


@worker
def pack_tight(weights, packed, d, part, parts):  # type: ignore[no-untyped-def]
    """Packs floats, 16 channels of a block of filters at a time, and those into fewer bits."""
    channels, taps = d[CHANNELS], d[TAPS]
    row, scratch = channels * taps, d[SCRATCH] + part * 256 * taps
    for block in range(share(d[BLOCKS], part, parts), share(d[BLOCKS], part + 1, parts)):
        count, target = min(16, d[FILTERS] - 16 * block), block * d[BLOCK]
        found = FOUND + block * (1 + d[ROOM])
        for first in range(0, channels, 16):
            here = min(16, channels - first)
            if count < 16 or here < 16:
                for i in range(16 * taps):
                    store(packed, scratch + 16 * i, splat(np.float32(0.0)))
            source = 16 * block * row + first * taps
            transpose(weights, packed, source, scratch, row, count, here, taps, 16)
            for i in range(2 * taps):
                at = scratch + 128 * i
                if tighten(packed, at, packed, target, d[BASE]):
                    note(packed, d, at, 16 * first * taps + 128 * i, found)
                target += 112


@njit(boundscheck=False, error_model="numpy")
def note(packed, d, at, place, found):  # type: ignore[no-untyped-def]
    """Lists the misfits of eight rows."""
    for k in range(8):
        bits = misfits(packed, at + 16 * k, d[BASE])
        for lane in range(16):
            if bits >> lane & 1:
                d[found] += 1
                if d[found] <= d[ROOM]:
                    d[found + d[found]] = place + 16 * k + lane


@worker
def begin(arena, params, d, part, parts):  # type: ignore[no-untyped-def]
    """Writes what sums start from: biases, residuals and misfits' products."""
    for block in range(share(d[OF_BLOCKS], part, parts), share(d[OF_BLOCKS], part + 1, parts)):
        for n in range(d[SAMPLES]):
            v = splat(np.float32(0.0))
            if d[BIASED]:
                v = load(params, d[BIASES] + 16 * block)
            if d[R_BLOCK]:
                v = v + load(arena, d[RESIDUAL] + n * d[R_NEXT] + block * d[R_BLOCK])
            x, y = d[INPUT] + n * d[X_NEXT], d[OUTPUT] + n * d[Y_NEXT] + block * d[Y_BLOCK]
            store(arena, y, v)
            for f in range(16):
                start, end = d[STARTS + 16 * block + f], d[STARTS + 16 * block + f + 1]
                if start < end:
                    total = arena[y + f]
                    for i in range(start, end):
                        total += params[d[VALUES] + i] * arena[x + np.int64(params[d[PLACES] + i])]
                    arena[y + f] = total
