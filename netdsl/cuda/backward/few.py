"""The gradient of a norm of small groups: some lanes of a warp each, as forward; see norm.py."""

from __future__ import annotations

import numpy as np
from numba import cuda, float32, int32, uint32, uint64

from netdsl.cuda.arith import divided, remainder
from netdsl.cuda.backward.task import BackPlaces
from netdsl.cuda.few import FOURS, ROUNDS, edges_of, fields, filled, fours_at, give_four, team_at
from netdsl.cuda.groups import CHANNELS, GROUPS, OTHER, OWN, SOURCE, TARGET, Groups, group_at
from netdsl.cuda.layout import Call, spread
from netdsl.cuda.norm import finished, place_or_fill
from netdsl.cuda.task import Task
from netdsl.cuda.wide import EACH, lanes_sum

SCALE, SHIFT, RELU, TABLE, TEAM = range(OWN, OWN + 5)
"""As in norm.py, then the numbers of few.py."""
BY_PLANE = TEAM + 2

ZERO, ONE = np.float32(0), np.float32(1)


@cuda.jit(device=True)
def pulls_of(g, x, params, ints, at, q, first, skew, lane, lanes, length, mean, rate):  # type: ignore[no-untyped-def]
    """Makes of a lane's next fours of the output's gradient and of the input w g, less what a relu
    takes, and z; zeros for what is none of the group's own."""
    filled(g, first, skew, lane, lanes, length, ZERO)
    filled(x, first, skew, lane, lanes, length, mean)
    relu, channels = ints[uint64(at + RELU)] != 0, ints[uint64(at + CHANNELS)]
    channel = int32(remainder(q, ints[uint64(at + GROUPS)]) * channels)
    scales = int32(ints[uint64(at + SCALE)] + channel)
    shifts = int32(ints[uint64(at + SHIFT)] + channel)
    by_plane, shift = ints[uint64(at + BY_PLANE)], ints[uint64(at + BY_PLANE + 1)]
    scale, off = params[uint32(scales)], params[uint32(shifts)]
    for r in range(ROUNDS):
        begin = int32((first + r * lanes + lane) * EACH - skew)
        for k in range(EACH):
            j = r * EACH + k
            if channels > 1:
                there = min(max(int32(begin + k), int32(0)), int32(max(length, int32(1)) - 1))
                c = divided(there, by_plane, shift)
                scale, off = params[uint32(scales + c)], params[uint32(shifts + c)]
            if relu and not finished(x[j], mean, rate, scale, off, False) > ZERO:
                g[j] = ZERO
            g[j] *= scale
            x[j] = (x[j] - mean) * rate


@cuda.jit
def norm_back_few(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The input's gradient in small groups: some lanes each, grid (groups x lanes / threads)."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    q, lane, lanes, length = team_at(ints, at, TEAM, i)
    source, other = group_at(ints, at, SOURCE, q), group_at(ints, at, OTHER, q)
    target, table = group_at(ints, at, TARGET, q), int32(ints[uint64(at + TABLE)] + 2 * q)
    mean, rate = arena[uint32(table)], arena[uint32(table + 1)]
    skew, fours = edges_of(source, length)
    step = int32(lanes * ROUNDS)
    g, x = cuda.local.array(FOURS, float32), cuda.local.array(FOURS, float32)
    pull, turn, first = ZERO, ZERO, int32(0)
    while first < fours:
        fours_at(g, first, arena, source, skew, fours, lane, lanes)
        fours_at(x, first, arena, other, skew, fours, lane, lanes)
        pulls_of(g, x, params, ints, at, q, first, skew, lane, lanes, length, mean, rate)
        for k in range(FOURS):
            pull += g[k]
            turn += g[k] * x[k]
        first = int32(first + step)
    pull, turn, first = lanes_sum(pull, lanes), lanes_sum(turn, lanes), int32(0)
    if length == 0:
        return
    share = ONE / float32(length)
    pull, turn = pull * share, turn * share
    while first < fours:
        fours_at(g, first, arena, source, skew, fours, lane, lanes)
        fours_at(x, first, arena, other, skew, fours, lane, lanes)
        pulls_of(g, x, params, ints, at, q, first, skew, lane, lanes, length, mean, rate)
        for r in range(ROUNDS):
            begin = int32((first + r * lanes + lane) * EACH - skew)
            for k in range(EACH):
                j = r * EACH + k
                g[j] = rate * ((g[j] - pull) - x[j] * turn)
            give_four(g, r * EACH, arena, target, begin, length)
        first = int32(first + step)


def back_few(task: Task, places: BackPlaces, groups: Groups, ends: list[int], lanes: int) -> Call:
    """The call for small groups. ends: of the three tensors."""
    weights, relu = places.weights, task.whole.activation is not None
    scale, shift = (
        place_or_fill(task, weights.get(name, -1), x)
        for name, x in (("weight", 1.0), ("bias", 0.0))
    )
    d = [*ends, *groups.fields, scale, shift, int(relu), places.kept, *fields(groups, lanes)]
    return spread(norm_back_few, groups.count * lanes, task.ints.add(d))
