"""Groups of few elements: some lanes of a warp each, so that no barrier and no idle thread costs.

Groups are read and written by fours that begin at multiples of four, wherever the group does: what
of its first and last four belongs to others is left out.
"""

from __future__ import annotations

import numpy as np
from numba import cuda, int32, uint32, uint64

from netdsl.cuda.arith import MOST, quotient, reciprocal, remainder
from netdsl.cuda.groups import LENGTH, Groups, alike, within
from netdsl.cuda.layout import Buffer
from netdsl.cuda.sizes import SIMULATED, WARP
from netdsl.cuda.warp import load4, store4
from netdsl.cuda.wide import EACH

ROUNDS = 2 if SIMULATED else 4
"""Fours that a lane has under way at once."""
MOST_FOURS = 4 * ROUNDS
"""Fours of a lane from which on more lanes should take them."""
LEAST_LANES = 2 if SIMULATED else 4
"""Lanes whose fours make up two sectors."""
LONGEST = 32 if SIMULATED else 2048
"""Elements up to which they go so."""
BUSY = 8 if SIMULATED else 512
"""Threads that a multiprocessor should have: each has 64 bytes under way."""
FOURS = ROUNDS * EACH
ZERO = np.float32(0)


@cuda.jit(device=True)
def team_at(ints, at, field, i):  # type: ignore[no-untyped-def]
    """Of thread i: its group, the first one where there is none; its lane, the lanes of a group;
    the floats of the group, 0 where there is none. field: of the numbers of `fields`."""
    count, shift = ints[uint64(at + field)], ints[uint64(at + field + 1)]
    q = int32(uint32(i) >> uint32(shift))
    lanes = int32(uint32(1) << uint32(shift))
    lane = int32(i - q * lanes)
    if q < count:
        return q, lane, lanes, ints[uint64(at + LENGTH)]
    return int32(0), lane, lanes, int32(0)


@cuda.jit(device=True)
def edges_of(start, length):  # type: ignore[no-untyped-def]
    """How far into its first four a group begins, and how many fours it has a part in."""
    skew = remainder(start, int32(EACH))
    return skew, quotient(int32(skew + max(length, int32(1)) + EACH - 1), int32(EACH))


@cuda.jit(device=True)
def fours_at(values, first, arena, start, skew, fours, lane, lanes):  # type: ignore[no-untyped-def]
    """Puts the next fours of a lane into `values`; past the last one that is read once more, so
    that no load waits for a test. start: where the group begins."""
    for r in range(ROUNDS):
        u = min(int32(first + r * lanes + lane), int32(fours - 1))
        a, b, c, d = load4(arena, uint32(start + u * EACH - skew))
        values[r * EACH], values[r * EACH + 1] = a, b
        values[r * EACH + 2], values[r * EACH + 3] = c, d


@cuda.jit(device=True)
def filled(values, first, skew, lane, lanes, length, fill):  # type: ignore[no-untyped-def]
    """Puts `fill` in the place of what is none of the group's own."""
    for r in range(ROUNDS):
        begin = int32((first + r * lanes + lane) * EACH - skew)
        for k in range(EACH):
            if not within(int32(begin + k), length):
                values[r * EACH + k] = fill


@cuda.jit(device=True)
def give_four(values, j, arena, start, begin, length):  # type: ignore[no-untyped-def]
    """Writes those of four elements that are a group's own."""
    if begin >= 0 and int32(begin + EACH) <= length:
        to = uint32(start + begin)
        store4(arena, to, values[j], values[j + 1], values[j + 2], values[j + 3])
    else:
        for k in range(EACH):
            if within(int32(begin + k), length):
                arena[uint32(start + begin + k)] = values[j + k]


def lanes_for(groups: Groups, processors: int, *buffers: Buffer) -> int:
    """How many lanes a group should have: 0 where it should have a block, or tensors begin in
    different places of a four."""
    if groups.rows > 1 or not alike(*buffers) or groups.count * WARP >= MOST:
        return 0
    fours, lanes, busy = -(-groups.length // EACH), LEAST_LANES, BUSY * processors
    if groups.length > LONGEST or (fours > ROUNDS * WARP and groups.count * WARP < busy // 2):
        return 0
    while lanes < WARP and lanes < fours:
        if lanes * MOST_FOURS >= fours and groups.count * lanes >= busy:
            break
        lanes *= 2
    return lanes


def fields(groups: Groups, lanes: int) -> list[int]:
    """What a descriptor holds of it: groups of all samples, the logarithm of the lanes, the
    reciprocal of a channel's positions."""
    return [groups.count, lanes.bit_length() - 1, *reciprocal(groups.plane)]
