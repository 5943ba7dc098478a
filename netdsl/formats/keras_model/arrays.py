"""Our parameters as Keras's layers keep them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from netdsl.formats.keras_model.layers import depthwise
from netdsl.graph import Node
from netdsl.ops import BatchNorm, Conv, ConvTranspose, Linear, Norm, PRelu, Shape

Array = NDArray[np.float32]

NORM = {"weight": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"}


def variable(node: Node, parameter: str) -> str:
    """What a layer calls a parameter."""
    if isinstance(node.op, Norm | BatchNorm):
        return NORM[parameter]
    if isinstance(node.op, PRelu):
        return "alpha"
    return "kernel" if parameter == "weight" else parameter


def arranged(node: Node, shape: Shape, parameter: str, values: Array) -> Array:
    """A parameter with its axes as Keras has them. shape: the node's input's."""
    op = node.op
    if isinstance(op, PRelu):
        return values.reshape(*(1 for _ in shape[1:]), -1)
    if parameter != "weight":
        return values
    if isinstance(op, Linear):
        return values.T
    if isinstance(op, Conv) and depthwise(op, shape):
        each = values.reshape(shape[0], op.filters // shape[0], *values.shape[2:])
        return np.moveaxis(each, (0, 1), (-2, -1))
    if isinstance(op, Conv):
        return np.moveaxis(values, (0, 1), (-1, -2))
    if isinstance(op, ConvTranspose):
        return np.moveaxis(values, (0, 1), (-1, -2))
    return values
