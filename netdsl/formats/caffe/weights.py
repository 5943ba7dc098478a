"""The weights in a .caffemodel, by the names of its layers: `conv1.weight`, `conv1.bias`."""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from netdsl.faults import error
from netdsl.formats.caffe.message import Message, broken
from netdsl.formats.caffe.schema import NET, OLD_TYPES
from netdsl.formats.caffe.wire import Decoder, Run
from netdsl.formats.finite import check_finite
from netdsl.ops import Shape

Array = NDArray[np.float32]

NAMES = {"BatchNorm": ("mean", "var")}
"""What the blobs of a layer are; of most, the weight and the bias."""


def open_model(path: Path) -> Message:
    """The message in a .caffemodel, its weights left in the file. Raises NetError."""
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise broken(f"{path} is empty")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise error("no-such-file", f"there is no weights file {path}") from None
    except OSError as problem:
        raise error("unreadable", f"{path} cannot be read: {problem.strerror}") from None
    data = memoryview(mapped)
    return Decoder(data, str(path)).message(NET, 0, len(data))


@dataclass(frozen=True)
class Blob:
    """One blob: its numbers in the file, the shape that they have here."""

    run: Run
    shape: Shape
    factor: Run | None = None
    """A batch norm's statistics are kept as sums; this is what they are divided by."""
    turned: bool = False
    """An inner product's weights may be kept as (inputs, outputs)."""


class CaffeWeights:
    """An opened .caffemodel: the shapes of its tensors, and their numbers on demand.

    Raises NetError when made: no such file, not one of Caffe's, broken off, no weights.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.blobs: dict[str, Blob] = {}
        net = open_model(self.path)
        for layer in (*net.messages("layers"), *net.messages("layer")):
            kind = layer.text("type")
            self._add(layer, OLD_TYPES[kind][1] if kind in OLD_TYPES else kind)
        if not self.blobs:
            raise broken(f"{self.path} holds no weights")

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shape of each tensor, in the file's order."""
        return {name: blob.shape for name, blob in self.blobs.items()}

    def read(self, name: str) -> Array:
        """A tensor's numbers in single precision. Raises NetError for one that is not finite."""
        blob = self.blobs[name]
        values = blob.run.array()
        if blob.factor is not None:
            factor = float(blob.factor.array()[0])
            # Caffe: 0 for a norm that has seen no batch.
            values = values / np.float32(factor) if factor else np.zeros_like(values)
        if blob.turned:
            values = values.reshape(blob.shape[::-1]).T
        check_finite(values, f"{self.path}: {name}")
        return np.ascontiguousarray(values).reshape(blob.shape)

    def _add(self, layer: Message, kind: str) -> None:
        name = layer.text("name")
        blobs = [self._blob(blob, name) for blob in layer.messages("blobs")]
        if kind == "BatchNorm" and len(blobs) == 3:
            factor = blobs.pop().run
            blobs = [Blob(blob.run, blob.shape, factor) for blob in blobs]
        if kind == "InnerProduct":
            turned = layer.message("inner_product_param").flag("transpose", False)
            blobs = [_vector_layer(blob, turned) for blob in blobs]
        names = NAMES.get(kind, ("weight", "bias"))
        for i, blob in enumerate(blobs):
            called = f"{name}.{names[i]}" if i < len(names) else f"{name}.blob{i}"
            self.blobs[called] = blob if i == 0 or kind == "InnerProduct" else _flat(blob)

    def _blob(self, message: Message, name: str) -> Blob:
        runs = [v for n in ("data", "double_data") for v in message.fields.get(n, ())]
        if len(runs) != 1 or not isinstance(runs[0], Run):
            raise broken(f"{self.path}: a blob of {name} has {len(runs)} runs of numbers, not 1")
        run = runs[0]
        if "shape" in message:
            shape = tuple(message.message("shape").integers("dim"))
        else:
            old = ("num", "channels", "height", "width")
            shape = tuple(message.integer(n, 0) for n in old)
        if any(n < 1 for n in shape) or math.prod(shape) != len(run):
            said = "x".join(map(str, shape))
            raise broken(
                f"{self.path}: a blob of {name} says it is {said}, but holds {len(run):,} numbers"
            )
        return Blob(run, shape)


def _flat(blob: Blob) -> Blob:
    """A bias, a statistic: Caffe of old gave everything four axes."""
    return Blob(blob.run, (len(blob.run),), blob.factor)


def _vector_layer(blob: Blob, turned: bool) -> Blob:
    shape = blob.shape
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) == 2 and shape[0] == 1 and len(blob.shape) == 4 and blob.shape[:3] == (1, 1, 1):
        shape = shape[1:]
    if turned and len(shape) == 2:
        return Blob(blob.run, shape[::-1], turned=True)
    return Blob(blob.run, shape)
