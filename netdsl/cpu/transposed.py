"""How transposed convolutions are planned: each phase of the stride is a convolution of its own.

Output o sums over the taps k for which o + padding - k dilation is a multiple s i of the stride,
i being the input it reads. The outputs of one phase (o mod s) share their taps, a part of the
kernel, so they are a convolution of stride 1 that writes every s-th place.
"""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

import numpy as np

from netdsl.cpu import thirds
from netdsl.cpu.conv import add_biases, channel_steps, clamp, grouped, tap_offsets
from netdsl.cpu.costs import Work
from netdsl.cpu.direct import Sum, block_floats, describe, view
from netdsl.cpu.layout import LANES, Call, Floats, Halo, Triple, axes3
from netdsl.cpu.micro import Kind
from netdsl.cpu.pack import packed_weights
from netdsl.cpu.task import Needs, Places, Task
from netdsl.ops import ConvTranspose, Window

AxisTap = tuple[int, int]
"""A tap of one axis: which of the kernel, and how far from the output's number its input lies."""


def axis_phases(window: Window, axis: int) -> list[list[AxisTap]]:
    """The taps of each phase along an axis."""
    stride, (before, _) = window.stride[axis], window.padding[axis]
    phases: list[list[AxisTap]] = [[] for _ in range(stride)]
    for k in range(window.kernel[axis]):
        at = k * window.dilation[axis] - before
        # Output s j + p reads input j + (p - at) / s.
        phase = at % stride
        phases[phase].append((k, (phase - at) // stride))
    return phases


def transposed_needs(task: Task) -> Needs:
    """How far the taps reach out of the input."""
    op, spatial = task.whole.base, task.shapes[0][1:]
    assert isinstance(op, ConvTranspose)
    lo, hi = [], []
    for axis, size in enumerate(spatial):
        outputs, stride = task.node.shape[1 + axis], op.window.stride[axis]
        ends = [
            (shift, (outputs - 1 - phase) // stride + shift)
            for phase, taps in enumerate(axis_phases(op.window, axis))
            for _, shift in taps
            if phase < outputs
        ]
        lo.append(max([0, *(-first for first, _ in ends)]))
        hi.append(max([0, *(last - size + 1 for _, last in ends)]))
    whole = together(task)
    room = whole.how.scratch if whole else 0
    return Needs((Halo(axes3(tuple(lo), 0), axes3(tuple(hi), 0)),), room)


Phase = tuple[Triple, list[tuple[AxisTap, ...]]]
"""Its first output, and its taps along each axis."""


def phases(task: Task) -> list[Phase]:
    """The phases that have outputs."""
    op, rank = task.whole.base, len(task.node.shape) - 1
    assert isinstance(op, ConvTranspose)
    none: list[list[AxisTap]] = [[(0, 0)]]
    axes = [none] * (3 - rank) + [axis_phases(op.window, axis) for axis in range(rank)]
    return [
        (axes3(phase), list(product(*(axis[p] for axis, p in zip(axes, phase, strict=True)))))
        for phase in product(*map(range, axes3(op.window.stride)))
        if all(p < n for p, n in zip(phase, axes3(task.node.shape[1:]), strict=True))
    ]


def shifts(taps: list[tuple[AxisTap, ...]]) -> list[Triple]:
    """How far what the taps read lies from an output's number."""
    return [(z[1], y[1], x[1]) for z, y, x in taps]


class Together(NamedTuple):
    """All phases as one sum of floats as three bfloat16 each, and their outputs along each axis."""

    outputs: Triple
    how: thirds.Tiling


def together(task: Task) -> Together | None:
    """Where that can be and is cheaper: phases that read the same, as where kernels are no larger
    than the stride, and have as many outputs."""
    op, known, sizes = task.whole.base, phases(task), axes3(task.node.shape[1:])
    assert isinstance(op, ConvTranspose)
    read = shifts(known[0][1])
    if not thirds.suits(task) or not read or any(shifts(taps) != read for _, taps in known):
        return None
    strides = axes3(op.window.stride)
    if any(n % s for n, s in zip(sizes, strides, strict=True)):
        return None
    d, h, w = (n // s for n, s in zip(sizes, strides, strict=True))
    blocks, filters = (-(-shape[0] // LANES) for shape in (task.shapes[0], task.node.shape))
    places = task.batch * d * h * w
    how = thirds.tiling(blocks * len(read), len(known) * filters, places, task.threads)
    plain = Work(task.batch, blocks, filters, (d, h, w), len(read), task.threads)
    cost = thirds.cost(how, places, task.whole.residual)
    return Together((d, h, w), how) if cost < len(known) * plain.direct() else None


def plan_together(task: Task, places: Places, whole: Together) -> list[Call]:
    """The calls of all phases as one sum, each phase a set of filters that writes elsewhere."""
    op, source, target = task.whole.base, places.inputs[0], places.output
    assert isinstance(op, ConvTranspose)
    stride, known = axes3(op.window.stride), phases(task)
    weights = as_filters(places.weights["weight"], 1)
    filters, channels = weights.shape[:2]
    blocks = -(-filters // LANES)
    read = shifts(known[0][1])
    parts = np.zeros((len(known), blocks * LANES, channels, len(read)), np.float32)
    for part, (_, taps) in zip(parts, known, strict=True):
        part[:filters] = of_taps(weights, taps)
    beside = places.inputs[1] if task.whole.residual else None
    firsts = [view(target, phase, stride) for phase, _ in known]
    added = [view(beside or target, phase, stride) for phase, _ in known]
    ends = thirds.Ends(*([one.start - all_[0].start for one in all_] for all_ in (firsts, added)))
    sums = Sum(
        kind=Kind.BLOCKED,
        counts=(target.batch, *whole.outputs),
        source=view(source),
        target=firsts[0],
        taps=tap_offsets(source, -(-channels // LANES), read),
        starts=[0] * (len(known) * blocks),
        weights=0,
        block=0,
        residual=added[0] if beside else None,
        clamp=clamp(task.whole.activation),
    )
    packed = parts.reshape(-1, channels, len(read))
    return thirds.plan(sums, packed, places, task.threads, ends)


def of_taps(weights: Floats, taps: list[tuple[AxisTap, ...]]) -> Floats:
    """The weights (filters, channels, *kernel) of some taps, as (filters, channels, taps)."""
    rank = weights.ndim - 2
    part = np.zeros((*weights.shape[:2], len(taps)), np.float32)
    for i, tap in enumerate(taps):
        at: tuple[Any, ...] = (..., *(k for k, _ in tap[3 - rank :]))
        part[..., i] = weights[at]
    return part


def plan_transposed(task: Task, places: Places) -> list[Call]:
    """The calls of a transposed convolution, one a phase, or of all phases together."""
    op, whole = task.whole.base, together(task)
    assert isinstance(op, ConvTranspose)
    if whole is not None:
        return plan_together(task, places, whole)
    weights = as_filters(places.weights["weight"], op.groups)
    biases = add_biases(places)
    return [_plan_phase(task, places, *phase, weights, biases) for phase in phases(task)]


def _plan_phase(
    task: Task,
    places: Places,
    phase: Triple,
    taps: list[tuple[AxisTap, ...]],
    weights: Floats,
    biases: int | None,
) -> Call:
    """The call that computes every output of one phase; without taps they are the biases."""
    op, source, target = task.whole.base, places.inputs[0], places.output
    assert isinstance(op, ConvTranspose)
    stride = axes3(op.window.stride)
    chosen, kind, starts = grouped(of_taps(weights, taps), op.groups, source)
    offsets = tap_offsets(source, channel_steps(kind, chosen.shape[1]), shifts(taps))
    block = block_floats(len(offsets), kind)
    d, h, w = (-(-(n - p) // s) for n, p, s in zip(target.size, phase, stride, strict=True))
    whole = Sum(
        kind=kind,
        counts=(target.batch, d, h, w),
        source=view(source),
        target=view(target, phase, stride),
        taps=offsets,
        starts=starts,
        weights=places.params.add(
            packed_weights(chosen, kind, block, task.threads, places.params.room)
        ),
        block=block,
        biases=biases,
        residual=view(places.inputs[1], phase, stride) if task.whole.residual else None,
        clamp=clamp(task.whole.activation),
    )
    return describe(whole, task.threads)


def as_filters(weights: Floats, groups: int) -> Floats:
    """Weights (channels, filters / groups, *kernel) as (filters, channels / groups, *kernel)."""
    channels, each = weights.shape[:2]
    split = weights.reshape(groups, channels // groups, each, *weights.shape[2:])
    return np.ascontiguousarray(
        split.swapaxes(1, 2).reshape(groups * each, channels // groups, *weights.shape[2:])
    )
