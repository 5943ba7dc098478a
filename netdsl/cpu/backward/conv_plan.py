"""The way back of convolutions: two convolutions' worth of work, planned.

The input's gradient is a convolution: of stride 1 with its kernel turned around and channels and
filters exchanged, of any stride the transposed convolution with the same weights; that of a
transposed one is the plain one. Both are planned by the recipes that `run` uses, so they take the
fast kernels. The weight's gradient of a transposed convolution is the plain one's with input and
gradient exchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

import numpy as np

from netdsl.cpu import winograd, winograd_calls
from netdsl.cpu.activation import RELU
from netdsl.cpu.backward import activation, conv, sums
from netdsl.cpu.backward import winograd as quick_gradient
from netdsl.cpu.backward.task import BackNeeds, BackPlaces, Calls, TrainedParams, Transform
from netdsl.cpu.conv import clamp, corner, quick_calls, quick_plan, quick_weights
from netdsl.cpu.launch import launch
from netdsl.cpu.layout import LANES, Buffer, Call, Halo, axes3
from netdsl.cpu.pack import packed_biases
from netdsl.cpu.table import RECIPES
from netdsl.cpu.task import Needs, Params, Places, Task
from netdsl.cpu.views import call
from netdsl.cpu.winograd import Winograd, filter_descriptor
from netdsl.graph import Node
from netdsl.ops import Conv, ConvTranspose, Relu, Shape, Window

BAND_POSITIONS = 160
"""Output positions of a band: 16 channels and 32 filters of them fill half a first cache."""


def adjoint(task: Task) -> Task:
    """The convolution that makes the input's gradient from the output's."""
    op, (shape,) = task.whole.base, task.shapes[:1]
    assert isinstance(op, Conv | ConvTranspose)
    back = _turned(op, shape) if _turns(op) else _transposed(op, shape, task.node.shape)
    node = Node(task.node.name, back, ("gradient",), shape)
    return replace(task, node=node, shapes=(task.node.shape,))


def _turns(op: Conv | ConvTranspose) -> bool:
    """Whether the gradient is a plain convolution with the kernel turned around."""
    w = op.window
    fits = all(
        lo < extent and hi < extent for (lo, hi), extent in zip(w.padding, w.extent, strict=True)
    )
    return isinstance(op, Conv) and max(w.stride) == 1 and fits


def _turned(op: Conv | ConvTranspose, shape: Shape) -> Conv:
    w = op.window
    padding = tuple(
        (extent - 1 - lo, extent - 1 - hi)
        for (lo, hi), extent in zip(w.padding, w.extent, strict=True)
    )
    return Conv(shape[0], w._replace(padding=padding), op.groups, bias=False)


def _transposed(op: Conv | ConvTranspose, shape: Shape, out: Shape) -> Conv | ConvTranspose:
    w = op.window
    if isinstance(op, ConvTranspose):
        padding = tuple(
            (lo, hi - extra) for (lo, hi), extra in zip(w.padding, op.out_pad, strict=True)
        )
        return Conv(shape[0], w._replace(padding=padding), op.groups, bias=False)
    left = tuple(
        size - ((n - 1) * s - lo - hi + extent)
        for size, n, s, (lo, hi), extent in zip(
            shape[1:], out[1:], w.stride, w.padding, w.extent, strict=True
        )
    )
    return ConvTranspose(shape[0], w, left, op.groups, bias=False)


def adjoint_weight(op: Conv | ConvTranspose, weight: np.ndarray) -> np.ndarray:
    """A convolution's weight as that of its adjoint."""
    if not _turns(op):
        return weight
    rank = len(op.window.kernel)
    turned = np.flip(weight, tuple(range(2, 2 + rank)))
    grouped = turned.reshape(op.groups, -1, *turned.shape[1:])
    swapped = np.swapaxes(grouped, 1, 2)
    return np.ascontiguousarray(swapped.reshape(-1, *swapped.shape[2:]))


def reach(w: Window, size: Shape, steps: Shape) -> Halo:
    """The halo that a weight gradient's taps reach into, around data of `size`."""
    lo = [pad for pad, _ in w.padding]
    hi = [
        (n - 1) * s - before + extent - have
        for n, s, before, extent, have in zip(steps, w.stride, lo, w.extent, size, strict=True)
    ]
    return Halo(axes3(tuple(max(n, 0) for n in lo), 0), axes3(tuple(max(n, 0) for n in hi), 0))


def conv_needs(task: Task) -> BackNeeds:
    """Halos for the taps of both gradients, scratch for the weight's tiles."""
    op = task.whole.base
    assert isinstance(op, Conv | ConvTranspose)
    back = adjoint(task)
    asked: Needs = RECIPES[type(back.node.op)].needs(back)
    gradient = asked.halos[0] if asked.halos else Halo()
    shape, out = task.shapes[0], task.node.shape
    inputs: tuple[Halo, ...] = ()
    if isinstance(op, Conv):
        inputs = (reach(op.window, shape[1:], out[1:]),)
    else:
        gradient = gradient | reach(op.window, out[1:], shape[1:])
    taps = max(prod(op.window.kernel), 16)
    scratch = max(task.threads * taps * 256, asked.scratch)
    quick = _quick(task)
    if quick is not None:
        around, over = quick_gradient.halos(quick, _conv(task), shape, out)
        inputs, gradient = (inputs[0] | around,), gradient | over
        scratch = max(scratch, quick_gradient.scratch(quick, shape[0], out[0], task.threads))
    return BackNeeds(inputs, gradient, scratch)


def _conv(task: Task) -> Conv:
    op = task.whole.base
    assert isinstance(op, Conv)
    return op


def _quick(task: Task) -> quick_gradient.Plan | None:
    """Winograd's way to the weight's gradient, where it is taken."""
    if task.exact or not isinstance(task.whole.base, Conv):
        return None
    return quick_gradient.planned(_conv(task), task.shapes[0], task.node.shape, task.batch)


def conv_back(task: Task, places: BackPlaces) -> Calls:
    """The calls: relu's if it is fused, the bias's, the weight's, the input's gradient."""
    op, g = task.whole.base, places.gradient
    assert isinstance(op, Conv | ConvTranspose)
    calls: Calls = []
    if isinstance(task.whole.activation, Relu):
        idle = places.params.add(np.zeros((g.blocks, 2, 16)))
        calls.append(call(activation.bent_back, task.parts, g, g, RELU, idle, other=places.output))
    if op.bias:
        calls.append(call(sums.channel_sums, task.threads, g, g, places.into["bias"]))
    quick = _quick(task)
    if quick is not None:
        own = {"into": places.into["weight"], "start": places.scratch, "threads": task.threads}
        calls += quick_gradient.describe(quick, _conv(task), places.inputs[0], g, **own)
    else:
        calls.append(_weight_gradient(task, places))
    target = places.gradients[0]
    if target is not None:
        calls += _input_gradient(task, places, target)
    return calls


def _input_gradient(task: Task, places: BackPlaces, target: Buffer) -> Calls:
    op, back = task.whole.base, adjoint(task)
    assert isinstance(op, Conv | ConvTranspose)
    shape = op.parameters(task.shapes[:1])[0].shape
    start = places.weights["weight"]
    own = adjoint_weight(op, np.arange(start, start + prod(shape)).reshape(shape))
    given = (places.gradient,)
    return trained(back, given, target, places.scratch, {"weight": own}, places.params)


def trained(
    task: Task,
    inputs: tuple[Buffer, ...],
    output: Buffer,
    scratch: int,
    weights: Mapping[str, np.ndarray],
    params: TrainedParams,
) -> Calls:
    """The calls that `run` makes for a node, its weights packed anew whenever they change.

    weights: for each parameter the places in the learned vector of its numbers.
    """
    op = task.whole.base
    quick = quick_plan(task) if isinstance(op, Conv) else None
    if quick is not None:
        return _trained_quick(task, quick, inputs, output, scratch, weights, params)

    def plan(own: Mapping[str, np.ndarray], into: Params) -> Calls:
        return RECIPES[type(op)].calls(task, Places(inputs, output, scratch, own, into, {}))

    return params.record(weights, plan)


def _trained_quick(
    task: Task,
    quick: Winograd,
    inputs: tuple[Buffer, ...],
    output: Buffer,
    scratch: int,
    weights: Mapping[str, np.ndarray],
    params: TrainedParams,
) -> Calls:
    """Winograd's algorithm: its filters are packed, and then transformed."""
    op = task.whole.base
    assert isinstance(op, Conv)

    def pack(own: Mapping[str, np.ndarray], into: Params) -> tuple[int, int]:
        packed = into.add(winograd.packed(quick_weights(task, own["weight"]), quick))
        none = np.zeros(quick.filter_blocks * LANES, np.float32)
        return packed, into.add(packed_biases(own["bias"]) if "bias" in own else none)

    packed, biases = params.record(weights, pack)
    floats = quick.weight_floats
    made = params.add(np.zeros(floats, np.float32))
    d = filter_descriptor(quick)
    sizes = (packed, quick.filter_blocks * winograd.packed_block(quick), made, floats)
    params.transforms.append(Transform(launch, d, *sizes))
    bounds, before = clamp(task.whole.activation), corner(op.window)
    ends = winograd_calls.Ends(inputs[0], before, output, None, scratch, made, biases, bounds)
    return quick_calls(task, quick, ends)


def _weight_gradient(task: Task, places: BackPlaces) -> Call:
    op = task.whole.base
    assert isinstance(op, Conv | ConvTranspose)
    g, x = places.gradient, places.inputs[0]
    if isinstance(op, ConvTranspose):
        g, x = x, g
    w = op.window
    lanes = x.lanes
    steps = axes3(w.stride)
    strides = (x.plane_stride, x.row_stride, lanes)
    corner = axes3(tuple(lo for lo, _ in w.padding), 0)
    first = x.origin - sum(lo * stride for lo, stride in zip(corner, strides, strict=True))
    depth, height, width = g.size
    rows = [
        (
            n * x.batch_stride + z * steps[0] * strides[0] + y * steps[1] * strides[1],
            g.origin + n * g.batch_stride + z * g.plane_stride + y * g.row_stride,
        )
        for n in range(g.batch)
        for z in range(depth)
        for y in range(height)
    ]
    inside, each = x.channels // op.groups, g.channels // op.groups
    taps = prod(w.kernel)
    planar, depthwise = lanes == 1, inside == each == 1 and op.groups > 1
    tiles = [] if planar or depthwise else _tiles(x.channels, g.channels, inside, each)
    sheets = axes3(w.kernel)[0] * axes3(w.kernel)[1]
    few = 4 * task.threads
    split = 1 if len(tiles) >= few else min(sheets, -(-few // max(len(tiles), 1)))
    kernel = conv.weight_gradient
    if planar:
        kernel = conv.planar_weight_gradient
    elif depthwise:
        kernel = conv.depthwise_weight_gradient
    table = conv.TILES + 1 + conv.TILE * len(tiles)
    own = (
        places.into["weight"],
        places.scratch,
        max(taps, 16) * 256,
        inside,
        each,
        *axes3(w.kernel),
        *axes3(w.dilation),
        steps[2] * lanes,
        first,
        max(1, BAND_POSITIONS // width),
        len(rows),
        split,
        table,
        len(tiles),
        *(number for tile in tiles for number in tile),
        *(number for row in rows for number in row),
    )
    return call(kernel, task.threads, places.output, g, *own, other=x)


def _tiles(channels: int, filters: int, inside: int, each: int) -> list[tuple[int, int, int, int]]:
    """Tiles of channels and filter blocks that share a group."""
    found = []
    blocks = -(-filters // 16)
    for block in range(0, blocks, 2):
        pair = min(2, blocks - block)
        groups = 16 * block // each, (min(16 * (block + pair), filters) - 1) // each
        low, high = groups[0] * inside, min((groups[1] + 1) * inside, channels)
        for c in range(low // 8 * 8, high, 8):
            size = 8 if high - c > 4 else 4
            found.append((c, size, block, pair))
    return found
