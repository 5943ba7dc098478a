"""From a graph to a .py file with an nn.Module, and a file of its weights beside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from netdsl.faults import error
from netdsl.formats.atomic import replacing
from netdsl.formats.safetensors import save
from netdsl.formats.source.body import body
from netdsl.formats.source.classes import classes
from netdsl.formats.source.names import TAKEN, Names, class_name
from netdsl.formats.source.tree import tree
from netdsl.formats.torch_module.folding import Folder, Recorder
from netdsl.formats.torch_module.layers import layers
from netdsl.formats.torch_module.source import source
from netdsl.graph import Graph

Weights = Mapping[str, NDArray[np.float32]]

ENDING = ".torch.safetensors"
"""What the weights' file ends with: not that of our own weights, which may lie beside."""


def write_torch(graph: Graph, weights: Weights | None, path: Path) -> list[Path]:
    """Writes the net as Python source for PyTorch, and its weights by that module's own names.

    Auxiliary heads are part of it where the weights are theirs too. Returns the files written.
    Raises NetError: a path that is no .py file, or that cannot be written.
    """
    if path.suffix != ".py":
        raise error(
            "wrong-ending",
            f"a PyTorch module is written to a .py file, not to {path.name}",
            help=f"-o {path.with_suffix('.py')}",
        )
    if weights is not None and any(name not in weights for name in graph.all_parameters()):
        graph = graph.without_aux()
    text, states = torch_source(graph, ENDING if weights is not None else None)
    found = [path]
    if weights is not None:
        beside = path.with_suffix(ENDING)
        save(beside, {theirs: weights[ours] for theirs, ours in states}, {"net": graph.name})
        found.append(beside)
    with replacing(path) as file:
        file.write(text.encode())
    return found


def torch_source(
    graph: Graph, ending: str | None = None
) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The source of the net's module, and pairs of its state dict's names and our parameters.

    ending: what the weights' file ends with that the source's `load` reads; None for no `load`.
    """
    root = tree(graph)
    recorder = Recorder()
    _, calls = classes(graph, root, layers, recorder, class_name)
    body(graph, root, calls, layers, recorder)
    names = Names(TAKEN)
    name = names.fresh(class_name(graph.name))
    folder = Folder(recorder.frequent(), names)
    found, calls = classes(graph, root, layers, folder, lambda b: names.fresh(class_name(b)))
    made = body(graph, root, calls, layers, folder)
    text = source(graph, name, [*folder.classes.values(), *found], made, ending)
    return text, made.states()
