"""How transposed convolutions are planned: each phase of the stride is a convolution of its own.

Output o sums over the taps k for which o + padding - k dilation is a multiple s i of the stride,
i being the input it reads. The outputs of one phase (o mod s) share their taps, a part of the
kernel, so they are a convolution of stride 1 that writes every s-th place.
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

import numpy as np

from netdsl.cpu import thirds
from netdsl.cpu.conv import add_biases, channel_steps, clamp, grouped, tap_offsets
from netdsl.cpu.costs import Work
from netdsl.cpu.direct import Sum, block_floats, describe, view
from netdsl.cpu.layout import LANES, Call, Floats, Halo, Triple, axes3
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
    room = max((how.scratch for how in _thirds(task)), default=0)
    return Needs((Halo(axes3(tuple(lo), 0), axes3(tuple(hi), 0)),), room)


def phases(task: Task) -> list[tuple[Triple, list[tuple[AxisTap, ...]]]]:
    """The phases that have outputs, and the taps of each."""
    op, rank = task.whole.base, len(task.node.shape) - 1
    assert isinstance(op, ConvTranspose)
    none: list[list[AxisTap]] = [[(0, 0)]]
    axes = [none] * (3 - rank) + [axis_phases(op.window, axis) for axis in range(rank)]
    return [
        (axes3(phase), list(product(*(axis[p] for axis, p in zip(axes, phase, strict=True)))))
        for phase in product(*map(range, axes3(op.window.stride)))
        if all(p < n for p, n in zip(phase, axes3(task.node.shape[1:]), strict=True))
    ]


def counts(task: Task, phase: Triple) -> Triple:
    """Outputs of a phase along each axis."""
    op = task.whole.base
    assert isinstance(op, ConvTranspose)
    sizes, strides = axes3(task.node.shape[1:]), axes3(op.window.stride)
    d, h, w = (-(-(n - p) // s) for n, p, s in zip(sizes, phase, strides, strict=True))
    return d, h, w


def _thirds(task: Task) -> list[thirds.Tiling]:
    """How phases are done by sums of floats as three bfloat16 each; none where that is slower."""
    if not thirds.suits(task):
        return []
    blocks, filters = (-(-shape[0] // LANES) for shape in (task.shapes[0], task.node.shape))
    found, gain = [], 0.0
    for phase, taps in phases(task):
        made, count = counts(task, phase), len(taps)
        if not taps:
            return []  # Its outputs are the biases alone.
        places = task.batch * prod(made)
        how = thirds.tiling(blocks * count, filters, places, task.threads)
        plain = Work(task.batch, blocks, filters, made, count, task.threads)
        gain += plain.direct() - thirds.cost(how, places, task.whole.residual)
        found.append(how)
    return found if gain > 0 else []


def plan_transposed(task: Task, places: Places) -> list[Call]:
    """The calls of a transposed convolution, one a phase."""
    op = task.whole.base
    assert isinstance(op, ConvTranspose)
    weights = as_filters(places.weights["weight"], op.groups)
    by_thirds = bool(_thirds(task))
    biases = None if by_thirds else add_biases(places)
    calls = []
    for phase, taps in phases(task):
        calls += _plan_phase(task, places, phase, taps, weights, biases, by_thirds)
    return calls


def _plan_phase(
    task: Task,
    places: Places,
    phase: Triple,
    taps: list[tuple[AxisTap, ...]],
    weights: Floats,
    biases: int | None,
    by_thirds: bool,
) -> list[Call]:
    """The calls that compute every output of one phase; without taps they are the biases."""
    op, source, target = task.whole.base, places.inputs[0], places.output
    assert isinstance(op, ConvTranspose)
    stride, rank = axes3(op.window.stride), len(op.window.kernel)
    part = np.zeros((*weights.shape[:2], len(taps)), np.float32)
    for i, tap in enumerate(taps):
        at: tuple[Any, ...] = (..., *(k for k, _ in tap[3 - rank :]))
        part[..., i] = weights[at]
    chosen, kind, starts = grouped(part, op.groups, source)
    read = [(z[1], y[1], x[1]) for z, y, x in taps]
    offsets = tap_offsets(source, channel_steps(kind, chosen.shape[1]), read)
    block = block_floats(len(offsets), kind)
    whole = Sum(
        kind=kind,
        counts=(target.batch, *counts(task, phase)),
        source=view(source),
        target=view(target, phase, stride),
        taps=offsets,
        starts=starts,
        weights=0,
        block=block,
        biases=biases,
        residual=view(places.inputs[1], phase, stride) if task.whole.residual else None,
        clamp=clamp(task.whole.activation),
    )
    if by_thirds:
        return thirds.plan(whole, chosen, places, task.threads)
    packed = packed_weights(chosen, kind, block, task.threads, places.params.room)
    return [describe(whole._replace(weights=places.params.add(packed)), task.threads)]


def as_filters(weights: Floats, groups: int) -> Floats:
    """Weights (channels, filters / groups, *kernel) as (filters, channels / groups, *kernel)."""
    channels, each = weights.shape[:2]
    split = weights.reshape(groups, channels // groups, each, *weights.shape[2:])
    return np.ascontiguousarray(
        split.swapaxes(1, 2).reshape(groups * each, channels // groups, *weights.shape[2:])
    )
