"""Tensors of an ONNX file as arrays, with every size checked before memory is taken.

A tensor's data lies in the file or in another file beside it. Either way its length must be what
its dimensions say, so that no file can ask for more memory than it has bytes.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from netdsl.faults import error
from netdsl.formats.onnx.faults import broken

Array = npt.NDArray[Any]

FIELDS: dict[int, str] = {
    TensorProto.FLOAT: "float_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.INT64: "int64_data",
    TensorProto.UINT32: "uint64_data",
    TensorProto.UINT64: "uint64_data",
    **dict.fromkeys(
        (
            TensorProto.INT32,
            TensorProto.INT16,
            TensorProto.INT8,
            TensorProto.UINT16,
            TensorProto.UINT8,
            TensorProto.BOOL,
            TensorProto.FLOAT16,
            TensorProto.BFLOAT16,
        ),
        "int32_data",
    ),
}
"""The types that are read, and the field that holds a tensor's values where no bytes do."""


def array(tensor: TensorProto, folder: Path | None) -> Array:
    """The values of a tensor. `folder` is where the model's file lies, for external data.

    Raises NetError: an unknown type, a size that its data do not have, external data that are
    missing, too short or outside the folder.
    """
    name = tensor.name or "a constant"
    if tensor.data_type not in FIELDS:
        known = tensor.data_type in TensorProto.DataType.values()
        kind = TensorProto.DataType.Name(tensor.data_type) if known else str(tensor.data_type)
        raise broken(f"{name} holds values of type {kind}, which are no numbers known here")
    dims = tuple(tensor.dims)
    if any(d < 0 for d in dims):
        raise broken(f"{name} has a negative size: {dims}")
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    count, width = prod(dims), np.dtype(kind).itemsize
    if tensor.data_location == TensorProto.EXTERNAL:
        return _external(tensor, name, folder, count, np.dtype(kind)).reshape(dims)
    if tensor.HasField("raw_data"):
        _same(name, dims, count * width, len(tensor.raw_data), "bytes")
    else:
        _same(name, dims, count, len(getattr(tensor, FIELDS[tensor.data_type])), "values")
    return np.asarray(numpy_helper.to_array(tensor))


def _same(name: str, dims: tuple[int, ...], wanted: int, found: int, what: str) -> None:
    if wanted != found:
        shape = "x".join(map(str, dims))
        raise broken(f"{name} says it is {shape}, which takes {wanted} {what}, but holds {found}")


def _external(
    tensor: TensorProto, name: str, folder: Path | None, count: int, kind: np.dtype[Any]
) -> Array:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise broken(f"{name} lies in another file ({location}), and there is no folder to look in")
    path = _inside(folder, location, name)
    try:
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", count * kind.itemsize))
    except ValueError:
        raise broken(f"{name}: the place in {location} is no number") from None
    _same(name, tuple(tensor.dims), count * kind.itemsize, length, "bytes")
    size = path.stat().st_size
    if offset < 0 or offset + length > size:
        raise broken(
            f"{name} lies at bytes {offset} to {offset + length} of {location}, which has {size}"
        )
    return np.fromfile(path, kind, count, offset=offset)


def _inside(folder: Path, location: str, name: str) -> Path:
    """The file of external data: one that lies in the model's own folder, links followed."""
    root = folder.resolve()
    try:
        path = (root / location).resolve()
        fine = bool(location) and path.is_relative_to(root) and path.is_file()
    except (OSError, ValueError):
        fine = False
    if fine:
        return path
    outside = ".." in Path(location).parts or Path(location).is_absolute()
    what = "is outside the model's folder" if outside else "is no file in the model's folder"
    raise error("bad-onnx", f"{name} has its values in {location!r}, which {what}")
