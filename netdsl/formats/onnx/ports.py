"""What a model becomes, and how its inputs and outputs relate to ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from netdsl.faults import error
from netdsl.formats.onnx.step import Array
from netdsl.formats.onnx.view import N, View
from netdsl.graph import Graph
from netdsl.ops import Shape

LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Port:
    """An input or output of the model, and how its arrays relate to our node's.

    name: the model's. node: ours. view: how the model's tensor looks at an array (N, *shape).
    relaid: for an input that the net reads in another layout, how that looks at it.
    """

    name: str
    node: str
    view: View
    shape: Shape
    dtype: npt.DTypeLike
    relaid: View | None = None

    def taken(self, values: Array) -> Array:
        """The model's array, for this input, as our node's: (N, C, *spatial), float32.

        Raises NetError for a number that single precision does not hold.
        """
        if values.dtype == np.float64 and (np.isfinite(values) & (np.abs(values) > LARGEST)).any():
            raise error("too-large", f"{self.name} holds numbers beyond single precision")
        own = values.reshape(len(values) if N in self.view.atoms else 1, *self.shape)
        own = own if self.relaid is None else self.relaid.own_order(own)
        return np.ascontiguousarray(own, np.float32)

    def given(self, values: Array) -> Array:
        """Our node's array (N, C, *spatial) as the model's, for this output."""
        found = self.view.own_order(values)
        if np.issubdtype(self.dtype, np.integer):
            found = np.rint(found)
        return found.astype(self.dtype, copy=False)


@dataclass(frozen=True)
class Imported:
    """What a model becomes. `origins`: for each node of the graph the ONNX node it is from."""

    graph: Graph
    weights: dict[str, npt.NDArray[np.float32]]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    origins: Mapping[str, str]
