"""One node of an ONNX graph, as the functions that read it see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from netdsl.formats.onnx.faults import Unsupported
from netdsl.formats.onnx.step import Array, Params, Step, Tensor, make, plain, tensor
from netdsl.ops import Op, Shape

Value = Tensor | Array
"""What a name of the ONNX graph stands for: a tensor, or an array known now."""


@dataclass(frozen=True)
class Call:
    """op: ONNX's operator. name: for messages and the map back. version: of the operator set.
    batch: the batch size that the model fixes. uses: how many of its outputs are read.
    implied: the inputs that our own writer filled in where a norm has no scale and shift.
    part: whether our own writer made it as a part of a layer."""

    op: str
    name: str
    inputs: Sequence[Value | None]
    attributes: Mapping[str, Any]
    version: int
    batch: int | None = None
    uses: int = 1
    implied: frozenset[int] = frozenset()
    part: bool = False

    # Inputs

    def given(self, i: int) -> bool:
        return i < len(self.inputs) and self.inputs[i] is not None

    def tensor(self, i: int = 0) -> Tensor:
        """Input i, which depends on the data. Raises Unsupported."""
        value = self.inputs[i] if i < len(self.inputs) else None
        if not isinstance(value, Tensor):
            raise Unsupported("it computes with constants alone")
        return value

    def plain(self, i: int = 0, rank: int | None = None) -> Step:
        """Input i as (N, C, *spatial), of this many axes without the batch."""
        step = plain(self.tensor(i))
        if rank is not None and len(step.shape) != rank:
            raise Unsupported(f"its input has {len(step.shape) + 1} axes, not {rank + 1}")
        return step

    def tensors(self) -> list[Tensor]:
        return [self.tensor(i) for i in range(len(self.inputs))]

    def constant(self, i: int, what: str) -> Array:
        """Input i, known now. Raises Unsupported for one that is computed or missing."""
        value = self.inputs[i] if i < len(self.inputs) else None
        if value is None:
            raise Unsupported(f"it has no {what}")
        if isinstance(value, Tensor):
            raise Unsupported(f"its {what} is computed from the data, not a constant")
        return value

    def optional(self, i: int, what: str) -> Array | None:
        return self.constant(i, what) if self.given(i) else None

    def parameter(self, i: int, what: str, shape: Shape | None = None) -> Array:
        """Input i as float32, of this shape."""
        value = self.constant(i, what)
        if shape is not None and value.shape != shape:
            raise Unsupported(f"its {what} has shape {value.shape}, not {shape}")
        return np.ascontiguousarray(value, np.float32)

    def scalar(self, i: int, what: str, default: float) -> float:
        value = self.optional(i, what)
        if value is None:
            return default
        if value.size != 1:
            raise Unsupported(f"its {what} is not one number")
        return float(value.reshape(()))

    # Attributes

    def attribute(self, name: str, default: Any) -> Any:
        return self.attributes.get(name, default)

    def number(self, name: str, default: float) -> float:
        """A float attribute, as the decimal that was meant: 0.1, not 0.10000000149."""
        value = self.attributes.get(name)
        return default if value is None else decimal(float(value))

    def axis(self, name: str, default: int, rank: int) -> int:
        value = int(self.attributes.get(name, default))
        if not -rank <= value < rank:
            raise Unsupported(f"its axis {value} is none of {rank}")
        return value % rank

    def ints(self, name: str, i: int | None = None) -> tuple[int, ...] | None:
        """A list of numbers: an attribute or, in later versions, input i."""
        if name in self.attributes:
            return tuple(int(v) for v in self.attributes[name])
        value = self.optional(i, name) if i is not None else None
        return None if value is None else tuple(int(v) for v in value.reshape(-1))

    # Results

    def step(self, op: Op, *inputs: Step, **params: Array) -> Tensor:
        """The tensor that a new step gives."""
        return tensor(self.new(op, *inputs, params=params), self.batch)

    def new(self, op: Op, *inputs: Step, params: Params | None = None) -> Step:
        return make(op, *inputs, params=params, origin=self.name)


Take = Callable[[Call], Value]
"""Reads a node: what its first output is. Raises Unsupported."""


def decimal(value: float) -> float:
    """The shortest decimal that is the same number in single precision."""
    single = np.float32(value)
    return float(str(single)) if np.isfinite(single) and float(single) == value else value
