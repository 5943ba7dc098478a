"""Reading an ONNX model: each node by the function of its operator, then the graph of what is left.

Two layers of meaning are kept apart. A *tensor* of the model is a view of a *step*, so that
reshapes and transposes cost nothing until an op reads them; a *constant* is an array known now, so
that sums of shapes are done while reading. What the language cannot say is gathered and reported
together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from netdsl.faults import Fault, NetError, error
from netdsl.formats.onnx import load, metadata
from netdsl.formats.onnx.call import Call, Value
from netdsl.formats.onnx.faults import Unsupported, broken
from netdsl.formats.onnx.finish import NAME, Finish
from netdsl.formats.onnx.fold import Folder
from netdsl.formats.onnx.step import MOST, Array, Step, Tensor
from netdsl.formats.onnx.take import TABLE
from netdsl.formats.onnx.tensors import array
from netdsl.formats.onnx.view import N, View, shown
from netdsl.graph import Graph
from netdsl.ops import Input, Shape

OURS = "netdsl"
"""The producer whose names are kept."""

SHOWN = 12
"""Kinds of trouble that one message lists."""


@dataclass(frozen=True)
class Port:
    """An input or output of the model, and how its arrays relate to our node's.

    name: the model's. node: ours. view: how the model's tensor looks at an array (N, *shape).
    relaid: for an input that the net reads in another layout, how that looks at it.
    """

    name: str
    node: str
    view: View
    shape: Shape
    dtype: npt.DTypeLike
    relaid: View | None = None

    def taken(self, values: Array) -> Array:
        """The model's array, for this input, as our node's: (N, C, *spatial), float32."""
        own = values.reshape(len(values) if N in self.view.atoms else 1, *self.shape)
        own = own if self.relaid is None else self.relaid.own_order(own)
        return np.ascontiguousarray(own, np.float32)

    def given(self, values: Array) -> Array:
        """Our node's array (N, C, *spatial) as the model's, for this output."""
        found = self.view.own_order(values)
        if np.issubdtype(self.dtype, np.integer):
            found = np.rint(found)
        return found.astype(self.dtype, copy=False)


@dataclass(frozen=True)
class Imported:
    """What a model becomes. `origins`: for each node of the graph the ONNX node it is from."""

    graph: Graph
    weights: dict[str, npt.NDArray[np.float32]]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    origins: Mapping[str, str]


class Lost:
    """A tensor that could not be made; what reads it is lost too, and not reported again."""


@dataclass
class Trouble:
    """What the language cannot say: for each operator and reason, the nodes."""

    found: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def add(self, op: str, node: str, reason: str) -> None:
        self.found.setdefault((op, reason), []).append(node)

    def error(self, name: str) -> NetError:
        kinds = [f"{op} ({_nodes(nodes)}): {why}" for (op, why), nodes in self.found.items()]
        listed = "\n  ".join(kinds[:SHOWN])
        more = f"\n  and {len(kinds) - SHOWN} kinds more" if len(kinds) > SHOWN else ""
        count = sum(map(len, self.found.values()))
        nodes = "1 node" if count == 1 else f"{count} nodes"
        return NetError(
            Fault(
                "onnx-ops",
                f"{name}: {nodes} of the model cannot be said in the language:\n  {listed}{more}",
            )
        )


def _nodes(names: Sequence[str]) -> str:
    listed = ", ".join(names[:5])
    return f"{listed} and {len(names) - 5} more" if len(names) > 5 else listed


def read_onnx(
    source: load.Source, *, shapes: Mapping[str, Shape] | None = None
) -> tuple[Graph, dict[str, npt.NDArray[np.float32]]]:
    """The graph and weights of an ONNX model: a file's path, its content, or a loaded model.

    shapes: the shape (C, *spatial) of inputs, by name, whose sizes the model leaves open.
    The graph's inputs are in the order and layout of the language, channels first, even where the
    model's are not; see `import_onnx` for the way between. Raises NetError: see `import_onnx`;
    also for an output that the language could only give in another layout.
    """
    found = import_onnx(source, shapes=shapes)
    for port in found.outputs:
        if port.view != View.of(port.shape, port.view.batch):
            raise error(
                "onnx-ops",
                f"the output {port.name} is {shown(port.view.sizes)}, the language gives "
                f"{shown(View.of(port.shape, None).sizes)} in another order",
            )
    return found.graph, found.weights


def import_onnx(
    source: load.Source,
    *,
    shapes: Mapping[str, Shape] | None = None,
    constants: Mapping[str, Array] | None = None,
) -> Imported:
    """A model's graph and weights, and how its inputs and outputs relate to the graph's.

    constants: values for inputs of the model that are no data, as a test hands over weights.
    Raises NetError: a file that is not ONNX, is damaged or lies about sizes, an opset that is not
    read, sizes left open; and one error that lists every node that the language cannot say.
    """
    model, folder = load.load(source)
    name = Path(source).stem if isinstance(source, str | Path) else model.graph.name
    reading = Reading(model, folder, shapes or {}, constants or {})
    return reading.run(_word(name))


def _word(name: str) -> str:
    """A name of the language from any text."""
    word = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name).strip("_")
    return word if word and not word[0].isdigit() else f"net_{word}".strip("_")


class Reading:
    """One model on its way to a graph."""

    def __init__(
        self,
        model: ModelProto,
        folder: Path | None,
        shapes: Mapping[str, Shape],
        constants: Mapping[str, Array],
    ) -> None:
        self.model, self.folder, self.shapes = model, folder, shapes
        self.version = load.opset(model)
        self.ours = model.producer_name == OURS
        self.values: dict[str, Value | Lost] = {**constants}
        self.inputs: dict[str, Step] = {}
        self.ports: dict[str, View] = {}
        self.batch: int | None = None
        self.trouble = Trouble()
        self.fold = Folder()

    def run(self, name: str) -> Imported:
        graph = self.model.graph
        for tensor in graph.initializer:
            self.values.setdefault(tensor.name, array(tensor, self.folder))
        free = [v for v in graph.input if v.name not in self.values]
        self.batch = _common_batch(free)
        for value in free:
            self._input(value)
        used = {n for node in graph.node for n in node.input} | {o.name for o in graph.output}
        for i, node in enumerate(graph.node):
            self._node(node, node.name or f"{node.op_type}_{i}", used)
        outputs = [(o, self._output(o.name)) for o in graph.output]
        if not graph.output:
            raise broken("the model has no outputs")
        made = [(o, t) for o, t in outputs if isinstance(t, Tensor)]
        finish = Finish(name, self.ours, self.trouble.add)
        if self.trouble.found:
            raise self.trouble.error(name)
        steps = [t.step for _, t in made]
        net = finish.graph(self._named(), steps)
        if self.trouble.found:
            raise self.trouble.error(name)
        net = metadata.take(self.model, net) if self.ours else net
        return self._imported(net, finish, made)

    def _named(self) -> dict[str, Step]:
        """The inputs by names of the language."""
        if len(self.inputs) == 1 and not self.ours:
            return {"input": next(iter(self.inputs.values()))}
        found: dict[str, Step] = {}
        for name, step in self.inputs.items():
            word = name if NAME.fullmatch(name) else _word(name)
            while word in found:
                word += "_"
            found[word] = step
        return found

    def _imported(
        self, graph: Graph, finish: Finish, made: Sequence[tuple[ValueInfoProto, Tensor]]
    ) -> Imported:
        kinds = {v.name: _dtype(v) for v in (*self.model.graph.input, *self.model.graph.output)}
        inputs = []
        for name, step in self.inputs.items():
            relaid = finish.relaid[step].view if step in finish.relaid else None
            node, view = finish.nodes[step], self.ports[name]
            inputs.append(Port(name, node, view, step.shape, kinds[name], relaid))
        outputs = []
        for value, tensor in made:
            node = finish.nodes[tensor.step]
            outputs.append(
                Port(value.name, node, tensor.view, graph[node].shape, kinds[value.name])
            )
        return Imported(graph, finish.weights, tuple(inputs), tuple(outputs), finish.origins)

    # Inputs and outputs

    def _input(self, value: ValueInfoProto) -> None:
        name, dims = value.name, _dims(value)
        if name in self.shapes:
            dims = [None, *self.shapes[name]]
        if dims is None or not dims:
            raise error(
                "unknown-size",
                f"the input {name} has no shape that can be read: {_kind(value)}",
                help=f"give it: shapes={{{name!r}: (C, *spatial)}}",
            )
        sizes = dims[1:] if len(dims) > 1 else dims
        if any(n is None or n < 1 for n in sizes):
            said = "x".join("?" if n is None else str(n) for n in dims)
            raise error(
                "unknown-size",
                f"the input {name} is {said}: sizes other than the batch must be known",
                help=f"give them: shapes={{{name!r}: (C, *spatial)}}",
            )
        shape = tuple(n for n in sizes if n is not None)
        if prod(shape) > MOST:
            raise broken(f"the input {name} has more than {MOST:,} elements")
        step = Step(Input(shape), (), shape)
        view = View.of(shape, self.batch if len(dims) > 1 else 1)
        if len(dims) == 1:
            view = View(view.groups[1:], 1)
        self.inputs[name], self.ports[name] = step, view
        self.values[name] = Tensor(step, view)

    def _output(self, name: str) -> Value | Lost | None:
        value = self.values.get(name)
        if value is None:
            raise broken(f"the output {name} is made by no node")
        if not isinstance(value, Tensor | Lost):
            self.trouble.add("output", name, "it is a constant")
        return value

    # Nodes

    def _node(self, node: NodeProto, name: str, used: set[str]) -> None:
        for output in node.output:
            if output and output in self.values:
                raise broken(f"{name} makes {output}, which another node makes too")
        try:
            made: Value | Lost = self._taken(node, name, used)
        except Unsupported as why:
            self.trouble.add(_operator(node), name, str(why))
            made = Lost()
        for i, output in enumerate(node.output):
            if output:
                self.values[output] = made if i == 0 else Lost()

    def _taken(self, node: NodeProto, name: str, used: set[str]) -> Value | Lost:
        inputs = [self._value(n, name) for n in node.input]
        if any(isinstance(v, Lost) for v in inputs):
            return Lost()
        more = [o for o in node.output[1:] if o in used]
        call = Call(
            node.op_type,
            name,
            [v for v in inputs if not isinstance(v, Lost)],
            {a.name: self._attribute(a, name) for a in node.attribute},
            self.version,
            self.batch,
            1 + len(more),
            frozenset(i for i, n in enumerate(node.input) if self.ours and "/" in n),
        )
        if node.domain not in ("", "ai.onnx"):
            raise Unsupported("the language has no such op")
        if not any(isinstance(v, Tensor) for v in inputs):
            return self.fold(call)
        if node.op_type not in TABLE:
            raise Unsupported("the language has no such op")
        try:
            made = TABLE[node.op_type](call)
        except (TypeError, ValueError, IndexError, AttributeError, OverflowError) as problem:
            raise broken(f"{node.op_type} at {name} is malformed: {problem}") from None
        if more:
            raise Unsupported("more than its first output is read")
        return made

    def _value(self, name: str, node: str) -> Value | Lost | None:
        if not name:
            return None
        if name not in self.values:
            raise broken(f"{node} reads {name}, which nothing before it makes")
        return self.values[name]

    def _attribute(self, attribute: AttributeProto, node: str) -> Any:
        if attribute.type == AttributeProto.TENSOR:
            return array(attribute.t, self.folder)
        if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
            return None
        try:
            value = helper.get_attribute_value(attribute)
        except ValueError:
            raise broken(f"{node} has an attribute {attribute.name} of no known kind") from None
        return value.decode(errors="replace") if isinstance(value, bytes) else value


def _common_batch(inputs: Sequence[ValueInfoProto]) -> int | None:
    """The batch size that all inputs fix; None where one leaves it open or they differ."""
    found = {dims[0] for dims in map(_dims, inputs) if dims and len(dims) > 1}
    return found.pop() if len(found) == 1 else None


def _dims(value: ValueInfoProto) -> list[int | None] | None:
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        return None
    return [d.dim_value if d.dim_value > 0 else None for d in value.type.tensor_type.shape.dim]


def _kind(value: ValueInfoProto) -> str:
    return value.type.WhichOneof("value") or "no type"


def _dtype(value: ValueInfoProto) -> npt.DTypeLike:
    kind = value.type.tensor_type.elem_type
    if kind in (TensorProto.UNDEFINED, TensorProto.STRING):
        return np.dtype(np.float32)
    try:
        return helper.tensor_dtype_to_np_dtype(kind)
    except KeyError:
        raise broken(f"{value.name} is of an unknown type, {kind}") from None


def _operator(node: NodeProto) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
