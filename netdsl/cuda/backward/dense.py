"""How fully connected layers go forward in training, and back.

Their weights are read where they are learned, so that the largest matrices of a net are not kept
twice.
"""

from __future__ import annotations

import numpy as np

from netdsl.cuda.backward.conv import bias_back
from netdsl.cuda.backward.mixed import (
    packed_here,
    plan_rounded,
    plan_weighted,
    reads_weights,
    suits,
)
from netdsl.cuda.backward.products import Product, plan_product
from netdsl.cuda.backward.task import BackPlaces, Calls
from netdsl.cuda.layout import Buffer, Call
from netdsl.cuda.packing import Packs
from netdsl.cuda.task import Ints, Task


def dense_packs(task: Task) -> Packs:
    """What the way forward does with packed tensors."""
    return Packs(reads=reads_weights(task))


def weights_from_packed(task: Task) -> bool:
    """Whether the gradient of weights is of the packed input."""
    return suits(task, _weights(task.inputs[0], task.output, 0))


def dense_forward(task: Task, places: BackPlaces) -> tuple[Calls, Calls]:
    """The layer itself, in training and when tried."""
    weight, bias = places.weights["weight"], places.weights.get("bias", -1)
    if not reads_weights(task):
        calls = plan_product(task, _layer(places, weight, bias))
        return calls, calls
    calls, source = list[Call](), task.packed_input
    if source is None:
        x = places.inputs[0]
        calls, source, task = packed_here(task, x, (x.sample,))
    calls += plan_weighted(task, source, weight, places.output, bias=bias)
    return calls, calls


def _layer(places: BackPlaces, weight: int, bias: int) -> Product:
    """A row a filter, a column a sample."""
    x, y = places.inputs[0], places.output
    inputs = x.sample
    return Product(
        rows=y.sample,
        groups=1,
        samples=1,
        out=(1, 1, inputs),
        left=(weight, 0, inputs, 0),
        source=(x.offset, 0, 0),
        size=(1, 1, inputs),
        stride=(1, 1, 1),
        start=(0, 0, 0),
        table=_apart(x.batch_stride, x.batch),
        target=(y.offset, 0, 1, y.batch_stride),
        bias=bias,
        weighted=True,
    )


def dense_back(task: Task, places: BackPlaces) -> Calls:
    """The gradients of the bias, the weights, and the input."""
    x, g, target = places.inputs[0], places.gradient, places.gradients[0]
    calls = bias_back(task, places)
    weights = _weights(x, g, places.into["weight"])
    if not suits(task, weights):
        calls += plan_product(task, weights)
        return calls if target is None else calls + plan_product(task, _input(places, g, target))
    packing, gradient, task = packed_here(task, g, (g.sample,))
    calls += packing
    if target is not None and reads_weights(task):
        calls += plan_weighted(task, gradient, places.weights["weight"], target, back=True)
    elif target is not None:
        calls += plan_product(task, _input(places, g, target))
    source = task.packed_input
    if source is None:
        packing, source, task = packed_here(task, x, (x.sample,))
        calls += packing
    return calls + plan_rounded(task, weights, gradient, source)


def _weights(x: Buffer, g: Buffer, into: int) -> Product:
    """The weights' gradient: a row a filter, a column an input, a product a sample."""
    return _of_samples(
        g.sample, x.batch, (g.offset, g.batch_stride, 1, 0), (x.offset, x.batch_stride, 0),
        _apart(1, x.sample), (into, 0, x.sample, 1), channels=x.sample,
    )  # fmt: skip


def _input(places: BackPlaces, g: Buffer, target: Buffer) -> Product:
    """The input's gradient: a row an input, a column a sample, a product a filter."""
    weight, inputs = places.weights["weight"], target.sample
    return _of_samples(
        inputs, g.sample, (weight, inputs, 1, 0), (g.offset, 1, 0),
        _apart(g.batch_stride, g.batch), (target.offset, 0, 1, target.batch_stride),
        weighted=True,
    )  # fmt: skip


def _of_samples(
    rows: int,
    samples: int,
    left: tuple[int, int, int, int],
    source: tuple[int, int, int],
    table: Ints,
    target: tuple[int, int, int, int],
    weighted: bool = False,
    channels: int = 1,
) -> Product:
    """A product over samples of one position each."""
    one, start = (1, 1, 1), (0, 0, 0)
    return Product(
        rows, 1, samples, one, left, source, one, one, start, table, target, -1, weighted, channels
    )


def _apart(step: int, count: int) -> Ints:
    """A table of so many columns whose values lie `step` apart."""
    table = np.zeros((count, 4), np.int32)
    table[:, 0] = step * np.arange(count)
    return table
