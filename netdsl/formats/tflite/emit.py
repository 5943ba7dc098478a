"""A .tflite model while it is made: tensors by their names, and operators on them.

Tensors have channels last, (batch, height, width, channels) or (batch, features); what has one
spatial axis is an image of height 1. A node's result has the node's name; what it needs beside is
called `NAME/…`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.formats.imported import Unsupported
from netdsl.formats.tflite import schema
from netdsl.formats.tflite.flatbuffer import Blob, Table
from netdsl.formats.tflite.schema import Kind
from netdsl.graph import Graph, Node
from netdsl.graph.fused import parts
from netdsl.graph.passes import own_weights
from netdsl.ops import Relu, Relu6, Shape

Array = NDArray[Any]
Weights = Mapping[str, NDArray[np.float32]]


LARGEST = (1 << 31) - 1
"""What a size may be."""


def lasting(shape: Shape) -> Shape:
    """Our shape (C, *spatial) of at most two spatial axes, with channels last."""
    channels, *spatial = shape
    return (1, *spatial, channels)[-3:] if spatial else (channels,)


class Emitter:
    """Tensors, their numbers and the operators of a model.

    graph: the lowered one. weights: by the names of its nodes' sources.
    """

    def __init__(self, graph: Graph, weights: Weights, batch: int) -> None:
        self.graph, self.weights, self.batch = graph, weights, batch
        self.index: dict[str, int] = {}
        self.shapes: dict[str, Shape] = {}
        """Of what operators make and take, without the batch."""
        self.tensors: list[Table] = []
        self.blobs: list[Blob] = []
        self.codes: dict[tuple[int, int], int] = {}
        self.operators: list[Table] = []

    def tensor(self, name: str, shape: Shape) -> str:
        """A tensor that operators make, or the model's user; shape: without the batch."""
        self.shapes[name] = shape
        self._put(name, (self.batch, *shape), np.dtype(np.float32), 0)
        return name

    def constant(self, name: str, values: Array) -> str:
        """A tensor of float32 or int32 numbers that the file holds."""
        kind = np.int32 if np.issubdtype(values.dtype, np.integer) else np.float32
        values = np.ascontiguousarray(values, kind)
        self.blobs.append(Blob(values))
        self._put(name, values.shape, values.dtype, len(self.blobs))
        return name

    def _put(self, name: str, shape: Shape, kind: np.dtype[Any], buffer: int) -> None:
        if max(shape, default=0) > LARGEST:
            raise Unsupported(f"an axis of {max(shape):,} is longer than {LARGEST:,}")
        self.index[name] = len(self.tensors)
        values = {"shape": shape, "type": schema.TYPES[kind], "buffer": buffer, "name": name}
        self.tensors.append(Table(schema.TENSOR, values))

    def op(
        self,
        kind: Kind,
        inputs: Sequence[str],
        output: str,
        shape: Shape,
        *,
        version: int = 1,
        **options: Any,
    ) -> str:
        """An operator that makes one tensor of this shape. Returns the tensor's name.

        version: the operator's, which says what a runtime must know of it.
        """
        return self.ops(kind, inputs, {output: shape}, version=version, **options)[0]

    def ops(
        self,
        kind: Kind,
        inputs: Sequence[str],
        outputs: Mapping[str, Shape],
        *,
        version: int = 1,
        **options: Any,
    ) -> list[str]:
        """The same for an operator that makes several."""
        made = [self.tensor(name, shape) for name, shape in outputs.items()]
        code = self.codes.setdefault((kind.code, version), len(self.codes))
        values = {
            "opcode_index": code,
            "inputs": [self.index[name] for name in inputs],
            "outputs": [self.index[name] for name in made],
        }
        if kind.union:
            values["builtin_options_type"] = kind.union
            values["builtin_options"] = Table(kind.options, options)
        self.operators.append(Table(schema.OPERATOR, values))
        return made

    def shape(self, name: str) -> Shape:
        """Our shape of a node's result: (C, *spatial) without the batch."""
        return self.graph[name].shape

    def own(self, node: Node) -> dict[str, NDArray[np.float32]]:
        """A node's weights by their parameters' names."""
        return own_weights(self.graph, node, parts(node).source, self.weights)

    def reshape(self, x: str, output: str, shape: Shape) -> str:
        """The same numbers in another shape; the batch is left to the runtime."""
        wanted = self.constant(f"{output}/shape", np.array([-1, *shape]))
        return self.op(schema.RESHAPE, [x, wanted], output, shape)

    def transpose(self, x: str, output: str, order: Sequence[int]) -> str:
        """The axes in another order, that of the batch first."""
        given = self.shapes[x]
        wanted = self.constant(f"{output}/order", np.array(order))
        shape = tuple(given[axis - 1] for axis in order[1:])
        return self.op(schema.TRANSPOSE, [x, wanted], output, shape)

    def flatten(self, x: str, output: str) -> str:
        """Our flatten: channel by channel. Of one position it moves nothing."""
        height, width, channels = self.shapes[x]
        if height * width > 1:
            x = self.transpose(x, f"{output}/channels_first", (0, 3, 1, 2))
        return self.reshape(x, output, (height * width * channels,))

    def by_channel(self, kind: Kind, x: str, output: str, values: Array, **options: Any) -> str:
        """x with a number for each channel, or one for all, added or multiplied."""
        other = self.constant(f"{output}/values", values.astype(np.float32))
        return self.op(kind, [x, other], output, self.shapes[x], **options)


def activated(node: Node) -> dict[str, int]:
    """What an operator does to its sums at the end, as its option."""
    match parts(node).activation:
        case Relu():
            return {"activation": schema.RELU_ACTIVATION}
        case Relu6():
            return {"activation": schema.RELU6_ACTIVATION}
    return {"activation": schema.NO_ACTIVATION}
