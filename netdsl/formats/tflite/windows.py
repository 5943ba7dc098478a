"""Windows in an image: SAME, VALID, or padding as an operator of its own; and convolutions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from netdsl.formats.tflite import schema
from netdsl.formats.tflite.arrange import pad
from netdsl.formats.tflite.emit import Array, Emitter, activated
from netdsl.graph import Node
from netdsl.ops import Conv, ConvTranspose, Linear, Window


def plane(window: Window) -> Window:
    """The window on an image, whose height is 1 where the data has one spatial axis."""
    if len(window.kernel) != 1:
        return window
    return Window(
        (1, *window.kernel),
        (1, *window.stride),
        ((0, 0), *window.padding),
        (1, *window.dilation),
        window.ceil,
    )


class Framed(NamedTuple):
    """An image with what padding its window needs, and the padding that is left to the op."""

    x: str
    padding: int


def framed(out: Emitter, node: Node, w: Window, fill: float = 0.0) -> Framed:
    """The node's input, padded where neither SAME nor VALID gives the window's outputs."""
    x = node.inputs[0]
    spatial = out.shapes[x][:2]
    count = w.output(spatial)
    read = [(n - 1) * s + e for n, s, e in zip(count, w.stride, w.extent, strict=True)]
    before = [lo for lo, _ in w.padding]
    # Cells at the end that no window reads are no padding.
    after = [max(r - lo - n, 0) for r, lo, n in zip(read, before, spatial, strict=True)]
    if not any(before) and not any(after):
        return Framed(x, schema.VALID)
    same = [max(r - n, 0) // 2 for r, n in zip(read, spatial, strict=True)]
    rounded = [-(-n // s) for n, s in zip(spatial, w.stride, strict=True)]
    if before == same and list(count) == rounded:
        return Framed(x, schema.SAME)
    return Framed(pad(out, x, f"{node.name}/padded", before, after, fill), schema.VALID)


def strides(w: Window) -> dict[str, int]:
    return {"stride_h": w.stride[0], "stride_w": w.stride[1]}


def conv(out: Emitter, node: Node, op: Conv) -> None:
    w = plane(op.window)
    x, padding = framed(out, node, w)
    own = out.own(node)
    weight = own["weight"].reshape(op.filters, -1, *w.kernel)
    options = {"padding": padding, **strides(w), **activated(node)}
    options |= {"dilation_h": w.dilation[0], "dilation_w": w.dilation[1]}
    channels = out.shapes[x][-1]
    if op.groups == channels > 1:
        kind, order = schema.DEPTHWISE_CONV_2D, (1, 2, 3, 0)
        options["depth_multiplier"] = op.filters // channels
        version = 1 if set(w.dilation) == {1} else 2
    else:
        kind, order = schema.CONV_2D, (0, 2, 3, 1)
        version = 1 if op.groups == 1 else 6
    inputs = [x, out.constant(f"{node.name}/weight", weight.transpose(order)), bias(out, node, op)]
    shape = (*w.output(out.shapes[node.inputs[0]][:2]), op.filters)
    out.op(kind, inputs, node.name, shape, version=version, **options)


def bias(out: Emitter, node: Node, op: Conv | Linear) -> str:
    """The layer's bias, zeros where it has none."""
    return out.constant(f"{node.name}/bias", biases(out, node, op))


def biases(out: Emitter, node: Node, op: Conv | ConvTranspose | Linear) -> Array:
    return out.own(node)["bias"] if op.bias else np.zeros(op.filters, np.float32)
