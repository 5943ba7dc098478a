"""All parameters of a net in one flat vector, so that an optimiser takes one pass over them.

Each parameter begins on a block of 16 floats (64 bytes), and what is left of its last block stays
zero: no optimiser moves a zero whose gradient is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from netdsl.cpu.backward.update import BLOCK
from netdsl.graph import Graph
from netdsl.ops import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, PRelu, Shape

Vector = NDArray[np.float32]
UNDECAYED = (BatchNorm, GroupNorm, InstanceNorm, LayerNorm, PRelu)


@dataclass(frozen=True)
class Place:
    """Where a parameter lies: from which element, and its shape."""

    start: int
    shape: Shape

    @property
    def size(self) -> int:
        return prod(self.shape)


class Places:
    """Where each learned parameter of a graph lies in the flat vector."""

    def __init__(self, graph: Graph) -> None:
        self.places: dict[str, Place] = {}
        self.decayed: set[str] = set()
        end = 0
        for node in graph:
            for parameter in graph.parameters(node):
                if not parameter.trainable:
                    continue
                name = f"{node.name}.{parameter.name}"
                self.places[name] = Place(end, parameter.shape)
                end += -(-parameter.size // BLOCK) * BLOCK
                if parameter.role == "weight" and not isinstance(node.op, UNDECAYED):
                    self.decayed.add(name)
        self.length = end

    def vector(self, arrays: Mapping[str, NDArray[np.float32]] | None = None) -> Vector:
        """A vector of zeros, or of these parameters."""
        vector = aligned(self.length)
        if arrays is not None:
            for name, view in self.views(vector).items():
                view[...] = arrays[name]
        return vector

    def views(self, vector: Vector) -> dict[str, NDArray[np.float32]]:
        """Each parameter of a vector in its own shape, on the same memory."""
        return {
            name: vector[place.start : place.start + place.size].reshape(place.shape)
            for name, place in self.places.items()
        }

    def decay(self, amount: float, everywhere: bool = False) -> Vector:
        """The weight decay of each block: not on norms and biases unless `everywhere`."""
        blocks = np.zeros(self.length // BLOCK, np.float32)
        for name, place in self.places.items():
            if everywhere or name in self.decayed:
                start = place.start // BLOCK
                blocks[start : start + -(-place.size // BLOCK)] = amount
        return blocks


def statistics_of(graph: Graph, start: int) -> dict[str, Place]:
    """Where the parameters that are not learned lie, from `start` on."""
    found = {}
    for name, parameter in graph.all_parameters().items():
        if not parameter.trainable:
            found[name] = Place(start, parameter.shape)
            start += -(-parameter.size // BLOCK) * BLOCK
    return found


def aligned(count: int, alignment: int = 64) -> Vector:
    """`count` zeros whose memory begins at a multiple of `alignment` bytes."""
    raw = np.zeros(count * 4 + alignment, np.uint8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + count * 4].view(np.float32)
