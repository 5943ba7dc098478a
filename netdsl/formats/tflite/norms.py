"""Normalisations."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from netdsl.formats.imported import Unsupported
from netdsl.formats.tflite import schema
from netdsl.formats.tflite.emit import Emitter, activated
from netdsl.graph import Node
from netdsl.graph.passes import scale_and_shift
from netdsl.ops import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, LocalResponseNorm


def batch_norm(out: Emitter, node: Node, op: BatchNorm) -> None:
    """One that no layer before it takes over."""
    scale, shift = scale_and_shift(op, out.own(node))
    name = f"{node.name}/scaled"
    scaled = out.by_channel(schema.MUL, node.inputs[0], name, scale)
    out.by_channel(schema.ADD, scaled, node.name, shift, **activated(node))


def group_norm(out: Emitter, node: Node, op: GroupNorm | InstanceNorm | LayerNorm) -> None:
    """Each group to mean 0 and variance 1, as a table (positions, groups, channels a group)."""
    x, name = node.inputs[0], node.name
    *spatial, channels = out.shapes[x]
    groups = op.groups if isinstance(op, GroupNorm) else 1
    groups = channels if isinstance(op, InstanceNorm) else groups
    table = (prod(spatial), groups, channels // groups)
    x = out.reshape(x, f"{name}/table", table)
    axes = out.constant(f"{name}/axes", np.array([1, 3]))
    one = (1, groups, 1)
    mean = out.op(schema.MEAN, [x, axes], f"{name}/mean", one, keep_dims=True)
    squares = out.op(schema.SQUARED_DIFFERENCE, [x, mean], f"{name}/squares", table)
    var = out.op(schema.MEAN, [squares, axes], f"{name}/variance", one, keep_dims=True)
    eps = np.array(op.eps)
    var = out.by_channel(schema.ADD, var, f"{name}/with_eps", eps)
    scale = out.op(schema.RSQRT, [var], f"{name}/scale", one)
    centred = out.op(schema.SUB, [x, mean], f"{name}/centred", table)
    x = out.op(schema.MUL, [centred, scale], f"{name}/normed", table)
    x = out.reshape(x, f"{name}/image" if op.affine else name, (*spatial, channels))
    if op.affine:
        own = out.own(node)
        x = out.by_channel(schema.MUL, x, f"{name}/scaled", own["weight"])
        out.by_channel(schema.ADD, x, name, own["bias"])


def local_response_norm(out: Emitter, node: Node, op: LocalResponseNorm) -> None:
    if op.size % 2 == 0:
        raise Unsupported("TensorFlow Lite's windows are odd")
    x, shape = node.inputs[0], out.shapes[node.inputs[0]]
    image = len(shape) == 3
    if not image:
        x = out.reshape(x, f"{node.name}/image", (1, 1, *shape))
    settings: dict[str, Any] = {"radius": op.size // 2, "bias": op.k}
    settings |= {"alpha": op.alpha / op.size, "beta": op.beta}
    name = node.name if image else f"{node.name}/normed"
    out.op(schema.LOCAL_RESPONSE_NORMALIZATION, [x], name, out.shapes[x], **settings)
    if not image:
        out.reshape(name, node.name, shape)
