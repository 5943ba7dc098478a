"""From a file to a model that is safe to read."""

from __future__ import annotations

from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto

from netdsl.faults import error
from netdsl.formats.onnx.faults import broken
from netdsl.formats.onnx.wire import check

LARGEST = (1 << 31) - 1
"""Bytes of a protobuf message; larger models keep their weights in a file beside."""

OLDEST, NEWEST = 6, 28
"""Versions of ONNX's operators that are read."""


Source = str | Path | bytes | ModelProto
"""A file's path, a file's content, or a model that is loaded already."""


def load(source: Source) -> tuple[ModelProto, Path | None]:
    """The model, its functions written out, and the folder of its file.

    Raises NetError: no such file, not ONNX, cut off, too large, of an unknown version.
    """
    folder = None
    if isinstance(source, ModelProto):
        model = source
    elif isinstance(source, bytes):
        model = _parsed(source, said(source))
    else:
        path = Path(source)
        model, folder = _parsed(_content(path), str(path)), path.parent
    if not model.HasField("graph") or not model.opset_import:
        raise broken(f"{said(source)} is no ONNX model: it has no graph or no opset")
    if model.functions:
        model = _inlined(model)
    _check_names(model.graph)
    version = opset(model)
    if not OLDEST <= version <= NEWEST:
        raise error(
            "onnx-version",
            f"{said(source)} uses opset {version}; {OLDEST} to {NEWEST} are read",
            help="onnx.version_converter translates between opsets",
        )
    return model, folder


def opset(model: ModelProto) -> int:
    """The version of ONNX's own operators."""
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)


def _content(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise error("no-file", f"{path} is not a file")
        if size > LARGEST:
            raise broken(f"{path} has {size:,} bytes; an ONNX file has at most {LARGEST:,}")
        return path.read_bytes()
    except OSError as problem:
        raise error("no-file", f"cannot read {path}: {problem.strerror or problem}") from None


def _parsed(data: bytes, name: str) -> ModelProto:
    check(data, name)
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise broken(f"{name} is not an ONNX model, or is cut off") from None
    return model


def _check_names(graph: GraphProto) -> None:
    """Protobuf hands over text that is not UTF-8 as bytes; no honest name is such."""
    for node in graph.node:
        names = (node.name, node.op_type, node.domain, *node.input, *node.output)
        _check_text(*names, *(a.name for a in node.attribute))
    for values in (graph.input, graph.output, graph.initializer):
        _check_text(graph.name, *(value.name for value in values))


def _check_text(*names: object) -> None:
    for name in names:
        if not isinstance(name, str):
            raise broken(f"a name in the model is no text: {name!r:.60}")


def _inlined(model: ModelProto) -> ModelProto:
    from onnx import inliner

    try:
        return inliner.inline_local_functions(model)
    except Exception as problem:  # onnx raises what its C++ raises, RuntimeError among others
        raise broken(f"the model's functions cannot be written out: {problem}") from None


def said(source: Source) -> str:
    """What a model is called in messages."""
    return "the model" if isinstance(source, ModelProto | bytes) else str(source)
