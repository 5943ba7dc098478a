"""Networks of other formats as readable text, and back: what `import` and `export` do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from netdsl.faults import error
from netdsl.formats.atomic import replacing
from netdsl.formats.weights import open_tensors
from netdsl.graph import Graph
from netdsl.ops import Shape
from netdsl.resources import exists

Weights = Mapping[str, NDArray[np.float32]]

READS = (".onnx", ".prototxt", ".caffemodel", ".cfg")
WEIGHTS_ALONE = (".pth", ".pt", ".safetensors", ".weights")
WRITES = ("onnx", "pytorch", "keras", "caffe", "darknet", "tflite", "mermaid", "dot")
DRAWN = ("mermaid", "dot")
"""Those that hold no weights."""
SOURCES = ("pytorch", "keras")
"""Those that are source, with weights beside it where there are any."""
HEADLESS = ("caffe", "darknet", "tflite")
"""Those that hold no auxiliary heads."""


def read_foreign(
    path: Path, weights: Path | None = None, shape: Shape | None = None
) -> tuple[Graph, Weights | None]:
    """The graph of another program's file, and its weights where the file or `weights` has some.

    Reads ONNX (.onnx), Caffe (.prototxt, .caffemodel) and Darknet (.cfg). weights: a .weights file
    for Darknet; for the others a file of tensors (.caffemodel, .pth, .pt, .safetensors) that goes
    by the names of the net's file, in place of an ONNX file's own. shape: the input's
    (C, *spatial), where a Caffe or ONNX file leaves it open. Raises NetError.
    """
    ending = path.suffix.lower()
    if not (exists(path) and path.is_file()):
        raise error("no-such-file", f"there is no file {path}")
    if ending in WEIGHTS_ALONE:
        raise error(
            "no-graph",
            f"{path} holds weights, but not the net that they are of",
            help="write the net as a .net file or take one of the zoo, and give them to it: "
            f"netdsl run NET.net X --weights {path}; or export the net from PyTorch to ONNX "
            "and import that",
        )
    if ending not in READS:
        raise error("unknown-format", f"{path} is none of {', '.join(READS)}")
    if ending == ".onnx":
        from netdsl.formats.onnx import read_onnx

        return read_onnx(path, shapes=shape, weights=weights)
    if ending == ".cfg":
        if shape is not None:
            raise error("unknown-setting", f"{path} says its input's shape itself")
        return _darknet(path, weights)
    return _caffe(path, weights, shape)


def _caffe(path: Path, weights: Path | None, shape: Shape | None) -> tuple[Graph, Weights | None]:
    from netdsl.formats.caffe import read_caffe

    found = read_caffe(path, shape)
    model = weights or (path if path.suffix.lower() == ".caffemodel" else None)
    if model is None:
        return found.graph, None
    file = open_tensors(model)
    return found.graph, found.weights(file.shapes, file.read, str(model))


def _darknet(path: Path, weights: Path | None) -> tuple[Graph, Weights | None]:
    from netdsl.formats.darknet import read_darknet, read_weights

    found = read_darknet(path)
    if weights is None:
        return found.graph, None
    return found.graph, read_weights(weights, found.graph)


def renamed(weights: Weights, names: Mapping[str, str]) -> Weights:
    """Weights under the names of another graph's nodes; see `graph.same.correspondence`."""
    moved = {}
    for name, values in weights.items():
        node, _, parameter = name.rpartition(".")
        if node in names:
            moved[f"{names[node]}.{parameter}"] = values
    return moved


def write_foreign(
    graph: Graph, weights: Weights | None, to: str, path: Path, *, aux: bool = False
) -> list[Path]:
    """Writes a net in another program's format, one of WRITES.

    aux: auxiliary heads too, which PyTorch's modules and diagrams have in any case. Returns the
    files written. Raises NetError: an op the format lacks, a file that cannot be written, no
    weights for ONNX or TensorFlow Lite, heads for a format without.
    """
    if aux and to in HEADLESS:
        raise error("unknown-setting", f"a {to} file holds no auxiliary heads: leave --aux out")
    if to in ("onnx", "tflite"):
        if weights is None:
            raise error("no-weights", f"a file of {to} holds weights, and none were given")
        return _whole(graph, weights, to, path, aux)
    if to == "caffe":
        from netdsl.formats.caffe import write_caffe

        return write_caffe(graph, weights, path)
    if to == "darknet":
        from netdsl.formats.darknet import write_darknet

        return write_darknet(graph, weights, path)
    if to == "pytorch":
        from netdsl.formats.torch_module import write_torch

        return write_torch(graph, weights, path)
    if to == "keras":
        from netdsl.formats.keras_model import write_keras

        return write_keras(graph, weights, path, aux=aux)
    if to in DRAWN:
        from netdsl.formats.diagram import dot_text, mermaid_text

        return write_text(path, dot_text(graph) if to == "dot" else mermaid_text(graph))
    raise error("unknown-format", f"there is no format {to}", help=f"formats: {', '.join(WRITES)}")


def _whole(graph: Graph, weights: Weights, to: str, path: Path, aux: bool) -> list[Path]:
    """Writes a format whose files hold net and weights."""
    if to == "tflite":
        from netdsl.formats.tflite import write_tflite

        return write_tflite(graph, weights, path)
    from netdsl.formats.onnx import write_onnx

    write_onnx(graph, weights, path, aux=aux)
    return [path]


def write_text(path: Path, text: str) -> list[Path]:
    """Writes a text file whole or not at all. Raises NetError where it cannot be written."""
    with replacing(path) as file:
        file.write(text.encode())
    return [path]
