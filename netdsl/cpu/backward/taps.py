"""Tables of taps: which input places each output place of an axis reads, with what weight."""

from __future__ import annotations

from netdsl.cpu.arrange import padded
from netdsl.cpu.pool import axis_windows
from netdsl.cpu.task import Task
from netdsl.ops import (
    AdaptiveAveragePool,
    AveragePool,
    GlobalAverage,
    MaxPool,
    Op,
    Pad,
    Shape,
    Upsample,
)

Taps = list[list[tuple[int, float]]]
"""For each output place of an axis, the input places and their weights."""


def taps_of(task: Task) -> list[Taps]:
    """The taps of a pool, an enlarging or a padding, for depth, height and width."""
    op, spatial, out = task.whole.base, task.shapes[0][1:], task.node.shape[1:]
    axes = [_axis(op, i, spatial, out) for i in range(len(spatial))]
    return [[[(0, 1.0)]]] * (3 - len(axes)) + axes


def _axis(op: Op, i: int, spatial: Shape, out: Shape) -> Taps:
    size, outputs = spatial[i], out[i]
    if isinstance(op, MaxPool | AveragePool):
        count_pad = isinstance(op, AveragePool) and op.count_pad
        windows = axis_windows(op.window, i, size, outputs, count_pad)
        step = op.window.dilation[i]
        return [
            [(at, 1.0 / count) for at in range(low, high, step)] for low, high, count in windows
        ]
    if isinstance(op, AdaptiveAveragePool):
        return [
            [(at, 1.0 / (hi - lo)) for at in range(lo, hi)] for lo, hi in op.windows(spatial)[i]
        ]
    if isinstance(op, GlobalAverage):
        return [[(at, 1.0 / size) for at in range(size)]]
    if isinstance(op, Pad):
        before = op.amount[i][0]
        places = [padded(op.mode, at - before, size) for at in range(outputs)]
        return [[(at, 1.0)] if at >= 0 else [] for at in places]
    assert isinstance(op, Upsample), op
    return [_enlarged(op, i, at, size) for at in range(outputs)]


def _enlarged(op: Upsample, i: int, at: int, size: int) -> list[tuple[int, float]]:
    factor = op.factor[i]
    if op.mode == "nearest":
        return [(at // factor, 1.0)]
    place = max((at + 0.5) / factor - 0.5, 0.0)
    low = min(int(place), size - 1)
    share = place - low
    taps = [(low, 1.0 - share), (min(low + 1, size - 1), share)]
    return [tap for tap in taps if tap[1]]


def flat(axes: list[Taps]) -> tuple[list[int], list[float]]:
    """The table that kernels read (starts, end, taps) and the weight of each tap."""
    starts: list[int] = []
    taps: list[int] = []
    shares: list[float] = []
    for axis in axes:
        for places in axis:
            starts.append(len(taps))
            taps += [at for at, _ in places]
            shares += [share for _, share in places]
    return [*starts, len(taps), *taps], shares


def apart(axis: Taps) -> bool:
    """Whether no input place is read twice."""
    places = [at for taps in axis for at, _ in taps]
    return len(places) == len(set(places))


def covers(axis: Taps, size: int) -> bool:
    """Whether every input place is read."""
    return {at for taps in axis for at, _ in taps} == set(range(size))
