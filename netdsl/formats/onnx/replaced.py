"""Other weights for an ONNX model: a state dict's tensors in place of the model's own."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy.typing as npt
from onnx import ModelProto, TensorProto

from netdsl.faults import NetError, error
from netdsl.formats.weights import Tensors, without_counters
from netdsl.ops import show

PARAMETERS = ("weight", "bias", "running_mean", "running_var")
"""What PyTorch's layers call their tensors."""


def replaced(model: ModelProto, tensors: Tensors, name: Path) -> Mapping[str, npt.NDArray[Any]]:
    """The tensors of a file, all of them, for the model's initialisers of the same names.

    Empty where the file has none of the model's names. Raises
    NetError: a tensor that the model lacks or that has another shape, a layer's tensor that the
    file lacks.
    """
    held = {t.name: tuple(t.dims) for t in model.graph.initializer}
    file = without_counters(tensors.shapes)
    if not held.keys() & file.keys():
        return {}
    for theirs, shape in file.items():
        if theirs not in held:
            raise _changed(f"the model has no {theirs}, which {name} holds")
        if held[theirs] != shape:
            raise _changed(
                f"{theirs} is {show(held[theirs])} in the model and {show(shape)} in {name}"
            )
    for tensor in model.graph.initializer:
        layers = tensor.name.rpartition(".")[2] in PARAMETERS and prod(tensor.dims) > 1
        if layers and tensor.data_type == TensorProto.FLOAT and tensor.name not in file:
            raise _changed(f"{name} has no {tensor.name}, which the model holds")
    return {n: tensors.read(n) for n in file}


def _changed(said: str) -> NetError:
    return error(
        "weights-mismatch",
        said,
        help="exporters fold batch norms into convolutions, which changes the weights: export with "
        "these weights in the net; or unfolded, from PyTorch by optimize=False",
    )
