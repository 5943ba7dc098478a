"""From the layers of a Caffe net to a graph.

A net is a list of layers that read and write blobs by name, in place where a layer's top is its
bottom. Both syntaxes are read (`layer` and the older `layers`), and both kinds of file: deploy, and
train_val, of which the test phase is taken and each loss is the end of a head.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from netdsl.faults import NetError, OpFault, error
from netdsl.formats.caffe.layers import DATA, JUDGES, TABLE, real
from netdsl.formats.caffe.message import Message, broken
from netdsl.formats.caffe.prototxt import read_text
from netdsl.formats.caffe.schema import OLD_TYPES
from netdsl.formats.imported import Array, Imported, Trouble, Unsupported, word
from netdsl.graph.build import GraphBuilder
from netdsl.ops import BatchNorm, Picture, Shape

MOST_LAYERS = 20_000

KEEP_SHAPES = frozenset(
    {"LRN", "Power", "AbsVal", "BNLL", "Exp", "Log", "MVN", "Threshold", "Clip"}
)

IMAGENET_MEAN = (104.0, 117.0, 123.0)
"""Blue, green, red: what Caffe's nets subtract where their file does not say."""

UNIT = 2.0**-17
"""An eps for which variance 1 - eps is a single-precision number: their sum is 1 exactly."""


@dataclass(frozen=True)
class Layer:
    """One layer: its name, its type as the new syntax calls it, its settings."""

    name: str
    kind: str
    message: Message

    @property
    def bottoms(self) -> list[str]:
        return self.message.texts("bottom")

    @property
    def tops(self) -> list[str]:
        return self.message.texts("top")


def read_caffe(path: str | Path, shape: Shape | None = None) -> Imported:
    """The net of a .prototxt file, or of a .caffemodel, which holds its own.

    shape: the input's (C, *spatial), where the file does not say it. Raises NetError: no such
    file, a fault of syntax, an input of unknown size, layers that do not fit; and one error that
    lists every layer that the language cannot say.
    """
    path = Path(path)
    if path.suffix == ".caffemodel":
        from netdsl.formats.caffe.weights import open_model

        net = open_model(path)
    else:
        net = read_text(path)
    return Reading(net, path, shape).run()


def layers(net: Message, file: str) -> list[Layer]:
    """The net's layers, those of the training phase alone left out."""
    found = []
    for message in (*net.messages("layers"), *net.messages("layer")):
        kind = message.text("type")
        kind = OLD_TYPES[kind][1] if kind in OLD_TYPES else kind
        found.append(Layer(message.text("name") or kind, kind, message))
    if not found:
        raise broken(f"{file} is no Caffe net: it has no layers (the oldest syntax is not read)")
    if len(found) > MOST_LAYERS:
        raise error("too-large", f"{file} has more than {MOST_LAYERS:,} layers")
    return [layer for layer in found if _in_test(layer.message)]


def _in_test(message: Message) -> bool:
    def met(rule: Message) -> bool:
        return rule.text("phase", "TEST") == "TEST" and "stage" not in rule

    includes = message.messages("include")
    if includes:
        return any(map(met, includes))
    return not any(map(met, message.messages("exclude")))


class Reading:
    """One net on its way to a graph."""

    def __init__(self, net: Message, path: Path, shape: Shape | None) -> None:
        self.file, self.shape = str(path), shape
        self.net, self.layers = net, layers(net, str(path))
        self.builder = GraphBuilder(word(net.text("name") or path.stem))
        self.blobs: dict[str, str | None] = {}
        """The node that each blob is now; None for one that carries no data of the net."""
        self.unread: dict[str, None] = {}
        """The blobs that nothing has read yet, in order."""
        self.losses: list[tuple[float, str]] = []
        self.sources: dict[str, str] = {}
        self.constants: dict[str, Array] = {}
        self.trouble = Trouble()
        self.merged = self._scales()

    def run(self) -> Imported:
        self._declared_inputs()
        for layer in self.layers:
            try:
                self._layer(layer)
            except Unsupported as why:
                self.trouble.add(layer.kind, layer.name, str(why))
                self._lose(layer)
            except NetError as fault:
                raise error(fault.faults[0].code, f"{self.file}: {layer.name}: {fault}") from None
            except OpFault as fault:
                raise error(fault.code, f"{self.file}: {layer.name}: {fault.message}") from None
        self.trouble.check("caffe-layers", self.file)
        outputs = self._outputs()
        graph = self.builder.finish(outputs)
        return Imported(graph, self.sources, self.constants)

    # Inputs

    def _declared_inputs(self) -> None:
        """`input: "data"` with input_dim or input_shape, at the head of a deploy file."""
        dims = self.net.integers("input_dim")
        shapes = [m.integers("dim") for m in self.net.messages("input_shape")]
        for i, name in enumerate(self.net.texts("input")):
            given = shapes[i] if i < len(shapes) else dims[4 * i : 4 * i + 4]
            self._input(name, given[1:], Message())

    def _input(self, name: str, given: Sequence[int], transform: Message) -> None:
        shape = self.shape or tuple(given)
        if not shape or not all(0 < n < 1 << 31 for n in shape):
            raise error(
                "unknown-size",
                f"{self.file} does not say how large its input {name} is",
                help="give it, channels first: --input 3x224x224",
            )
        self.blobs[name] = self.builder.input(
            shape, self._input_name(name), _picture(shape, transform)
        )

    def _input_name(self, name: str) -> str:
        return "input" if "input" not in self.builder else word(name)

    def _data(self, layer: Layer) -> None:
        transform = layer.message.message("transform_param")
        memory = layer.message.message("memory_data_param")
        shapes = [m.integers("dim") for m in layer.message.message("input_param").messages("shape")]
        if layer.kind == "Input":
            for i, top in enumerate(layer.tops):
                self._input(top, shapes[min(i, len(shapes) - 1)][1:] if shapes else (), transform)
            return
        crop = transform.integer("crop_size", 0)
        means = len(transform.numbers("mean_value"))
        channels = 1 if transform.flag("force_gray", False) else 1 if means == 1 else 3
        given = [channels, crop, crop] if crop else []
        if "channels" in memory:
            given = [memory.integer(n, 0) for n in ("channels", "height", "width")]
        data, *labels = layer.tops
        self._input(data, given, transform)
        self.blobs.update(dict.fromkeys(labels))

    # Layers

    def _layer(self, layer: Layer) -> None:
        if layer.kind in DATA:
            if layer.tops:
                self._data(layer)
            return
        inputs = [self._read(name, layer) for name in layer.bottoms]
        if layer.kind in JUDGES:
            return
        if not inputs:
            raise Unsupported("the language has no such layer")
        if any(name is None for name in inputs[: 1 if _is_loss(layer) else None]):
            self._lose(layer)
            return
        names = [name for name in inputs if name is not None]
        if _is_loss(layer):
            weights = layer.message.numbers("loss_weight")
            if (weights or [1.0])[0] != 0:
                self.losses.append((real((weights or [1.0])[0]), names[0]))
            return
        for bottom in layer.bottoms:
            self.unread.pop(bottom, None)
        node = self._made(layer, names)
        for top in layer.tops:
            self.blobs[top] = node
            self.unread[top] = None

    def _read(self, name: str, layer: Layer) -> str | None:
        if name not in self.blobs:
            raise broken(f"it reads {name}, which no layer before it makes")
        return self.blobs[name]

    def _lose(self, layer: Layer) -> None:
        """Reading goes on after a layer that cannot be said, so that all of them are listed: what
        keeps shapes is passed over; what else it would have made is not reported again."""
        keeps = layer.kind in KEEP_SHAPES and layer.bottoms
        self.blobs.update(
            dict.fromkeys(layer.tops, self.blobs[layer.bottoms[0]] if keeps else None)
        )

    def _made(self, layer: Layer, inputs: list[str]) -> str:
        """The node of a layer, or its input where it changes nothing."""
        if layer.kind == "Scale":
            return self._scale(layer, inputs)
        if layer.kind not in TABLE:
            raise Unsupported("the language has no such layer")
        op = TABLE[layer.kind](layer.message, tuple(map(self.builder.shape, inputs)))
        if op is None:
            return inputs[0]
        scale = self.merged.get(id(layer))
        if isinstance(op, BatchNorm) and scale is not None:
            op = replace(op, affine=True)
        node = self.builder.add(op, *inputs)
        for parameter in op.parameters(tuple(map(self.builder.shape, inputs))):
            own = isinstance(op, BatchNorm) and parameter.name in ("weight", "bias")
            holder = scale if own and scale is not None else layer
            self.sources[f"{node}.{parameter.name}"] = f"{holder.name}.{parameter.name}"
        if scale is not None:
            self._without_bias(scale, node, self.builder.shape(node))
        return node

    def _scale(self, layer: Layer, inputs: list[str]) -> str:
        """A scale and shift a channel: the second half of a batch norm, or one of its own."""
        settings = layer.message.message("scale_param")
        axes = settings.integer("axis", 1), settings.integer("num_axes", 1)
        if len(inputs) != 1 or axes != (1, 1):
            raise Unsupported("a scale that is not one number a channel")
        if any(layer is scale for scale in self.merged.values()):
            return inputs[0]
        node = self.builder.add(BatchNorm(UNIT), *inputs)
        shape = self.builder.shape(node)
        self.constants[f"{node}.mean"] = np.zeros(shape[0], np.float32)
        self.constants[f"{node}.var"] = np.full(shape[0], 1 - UNIT, np.float32)
        for name in ("weight", "bias"):
            self.sources[f"{node}.{name}"] = f"{layer.name}.{name}"
        self._without_bias(layer, node, shape)
        return node

    def _without_bias(self, scale: Layer, node: str, shape: Shape) -> None:
        if not scale.message.message("scale_param").flag("bias_term", False):
            self.constants[f"{node}.bias"] = np.zeros(shape[0], np.float32)

    def _scales(self) -> dict[int, Layer]:
        """For each BatchNorm the Scale that alone reads it, by the BatchNorm's identity."""
        found: dict[int, Layer] = {}
        uses = Counter(name for layer in self.layers for name in set(layer.bottoms))
        for i, layer in enumerate(self.layers):
            if layer.kind != "BatchNorm" or len(layer.tops) != 1:
                continue
            top = layer.tops[0]
            reader = next((r for r in self.layers[i + 1 :] if top in r.bottoms), None)
            if reader is None or reader.kind != "Scale" or len(reader.bottoms) != 1:
                continue
            if reader.tops == [top] or uses[top] == (2 if layer.bottoms == [top] else 1):
                found[id(layer)] = reader
        return found

    # Outputs

    def _outputs(self) -> list[str]:
        """What nothing reads; or what the heaviest loss reads, other losses being side heads'."""
        if self.losses:
            heaviest = max(weight for weight, _ in self.losses)
            main = next(node for weight, node in reversed(self.losses) if weight == heaviest)
            sides = [(w, n) for w, n in self.losses if n != main]
            for i, (weight, node) in enumerate(sides, 1):
                self.builder.aux(node, weight, f"aux{i}")
            return [main]
        nodes = dict.fromkeys(self.blobs[name] for name in self.unread)
        outputs = [node for node in nodes if node is not None]
        if not outputs:
            raise broken(f"{self.file} has no layer that the language says: it gives nothing")
        return outputs


def _is_loss(layer: Layer) -> bool:
    return layer.kind.endswith("Loss")


def _picture(shape: Shape, transform: Message) -> Picture:
    """How pictures become the input: (pixel - mean) x scale, channels blue, green, red."""
    if len(shape) != 3 or shape[0] not in (1, 3):
        return Picture()
    colour = shape[0] == 3
    means = tuple(transform.numbers("mean_value"))
    factor = real(transform.number("scale", 1.0))
    if not means and (transform.fields.keys() <= {"crop_size", "mean_file"}):
        # A deploy file says nothing: colour is the usual, grey is taken as the language does.
        return Picture(order="bgr", scale=1.0, mean=IMAGENET_MEAN) if colour else Picture()
    mean = means if len(means) in (1, shape[0]) and means else (0.0,)
    if mean == (0.0,):
        return Picture(order="bgr" if colour else "rgb", scale=1 / factor if factor else 1.0)
    std = (1 / factor,) if factor else (1.0,)
    return Picture(order="bgr" if colour else "rgb", scale=1.0, mean=mean, std=std)
