"""What a network costs, exactly: parameters, multiply-adds and activations, layer by layer.

All numbers are Python integers, so they are exact at any size. Multiply-adds (MACs) are those of
`conv`, `tconv` and `fc`, without the bias; other ways to count are in `netdsl.cost.conventions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from functools import cached_property
from math import prod

from netdsl.cost.receptive import receptive_fields
from netdsl.faults import error
from netdsl.frozen import dataclass
from netdsl.graph import Aux, Graph, Node
from netdsl.ops import Counts, Input, Op, Shape

DTYPES = {"float32": 4, "float16": 2, "bfloat16": 2, "float64": 8, "int8": 1}
"""Bytes of one number in each type that activations and parameters may be held in."""

LARGEST_BATCH = 10**12


@dataclass(frozen=True)
class Layer:
    """One op's cost. `params` are with bias, `weights` without; both are independent of the batch.

    `macs` and `activation_bytes` (the size of the op's output) are those of the whole batch;
    shapes and `counts` are per sample. `receptive_field` is in input pixels per spatial axis; None
    where the input has no spatial axes. `sees_all` says that each value has seen the whole input;
    the field is then the input's size.
    """

    name: str
    op: Op
    inputs: tuple[Shape, ...]
    output: Shape
    params: int
    weights: int
    counts: Counts
    batch: int
    activation_bytes: int
    receptive_field: tuple[int, ...] | None
    sees_all: bool = False

    @property
    def word(self) -> str:
        """The op as written: `conv3x3p1(64)`."""
        return self.op.word()

    @property
    def kind(self) -> str:
        """The op's head: `conv`."""
        return self.op.head

    @property
    def macs(self) -> int:
        """Multiply-adds of convolutions and fully connected layers, without bias."""
        return self.counts.macs * self.batch

    @property
    def block(self) -> str:
        """The outermost block the layer stands in, empty at the top."""
        return self.name.partition(".")[0] if "." in self.name else ""

    def as_json(self) -> dict[str, object]:
        """The layer as `--json` prints it."""
        return {
            "name": self.name,
            "op": self.word,
            "in": one_or_all(self.inputs),
            "out": list(self.output),
            "params": self.params,
            "weights": self.weights,
            "macs": self.macs,
            "activation_bytes": self.activation_bytes,
            "receptive_field": _axes(self.receptive_field),
        }


class Sums:
    """What layers cost together."""

    layers: tuple[Layer, ...]

    @cached_property
    def params(self) -> int:
        """Learned numbers, biases included; running statistics are not learned."""
        return sum(layer.params for layer in self.layers)

    @cached_property
    def weights(self) -> int:
        """Learned numbers without biases."""
        return sum(layer.weights for layer in self.layers)

    @cached_property
    def macs(self) -> int:
        """Multiply-adds of the whole batch."""
        return sum(layer.macs for layer in self.layers)

    @cached_property
    def activation_bytes(self) -> int:
        """The sizes of all layers' outputs, summed, for the whole batch."""
        return sum(layer.activation_bytes for layer in self.layers)


@dataclass(frozen=True)
class Head(Sums):
    """An auxiliary classifier's own cost; the net's totals leave it out."""

    name: str
    layers: tuple[Layer, ...]

    def as_json(self) -> dict[str, object]:
        """The head as `--json` prints it."""
        return {"name": self.name, "params": self.params, "macs": self.macs}


@dataclass(frozen=True)
class Cost(Sums):
    """A network's cost: its layers in order, their totals, its auxiliary heads apart."""

    net: str
    inputs: Mapping[str, Shape]
    layers: tuple[Layer, ...]
    aux: tuple[Head, ...]
    batch: int
    dtype: str
    graph: Graph = field(compare=False)

    @property
    def itemsize(self) -> int:
        """Bytes of one number."""
        return DTYPES[self.dtype]

    def as_json(self) -> dict[str, object]:
        """The cost as `--json` prints it: exact integers, shapes as lists, channels first."""
        return {
            "net": self.net,
            "input": one_or_all(tuple(self.inputs.values())),
            "params": self.params,
            "weights": self.weights,
            "macs": self.macs,
            "activation_bytes": self.activation_bytes,
            "layers": [layer.as_json() for layer in self.layers],
            "aux": [head.as_json() for head in self.aux],
        }

    def __repr__(self) -> str:
        return f"<Cost {self.net}: {self.params:,} parameters, {self.macs:,} MACs>"

    def __str__(self) -> str:
        from netdsl.cost.tables import as_text

        return as_text(self)


def count(graph: Graph, batch: int = 1, dtype: str = "float32") -> Cost:
    """The exact cost of a graph for a batch of samples held in numbers of type `dtype`.

    Raises NetError for a batch below 0 or a type that is not in `DTYPES`.
    """
    _check(batch, dtype)
    main = graph.without_aux()
    count_one = _Counter(graph, batch, DTYPES[dtype])
    return Cost(
        net=graph.name,
        inputs={name: graph[name].shape for name in graph.inputs},
        layers=tuple(count_one(node) for node in main if not isinstance(node.op, Input)),
        aux=tuple(_head(graph, aux, count_one) for aux in graph.aux),
        batch=batch,
        dtype=dtype,
        graph=graph,
    )


def _check(batch: int, dtype: str) -> None:
    if not 0 <= batch <= LARGEST_BATCH:
        raise error("bad-batch", f"the batch is {batch}, it must be 0 to {LARGEST_BATCH:,}")
    if dtype not in DTYPES:
        raise error("bad-dtype", f"there is no type `{dtype}`", help=f"one of {', '.join(DTYPES)}")


def _head(graph: Graph, aux: Aux, count_one: _Counter) -> Head:
    return Head(aux.name, tuple(count_one(node) for node in graph.head_nodes(aux)))


class _Counter:
    """Counts one node of a graph at a time."""

    def __init__(self, graph: Graph, batch: int, itemsize: int) -> None:
        self.graph, self.batch, self.itemsize = graph, batch, itemsize
        self.fields = receptive_fields(graph)
        sizes = {graph[name].shape[1:] for name in graph.inputs}
        self.everything = sizes.pop() if len(sizes) == 1 else None

    def __call__(self, node: Node) -> Layer:
        inputs = self.graph.input_shapes(node)
        learned = [p for p in node.op.parameters(inputs) if p.trainable]
        reach = self.fields[node.name]
        pixels = self.everything if reach is None else reach.pixels
        return Layer(
            name=node.name,
            op=node.op,
            inputs=inputs,
            output=node.shape,
            params=sum(p.size for p in learned),
            weights=sum(p.size for p in learned if p.role == "weight"),
            counts=node.op.counts(inputs),
            batch=self.batch,
            activation_bytes=prod(node.shape) * self.itemsize * self.batch,
            receptive_field=pixels or None,
            sees_all=reach is None,
        )


def one_or_all(shapes: tuple[Shape, ...]) -> list[int] | list[list[int]]:
    """One shape as a list of sizes; several as a list of those."""
    lists = [list(shape) for shape in shapes]
    return lists[0] if len(lists) == 1 else lists


def _axes(field: tuple[int, ...] | None) -> int | list[int] | None:
    """One number where every axis has the same."""
    if field is None:
        return None
    return field[0] if len(set(field)) == 1 else list(field)
