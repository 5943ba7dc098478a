"""From a graph to a .tflite file: norms folded, activations fused, channels last."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from netdsl.faults import error
from netdsl.formats.atomic import replacing
from netdsl.formats.imported import Trouble, Unsupported
from netdsl.formats.source.spell import about
from netdsl.formats.tflite import schema
from netdsl.formats.tflite.emit import Emitter, lasting
from netdsl.formats.tflite.flatbuffer import Pieces, Table, encode
from netdsl.formats.tflite.layers import WRITE
from netdsl.graph import Graph
from netdsl.graph.fused import fuse, parts
from netdsl.graph.passes import lowered
from netdsl.graph.weights import check_weights
from netdsl.ops import Activation, Add, BatchNorm, Conv, Input, Linear, Multiply, Op, Relu, Relu6

Weights = Mapping[str, NDArray[np.float32]]

LARGEST = 1_900_000_000
"""Bytes of weights within the FlatBuffer, whose offsets end at 2 GiB; more lie behind it."""

ORDER = "Channels come last: an input of {} is an array ({})."


def write_tflite(graph: Graph, weights: Weights, path: Path) -> list[Path]:
    """Writes a .tflite file for one sample at a time, in single precision.

    Auxiliary heads are left out. Returns the files written. Raises NetError: one that lists every
    op that cannot be written, weights that do not fit, a file that cannot be written.
    """
    pieces = model_of(graph, weights)
    with replacing(path) as file:
        for piece in pieces:
            file.write(piece)
    return [path]


def model_of(graph: Graph, weights: Weights, batch: int = 1) -> Pieces:
    """The bytes of a .tflite file, piece by piece, for this many samples at once. Raises NetError.

    Inputs and outputs are (batch, height, width, channels), of height 1 where there is one spatial
    axis, or (batch, features). The signature "serving_default" has them by the net's own names.
    """
    graph = graph.without_aux()
    deep = next((node for node in graph if len(node.shape) > 3), None)
    if deep is not None:
        raise error(
            "tflite-ops",
            f"{graph.name}: {deep.name} has {len(deep.shape) - 1} spatial axes; "
            "TensorFlow Lite's models are written with two at most",
        )
    check_weights(graph, weights)
    low, folded = lowered(graph, weights, lambda g: fuse(g, _takes))
    out = Emitter(low, folded, batch)
    _emit(out)
    ends = _ends(out, graph)
    return encode(_model(out, graph, ends), schema.IDENTIFIER)


def _takes(op: Op, residual: bool, activation: Activation | None) -> bool:
    """What an operator does itself."""
    able = isinstance(op, Conv | Linear | Add | Multiply | BatchNorm)
    return able and not residual and isinstance(activation, Relu | Relu6)


def _emit(out: Emitter) -> None:
    """Every node of the graph. Raises NetError that lists those that cannot be written."""
    trouble = Trouble("op")
    for node in out.graph:
        whole = parts(node)
        try:
            if isinstance(node.op, Input):
                out.tensor(node.name, lasting(node.shape))
            else:
                WRITE[type(whole.base)](out, node, whole.base)
        except Unsupported as why:
            trouble.add(whole.base.word(), whole.source, str(why))
            # What reads it is tried too.
            out.shapes[node.name], out.index[node.name] = lasting(node.shape), -1
    trouble.check("tflite-ops", out.graph.name, "TensorFlow Lite")


def _ends(out: Emitter, graph: Graph) -> dict[str, str]:
    """For each of the net's outputs the tensor that holds it, in its shape."""
    found = {}
    for asked, held in zip(graph.outputs, out.graph.outputs, strict=True):
        flat = len(graph[asked].shape) == 1 < len(out.shapes[held])
        found[asked] = out.flatten(held, f"{held}/flat") if flat else held
    return found


def _model(out: Emitter, graph: Graph, ends: Mapping[str, str]) -> Table:
    """The whole model, as tables."""
    main = {
        "tensors": out.tensors,
        "inputs": [out.index[name] for name in graph.inputs],
        "outputs": [out.index[ends[name]] for name in graph.outputs],
        "operators": out.operators,
        "name": graph.name,
    }
    signature = {
        "inputs": _named(out, {name: name for name in graph.inputs}),
        "outputs": _named(out, ends),
        "signature_key": "serving_default",
        "subgraph_index": 0,
    }
    model = {
        "version": schema.VERSION,
        "operator_codes": [_code(*code) for code in out.codes],
        "subgraphs": [Table(schema.SUBGRAPH, main)],
        "description": "\n".join(about(graph, _order(graph, out.batch))),
        "buffers": _buffers(out),
        "signature_defs": [Table(schema.SIGNATURE, signature)],
    }
    return Table(schema.MODEL, model)


def _code(code: int, version: int) -> Table:
    """An operator's code. Where older runtimes look for it are seven bits."""
    values = {"deprecated_builtin_code": min(code, 127), "builtin_code": code, "version": version}
    return Table(schema.OPERATOR_CODE, values)


def _named(out: Emitter, names: Mapping[str, str]) -> list[Table]:
    return [
        Table(schema.TENSOR_MAP, {"name": name, "tensor_index": out.index[tensor]})
        for name, tensor in names.items()
    ]


def _buffers(out: Emitter) -> list[Table]:
    """The constants' numbers, after the empty buffer that all other tensors have."""
    none = Table(schema.BUFFER, {})
    if sum(blob.values.nbytes for blob in out.blobs) <= LARGEST:
        return [none, *(Table(schema.BUFFER, {"data": blob}) for blob in out.blobs)]
    far = ({"offset": blob, "size": blob.values.nbytes} for blob in out.blobs)
    return [none, *(Table(schema.BUFFER, values) for values in far)]


def _order(graph: Graph, batch: int) -> str:
    first = graph[graph.inputs[0]].shape
    if len(first) == 1:
        return ""
    shapes = ("x".join(map(str, first)), ", ".join(map(str, (batch, *lasting(first)))))
    return ORDER.format(*shapes)
