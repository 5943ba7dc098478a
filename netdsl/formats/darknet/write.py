"""From a graph to Darknet's files: a .cfg and, with weights, a .weights beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.faults import error
from netdsl.formats.atomic import replacing
from netdsl.formats.darknet.read import ACTIVATIONS
from netdsl.formats.darknet.shortcut import is_fitting
from netdsl.formats.darknet.weights import save_weights
from netdsl.formats.imported import Trouble, Unsupported
from netdsl.graph import Graph, Node
from netdsl.graph.passes import sole
from netdsl.ops import (
    Activation,
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Dropout,
    Flatten,
    GlobalAverage,
    Linear,
    LocalResponseNorm,
    MaxPool,
    Op,
    Shape,
    Softmax,
    Upsample,
    Window,
)

Weights = Mapping[str, NDArray[np.float32]]

Settings = dict[str, int | float | str]

NAMES = {op: name for name, op in ACTIVATIONS.items()}


def write_darknet(graph: Graph, weights: Weights | None, path: Path) -> list[Path]:
    """Writes the net as a .cfg, and weights into a .weights beside it.

    Auxiliary heads are left out. Returns the files written. Raises NetError: one that lists every
    op that Darknet lacks, or where a file cannot be written.
    """
    graph = graph.without_aux()
    cfg, numbers = path.with_suffix(".cfg"), path.with_suffix(".weights")
    text = Writing(graph).text()
    if weights is not None:
        save_weights(numbers, graph, weights)
    with replacing(cfg) as file:
        file.write(text.encode())
    if weights is None:
        return [cfg]
    return [cfg, numbers]


class Writing:
    """A graph on its way to sections. `at` is for each node the number of the section it is."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.sections: list[tuple[str, Settings]] = []
        self.at: dict[str, int] = {}
        self.fitted: set[str] = set()
        self.trouble = Trouble()

    def text(self) -> str:
        """The whole .cfg. Raises NetError that lists what Darknet lacks."""
        graph = self.graph
        shape = graph[graph.inputs[0]].shape
        if len(graph.inputs) != 1 or len(shape) != 3 or len(graph.outputs) != 1:
            raise error(
                "darknet-ops",
                f"{graph.name}: a net of Darknet takes one picture and gives one result",
            )
        self.at[graph.inputs[0]] = -1
        for node in graph:
            if node.name in self.at:
                continue
            try:
                self._node(node)
            except Unsupported as why:
                self.trouble.add(node.op.word(), node.name, str(why))
                self._named(node.name)
        self.trouble.check("darknet-ops", graph.name, "Darknet")
        self._from(graph.outputs[0])
        head: Settings = {"batch": 1, "channels": shape[0], "height": shape[1], "width": shape[2]}
        return "\n".join(
            _written(kind, settings) for kind, settings in [("net", head), *self.sections]
        )

    def _named(self, *names: str) -> None:
        """These nodes are the section written last."""
        self.at.update(dict.fromkeys(names, len(self.sections) - 1))

    def _from(self, name: str) -> None:
        """Makes a node the last section's output, by a route where it is not."""
        if self.at[name] == len(self.sections) - 1:
            return
        if self.at[name] < 0:
            raise Unsupported("Darknet reads the picture only at the beginning")
        self.sections.append(("route", {"layers": self.at[name]}))

    def _node(self, node: Node) -> None:
        op = node.op
        if isinstance(op, Flatten):
            # Darknet keeps everything flat.
            self.at[node.name] = self.at[node.inputs[0]]
        elif is_fitting(self.graph, node) and self.at[node.inputs[0]] >= 0:
            # The shortcut does it by itself.
            self.at[node.name] = self.at[node.inputs[0]]
            self.fitted.add(node.name)
        elif isinstance(op, Concat):
            places = [self.at[name] for name in node.inputs]
            if min(places) < 0:
                raise Unsupported("Darknet reads the picture only at the beginning")
            self.sections.append(("route", {"layers": ",".join(map(str, places))}))
            self._named(node.name)
        elif isinstance(op, Add):
            self._sum(node)
        elif type(op) in TABLE or (isinstance(op, Activation) and op in NAMES):
            self._single(node)
        else:
            raise Unsupported("Darknet has no such layer")

    def _single(self, node: Node) -> None:
        """A layer of one input, with the norm and the activation that follow it."""
        op = node.op
        if isinstance(op, Activation) and not isinstance(op, Softmax):
            kind, settings = "activation", Settings({"activation": str(NAMES[op])})
        else:
            kind, settings = TABLE[type(op)](op, self.graph.input_shapes(node))
        self._from(node.inputs[0])
        members = [node]
        if isinstance(op, Conv | ConvTranspose | Linear):
            members += self._norm(node, settings)
            members += self._activation(members[-1], settings)
        self.sections.append((kind, settings))
        self._named(*(member.name for member in members))

    def _norm(self, node: Node, settings: Settings) -> list[Node]:
        assert isinstance(node.op, Conv | ConvTranspose | Linear)
        reader = self._sole_reader(node)
        if reader is not None and isinstance(reader.op, BatchNorm) and reader.op.affine:
            if node.op.bias:
                raise Unsupported("Darknet has no bias before a norm")
            settings["batch_normalize"] = 1
            return [reader]
        if not node.op.bias:
            raise Unsupported("Darknet's layers without a norm have a bias")
        return []

    def _activation(self, node: Node, settings: Settings) -> list[Node]:
        """The activation that alone reads a node, as a setting of its section."""
        reader = self._sole_reader(node)
        name = NAMES.get(reader.op) if reader and isinstance(reader.op, Activation) else None
        settings["activation"] = name or "linear"
        return [reader] if reader is not None and name else []

    def _sole_reader(self, node: Node) -> Node | None:
        return self.graph[self.graph.consumers[node.name][0]] if sole(self.graph, node) else None

    def _sum(self, node: Node) -> None:
        first, *rest = sorted(node.inputs, key=lambda name: (name in self.fitted, -self.at[name]))
        if first in self.fitted:
            raise Unsupported("Darknet fits a shortcut to a layer, not to another shortcut")
        if self.at[node.inputs[-1]] < 0 or self.at[rest[-1]] < 0:
            raise Unsupported("Darknet reads the picture only at the beginning")
        self._from(first)
        settings: Settings = {}
        for i, name in enumerate(rest):
            settings = {"from": self.at[name], "activation": "linear"}
            if i < len(rest) - 1:
                self.sections.append(("shortcut", settings))
        absorbed = self._activation(node, settings)
        self.sections.append(("shortcut", settings))
        self._named(node.name, *(member.name for member in absorbed))


def _written(kind: str, settings: Settings) -> str:
    lines = [f"{name}={value}\n" for name, value in settings.items()]
    return f"[{kind}]\n{''.join(lines)}"


# Ops ----------------------------------------------------------------------------------------------


def _square(window: Window) -> tuple[int, int]:
    """Size and stride, where both axes have the same."""
    if len(window.kernel) != 2 or len(set(window.kernel)) > 1 or len(set(window.stride)) > 1:
        raise Unsupported("Darknet's windows are square")
    if any(d != 1 for d in window.dilation):
        raise Unsupported("Darknet has no dilation")
    return window.kernel[0], window.stride[0]


def _conv(op: Op, inputs: tuple[Shape, ...]) -> tuple[str, Settings]:
    assert isinstance(op, Conv | ConvTranspose)
    size, stride = _square(op.window)
    pads = {p for pair in op.window.padding for p in pair}
    if len(pads) > 1:
        raise Unsupported("Darknet pads all sides alike")
    settings: Settings = {"filters": op.filters, "size": size, "stride": stride}
    pad = pads.pop()
    settings |= {"pad": 1} if pad == size // 2 and pad else {"pad": 0, "padding": pad}
    if isinstance(op, ConvTranspose):
        if op.groups != 1 or any(op.out_pad):
            raise Unsupported("Darknet's has no groups and no out_pad")
        return "deconvolutional", settings
    if op.groups != 1:
        settings["groups"] = op.groups
    return "convolutional", settings


def _linear(op: Op, inputs: tuple[Shape, ...]) -> tuple[str, Settings]:
    assert isinstance(op, Linear)
    return "connected", {"output": op.filters}


def _maxpool(op: Op, inputs: tuple[Shape, ...]) -> tuple[str, Settings]:
    """Darknet is told the padding of both sides in all, of which half is before."""
    assert isinstance(op, MaxPool)
    size, stride = _square(op.window)
    before = {lo for lo, _ in op.window.padding}
    wanted = op.window.output(inputs[0][1:])
    if len(before) == 1:
        least = 2 * before.pop()
        for total in (least, least + 1):
            if tuple((n + total - size) // stride + 1 for n in inputs[0][1:]) == wanted:
                return "maxpool", {"size": size, "stride": stride, "padding": total}
    raise Unsupported("Darknet splits padding evenly")


def _average(op: Op, inputs: tuple[Shape, ...]) -> tuple[str, Settings]:
    whole = not isinstance(op, AveragePool) or op.window.kernel == inputs[0][1:]
    if len(inputs[0]) != 3 or not whole:
        raise Unsupported("Darknet averages only over the whole of a picture")
    if isinstance(op, AveragePool) and any(map(any, op.window.padding)):
        raise Unsupported("Darknet pads no average")
    return "avgpool", {}


def _response(op: Op, inputs: tuple[Shape, ...]) -> tuple[str, Settings]:
    """Darknet's alpha is not divided by the window."""
    assert isinstance(op, LocalResponseNorm)
    alpha = float(f"{op.alpha / op.size:.9g}")
    return "normalization", {"alpha": alpha, "beta": op.beta, "kappa": op.k, "size": op.size}


def _upsample(op: Op, inputs: tuple[Shape, ...]) -> tuple[str, Settings]:
    assert isinstance(op, Upsample)
    if op.mode != "nearest" or len(set(op.factor)) > 1 or len(op.factor) != 2:
        raise Unsupported("Darknet repeats both axes alike")
    return "upsample", {"stride": op.factor[0]}


def _dropout(op: Op, inputs: tuple[Shape, ...]) -> tuple[str, Settings]:
    assert isinstance(op, Dropout)
    return "dropout", {"probability": op.rate}


def _softmax(op: Op, inputs: tuple[Shape, ...]) -> tuple[str, Settings]:
    if any(n > 1 for n in inputs[0][1:]):
        raise Unsupported("Darknet's goes over everything, not over channels")
    return "softmax", {"groups": 1}


TABLE: dict[type[Any], Callable[[Op, tuple[Shape, ...]], tuple[str, Settings]]] = {
    Conv: _conv,
    ConvTranspose: _conv,
    Linear: _linear,
    MaxPool: _maxpool,
    AveragePool: _average,
    GlobalAverage: _average,
    LocalResponseNorm: _response,
    Upsample: _upsample,
    Dropout: _dropout,
    Softmax: _softmax,
}
