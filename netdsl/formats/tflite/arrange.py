"""Ops that move values about."""

from __future__ import annotations

from math import prod
from typing import Literal

import numpy as np

from netdsl.formats.tflite import schema
from netdsl.formats.tflite.emit import Emitter
from netdsl.graph import Node
from netdsl.ops import Pad, Shuffle, Upsample


def upsample(out: Emitter, node: Node, op: Upsample) -> None:
    *spatial, channels = out.shapes[node.inputs[0]]
    size = [n * factor for n, factor in zip(spatial, (1, *op.factor)[-2:], strict=True)]
    inputs = [node.inputs[0], out.constant(f"{node.name}/size", np.array(size))]
    shape = (*size, channels)
    if op.mode == "nearest":
        out.op(schema.RESIZE_NEAREST_NEIGHBOR, inputs, node.name, shape)
    else:
        centres = {"half_pixel_centers": True}
        out.op(schema.RESIZE_BILINEAR, inputs, node.name, shape, version=3, **centres)


def padding(out: Emitter, node: Node, op: Pad) -> None:
    """Widened where the amount is above 0, then cropped where it is below."""
    x, amount = node.inputs[0], ((0, 0), *op.amount)[-2:]
    before, after = ([max(pair[i], 0) for pair in amount] for i in (0, 1))
    cropped = any(side < 0 for pair in amount for side in pair)
    if any((*before, *after)) or not cropped:
        name = f"{node.name}/padded" if cropped else node.name
        x = _widened(out, x, name, before, after, op)
    if cropped:
        start = [max(-lo, 0) for lo, _ in amount]
        crop(out, x, node.name, start, list((1, *node.shape[1:])[-2:]))


def _widened(
    out: Emitter, x: str, output: str, before: list[int], after: list[int], op: Pad
) -> str:
    if op.mode == "constant":
        return pad(out, x, output, before, after, op.value)
    return repeated(out, x, output, before, after, "reflect" if op.mode == "reflect" else "edge")


def pad(
    out: Emitter, x: str, output: str, before: list[int], after: list[int], fill: float = 0.0
) -> str:
    """Cells of one value around an image."""
    height, width, channels = out.shapes[x]
    shape = (height + before[0] + after[0], width + before[1] + after[1], channels)
    amounts = [(0, 0), *zip(before, after, strict=True), (0, 0)]
    inputs = [x, out.constant(f"{output}/amounts", np.array(amounts))]
    if fill == 0:
        return out.op(schema.PAD, inputs, output, shape)
    inputs.append(out.constant(f"{output}/value", np.array([fill])))
    return out.op(schema.PADV2, inputs, output, shape)


def repeated(
    out: Emitter,
    x: str,
    output: str,
    before: list[int],
    after: list[int],
    mode: Literal["reflect", "edge"],
) -> str:
    """The image's own cells around it: rows are gathered, then columns."""
    height, width, channels = out.shapes[x]
    rows, columns = (
        np.pad(np.arange(n), sides, mode=mode)
        for n, sides in zip((height, width), zip(before, after, strict=True), strict=True)
    )
    chosen = out.constant(f"{output}/rows", rows)
    shape = (rows.size, width, channels)
    x = out.op(schema.GATHER, [x, chosen], f"{output}/high", shape, axis=1)
    chosen = out.constant(f"{output}/columns", columns)
    return out.op(schema.GATHER, [x, chosen], output, (*shape[:1], columns.size, channels), axis=2)


def crop(out: Emitter, x: str, output: str, start: list[int], size: list[int]) -> str:
    """A part of an image, all of its samples and channels: so say the masks, a bit an axis."""
    end = [at + n for at, n in zip(start, size, strict=True)]
    bounds = {"start": [0, *start, 0], "end": [0, *end, 0], "step": [1, 1, 1, 1]}
    inputs = [x, *(out.constant(f"{output}/{n}", np.array(v)) for n, v in bounds.items())]
    whole = {"begin_mask": 0b1001, "end_mask": 0b1001}
    return out.op(schema.STRIDED_SLICE, inputs, output, (*size, out.shapes[x][-1]), **whole)


def shuffle(out: Emitter, node: Node, op: Shuffle) -> None:
    """The channels as a table, transposed."""
    shape = out.shapes[node.inputs[0]]
    table = (prod(shape[:-1]), op.groups, shape[-1] // op.groups)
    x = out.reshape(node.inputs[0], f"{node.name}/table", table)
    x = out.transpose(x, f"{node.name}/mixed", (0, 1, 3, 2))
    out.reshape(x, node.name, shape)
