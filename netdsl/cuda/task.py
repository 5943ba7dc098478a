"""What the planning of one node knows and is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netdsl.cuda.layout import ALIGN, Buffer, Floats, axes
from netdsl.cuda.rounding import rounded_words
from netdsl.graph import Node
from netdsl.graph.fused import Fused, parts
from netdsl.ops import Shape

Ints = NDArray[np.int32]


class Params:
    """All weights of a plan while it is made, and the numbers that kernels want besides."""

    def __init__(self) -> None:
        self._pieces: list[Floats] = []
        self.floats = 0

    def add(self, values: NDArray[np.floating] | Iterable[float]) -> int:
        """Where these values will lie."""
        given = values if isinstance(values, np.ndarray) else list(values)
        flat = np.ascontiguousarray(given, np.float32).reshape(-1)
        start = self.take(flat.size)
        self._pieces += [flat, np.zeros(self.floats - start - flat.size, np.float32)]
        return start

    def add_words(self, values: Floats, precision: str) -> int:
        """Where these will lie, rounded to a precision: rows of values (rows, n), n even."""
        return self.add(rounded_words(values, precision))

    def take(self, floats: int) -> int:
        """Where room for so many floats is from now on; what is put there is another's to say."""
        start = self.floats
        self.floats += floats + -floats % ALIGN
        return start

    def joined(self) -> Floats:
        """All in one array."""
        return np.concatenate([np.zeros(0, np.float32), *self._pieces])


class Descriptors:
    """All descriptors and tables of a plan while it is made, one array of int32.

    Until then numbers may be larger: whether a plan's places can be told in 32 bits is known, and
    said, once all of it is laid out.
    """

    def __init__(self) -> None:
        self._pieces: list[NDArray[np.integer]] = []
        self.count = 0

    def add(self, values: Iterable[int] | NDArray[np.integer], align: int = 1) -> int:
        """Where these values will lie: at a multiple of `align`."""
        given = values if isinstance(values, np.ndarray) else np.array(list(values), np.int64)
        piece = given.reshape(-1)
        spare = -self.count % align
        self._pieces.append(np.zeros(spare, np.int32))
        self.count += spare
        start = self.count
        self._pieces.append(piece)
        self.count += piece.size
        return start

    def joined(self) -> Ints:
        """All in one array. Raises OverflowError where a number needs more than 32 bits."""
        whole = np.concatenate([np.zeros(0, np.int32), *self._pieces])
        told = whole.astype(np.int32)
        if not np.array_equal(told, whole):
            raise OverflowError("a descriptor holds a number of more than 32 bits")
        return told


@dataclass(frozen=True)
class Task:
    """A node to be planned.

    shapes: its inputs', without the batch. inputs, output: where its tensors lie. scratch: gives
    the place of so many floats that the node alone uses while it runs. weights: by parameter name.
    processors: the device's multiprocessors. precision: what factors may be rounded to. exact:
    whether sums are of the products alone, not by Winograd's algorithm. bandwidth: see launch.py.
    packed_input: where the first input lies packed, if that is to be read. packed_output: where the
    output is wanted packed, if it is; `output` lies nowhere if it is wanted so alone.
    """

    node: Node
    shapes: tuple[Shape, ...]
    batch: int
    processors: int
    inputs: tuple[Buffer, ...]
    output: Buffer
    scratch: Callable[[int], int]
    weights: Mapping[str, Floats]
    params: Params
    ints: Descriptors
    precision: str = "fp32"
    exact: bool = True
    bandwidth: float = 0.0
    packed_input: Buffer | None = None
    packed_output: Buffer | None = None

    @property
    def whole(self) -> Fused:
        """The node's op with what is fused into it."""
        return parts(self.node)

    @property
    def made(self) -> tuple[int, int, int]:
        """The axes of what the node's op makes, before it is pooled."""
        pooled = self.whole.pool is not None
        return axes(self.whole.made(self.shapes)[1:], 1) if pooled else self.output.size
