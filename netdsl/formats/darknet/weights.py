"""Darknet's .weights: no names, but the numbers of each layer in the order of the net.

A header of int32 major, minor, revision, then how many pictures were seen. A convolution: biases,
then, with batch norm, scales, means, variances, then the weights (filters, channels / groups, k,
k). A connected layer: biases, weights, then the norm's; some old files have its weights turned.

Darknet divides by sqrt(var) + 1e-6, the language by sqrt(var + eps). Variances are changed on the
way in and out so that both come to the same; everything else keeps every bit.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from netdsl.faults import error
from netdsl.formats.atomic import replacing
from netdsl.formats.darknet.sections import broken
from netdsl.formats.darknet.shortcut import is_fitting, ones
from netdsl.formats.finite import check_finite
from netdsl.graph import Graph, Node
from netdsl.ops import BatchNorm, Conv, ConvTranspose, Linear, Shape

Array = NDArray[np.float32]

LITTLE = 1e-6
"""What Darknet adds to a deviation."""

VERSION = (0, 2, 0)
"""The version written: the one of Darknet's own files, with a long count of pictures."""


@dataclass(frozen=True)
class Layer:
    """A layer with numbers, and the batch norm that follows it."""

    node: Node
    norm: Node | None

    def parts(self, graph: Graph) -> Iterator[tuple[str, Shape]]:
        """The parameters in the file's order, with their shapes."""
        shapes = {f"{self.node.name}.{p.name}": p.shape for p in graph.parameters(self.node)}
        weight = f"{self.node.name}.weight"
        norms = []
        if self.norm is not None:
            own = {p.name: p.shape for p in graph.parameters(self.norm)}
            yield f"{self.norm.name}.bias", own["bias"]
            norms = [(f"{self.norm.name}.{n}", own[n]) for n in ("weight", "mean", "var")]
        elif f"{self.node.name}.bias" in shapes:
            yield f"{self.node.name}.bias", shapes[f"{self.node.name}.bias"]
        if isinstance(self.node.op, Linear):
            yield weight, shapes[weight]
            yield from norms
        else:
            yield from norms
            yield weight, shapes[weight]


def layers(graph: Graph) -> list[Layer]:
    """The layers with numbers, in order.

    Raises NetError for one that Darknet has no place for.
    """
    found: list[Layer] = []
    norms: set[str] = set()
    for node in graph.without_aux():
        if is_fitting(graph, node):
            continue
        if isinstance(node.op, Conv | ConvTranspose | Linear):
            readers = [graph[n] for n in graph.consumers[node.name]]
            norm = readers[0] if len(readers) == 1 and _is_norm(readers[0]) else None
            if (norm is None) != node.op.bias:
                why = "a bias before its norm" if norm is not None else "no bias"
                raise error("darknet-ops", f"{node.name} has {why}, which no layer of Darknet has")
            found.append(Layer(node, norm))
            norms |= {norm.name} if norm is not None else set()
        elif graph.parameters(node) and node.name not in norms:
            word = node.op.word()
            raise error("darknet-ops", f"{node.name} ({word}) is no layer that Darknet has")
    return found


def _is_norm(node: Node) -> bool:
    return isinstance(node.op, BatchNorm) and node.op.affine


def read_weights(path: str | Path, graph: Graph) -> dict[str, Array]:
    """The weights of a graph's layers, in order, from a .weights file.

    Shortcuts between unequal shapes, which the file does not hold, get theirs. Raises NetError: no
    such file, one that holds
    more or fewer numbers than the net, or a number that is not finite.
    """
    path = Path(path)
    every = layers(graph)
    parts = [(name, shape, layer) for layer in every for name, shape in layer.parts(graph)]
    try:
        with path.open("rb") as file:
            header = file.read(20)
        size = path.stat().st_size
    except FileNotFoundError:
        raise error("no-such-file", f"there is no weights file {path}") from None
    except OSError as problem:
        raise error("unreadable", f"{path} cannot be read: {problem.strerror}") from None
    start, turned = _header(header, path)
    wanted = sum(prod(shape) for _, shape, _ in parts)
    if size - start != 4 * wanted:
        raise error(
            "weights-mismatch",
            f"{path} holds {(size - start) / 4:,.10g} numbers, the layers of {graph.name} take "
            f"{wanted:,}",
        )
    flat = np.memmap(path, np.dtype("<f4"), "r", start, (wanted,)).view(np.ndarray)
    return _parted(flat, parts, turned, path) | _shortcuts(graph)


def _shortcuts(graph: Graph) -> dict[str, Array]:
    found = {}
    for node in graph.without_aux():
        if is_fitting(graph, node):
            assert isinstance(node.op, Conv)
            found[f"{node.name}.weight"] = ones(node.op, graph.input_shapes(node)[0][0])
    return found


def _header(data: bytes, path: Path) -> tuple[int, bool]:
    """Where the numbers begin, and whether connected layers' weights are turned."""
    if len(data) < 16:
        raise broken(f"{path} is no .weights file of Darknet: it has {len(data)} bytes")
    major, minor, _ = struct.unpack("<3i", data[:12])
    known = 0 <= major < 1000 and 0 <= minor < 1000
    long = known and 10 * major + minor >= 2
    return (20 if long else 16), major > 1000 or minor > 1000


def _parted(
    flat: Array, parts: list[tuple[str, Shape, Layer]], turned: bool, path: Path
) -> dict[str, Array]:
    found: dict[str, Array] = {}
    at = 0
    for name, shape, layer in parts:
        values = flat[at : at + prod(shape)]
        at += prod(shape)
        if turned and isinstance(layer.node.op, Linear) and len(shape) == 2:
            values = values.reshape(shape[::-1]).T
        values = np.ascontiguousarray(values).reshape(shape)
        check_finite(values, f"{path}: {name}")
        if layer.norm is not None and name == f"{layer.norm.name}.var":
            assert isinstance(layer.norm.op, BatchNorm)
            values = ours(values, layer.norm.op.eps)
        found[name] = values
    return found


def ours(variances: Array, eps: float) -> Array:
    """The variance whose root with eps is Darknet's root and a little, in single precision.

    Of the nearest numbers that one which `theirs` turns back into the same bits, where there is.
    """
    wide = np.maximum(variances.astype(np.float64), 0)
    best = ((np.sqrt(wide) + LITTLE) ** 2 - eps).astype(np.float32)
    for near in (best, np.nextafter(best, np.float32(np.inf)), np.nextafter(best, -np.float32(1))):
        wrong = theirs(best, eps) != variances
        best = np.where(wrong & (theirs(near, eps) == variances), near, best)
    return best


def theirs(variances: Array, eps: float) -> Array:
    """The variance of Darknet's that comes to the same as ours with eps."""
    root = np.sqrt(np.maximum(variances.astype(np.float64) + eps, 0)) - LITTLE
    return np.asarray(np.maximum(root, 0) ** 2, np.float32)


def save_weights(path: Path, graph: Graph, weights: Mapping[str, Array]) -> None:
    """Writes a graph's weights as a .weights file. Raises NetError."""
    every = layers(graph)
    for name, wanted in _shortcuts(graph).items():
        if not np.array_equal(weights[name], wanted):
            raise error(
                "darknet-ops",
                f"{name} weighs channels, which no shortcut of Darknet does",
            )
    with replacing(path) as file:
        file.write(struct.pack("<3iq", *VERSION, 0))
        for layer in every:
            for name, _ in layer.parts(graph):
                values = weights[name]
                if layer.norm is not None and name == f"{layer.norm.name}.var":
                    assert isinstance(layer.norm.op, BatchNorm)
                    values = theirs(values, layer.norm.op.eps)
                file.write(np.ascontiguousarray(values, "<f4").data)
