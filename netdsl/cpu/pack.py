"""Weights as the tiles read them: [block of 16 filters][tap][input channel][16 filters]."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from netdsl.cpu.lanes import paired
from netdsl.cpu.late import njit
from netdsl.cpu.launch import BODY, WORKER, launch, share, worker
from netdsl.cpu.layout import LANES, Floats, aligned
from netdsl.cpu.micro import HALF, Kind

FILTERS, CHANNELS, TAPS, BLOCKS, CHANNEL_BLOCKS, LANE_COUNT, BLOCK = range(BODY, BODY + 7)
TABLE = BODY + 7


@worker
def pack_blocks(weights, packed, d, part, parts):  # type: ignore[no-untyped-def]
    """Packs (filters, channels, taps) weights; TABLE holds each block's first channel."""
    filters, channels, taps, lanes = d[FILTERS], d[CHANNELS], d[TAPS], d[LANE_COUNT]
    row = channels * taps
    for block in range(share(d[BLOCKS], part, parts), share(d[BLOCKS], part + 1, parts)):
        count = min(16, filters - 16 * block)
        for b in range(d[CHANNEL_BLOCKS]):
            source = 16 * block * row + b * lanes * taps
            target = block * d[BLOCK] + b * taps * lanes * 16
            here = min(lanes, channels - b * lanes)
            transpose(weights, packed, source, target, row, count, here, taps, lanes)


@njit(boundscheck=False, error_model="numpy")
def transpose(weights, packed, source, target, row, count, here, taps, lanes):  # type: ignore[no-untyped-def]
    """Packs some channels of a block of filters, `count` of them, that are `row` floats apart."""
    for lane in range(here):
        at, to = source + lane * taps, target + lane * 16
        for _ in range(taps):
            for f in range(count):
                packed[to + f] = weights[at + f * row]
            at += 1
            to += 16 * lanes


@worker
def pack_pairs(weights, packed, d, part, parts):  # type: ignore[no-untyped-def]
    """The same in bfloat16, two neighbouring channels in the place of a float."""
    filters, channels, taps, lanes = d[FILTERS], d[CHANNELS], d[TAPS], d[LANE_COUNT]
    row, rows = channels * taps, lanes // 2
    for block in range(share(d[BLOCKS], part, parts), share(d[BLOCKS], part + 1, parts)):
        first, count = 16 * block, min(16, filters - 16 * block)
        for b in range(d[CHANNEL_BLOCKS]):
            here = min(lanes, channels - b * lanes)
            for lane in range(0, here, 2):
                source = first * row + (b * lanes + lane) * taps
                target = block * d[BLOCK] + (b * taps * rows + lane // 2) * 16
                for _ in range(taps):
                    for f in range(count):
                        at = source + f * row
                        other = weights[at + taps] if lane + 1 < here else np.float32(0.0)
                        packed[target + f] = paired(weights[at], other)
                    source += 1
                    target += 16 * rows


Room = Callable[[int], Floats]
"""Gives so many zeros, on a cache line."""


def packed_weights(
    weights: Floats, kind: Kind, block: int, parts: int, room: Room = aligned
) -> Floats:
    """(filters, channels, taps) weights, each block of filters `block` floats from the last.

    Lanes without a filter or channel hold zeros. Kinds with weights in bfloat16 get them rounded.
    """
    filters, channels, taps = weights.shape
    lanes = kind.lanes
    blocks = -(-filters // LANES)
    packed = room(blocks * block)
    sizes = (filters, channels, taps, blocks, -(-channels // lanes), lanes, block)
    work = pack_pairs if kind in HALF else pack_blocks
    d = np.array((work.address, parts, *sizes), np.int64)
    assert WORKER == 0
    launch(np.ascontiguousarray(weights, np.float32).reshape(-1), packed, d)
    return packed


def packed_biases(biases: Floats, blocks: int = 0) -> Floats:
    """Biases padded with zeros to whole blocks, so many at least."""
    padded = np.zeros(max(blocks, -(-biases.size // LANES)) * LANES, np.float32)
    padded[: biases.size] = biases
    return padded
