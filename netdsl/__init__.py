"""netdsl: convolutional networks as short text files.

    import netdsl

    net = netdsl.load("vgg16")          # a zoo name, or a path to a .net file
    net.cost().macs                     # 15470264320
    scores = net.run(x)                 # x (N, 3, 224, 224) -> (N, 1000)

Everything a person can get wrong raises `NetError`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from netdsl.faults import NetError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import ModelProto

    from netdsl.net import Net
    from netdsl.onnx_net import OnnxNet

__version__ = "0.1.0"

__all__ = ["Net", "NetError", "__version__", "from_onnx", "load"]


def load(
    name: str | Path | None = None,
    *,
    text: str | None = None,
    weights: str | Path | None = None,
) -> Net:
    """A net of the zoo by its name, of a .net file by its path, or of a text.

    weights: a safetensors file; left out, a file beside the .net file with its stem is taken when
    it is there. Raises NetError: no such net, faults in its text, weights that do not fit.
    """
    from netdsl.net import Net

    net = Net.load(name, text=text)
    if weights is not None:
        net.load_weights(weights)
    return net


def from_onnx(
    model: str | Path | bytes | ModelProto,
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> OnnxNet:
    """A net, with its weights, out of an ONNX model: a file's path, its content, or a loaded model.

    Its `run` takes arrays in the model's input order and layout, and gives the model's outputs in
    the model's order. shapes: the shape of one sample of inputs, by name, whose sizes the model
    leaves open. Needs the extra `onnx`. Raises NetError: no such file, not ONNX, damaged, sizes
    left open, or operators that the language lacks, each one listed with its nodes.
    """
    from netdsl.formats.onnx import import_onnx
    from netdsl.formats.onnx.load import said
    from netdsl.onnx_net import OnnxNet

    return OnnxNet(import_onnx(model, shapes=shapes), said(model))


def __getattr__(name: str) -> Any:
    if name == "Net":
        from netdsl.net import Net

        return Net
    raise AttributeError(f"module 'netdsl' has no attribute {name!r}")
