"""Activations that are more than one operator, or have weights."""

from __future__ import annotations

import numpy as np

from netdsl.formats.tflite import schema
from netdsl.formats.tflite.emit import Emitter
from netdsl.graph import Node
from netdsl.ops import Elu, HardSigmoid, PRelu, Silu


def prelu(out: Emitter, node: Node, op: PRelu) -> None:
    x = node.inputs[0]
    shape = out.shapes[x]
    slope = out.own(node)["weight"].reshape(*(1 for _ in shape[1:]), -1)
    out.op(schema.PRELU, [x, out.constant(f"{node.name}/slope", slope)], node.name, shape)


def elu(out: Emitter, node: Node, op: Elu) -> None:
    """The operator's alpha is 1; another's is relu(x) + alpha elu(min(x, 0))."""
    x, name = node.inputs[0], node.name
    shape = out.shapes[x]
    if op.alpha == 1:
        out.op(schema.ELU, [x], name, shape)
        return
    above = out.op(schema.RELU, [x], f"{name}/above", shape)
    low = out.by_channel(schema.MINIMUM, x, f"{name}/low", np.zeros(1))
    low = out.op(schema.ELU, [low], f"{name}/elu", shape)
    low = out.by_channel(schema.MUL, low, f"{name}/below", np.array([op.alpha]))
    out.op(schema.ADD, [above, low], name, shape)


def silu(out: Emitter, node: Node, op: Silu) -> None:
    x = node.inputs[0]
    shape = out.shapes[x]
    gate = out.op(schema.LOGISTIC, [x], f"{node.name}/gate", shape)
    out.op(schema.MUL, [x, gate], node.name, shape)


def hard_sigmoid(out: Emitter, node: Node, op: HardSigmoid) -> None:
    x, name = node.inputs[0], node.name
    x = out.by_channel(schema.MUL, x, f"{name}/scaled", np.array([op.slope]))
    options = {"activation": schema.RELU_ACTIVATION}
    x = out.by_channel(schema.ADD, x, f"{name}/shifted", np.array([op.offset]), **options)
    out.by_channel(schema.MINIMUM, x, name, np.ones(1))
