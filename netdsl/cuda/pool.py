"""Pools: by strips, see strips.py, or by windows of any kind, see windows.py; where all of a
channel is pooled, by a block, a warp, or a few lanes a channel."""

from __future__ import annotations

import numpy as np
from numba import cuda, float32, int32, uint32, uint64

from netdsl.cuda.activation import ends
from netdsl.cuda.arith import MOST, divided, quotient, reciprocal
from netdsl.cuda.layout import Call, axes, spread
from netdsl.cuda.packing import NEVER, PASSES, Packs
from netdsl.cuda.rows import small, teams
from netdsl.cuda.sizes import SIMULATED
from netdsl.cuda.strips import kernels_of, plan_strips, strips_of
from netdsl.cuda.task import Task
from netdsl.cuda.units import plan_units
from netdsl.cuda.warp import larger, load4
from netdsl.cuda.wide import WARPS, lanes_largest, lanes_sum, team_largest, team_of, team_sum
from netdsl.cuda.windows import plan_windows
from netdsl.ops import AdaptiveAveragePool, AveragePool, GlobalAverage, GlobalMax, MaxPool

SOURCE, SOURCE_BATCH, TARGET, TARGET_BATCH = range(4)
CHANNELS, PLANE, LARGEST, ITEMS, SMALL = range(4, 9)
"""Of pool_all: channels, positions of a channel, whether the largest is wanted; channels of all
samples, whether a warp takes one."""
RECIPROCAL = 8
"""Of pool_few, in the place of SMALL: that of the channels."""

LANES = 2 if SIMULATED else 8
"""Of pool_few: neighbours that share a channel, whose loads make up a sector."""
FEW = 8 if SIMULATED else 256
"""Positions up to which they do."""
AT_ONCE = 2 if SIMULATED else 8
"""Loads of one that are under way together: seven are a channel of 7 by 7."""

ZERO = np.float32(0)
LEAST = np.float32(-np.inf)


@cuda.jit
def pool_all(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The mean or largest of a channel of a sample: a team each, grid (samples x channels)."""
    shared = cuda.shared.array(WARPS, float32)
    t, small = int32(cuda.threadIdx.x), ints[uint32(at + SMALL)] != 0
    team, first, step = team_of(t, small)
    q = int32(cuda.blockIdx.x * WARPS + team) if small else int32(cuda.blockIdx.x)
    channels, plane = ints[uint32(at + CHANNELS)], ints[uint32(at + PLANE)]
    n = quotient(q, channels)
    c = int32(q - n * channels)
    source = int32(ints[uint32(at + SOURCE)] + n * ints[uint32(at + SOURCE_BATCH)] + c * plane)
    there = q < ints[uint32(at + ITEMS)]
    end = plane if there else int32(0)
    if ints[uint32(at + LARGEST)] != 0:
        best = LEAST
        for i in range(first, end, step):
            best = larger(best, arena[uint32(source + i)])
        result = team_largest(shared, t, best, small)
    else:
        total = ZERO
        for i in range(first, end, step):
            total += arena[uint32(source + i)]
        result = team_sum(shared, t, total, small) / float32(plane)
    if first == 0 and there:
        to = int32(ints[uint32(at + TARGET)] + n * ints[uint32(at + TARGET_BATCH)] + c)
        arena[uint32(to)] = result


@cuda.jit
def pool_few(arena, params, ints, at):  # type: ignore[no-untyped-def]
    """The mean or largest of a small channel of a sample: some lanes each, grid (samples x channels
    x lanes / threads)."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    q = quotient(i, int32(LANES))
    first = int32(i - q * LANES)
    source, source_batch, target, target_batch = load4(ints, uint64(at + SOURCE))
    channels, plane, largest, items = load4(ints, uint64(at + CHANNELS))
    n = divided(q, ints[uint64(at + RECIPROCAL)], ints[uint64(at + RECIPROCAL + 1)])
    c = int32(q - n * channels)
    source = int32(source + n * source_batch + c * plane)
    end = plane if q < items else int32(0)
    values = cuda.local.array(AT_ONCE, float32)
    best, total = LEAST, ZERO
    for k in range(first, end, int32(LANES * AT_ONCE)):
        # The last once more where there are fewer, so that no load waits for a test.
        for j in range(AT_ONCE):
            values[j] = arena[uint32(source + min(int32(k + j * LANES), int32(end - 1)))]
        if largest != 0:
            for j in range(AT_ONCE):
                best = larger(best, values[j])
        else:
            for j in range(AT_ONCE):
                total += values[j] if int32(k + j * LANES) < end else ZERO
    if largest != 0:
        result = lanes_largest(best, LANES)
    else:
        result = lanes_sum(total, LANES) / float32(plane)
    if first == 0 and q < items:
        arena[uint32(target + n * target_batch + c)] = result


def plan_pool(task: Task) -> list[Call]:
    """A pool with windows of its own; of what lies packed and of floats, as it is wanted."""
    calls = list[Call]()
    if task.packed_output is not None:
        calls.append(plan_units(task))
    if task.output.there:
        calls.append(whole_or_windows(task))
    return calls


def whole_or_windows(task: Task) -> Call:
    """The call of a pool that writes floats."""
    if everything(task):
        return whole(task, largest=isinstance(task.whole.base, MaxPool))
    return by_windows(task)


def by_windows(task: Task, kept: int | None = None) -> Call:
    """The call of a pool by strips, or by windows of any kind. kept: where it notes its taps."""
    window = strips_of(task)
    if window is None or window not in kernels_of(task.whole.base, kept):
        return plan_windows(task, kept)
    return plan_strips(task, window, kept)


def everything(task: Task) -> bool:
    """Whether a pool's only window is all of a channel, and none of the padding counts."""
    op, source = task.whole.base, task.inputs[0]
    assert isinstance(op, MaxPool | AveragePool)
    w, counts = op.window, isinstance(op, AveragePool) and op.count_pad
    inside = all(lo == 0 for lo, _ in w.padding) and set(w.dilation) == {1}
    ends = not counts or all(hi == 0 for _, hi in w.padding)
    covered = all(k >= n for k, n in zip(axes(w.kernel, 1), source.size, strict=True))
    return inside and ends and covered and task.output.plane == 1


def max_pool_packs(task: Task) -> Packs:
    """What a max pool's kernels do with packed tensors."""
    return NEVER if strips_of(task) is None else PASSES


def plan_adaptive(task: Task) -> list[Call]:
    """A pool to a given size."""
    assert isinstance(task.whole.base, AdaptiveAveragePool)
    return [whole(task, largest=False) if task.output.plane == 1 else plan_windows(task)]


def plan_global(task: Task) -> list[Call]:
    """A pool of everything."""
    assert isinstance(task.whole.base, GlobalAverage)
    return [whole(task, largest=isinstance(task.whole.base, GlobalMax))]


def whole(task: Task, *, largest: bool) -> Call:
    """Every channel to one number."""
    source = task.inputs[0]
    items, plane = source.batch * source.channels, source.plane
    d = [*ends(source, task.output), source.channels, plane, int(largest), items]
    if plane <= FEW and items * LANES < MOST:
        at = task.ints.add([*d, *reciprocal(source.channels)], align=4)
        return spread(pool_few, items * LANES, at)
    return teams(pool_all, items, plane, task.ints.add([*d, int(small(plane))]))
