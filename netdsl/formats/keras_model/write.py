"""From a graph to a .py file that builds a Keras model, and a file of its weights beside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from netdsl.faults import error
from netdsl.formats.atomic import replacing
from netdsl.formats.imported import Trouble, Unsupported
from netdsl.formats.keras_model.arrays import arranged, variable
from netdsl.formats.keras_model.extra import EXTRA
from netdsl.formats.keras_model.layers import modules, pads
from netdsl.formats.keras_model.source import KERAS, source
from netdsl.formats.safetensors import save
from netdsl.formats.source.body import body
from netdsl.formats.source.classes import classes
from netdsl.formats.source.forward import LETTERS
from netdsl.formats.source.names import TAKEN, Names, identifier
from netdsl.formats.source.parts import Module, Setting, Symbol
from netdsl.formats.source.tree import Scope, tree
from netdsl.graph import Graph, Node
from netdsl.graph.weights import check_weights
from netdsl.ops import Input, Join

Array = NDArray[np.float32]
Weights = Mapping[str, Array]

ENDING = ".keras.safetensors"
"""What the weights' file ends with: not that of our own weights, which may lie beside."""


def write_keras(
    graph: Graph, weights: Weights | None, path: Path, *, aux: bool = False
) -> list[Path]:
    """Writes the net as Python source for Keras 3, and its weights as that model's layers keep
    them.

    aux: auxiliary heads too, as further outputs. Returns the files written. Raises NetError: one
    that lists every op that Keras lacks, a path that is no .py file, or that cannot be written.
    """
    if path.suffix != ".py":
        raise error(
            "wrong-ending",
            f"a Keras model is written to a .py file, not to {path.name}",
            help=f"-o {path.with_suffix('.py')}",
        )
    graph = graph if aux else graph.without_aux()
    text, _ = keras_source(graph, ENDING if weights is not None else None)
    found = [path]
    if weights is not None:
        check_weights(graph, weights)
        beside = path.with_suffix(ENDING)
        save(beside, arranged_weights(graph, weights), {"net": graph.name})
        found.append(beside)
    with replacing(path) as file:
        file.write(text.encode())
    return found


def keras_source(
    graph: Graph, ending: str | None = None
) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The source of a Keras model, and pairs of its weights' names and our parameters.

    ending: what the weights' file ends with that the source reads; None for no `load_weights`.
    Raises NetError: one that lists every op that Keras lacks.
    """
    _check(graph)
    root = tree(graph)
    writer = _Writer(graph, root)
    names = Names(TAKEN | frozenset(KERAS) | frozenset(EXTRA) | frozenset(LETTERS))
    found, calls = classes(
        graph, root, writer.layers, fold, lambda b: names.fresh(identifier(b)), writer.call
    )
    made = body(graph, root, calls, writer.layers, fold)
    return source(graph, found, made, ending), tuple(writer.states())


def _check(graph: Graph) -> None:
    """That Keras has every op. Raises NetError."""
    trouble = Trouble()
    for node in graph:
        if isinstance(node.op, Input | Join):
            continue
        try:
            modules(node.op, graph[node.inputs[0]].shape)
        except Unsupported as why:
            trouble.add(node.op.word(), node.name, str(why))
    trouble.check("keras-ops", graph.name, "Keras")


def arranged_weights(graph: Graph, weights: Weights) -> dict[str, Array]:
    """The weights by the names and in the shapes of the model's layers."""
    found = {}
    for theirs, ours in _Writer(graph, tree(graph)).states():
        node, _, parameter = ours.rpartition(".")
        shape = graph[graph[node].inputs[0]].shape
        found[theirs] = arranged(graph[node], shape, parameter, weights[ours])
    return found


class _Writer:
    """Makes the layers of nodes; layers with weights are called as the nodes are.

    A block's function takes the name of its call, and puts it before those within.
    """

    def __init__(self, graph: Graph, root: Scope) -> None:
        self.graph = graph
        self.local: dict[str, str] = {}
        self.full: dict[str, str] = {}
        self.outer: dict[str, bool] = {}
        self.place: dict[str, tuple[str, str]] = {}
        self._name(root, "", "_")
        if len(set(self.full.values())) < len(self.full):
            self._name(root, "", "__")  # which is in no name by itself
        # One function writes a layer of a block for every call.
        self.padded = {
            self.place[node.name]
            for node in root.nodes()
            if not isinstance(node.op, Join) and pads(node.op, graph[node.inputs[0]].shape)
        }

    def _name(self, scope: Scope, prefix: str, between: str) -> None:
        self.between = between
        names = Names()
        for item in scope.items:
            own = item.name.removeprefix(f"{scope.name}.") if scope.name else item.name
            self.local[item.name] = names.fresh(identifier(own))
            self.full[item.name] = prefix + self.local[item.name]
            self.outer[item.name] = not scope.name
            self.place[item.name] = (scope.block if scope.name else "", self.local[item.name])
            if isinstance(item, Scope):
                self._name(item, self.full[item.name] + between, between)

    def layers(self, graph: Graph, node: Node, name: str) -> tuple[Module, ...]:
        """The layers of a node."""
        shapes = (graph[node.inputs[0]].shape, node.shape)
        made = modules(node.op, shapes[0], explicit=self.place[node.name] in self.padded)
        kind = node.op.head if name.removeprefix(node.op.head).isdigit() else ""
        found = [replace(m, name=name, kind=kind, op=node.op, shapes=shapes) for m in made]
        if graph.parameters(node):
            # Padding stands before the layer with weights, cropping after it.
            at = next(i for i, m in enumerate(found) if _holds(m))
            settings = (*found[at].settings, self._setting(node.name))
            found[at] = replace(found[at], settings=settings, states=(("", node.name),))
        return tuple(found)

    def call(self, scope: Scope, made: Module) -> Module:
        """A call with its name, where there are weights within."""
        if any(self.graph.parameters(node) for node in scope.nodes()):
            return replace(made, settings=(*made.settings, self._setting(scope.name)))
        return made

    def _setting(self, name: str) -> Setting:
        local = self.local[name]
        value = local if self.outer[name] else Symbol(f'f"{{name}}{self.between}{local}"')
        return Setting("name", value, named=True)

    def states(self) -> Iterator[tuple[str, str]]:
        """The names of the model's weights, and our parameters."""
        for node in self.graph:
            for parameter in self.graph.parameters(node):
                if node.name in self.full:
                    theirs = f"{self.full[node.name]}.{variable(node, parameter.name)}"
                    yield theirs, f"{node.name}.{parameter.name}"


def _holds(module: Module) -> bool:
    kind = module.callee.removeprefix("layers.")
    return kind.startswith(("Conv", "Depthwise", "Dense", "PReLU")) or "Normalization" in kind


ACTIVATIONS = {"layers.ReLU": "relu", "layers.Softmax": "softmax"}


def fold(row: tuple[Module, ...]) -> tuple[Module, ...]:
    """A row in which layers say their activation themselves, and a global pool gives a vector."""
    found: list[Module] = []
    for module in row:
        before = found[-1] if found else None
        if before is not None and (word := _activation(module)) and _activates(before):
            word_setting = Setting("activation", word, named=True)
            *settings, name = before.settings
            found[-1] = replace(before, settings=(*settings, word_setting, name))
        elif before is not None and module.callee == "layers.Flatten" and _pools(before):
            found[-1] = replace(before, settings=(), shapes=(before.shapes[0], module.shapes[1]))
        else:
            found.append(module)
    return tuple(found)


def _activation(module: Module) -> str:
    """The word for an activation, empty for what is none or says more."""
    if module.callee == "layers.Activation":
        return str(module.settings[0].value)
    return "" if module.settings else ACTIVATIONS.get(module.callee, "")


def _activates(module: Module) -> bool:
    kind = module.callee.removeprefix("layers.")
    named = any(setting.name == "activation" for setting in module.settings)
    return kind.startswith(("Conv", "Depthwise", "Dense")) and not named


def _pools(module: Module) -> bool:
    return module.callee.startswith("layers.Global") and bool(module.settings)
