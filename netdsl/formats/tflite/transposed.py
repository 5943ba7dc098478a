"""Transposed convolutions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from netdsl.formats.tflite import schema
from netdsl.formats.tflite.arrange import crop
from netdsl.formats.tflite.emit import Array, Emitter
from netdsl.formats.tflite.windows import biases, plane, strides
from netdsl.graph import Node
from netdsl.ops import ConvTranspose, Window


class Placed(NamedTuple):
    """What an operator is asked to make (height, width), with what padding, and where in that the
    node's result begins."""

    made: list[int]
    padding: int
    start: list[int]


def conv_transpose(out: Emitter, node: Node, op: ConvTranspose) -> None:
    """A group at a time, joined, then cut to size."""
    w = plane(op.window)
    height, width, channels = out.shapes[node.inputs[0]]
    size = [1, *node.shape[1:]][-2:]
    placed = _placed(w, (height, width), size)
    uncut = node.name if placed.made == size else f"{node.name}/uncut"
    x, each = node.inputs[0], op.filters // op.groups
    weight = _spread(out.own(node)["weight"].reshape(channels, each, *w.kernel), w.dilation)
    if op.groups == 1:
        _operator(out, x, uncut, weight, biases(out, node, op), placed, w)
    else:
        xs = _split(out, x, f"{node.name}/input", op.groups)
        pieces = []
        shifts = np.split(biases(out, node, op), op.groups)
        kernels = np.split(weight, op.groups)
        for i, (part, kernel, shift) in enumerate(zip(xs, kernels, shifts, strict=True)):
            pieces.append(_operator(out, part, f"{node.name}/{i}", kernel, shift, placed, w))
        out.op(schema.CONCATENATION, pieces, uncut, (*placed.made, op.filters), axis=3)
    if uncut != node.name:
        crop(out, uncut, node.name, placed.start, size)


def _placed(w: Window, spatial: tuple[int, int], size: list[int]) -> Placed:
    """As SAME where that gives the node's own result, else without padding, in full."""
    axes = zip(spatial, w.stride, w.extent, strict=True)
    full = [(n - 1) * stride + extent for n, stride, extent in axes]
    start = [lo for lo, _ in w.padding]
    same = [max(f - n, 0) // 2 for f, n in zip(full, size, strict=True)]
    rounded = [-(-n // stride) for n, stride in zip(size, w.stride, strict=True)]
    if start == same and rounded == list(spatial):
        return Placed(size, schema.SAME, [0, 0])
    made = [max(f, lo + n) for f, lo, n in zip(full, start, size, strict=True)]
    return Placed(made, schema.VALID, start)


def _operator(
    out: Emitter, x: str, output: str, weight: Array, bias: Array, placed: Placed, w: Window
) -> str:
    """One group. weight: (channels, filters, height, width); the operator's is OHWI."""
    shape = (*placed.made, weight.shape[1])
    inputs = [
        out.constant(f"{output}/size", np.array([out.batch, *shape])),
        out.constant(f"{output}/weight", weight.transpose(1, 2, 3, 0)),
        x,
        out.constant(f"{output}/bias", bias),
    ]
    options = {"padding": placed.padding, **strides(w)}
    return out.op(schema.TRANSPOSE_CONV, inputs, output, shape, version=3, **options)


def _spread(weight: Array, dilation: tuple[int, ...]) -> Array:
    """The kernel with zeros between its taps: the operator knows no dilation."""
    if set(dilation) == {1}:
        return weight
    sizes = [d * (k - 1) + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
    wide = np.zeros((*weight.shape[:2], *sizes), np.float32)
    wide[:, :, :: dilation[0], :: dilation[1]] = weight
    return wide


def _split(out: Emitter, x: str, output: str, groups: int) -> list[str]:
    """The channels of an image, group by group."""
    height, width, channels = out.shapes[x]
    axis = out.constant(f"{output}/axis", np.array(3))
    names = [f"{output}/{i}" for i in range(groups)]
    shapes = dict.fromkeys(names, (height, width, channels // groups))
    return out.ops(schema.SPLIT, [axis, x], shapes, num_splits=groups)
