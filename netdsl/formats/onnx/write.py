"""Writing a graph and its weights as an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
from onnx import ModelProto, TensorProto, helper

from netdsl.faults import error
from netdsl.formats.atomic import replacing
from netdsl.formats.onnx import metadata
from netdsl.formats.onnx.emit import OPSET, Emitter
from netdsl.graph import Graph
from netdsl.graph.weights import check_weights
from netdsl.ops import Input

IR_VERSION = 10
"""The format's version that goes with the opset."""

LARGEST = 1_900_000_000
"""Bytes of weights that one file holds; protobuf ends at 2 GiB."""


def write_onnx(
    graph: Graph,
    weights: Mapping[str, npt.NDArray[Any]],
    path: str | Path,
    *,
    aux: bool = False,
) -> None:
    """Writes an ONNX file, weights in single precision, the batch axis open.

    Weights of more than 1.9 GB go to a file of the same name and `.data` beside it. aux: auxiliary
    heads too, as further outputs. Raises NetError: weights missing or of wrong shapes, a file that
    cannot be written.
    """
    path = Path(path)
    model = to_onnx(graph, weights, aux=aux)
    beside = sum(len(t.raw_data) for t in model.graph.initializer) > LARGEST
    try:
        if beside:
            path.with_name(f"{path.name}.data").unlink(missing_ok=True)
            onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data")
        else:
            _whole(path, model.SerializeToString())
    except OSError as problem:
        raise error("cannot-write", f"cannot write {path}: {problem.strerror or problem}") from None


def _whole(path: Path, data: bytes) -> None:
    with replacing(path) as file:
        file.write(data)


def to_onnx(
    graph: Graph, weights: Mapping[str, npt.NDArray[Any]], *, aux: bool = False
) -> ModelProto:
    """The ONNX model of a graph, with `aux` its auxiliary heads as outputs after its own.

    Raises NetError for weights that do not fit.
    """
    if not aux:
        graph = graph.without_aux()
    check_weights(graph, weights)
    emitter = Emitter(graph, weights)
    for node in graph:
        if not isinstance(node.op, Input):
            emitter.add(node)
    heads = (head.output for head in graph.aux)
    made = helper.make_graph(
        emitter.nodes,
        graph.name,
        [_info(graph, name) for name in graph.inputs],
        [_info(graph, name) for name in dict.fromkeys((*graph.outputs, *heads))],
        emitter.tensors,
    )
    model = helper.make_model(
        made,
        producer_name="netdsl",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    metadata.put(model, graph)
    return model


def _info(graph: Graph, name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *graph[name].shape])
