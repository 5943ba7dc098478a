"""Reading an ONNX model: each node by the function of its operator, then the graph of what is left.

Two layers of meaning are kept apart. A *tensor* of the model is a view of a *step*, so that
reshapes and transposes cost nothing until an op reads them; a *constant* is an array known now, so
that sums of shapes are done while reading. What the language cannot say is gathered and reported
together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
)

from netdsl.faults import error
from netdsl.formats.finite import check_finite
from netdsl.formats.imported import Trouble
from netdsl.formats.onnx import load, metadata
from netdsl.formats.onnx.call import Call, Value
from netdsl.formats.onnx.faults import Unsupported, broken
from netdsl.formats.onnx.finish import NAME, Finish
from netdsl.formats.onnx.fold import Folder
from netdsl.formats.onnx.layout import channels_last
from netdsl.formats.onnx.ports import Imported, Port
from netdsl.formats.onnx.replaced import replaced
from netdsl.formats.onnx.step import MOST, Array, Step, Tensor
from netdsl.formats.onnx.take import TABLE
from netdsl.formats.onnx.tensors import array
from netdsl.formats.onnx.view import View, shown
from netdsl.formats.weights import fitted, open_tensors
from netdsl.graph import Graph
from netdsl.ops import Input, Shape, show

OURS = "netdsl"
"""The producer whose names are kept."""

MOST_NODES = 50_000
"""Nodes of a model; DenseNet-201 has some 700."""


class Lost:
    """A tensor that could not be made; what reads it is lost too, and not reported again."""


def read_onnx(
    source: load.Source,
    *,
    shapes: Mapping[str, Shape] | Shape | None = None,
    weights: Path | None = None,
) -> tuple[Graph, dict[str, npt.NDArray[np.float32]]]:
    """The graph and weights of an ONNX model: a file's path, its content, or a loaded model.

    shapes: the shape (C, *spatial) of inputs, by name, whose sizes the model leaves open; or that
    of its only input.
    weights: a file whose tensors are taken in place of the model's of the same names, or where it
    has none of those, in place of the graph's as `formats.weights` finds them.
    The graph's inputs are in the order and layout of the language, channels first, even where the
    model's are not; see `import_onnx` for the way between. Raises NetError: see `import_onnx`;
    also for an output that the language could only give in another layout.
    """
    model, folder = load.load(source)
    file = open_tensors(weights) if weights else None
    constants = replaced(model, file, weights) if file and weights else {}
    found = _imported(model, folder, source, shapes, constants)
    for port in found.outputs:
        if port.view != View.of(port.shape, port.view.batch):
            raise error(
                "onnx-ops",
                f"the output {port.name} is {shown(port.view.sizes)}, the language gives "
                f"{shown(View.of(port.shape, None).sizes)} in another order",
            )
    if file and weights and not constants:
        return found.graph, fitted(found.graph, file, weights)
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
    return _imported(model, folder, source, shapes, constants)


def _imported(
    model: ModelProto,
    folder: Path | None,
    source: load.Source,
    shapes: Mapping[str, Shape] | Shape | None,
    constants: Mapping[str, Array] | None,
) -> Imported:
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
        shapes: Mapping[str, Shape] | Shape,
        constants: Mapping[str, Array],
    ) -> None:
        self.model, self.folder, self.given = model, folder, shapes
        self.version = load.opset(model)
        self.ours = model.producer_name == OURS
        self.values: dict[str, Value | Lost] = {**constants}
        self.inputs: dict[str, Step] = {}
        self.ports: dict[str, View] = {}
        self.turned: dict[str, View] = {}
        self.batch: int | None = None
        self.nodes = 0
        self.trouble = Trouble("node")
        self.fold = Folder()

    def run(self, name: str) -> Imported:
        graph = self.model.graph
        for tensor in graph.initializer:
            self.values.setdefault(tensor.name, array(tensor, self.folder))
        free = [v for v in graph.input if v.name not in self.values]
        self.batch = _common_batch(free)
        shapes = self._shapes(free)
        for value in free:
            self._input(value, shapes)
        self._nodes(graph, _read_names(graph))
        outputs = [(o, self._output(o.name)) for o in graph.output]
        if not graph.output:
            raise broken("the model has no outputs")
        made = [(o, t) for o, t in outputs if isinstance(t, Tensor)]
        finish = Finish(name, self.ours, self.trouble.add)
        self.trouble.check("onnx-ops", name)
        steps = [t.step for _, t in made]
        net = finish.graph(self._named(), steps)
        self.trouble.check("onnx-ops", name)
        net = metadata.take(self.model, net) if self.ours else net
        for parameter, values in finish.weights.items():
            check_finite(values, f"{name}: {parameter}")
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
            relaid = finish.relaid[step].view if step in finish.relaid else self.turned.get(name)
            node, view, shape = finish.nodes[step], self.ports[name], step.shape
            shape = (*shape[1:], shape[0]) if name in self.turned else shape
            inputs.append(Port(name, node, view, shape, kinds[name], relaid))
        outputs = []
        for value, tensor in made:
            node = finish.nodes[tensor.step]
            outputs.append(
                Port(value.name, node, tensor.view, graph[node].shape, kinds[value.name])
            )
        return Imported(graph, finish.weights, tuple(inputs), tuple(outputs), finish.origins)

    # Inputs and outputs

    def _shapes(self, free: Sequence[ValueInfoProto]) -> Mapping[str, Shape]:
        """The shapes that were given, by name."""
        if isinstance(self.given, Mapping):
            return self.given
        if len(free) != 1:
            raise error(
                "unknown-setting",
                f"the model has {len(free)} inputs, and one shape was given",
                help="in Python, netdsl.from_onnx takes one for each",
            )
        return {free[0].name: self.given}

    def _input(self, value: ValueInfoProto, shapes: Mapping[str, Shape]) -> None:
        name, dims = value.name, _dims(value)
        if name in shapes:
            dims = _completed(name, dims, shapes[name])
        if dims is None or not dims:
            raise error(
                "unknown-size",
                f"the input {name} has no shape that can be read: "
                f"{value.type.WhichOneof('value') or 'no type'}",
                help=f"give it: --input CxHxW, or in Python shapes={{{name!r}: (C, H, W)}}",
            )
        sizes = dims[1:] if len(dims) > 1 else dims
        if any(n is None or n < 1 for n in sizes):
            raise error(
                "unknown-size",
                f"the input {name} is {_said(dims)}: sizes other than the batch must be known",
                help=f"give them: --input CxHxW, or in Python shapes={{{name!r}: (C, H, W)}}",
            )
        shape = tuple(n for n in sizes if n is not None)
        if prod(shape) > MOST:
            raise broken(f"the input {name} has more than {MOST:,} elements")
        view = View.of(shape, self.batch if len(dims) > 1 else 1)
        if len(dims) == 1:
            view = View(view.groups[1:], 1)
        self.ports[name] = view
        if len(dims) > 1 and channels_last(self.model.graph, name, len(dims)):
            last = len(shape)
            self.turned[name] = View.of(shape, None).transposed((0, last, *range(1, last)))
            shape = (shape[-1], *shape[:-1])
            view = View.of(shape, view.batch).transposed((0, *range(2, last + 1), 1))
        step = Step(Input(shape), (), shape)
        self.inputs[name] = step
        self.values[name] = Tensor(step, view)

    def _output(self, name: str) -> Value | Lost | None:
        value = self.values.get(name)
        if value is None:
            raise broken(f"the output {name} is made by no node")
        if not isinstance(value, Tensor | Lost):
            self.trouble.add("output", name, "it is a constant")
        return value

    # Nodes

    def _nodes(self, graph: GraphProto, used: set[str]) -> None:
        self.nodes += len(graph.node)
        if self.nodes > MOST_NODES:
            raise error("too-large", f"the model has more than {MOST_NODES:,} nodes")
        for i, node in enumerate(graph.node):
            name = node.name or f"{node.op_type}_{i}"
            if node.op_type == "If":
                self._branch(node, name, used)
            else:
                self._node(node, name, used)

    def _branch(self, node: NodeProto, name: str, used: set[str]) -> None:
        """A choice that depends on sizes, which are known: the nodes of the branch taken."""
        condition = self._value(node.input[0], name) if node.input else None
        if not isinstance(condition, np.ndarray) or condition.size != 1:
            if not isinstance(condition, Lost):
                self.trouble.add("If", name, "its condition is computed from the data")
            self._keep(node, name, [Lost() for _ in node.output])
            return
        chosen = "then_branch" if condition.reshape(()) else "else_branch"
        graph = next((a.g for a in node.attribute if a.name == chosen), GraphProto())
        if len(graph.output) != len(node.output):
            raise broken(f"{name} has {len(node.output)} outputs, its branch {len(graph.output)}")
        for tensor in graph.initializer:
            self.values.setdefault(tensor.name, array(tensor, self.folder))
        self._nodes(graph, used)
        self._keep(node, name, [self._value(o.name, name) for o in graph.output])

    def _node(self, node: NodeProto, name: str, used: set[str]) -> None:
        try:
            made: Value | Lost = self._taken(node, name, used)
        except Unsupported as why:
            self.trouble.add(_operator(node), name, str(why))
            made = Lost()
        self._keep(node, name, [made, *(Lost() for _ in node.output[1:])])

    def _keep(self, node: NodeProto, name: str, made: Sequence[Value | Lost | None]) -> None:
        """What a node's outputs are. Raises NetError for a name that is taken."""
        for output, value in zip(node.output, made, strict=False):
            if output in self.values:
                raise broken(f"{name} makes {output}, which another node makes too")
            if output and value is not None:
                self.values[output] = value

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
            self.ours and "/" in name,
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


def _read_names(graph: GraphProto) -> set[str]:
    """The names that a graph reads, those of its branches too."""
    found = {n for node in graph.node for n in node.input} | {o.name for o in graph.output}
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                found |= _read_names(attribute.g)
    return found


def _common_batch(inputs: Sequence[ValueInfoProto]) -> int | None:
    """The batch size that all inputs fix; None where one leaves it open or they differ."""
    found = {dims[0] for dims in map(_dims, inputs) if dims and len(dims) > 1}
    return found.pop() if len(found) == 1 else None


def _dims(value: ValueInfoProto) -> list[int | None] | None:
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        return None
    return [d.dim_value if d.dim_value > 0 else None for d in value.type.tensor_type.shape.dim]


def _completed(name: str, dims: list[int | None] | None, given: Shape) -> list[int | None]:
    """The sizes that a model leaves open filled in. Raises NetError where it has others."""
    known = dims or [None] * (len(given) + 1)
    fits = len(known) == len(given) + 1
    if not fits or any(k not in (None, g) for k, g in zip(known[1:], given, strict=True)):
        raise error(
            "wrong-shape",
            f"the input {name} is {_said(known)} in the model, which {show(given)} is not",
        )
    return [known[0], *given]


def _said(dims: Sequence[int | None]) -> str:
    return "x".join("?" if n is None else str(n) for n in dims)


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
