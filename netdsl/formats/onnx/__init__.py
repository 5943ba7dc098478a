"""ONNX models in and out. Needs the extra `onnx`."""

from __future__ import annotations

from netdsl.faults import error

try:
    import onnx as _onnx
except ImportError:
    raise error(
        "no-onnx", "the package onnx is not installed", help="pip install 'netdsl[onnx]'"
    ) from None

from netdsl.formats.onnx.ports import Imported, Port
from netdsl.formats.onnx.read import import_onnx, read_onnx
from netdsl.formats.onnx.write import to_onnx, write_onnx

del _onnx

__all__ = ["Imported", "Port", "import_onnx", "read_onnx", "to_onnx", "write_onnx"]
