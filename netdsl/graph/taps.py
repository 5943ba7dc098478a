"""Tables of taps: which input places each output place of an axis reads, with what weight."""

from __future__ import annotations

from netdsl.ops import (
    AdaptiveAveragePool,
    AveragePool,
    GlobalAverage,
    MaxPool,
    Op,
    Pad,
    Shape,
    Upsample,
    Window,
)

Taps = list[list[tuple[int, float]]]
"""For each output place of an axis, the input places and their weights."""


Axis = list[tuple[int, int, int]]
"""The windows of an axis: first tap, end, and count of each."""


def axis_windows(w: Window, axis: int, size: int, outputs: int, count_pad: bool) -> Axis:
    """Windows that slide along an axis of `size`. With count_pad the padding's taps count too."""
    kernel, stride, dilation = w.kernel[axis], w.stride[axis], w.dilation[axis]
    before, after = w.padding[axis]
    found = []
    for start in range(-before, outputs * stride - before, stride):
        taps = range(start, start + kernel * dilation, dilation)
        skipped = max(0, -(start // dilation))
        inside = taps[skipped : _below(taps, size)]
        counted = _below(taps, size + after) if count_pad else len(inside)
        found.append((inside[0], inside[-1] + 1, counted) if inside else (0, 0, counted))
    return found


def _below(taps: range, end: int) -> int:
    """How many taps come before an end."""
    return len(range(taps.start, min(taps.stop, end), taps.step))


def padded(mode: str, at: int, size: int) -> int:
    """The place that a padded axis shows at `at`; -1 for the filling."""
    if 0 <= at < size:
        return at
    if mode == "reflect":
        return -at if at < 0 else 2 * (size - 1) - at
    if mode == "edge":
        return 0 if at < 0 else size - 1
    return -1


def taps_of(op: Op, given: Shape, made: Shape) -> list[Taps]:
    """The taps of a pool, an enlarging or a padding, for depth, height and width.

    given, made: the shapes of its input and its output.
    """
    spatial, out = given[1:], made[1:]
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


def turned(axis: Taps, size: int) -> Taps:
    """For each input place of an axis, the output places that read it and their weights."""
    found: Taps = [[] for _ in range(size)]
    for out, taps in enumerate(axis):
        for at, share in taps:
            found[at].append((out, share))
    return found
