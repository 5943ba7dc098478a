"""Weights in the safetensors format: read tensor by tensor, written beside and renamed.

The library checks the header; the numbers are then mapped from the file, so that a large file
costs memory only for the tensors that were asked for.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from netdsl.faults import NetError, error
from netdsl.formats.atomic import replacing
from netdsl.formats.finite import check_finite
from netdsl.ops import Shape, show

KINDS: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
}
"""How the numbers of each kind lie in the file; I64 is for counters such as torchvision's."""

LARGEST_HEADER = 100_000_000
"""Bytes of header that the format allows."""


class Tensor(NamedTuple):
    """A tensor in the file: its kind of number, its shape, where its bytes begin."""

    kind: str
    shape: Shape
    start: int


class WeightsFile:
    """An opened weights file: the shapes of its tensors, and their numbers on demand.

    Raises NetError when made: no such file, not safetensors, broken off, corrupt.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.tensors = _tensors(self.path)

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shape of each tensor, in the order of the file's header."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    def read(self, name: str) -> NDArray[np.float32]:
        """A tensor's numbers in single precision; the file's own pages where it is float32.

        Raises NetError: a kind of number that weights do not have, or one that is not finite.
        """
        tensor = self.tensors[name]
        if tensor.kind not in KINDS:
            known = ", ".join(k for k in KINDS if k != "I64")
            raise error("wrong-kind", f"{self.path}: {name} holds {tensor.kind}, not {known}")
        numbers = self._numbers(tensor)
        check_finite(numbers, f"{self.path}: {name}")
        return numbers

    @cached_property
    def _mapped(self) -> NDArray[np.uint8]:
        """The whole file, of which only what is read is in memory."""
        return np.memmap(self.path, np.uint8, "r").view(np.ndarray)

    def _numbers(self, tensor: Tensor) -> NDArray[np.float32]:
        kind = KINDS[tensor.kind]
        if 0 in tensor.shape:
            return np.zeros(tensor.shape, np.float32)
        end = tensor.start + math.prod(tensor.shape) * kind.itemsize
        content = self._mapped[tensor.start : end]
        flat = (content if tensor.start % kind.itemsize == 0 else content.copy()).view(kind)
        if tensor.kind == "BF16":
            # The upper half of a float32.
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        return flat.reshape(tensor.shape).astype(np.float32, copy=False)


def _tensors(path: Path) -> dict[str, Tensor]:
    """The file's header, checked. Raises NetError."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            begin = file.read(8)
            length = struct.unpack("<Q", begin)[0] if len(begin) == 8 else 0
            text = file.read(length) if 2 <= length <= LARGEST_HEADER else b""
    except FileNotFoundError:
        raise error("no-such-file", f"there is no weights file {path}") from None
    except OSError as problem:
        raise error("unreadable", f"{path} cannot be read: {problem.strerror}") from None
    header = _header(path, size, length, text)
    try:
        with safe_open(path, "numpy"):
            pass  # names, shapes and places agree with each other and the file's size
    except (SafetensorError, OSError) as problem:
        raise _broken(path, header, size - 8 - length, str(problem)) from None
    return {
        name: Tensor(entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0])
        for name, entry in header.items()
    }


def _header(path: Path, size: int, length: int, text: bytes) -> dict[str, Any]:
    if text[:1] != b"{":
        raise error(
            "not-weights",
            f"{path} is not a safetensors file",
            help="it is empty" if size == 0 else None,
        )
    if len(text) < length:
        raise error(
            "truncated",
            f"{path} is broken off within its header: {size:,} of at least {8 + length:,} bytes",
        )
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise error("not-weights", f"{path} is not a safetensors file, or corrupt") from None
    header.pop("__metadata__", None)
    return dict(header)


def _broken(path: Path, header: dict[str, Any], size: int, said: str) -> NetError:
    """Why the library refused a file: broken off, or a header that does not hold together."""
    try:
        needed = max(int(entry["data_offsets"][1]) for entry in header.values())
    except (KeyError, TypeError, IndexError, ValueError):
        needed = 0
    if needed > size:
        return error(
            "truncated", f"{path} is broken off: {size:,} of {needed:,} bytes of weights are there"
        )
    return error("corrupt", f"{path} is corrupt: {said}")


def save(
    path: Path, tensors: Mapping[str, NDArray[np.float32]], about: Mapping[str, str] | None = None
) -> None:
    """Writes tensors as a safetensors file, in this order, in single precision.

    Written beside and renamed: an old file stays until the new one is whole. Raises NetError where
    it cannot be written.
    """
    header: dict[str, Any] = {"__metadata__": dict(about)} if about else {}
    end = 0
    for name, array in tensors.items():
        start, end = end, end + 4 * array.size
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of 8
    with replacing(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array, "<f4").data)


def describe(name: str, shape: Shape) -> str:
    """A tensor as messages call it: `conv1.weight 64x3x7x7`."""
    return f"{name} {show(shape) or 'a single number'}"
