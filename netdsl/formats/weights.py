"""A net's weights out of any file that holds some, by the file's ending."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from netdsl.formats.match import match
from netdsl.formats.namemap import maps_beside
from netdsl.graph import Graph
from netdsl.ops import Shape

Array = NDArray[np.float32]

PRETRAINED = "pretrained"
"""In place of a file's name: the weights that were published for a net of the zoo."""

COUNTER = "num_batches_tracked"
"""What PyTorch's batch norms count, which is of no use here."""


class Tensors(Protocol):
    """An opened file of named tensors."""

    @property
    def shapes(self) -> dict[str, Shape]: ...

    def read(self, name: str) -> Array: ...


def open_tensors(path: Path) -> Tensors:
    """The tensors of a safetensors, PyTorch or Caffe file. Raises NetError."""
    ending = path.suffix.lower()
    if ending in (".pth", ".pt"):
        from netdsl.formats.pytorch import TorchFile

        return TorchFile(path)
    if ending == ".caffemodel":
        from netdsl.formats.caffe import CaffeWeights

        return CaffeWeights(path)
    from netdsl.formats.safetensors import WeightsFile

    return WeightsFile(path)


def load(graph: Graph, source: str | Path) -> tuple[dict[str, Array], str]:
    """The weights of a graph, and where they come from.

    source: a file (.safetensors, .pth, .pt, .caffemodel, .weights), or "pretrained". Tensors are
    found by our names, by the name maps beside the net, or by shapes that leave one possibility;
    Darknet's are nameless, and taken in the net's order. Raises NetError.
    """
    if str(source) == PRETRAINED:
        from netdsl.formats.pretrained import pull

        source = pull(graph)
    path = Path(source)
    if path.suffix.lower() == ".weights":
        from netdsl.formats.darknet import read_weights

        return read_weights(path, graph), str(path)
    return fitted(graph, open_tensors(path), path), str(path)


def fitted(graph: Graph, file: Tensors, path: Path) -> dict[str, Array]:
    """A file's tensors by the graph's names. Raises NetError where they do not fit."""
    maps = maps_beside(Path(graph.file)) if graph.file else ()
    pairs = match(graph, without_counters(file.shapes), maps, name=str(path))
    return {ours: file.read(theirs) for ours, theirs in pairs.names.items()}


def without_counters(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """A file's tensors but for what PyTorch's batch norms count."""
    return {n: s for n, s in shapes.items() if n.rpartition(".")[2] != COUNTER}
