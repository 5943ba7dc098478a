"""How convolutions are planned: their halo, their taps, and the algorithm for each."""

from __future__ import annotations

from functools import partial
from itertools import product
from math import inf, prod

import numpy as np

from netdsl.cpu import (
    depthwise,
    matrix,
    phases,
    pixels,
    strassen,
    thirds,
    winograd,
    winograd_calls,
)
from netdsl.cpu.choices import by_matrices, choice
from netdsl.cpu.costs import PLANAR, rates
from netdsl.cpu.depthwise import by_rows
from netdsl.cpu.direct import Sum, View, block_floats, describe, view
from netdsl.cpu.layout import LANES, Buffer, Call, Floats, Halo, Triple, axes3
from netdsl.cpu.micro import Kind, Shape
from netdsl.cpu.pack import packed_biases, packed_weights
from netdsl.cpu.task import Needs, Places, Task
from netdsl.cpu.winograd import Winograd
from netdsl.ops import Activation, Conv, Relu, Relu6, Window

CLAMPS: dict[type[Activation], tuple[float, float]] = {Relu: (0.0, inf), Relu6: (0.0, 6.0)}
"""Activations that a convolution applies itself, each the bounds of its result."""


def takes(residual: bool, activation: Activation | None) -> bool:
    """Whether a convolution adds a residual and applies this activation itself."""
    return activation is None or type(activation) in CLAMPS


def clamp(activation: Activation | None) -> tuple[float, float]:
    """The bounds of what a layer with this activation gives."""
    return CLAMPS[type(activation)] if activation else (-inf, inf)


def conv_needs(task: Task) -> Needs:
    """The halo that the window reaches into, and planes where there are few channels."""
    op, shape, output = task.whole.base, task.shapes[0], task.made
    assert isinstance(op, Conv)
    quick = quick_plan(task)
    planar = op.groups == 1 and shape[0] <= PLANAR
    if quick is not None and phases.suit(op, shape[0]):
        halo = phases.halo(quick, op.window, corner(op.window), axes3(shape[1:]))
        held = phases.buffer(quick, op.window, task).floats
        return Needs((halo,), held + quick.scratch, planar)
    if quick is not None:
        halo = winograd.halo(quick, corner(op.window), axes3(shape[1:]), axes3(output[1:]))
        return Needs((halo,), scratch=quick.scratch)
    if choice(task).strassen:
        return Needs((reach(op.window, shape[1:], output[1:]),), strassen.scratch(task), planar)
    if choice(task).thirds:
        halo = reach(op.window, shape[1:], output[1:])
        return Needs((halo,), thirds.of(task).scratch)
    if not (by_matrices(task) and in_pairs(task)):
        return Needs((reach(op.window, shape[1:], output[1:]),), planar=planar)
    extent = pixels.extent(op.window, shape[0]) if planar else op.window.extent
    halo = reach(op.window, shape[1:], output[1:], extent)
    return Needs((halo,), matrix.scratch(task.threads), planar)


def quick_plan(task: Task) -> Winograd | None:
    """How Winograd's algorithm does this layer; None where direct sums do."""
    return choice(task).quick


def in_pairs(task: Task) -> bool:
    """Whether this layer sums products of bfloat16 pairs, where the CPU has them."""
    op = task.whole.base
    assert isinstance(op, Conv)
    depthwise = 1 < op.groups == op.filters == task.shapes[0][0]
    return quick_plan(task) is None and not depthwise


def corner(window: Window) -> Triple:
    """The padding before the first cell of each axis."""
    return axes3(tuple(before for before, _ in window.padding), 0)


def reach(
    window: Window,
    size: tuple[int, ...],
    outputs: tuple[int, ...],
    extent: tuple[int, ...] | None = None,
) -> Halo:
    """How far a window's taps reach out of an image on each side. extent: what a window reads
    along each axis, where that is more than its taps."""
    lo = tuple(before for before, _ in window.padding)
    hi = tuple(
        max(0, (o - 1) * stride + extent - before - n)
        for n, o, stride, extent, before in zip(
            size, outputs, window.stride, extent or window.extent, lo, strict=True
        )
    )
    return Halo(axes3(lo, 0), axes3(hi, 0))


def plan_conv(task: Task, places: Places) -> list[Call]:
    """The calls of a convolution with what is fused into it."""
    way = choice(task)
    if way.quick is not None:
        return plan_quick(task, places, way.quick)
    if way.strassen:
        return plan_strassen(task, places, way.shape)
    if way.thirds:
        return plan_thirds(task, places)
    return plan_direct(task, places, way.shape)


def plan_quick(task: Task, places: Places, plan: Winograd) -> list[Call]:
    """The calls of Winograd's algorithm."""
    op = task.whole.base
    assert isinstance(op, Conv)
    weights = quick_weights(task, places.weights["weight"])
    bounds = clamp(task.whole.activation)
    ends = winograd_calls.Ends(
        places.inputs[0],
        corner(op.window),
        places.output,
        places.inputs[1] if task.whole.residual else None,
        places.scratch,
        places.params.add(winograd.transformed(weights, plan, places.params.room)),
        all_biases(places, places.output.blocks),
        bounds,
        task.whole.pool is not None,
        places.params.add(thirds.settings(bounds)) if plan.thirds else 0,
    )
    return quick_calls(task, plan, ends)


def quick_weights(task: Task, weights: Floats) -> Floats:
    """A layer's weights as Winograd's algorithm transforms them, the input's phases apart where
    they are channels."""
    op = task.whole.base
    assert isinstance(op, Conv)
    if phases.suit(op, weights.shape[1]):
        return phases.weights(weights, op.window)
    return weights


def quick_calls(task: Task, plan: Winograd, ends: winograd_calls.Ends) -> list[Call]:
    """The calls of Winograd's algorithm, and before them the one that splits the input in phases,
    where that is done: it takes the first of the scratch for them."""
    op, source = task.whole.base, ends.source
    assert isinstance(op, Conv)
    if not phases.suit(op, task.shapes[0][0]):
        return winograd_calls.describe(plan, ends)
    made = phases.buffer(plan, op.window, source, ends.scratch)
    split = phases.split(made, source, op.window, ends.before, task.threads)
    after = ends._replace(source=made, before=(0, 0, 0), scratch=ends.scratch + made.floats)
    return [split, *winograd_calls.describe(plan, after)]


def plan_strassen(task: Task, places: Places, shape: Shape | None = None) -> list[Call]:
    """The calls of Strassen's algorithm, by tiles of this shape where one is given and fits."""
    source, target, params = places.inputs[0], places.output, places.params
    op = task.whole.base
    assert isinstance(op, Conv)
    filters, channels = places.weights["weight"].shape[:2]
    weights = places.weights["weight"].reshape(filters, channels, 1)

    def packed(kind: Kind, weights: Floats) -> tuple[int, int]:
        block = block_floats(weights.shape[1] // LANES, kind)
        return params.add(packed_weights(weights, kind, block, task.threads, params.room)), block

    half = strassen.halves_of(channels, filters)
    at, block = packed(Kind.POINTS, strassen.quarters(weights, half.lengths))
    whole = Sum(
        kind=Kind.POINTS,
        counts=(target.batch, *target.size),
        source=walk(source, op.window),
        target=view(target),
        taps=tap_offsets(source, channels // LANES, [(0, 0, 0)]),
        starts=[0] * (filters // LANES),
        weights=at,
        block=block,
        biases=all_biases(places, filters // LANES),
        residual=view(places.inputs[1]) if task.whole.residual else None,
        clamp=clamp(task.whole.activation),
    )
    plain = partial(packed, Kind.BLOCKED, weights)
    return strassen.describe(whole, plain, places.scratch, task.threads, shape)


def plan_thirds(task: Task, places: Places) -> list[Call]:
    """The calls of a direct sum of floats as three bfloat16 each."""
    source, target, op = places.inputs[0], places.output, task.whole.base
    assert isinstance(op, Conv)
    filters, channels = places.weights["weight"].shape[:2]
    whole = Sum(
        kind=Kind.BLOCKED,
        counts=(target.batch, *target.size),
        source=walk(source, op.window),
        target=view(target),
        taps=tap_offsets(source, -(-channels // LANES), window_places(op.window)),
        starts=[0] * -(-filters // LANES),
        weights=0,
        block=0,
        residual=view(places.inputs[1]) if task.whole.residual else None,
        clamp=clamp(task.whole.activation),
    )
    weights = places.weights["weight"].reshape(filters, channels, -1)
    return thirds.plan(whole, weights, places, task.threads)


def walk(source: Buffer, window: Window) -> View:
    """The walk of a window's first tap over an input."""
    first = axes3(tuple(-before for before, _ in window.padding), 0)
    return view(source, first, axes3(window.stride))


def plan_direct(task: Task, places: Places, shape: Shape | None = None) -> list[Call]:
    """The call of the direct sum, by tiles of this shape where one is given and fits."""
    whole = direct_sum(task, places)
    if whole.kind is Kind.MATRIX:
        return [matrix.describe(whole, task.threads, places, task.whole.pool is not None)]
    return [call_of(task, whole, shape)]


def call_of(task: Task, whole: Sum, shape: Shape | None = None) -> Call:
    """The call that computes a convolution's sum, or some rows of it."""
    op = task.whole.base
    assert isinstance(op, Conv)
    if goes_by_rows(task, whole.kind):
        return depthwise.describe(whole, op.window.kernel[-1], task.threads)
    return describe(whole, task.threads, shape)


def goes_by_rows(task: Task, kind: Kind) -> bool:
    """Whether a convolution is done by whole rows of a channel's own sums."""
    op = task.whole.base
    assert isinstance(op, Conv)
    return by_rows(kind, op.window) and not task.whole.residual


def direct_sum(task: Task, places: Places) -> Sum:
    """What a convolution sums, its weights packed."""
    op, source, target = task.whole.base, places.inputs[0], places.output
    assert isinstance(op, Conv)
    if pixels.together(source):
        weights, taps = pixels.by_pixels(places.weights["weight"], op.window, source)
        kind, starts = Kind.MATRIX, [0] * -(-op.filters // LANES)
    else:
        weights, kind, starts = grouped(places.weights["weight"], op.groups, source, task.precision)
        taps = tap_offsets(source, channel_steps(kind, weights.shape[1]), window_places(op.window))
    weights, starts = matrix.whole_blocks(target, weights, starts)
    depth, height, width = target.size
    size = (depth, 2 * height, 2 * width) if task.whole.pool else target.size
    always = kind is Kind.MATRIX or goes_by_rows(task, kind)
    block = block_floats(len(taps), kind)
    packed = packed_weights(weights, kind, block, task.threads, places.params.room)
    return Sum(
        kind=kind,
        counts=(target.batch, *size),
        source=walk(source, op.window),
        target=view(target),
        taps=taps,
        starts=starts,
        weights=places.params.add(packed),
        block=block,
        biases=all_biases(places, len(starts)) if always else add_biases(places),
        residual=view(places.inputs[1]) if task.whole.residual else None,
        spare=-weights.shape[1] % LANES if weights.shape[2] == 1 else 0,
        clamp=clamp(task.whole.activation),
        fresh=source.lanes * channel_steps(kind, weights.shape[1]) * fresh_places(op.window),
    )


def add_biases(places: Places) -> int | None:
    """Where a layer's biases are kept; None where it has none."""
    if "bias" not in places.weights:
        return None
    return places.params.add(packed_biases(places.weights["bias"]))


def all_biases(places: Places, blocks: int) -> int:
    """The same for kernels that always read some, for so many blocks of filters: zeros where a
    layer has none."""
    biases = places.weights["bias"] if "bias" in places.weights else np.zeros(0, np.float32)
    return places.params.add(packed_biases(biases, blocks))


def window_places(window: Window) -> list[Triple]:
    """Where a window's taps lie from its first, row by row."""
    kernel, dilation = axes3(window.kernel), axes3(window.dilation)
    (d, h, w), (by_d, by_h, by_w) = kernel, dilation
    return [(z * by_d, y * by_h, x * by_w) for z, y, x in product(range(d), range(h), range(w))]


def fresh_places(window: Window) -> int:
    """Places of the input that take room in a cache for a window and not for its neighbours: those
    that it reads, and maybe those between."""
    return prod(window.stride if rates().gaps else map(min, window.kernel, window.stride))


def channel_steps(kind: Kind, channels: int) -> int:
    """How many of a buffer's blocks a filter sums over."""
    return 1 if kind is Kind.DEPTHWISE else -(-channels // kind.lanes)


def tap_offsets(source: Buffer, blocks: int, places: list[Triple]) -> list[int]:
    """Each tap's distance in floats from the first: block by block, the window's places."""
    at = [z * source.plane_stride + y * source.row_stride + x * source.lanes for z, y, x in places]
    return [b * source.block_stride + offset for b in range(blocks) for offset in at]


def kind_for(source: Buffer, precision: str = "fp32") -> Kind:
    """What a tap is where all filters read all channels of an input that lies so."""
    if source.pairs:
        pairs = {1: Kind.PLANAR_PAIR, LANES // 2: Kind.PAIRED}
        return pairs.get(source.lanes, Kind.MATRIX)
    if source.lanes == 1:
        return Kind.PLANAR
    return {"bf16": Kind.HALVED, "int8": Kind.BYTES}.get(precision, Kind.BLOCKED)


def grouped(
    weights: Floats, groups: int, source: Buffer, precision: str = "fp32"
) -> tuple[Floats, Kind, list[int]]:
    """Weights (filters, channels / groups, *kernel) as (filters, channels read, taps), the kind of
    taps, and for each block of filters where the first channel it reads lies.

    A block of filters reads whole blocks of channels. Where groups do not fill blocks, it reads
    all that its filters' groups touch, and has zeros for the channels that are not theirs.
    """
    filters, inside = weights.shape[:2]
    weights = weights.reshape(filters, inside, prod(weights.shape[2:]))
    blocks = -(-filters // LANES)
    kind = kind_for(source, precision)
    if groups == 1:
        return weights, kind, [0] * blocks
    if inside == 1 and groups == filters == source.channels:
        return weights, Kind.DEPTHWISE, [b * source.block_stride for b in range(blocks)]
    each, together = filters // groups, 2 * source.lanes if source.pairs else LANES
    group = np.arange(blocks * LANES).clip(max=filters - 1) // each
    lowest, highest = group[::LANES] * inside, group[LANES - 1 :: LANES] * inside + inside
    first = lowest // together
    span = int((-(-highest // together) - first).max())
    first = np.minimum(first, source.blocks - span)
    starts = [int(f) * source.block_stride for f in first]
    if inside % together == 0 and each % LANES == 0:
        return weights, kind, starts
    spread = np.zeros((filters, span * together, weights.shape[2]), np.float32)
    for f in range(filters):
        at = f // each * inside - int(first[f // LANES]) * together
        spread[f, at : at + inside] = weights[f]
    return spread, kind, starts
