"""One layer's cost as formulas with the numbers in them."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from netdsl.cost.count import Cost, Layer
from netdsl.cost.receptive import receptive_fields
from netdsl.cost.sheet import memory, number, pixels, shape
from netdsl.faults import error
from netdsl.frozen import dataclass
from netdsl.ops import (
    AdaptiveAveragePool,
    AveragePool,
    Concat,
    Conv,
    ConvTranspose,
    Flatten,
    Linear,
    MaxPool,
    PRelu,
    Upsample,
)
from netdsl.ops.base import nearest
from netdsl.ops.window import Window

TIMES = " × "


@dataclass(frozen=True)
class Explanation:
    """A layer, and what explains it: pairs of a quantity and the lines of its arithmetic."""

    layer: Layer
    parts: tuple[tuple[str, tuple[str, ...]], ...]

    def __str__(self) -> str:
        layer = self.layer
        inputs = ", ".join(map(shape, layer.inputs))
        lines = [f"{layer.name}: {layer.word} on {inputs} gives {shape(layer.output)}"]
        for quantity, arithmetic in self.parts:
            lines += [f"  {label:<11} {line}" for label, line in _labelled(quantity, arithmetic)]
        return "\n".join(lines)


def _labelled(quantity: str, lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    return ((quantity if at == 0 else "", line) for at, line in enumerate(lines))


def explain(cost: Cost, name: str) -> Explanation:
    """The arithmetic of a layer. Raises NetError for a name the net does not have."""
    layers = {layer.name: layer for layer in cost.layers}
    layers |= {layer.name: layer for head in cost.aux for layer in head.layers}
    alias = cost.graph.names.get(name, name)
    if alias not in layers:
        guess = nearest(name, layers)
        hint = f"did you mean `{guess}`?" if guess else "`netdsl cost` lists them"
        raise error("no-such-layer", f"{cost.net} has no layer `{name}`", help=hint)
    layer = layers[alias]
    parts = (
        ("output", _output(layer)),
        ("parameters", _parameters(layer)),
        ("MACs", _macs(layer)),
        ("memory", _memory(layer, cost)),
        ("field", _field(layer, cost)),
    )
    return Explanation(layer, parts)


def _output(layer: Layer) -> tuple[str, ...]:
    op = layer.op
    if isinstance(op, Conv | MaxPool | AveragePool):
        return tuple(_window_axes(op.window, layer))
    if isinstance(op, ConvTranspose):
        return tuple(_transposed_axes(op, layer))
    if isinstance(op, Linear):
        return (f"{number(op.filters)} filters, each over all {_size(layer)} inputs",)
    if isinstance(op, Concat):
        counts = " + ".join(str(s[0]) for s in layer.inputs)
        return (f"channels {counts} = {layer.output[0]}",)
    if isinstance(op, Upsample):
        return (f"every axis times {shape(op.factor)}",)
    if isinstance(op, AdaptiveAveragePool):
        return (f"a grid of {shape(op.to)} windows that cover the input",)
    if isinstance(op, Flatten):
        return (f"{_size(layer)} in one row",)
    same = layer.output == layer.inputs[0]
    return ("the input's shape" if same else shape(layer.output),)


def _window_axes(window: Window, layer: Layer) -> Iterable[str]:
    """(W - K + 2P) / S + 1, once where all axes are alike."""
    formula = "(W − K + 2P) / S + 1"
    if any(d > 1 for d in window.dilation):
        yield "K widened by dilation: D(K − 1) + 1"
    lines = []
    for axis, size in enumerate(layer.inputs[0][1:]):
        lo, hi = window.padding[axis]
        extent, stride = window.extent[axis], window.stride[axis]
        pads = f"2·{lo}" if lo == hi else f"{lo} + {hi}"
        room = size - extent + lo + hi
        result = layer.output[1 + axis]
        rounded = (
            "" if room % stride == 0 else (", rounded up" if window.ceil else ", rounded down")
        )
        if rounded and room // stride + 1 == result and window.ceil:
            rounded = ", rounded down: one more would start in the padding"
        lines.append(f"({size} − {extent} + {pads}) / {stride} + 1 = {result}{rounded}")
    yield from _alike(formula, lines)


def _transposed_axes(op: ConvTranspose, layer: Layer) -> Iterable[str]:
    """(W - 1)S - 2P + K, once where all axes are alike."""
    window, lines = op.window, []
    for axis, size in enumerate(layer.inputs[0][1:]):
        lo, hi = window.padding[axis]
        extra = f" + {op.out_pad[axis]}" if op.out_pad[axis] else ""
        pads = f"2·{lo}" if lo == hi else f"({lo} + {hi})"
        step = f"({size} − 1)·{window.stride[axis]}"
        lines.append(f"{step} − {pads} + {window.extent[axis]}{extra} = {layer.output[1 + axis]}")
    extra = " + out_pad" if any(op.out_pad) else ""
    yield from _alike(f"(W − 1)S − 2P + K{extra}", lines)


def _alike(formula: str, lines: list[str]) -> Iterable[str]:
    if len(set(lines)) == 1:
        axes = "" if len(lines) == 1 else ", on every axis"
        yield f"{formula} = {lines[0]}{axes}"
    else:
        yield formula
        yield from (f"axis {at + 1}: {line}" for at, line in enumerate(lines))


def _parameters(layer: Layer) -> tuple[str, ...]:
    op = layer.op
    if not layer.params:
        return ("none",)
    if isinstance(op, Conv | ConvTranspose | Linear):
        factors = _weight_factors(layer)
        biases = layer.params - layer.weights
        line = f"{_product(factors)} = {number(layer.weights)}"
        words = "filters × input channels × kernel"
        if isinstance(op, Linear):
            words = "filters × inputs"
        elif op.groups > 1:
            words = f"filters × input channels of each of {op.groups} groups × kernel"
        if biases:
            return (f"{words}: {line}", f"+ {number(biases)} biases = {number(layer.params)}")
        return (f"{words}: {line}, no bias",)
    channels = number(layer.inputs[0][0])
    if isinstance(op, PRelu):
        return (f"a slope for each of {channels} channels",)
    total = number(layer.params)
    return (f"a scale and a shift for each of {channels} channels: 2 × {channels} = {total}",)


def _weight_factors(layer: Layer) -> tuple[int, ...]:
    op = layer.op
    if isinstance(op, Linear):
        return (op.filters, prod(layer.inputs[0]))
    assert isinstance(op, Conv | ConvTranspose)
    return (op.filters, layer.inputs[0][0] // op.groups, *op.window.kernel)


def _macs(layer: Layer) -> tuple[str, ...]:
    op = layer.op
    batch = f" × batch of {number(layer.batch)}" if layer.batch != 1 else ""
    if isinstance(op, Linear):
        return (f"one for each weight: {number(layer.weights)}{batch}{_total(layer, batch)}",)
    if isinstance(op, Conv):
        positions = prod(layer.output[1:])
        place = f"output positions × weights: {_product(layer.output[1:])} × "
        return (
            f"{place}{number(layer.weights)} = {number(positions)} × {number(layer.weights)} = "
            f"{number(layer.counts.macs)}{batch}{_total(layer, batch)}",
        )
    if isinstance(op, ConvTranspose):
        place = f"input positions × weights: {_product(layer.inputs[0][1:])} × "
        counts = f"{number(layer.weights)} = {number(layer.counts.macs)}"
        return (f"{place}{counts}{batch}{_total(layer, batch)}",)
    return (_other_work(layer),)


def _total(layer: Layer, batch: str) -> str:
    return f" = {number(layer.macs)}" if batch else ""


def _other_work(layer: Layer) -> str:
    counts, op = layer.counts, layer.op
    if counts.compares and isinstance(op, MaxPool):
        window = _product((*layer.output, *op.window.kernel))
        return f"0; {window} = {number(counts.compares)} comparisons"
    if counts.compares:
        return f"0; {number(counts.compares)} comparisons"
    if counts.adds and isinstance(op, AveragePool):
        window = _product((*layer.output, *op.window.kernel))
        return f"0; {window} = {number(counts.adds)} additions"
    if counts.adds:
        return f"0; {number(counts.adds)} additions"
    if counts.elementwise:
        return f"0; passes over {number(counts.elementwise)} elements"
    return "0; nothing is computed"


def _memory(layer: Layer, cost: Cost) -> tuple[str, ...]:
    batch = (cost.batch,) if cost.batch != 1 else ()
    factors = _product((*batch, *layer.output, cost.itemsize))
    size = layer.activation_bytes
    readable = "" if size < 1024 else f" = {memory(size)}"
    lines = [f"output: {factors} bytes = {number(size)} B{readable}"]
    if layer.params:
        lines.append(
            f"parameters: {number(layer.params)} × {cost.itemsize} bytes = "
            f"{memory(layer.params * cost.itemsize)}"
        )
    return tuple(lines)


def _field(layer: Layer, cost: Cost) -> tuple[str, ...]:
    if layer.receptive_field is None:
        return ("the input has no spatial axes",)
    if layer.sees_all:
        return (f"the whole input, {_pixels(layer.receptive_field)}",)
    fields = receptive_fields(cost.graph)
    before = [fields[name] for name in cost.graph[layer.name].inputs]
    own = layer.op.field(layer.inputs)
    seen = before[0]
    if own is None or seen is None or len(before) > 1:
        return (f"the widest branch's: {_pixels(layer.receptive_field)}",)
    if set(own.extent) <= {1}:
        return (f"its input's: {_pixels(layer.receptive_field)}",)
    lines = []
    for axis, extent in enumerate(own.extent):
        parts = f"{seen.extent[axis]} + ({extent} − 1) × {seen.jump[axis]}"
        lines.append(f"{parts} = {_pixels((layer.receptive_field[axis],))}")
    words = "the input's field + (K − 1) × pixels between its neighbours"
    return tuple(_alike(words, lines))


def _pixels(field: tuple[int, ...]) -> str:
    return f"{pixels(field)} pixel{'' if set(field) == {1} else 's'}"


def _product(factors: Iterable[int]) -> str:
    return TIMES.join(map(number, factors))


def _size(layer: Layer) -> str:
    factors = layer.inputs[0]
    if len(factors) == 1:
        return number(factors[0])
    return f"{_product(factors)} = {number(prod(factors))}"
