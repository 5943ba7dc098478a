"""What can be wrong with an ONNX model."""

from __future__ import annotations

from netdsl.faults import NetError, error


class Unsupported(Exception):  # noqa: N818 - the model is not at fault
    """A node that the language has no op for; the reader gathers them and lists them all."""


def broken(message: str) -> NetError:
    """The error for a file that contradicts itself or is cut off."""
    return error("bad-onnx", message)
