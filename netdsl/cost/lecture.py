"""The lectures' own table (EECS 498-007, lecture 8): their columns, units and totals.

FLOP means a multiply-add, parameters are without bias, KB is numbers x 4 / 1024. Activations and
dropout have no row. Totals take convolutions and fully connected layers; a pool's comparisons
(kernel x outputs) stand in its row alone. Blocks are one row each; the layers before the first
block are summed as the stem, with its pools, as the slide on GoogLeNet's stem does.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from itertools import groupby
from math import prod
from typing import Any

from netdsl.cost.count import Cost, Layer
from netdsl.cost.sheet import Column, Sheet, number
from netdsl.cost.tables import heading
from netdsl.ops import AveragePool, Conv, ConvTranspose, MaxPool, Shape, show
from netdsl.ops.window import Window

FLOAT = 4
ROWS = ("conv", "dwconv", "tconv", "fc", "maxpool", "avgpool", "gap", "gmp", "flatten")
SUMMED = ("conv", "dwconv", "tconv", "fc")
POOLS = ("maxpool", "avgpool", "gap", "gmp")


def thousands(value: int) -> str:
    """37,748,736 -> 37,749, as the slides print thousands."""
    return number(_rounded(Fraction(value, 1000)))


def millions(value: int) -> str:
    """72,855,552 -> 73, as the slides print millions."""
    return number(_rounded(Fraction(value, 10**6)))


def kilobytes(value: int) -> str:
    """Bytes as KB of 1024, rounded: 559,872 -> 547."""
    return number(_rounded(Fraction(value, 1024)))


def _rounded(value: Fraction) -> int:
    """Half goes up, as on the slides (253.5 is 254)."""
    return int(value + Fraction(1, 2))


COLUMNS = (
    Column("layer", key="name"),
    Column("C", number, right=True, key="channels_in"),
    Column("H/W", str, right=True, key="size_in"),
    Column("filters", number, right=True),
    Column("kernel", str, right=True),
    Column("stride", str, right=True),
    Column("pad", str, right=True),
    Column("C", number, right=True, key="channels_out"),
    Column("H/W", str, right=True, key="size_out"),
    Column("memory (KB)", kilobytes, right=True, key="memory_bytes"),
    Column("params (k)", thousands, right=True, key="params"),
    Column("flop (M)", millions, right=True, key="flop"),
)


def lecture_sheet(cost: Cost) -> Sheet:
    """The slides' table of a net."""
    rows: list[tuple[Any, ...]] = []
    stem: list[Layer] | None = []
    for block, run in groupby(cost.layers, key=lambda layer: layer.block):
        whole = tuple(run)
        layers = [layer for layer in whole if layer.kind in ROWS]
        if not any(layer.kind in SUMMED for layer in layers) or not block:
            rows += [_row(layer) for layer in layers]
            stem = None if stem is None else stem + layers
            continue
        if stem:
            rows.append(_sum("stem", stem))
        stem = None
        rows.append(_block(block, whole))
    totals = [layer for layer in cost.layers if layer.kind in SUMMED]
    total = ("total", *(None,) * 8, _memory(totals), cost.weights, cost.macs)
    title = f"{heading(cost)}, as the lectures count"
    return Sheet(title, COLUMNS, tuple(rows), (total,), notes(cost), cost.net)


def _row(layer: Layer) -> tuple[Any, ...]:
    channels, size = _split(layer.inputs[0])
    out_channels, out_size = _split(layer.output)
    op = layer.op
    window = op.window if isinstance(op, Conv | ConvTranspose | MaxPool | AveragePool) else None
    return (
        layer.name,
        channels,
        size,
        layer.output[0] if layer.kind in SUMMED else None,
        *_window(window),
        out_channels,
        out_size,
        _bytes(layer),
        layer.weights,
        _flop(layer),
    )


def _split(shape: Shape) -> tuple[int, str | None]:
    return shape[0], _size(shape[1:]) if len(shape) > 1 else None


def _size(sizes: Iterable[int]) -> str:
    sizes = tuple(sizes)
    return str(sizes[0]) if len(set(sizes)) == 1 else show(sizes)


def _window(window: Window | None) -> tuple[str | None, ...]:
    if window is None:
        return (None, None, None)
    pad = window.padding
    even = all(lo == hi for lo, hi in pad)
    pads = _size(lo for lo, _ in pad) if even else " ".join(f"{lo}+{hi}" for lo, hi in pad)
    return _size(window.kernel), _size(window.stride), pads


def _bytes(layer: Layer) -> int:
    return prod(layer.output) * layer.batch * FLOAT


def _memory(layers: list[Layer]) -> int:
    return sum(map(_bytes, layers))


def _flop(layer: Layer) -> int:
    pooled = layer.counts.compares + layer.counts.adds if layer.kind in POOLS else 0
    return layer.macs + pooled * layer.batch


def _sum(name: str, layers: list[Layer]) -> tuple[Any, ...]:
    """The stem's row: all of its layers, pools too."""
    channels, size = _split(layers[0].inputs[0])
    out_channels, out_size = _split(layers[-1].output)
    memory, flop = _memory(layers), sum(map(_flop, layers))
    weights = sum(layer.weights for layer in layers)
    return (name, channels, size, *(None,) * 4, out_channels, out_size, memory, weights, flop)


def _block(name: str, layers: tuple[Layer, ...]) -> tuple[Any, ...]:
    """A block's row: the memory and work of its convolutions and fully connected layers."""
    channels, size = _split(layers[0].inputs[0])
    out_channels, out_size = _split(layers[-1].output)
    summed = [layer for layer in layers if layer.kind in SUMMED]
    weights = sum(layer.weights for layer in layers)
    macs = sum(layer.macs for layer in summed)
    memory = _memory(summed)
    return (name, channels, size, *(None,) * 4, out_channels, out_size, memory, weights, macs)


def notes(cost: Cost) -> tuple[str, ...]:
    """The exact totals, what they leave out, and where the slides err about this net."""
    summed = [layer for layer in cost.layers if layer.kind in SUMMED]
    pools = [layer for layer in cost.layers if layer.kind in POOLS]
    kib = Fraction(_memory(summed), 1024)
    found = [
        f"exactly {number(cost.weights)} parameters (no bias), {number(cost.macs)} multiply-adds, "
        f"{float(kib):,.2f} KB ({float(kib / 1024):,.3f} MB) of conv and fc outputs"
    ]
    if pools:
        found.append(
            f"left out of the total: {number(sum(map(_flop, pools)))} operations and "
            f"{float(Fraction(_memory(pools), 1024)):,.2f} KB of pools; "
            f"{number(cost.params - cost.weights)} biases; activations, norms and dropout"
        )
    return (*found, *ERRATA.get(cost.net, ()))


ERRATA = {
    "alexnet": (
        "erratum: the slide prints 145 for conv4's flop; 256 x 13 x 13 x 384 x 3 x 3 is "
        "149,520,384",
    ),
    "googlenet": (
        "erratum: the slides' 418 MFLOP for the stem matches no way to count; its convolutions are "
        "477.68 M, with its pools 480.84 M",
    ),
    "vgg16": (
        "erratum: the slides' 48.6 MB and 13.6 GFLOP are of a net with two convolutions in stage "
        "3, not VGG-16's three: see vgg16_lecture",
    ),
    "vgg16_lecture": (
        "this is the slides' VGG-16, with two convolutions in stage 3 (48.6 MB, 13.6 GFLOP); the "
        "published VGG-16 has three: see vgg16",
    ),
}
"""What the slides print otherwise than the arithmetic has it, by the zoo's names."""
