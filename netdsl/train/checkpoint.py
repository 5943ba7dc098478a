"""Checkpoints: everything that training needs to go on as if it had never stopped.

A checkpoint is one safetensors file, so it is whole or not there: weights as `weights/NAME`, what
the optimiser remembers as `SLOT/NAME`, and in the header's metadata, as JSON, the settings and
where training stood.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.faults import error
from netdsl.formats.safetensors import WeightsFile, save
from netdsl.graph import Graph
from netdsl.ops import show

KEY = "netdsl.training"
WEIGHTS = "weights/"

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds: weights and the optimiser's vectors by name, and the facts."""

    weights: dict[str, Floats]
    state: dict[str, Floats]
    facts: dict[str, Any]


def save_checkpoint(
    path: Path,
    weights: Mapping[str, Floats],
    state: Mapping[str, Floats],
    facts: Mapping[str, Any],
) -> None:
    """Writes a checkpoint beside and renames it; an old one stays until the new one is whole.

    facts: the net's name, settings, and where training stands; anything JSON can hold. Raises
    NetError where it cannot be written.
    """
    tensors = {WEIGHTS + name: value for name, value in weights.items()}
    save(path, {**tensors, **state}, {KEY: json.dumps(dict(facts))})


def read_checkpoint(path: Path, graph: Graph) -> Checkpoint:
    """The checkpoint in a file, if it is this net's.

    Raises NetError: no such file, broken off or no checkpoint, of another net.
    """
    file = WeightsFile(path)
    text = _metadata(path).get(KEY)
    if text is None:
        raise error(
            "not-a-checkpoint",
            f"{path} is no checkpoint: it holds weights alone",
            help=f"--weights {path} begins from them",
        )
    facts = json.loads(text)
    _check(path, facts, file.shapes, graph)
    tensors = {name: file.read(name) for name in file.tensors}
    weights = {
        name.removeprefix(WEIGHTS): value
        for name, value in tensors.items()
        if name.startswith(WEIGHTS)
    }
    state = {name: value for name, value in tensors.items() if not name.startswith(WEIGHTS)}
    return Checkpoint(weights, state, facts)


def _metadata(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        found = json.loads(file.read(length)).get("__metadata__", {})
    return dict(found)


def _check(
    path: Path, facts: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], graph: Graph
) -> None:
    """That a checkpoint is of this net. Raises NetError."""
    held = {n.removeprefix(WEIGHTS): s for n, s in shapes.items() if n.startswith(WEIGHTS)}
    wanted = {name: parameter.shape for name, parameter in graph.all_parameters().items()}
    if facts.get("net") == graph.name and held == wanted:
        return
    what = f"{path} is a checkpoint of the net {facts.get('net')}"
    if facts.get("net") != graph.name:
        raise error("wrong-checkpoint", f"{what}, not of {graph.name}")
    for name, shape in wanted.items():
        if held.get(name) != shape:
            found = f"has it as {show(held[name])}" if name in held else "lacks it"
            raise error(
                "wrong-checkpoint",
                f"{what} as it was: {name} is {show(shape)} now, the checkpoint {found}",
            )
    extra = next(name for name in held if name not in wanted)
    raise error("wrong-checkpoint", f"{what} as it was: {extra} is not in it any more")
