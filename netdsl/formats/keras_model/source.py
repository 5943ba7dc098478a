"""The text of a file: a function for each block, one that builds the model, one for its weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from netdsl.formats.keras_model.extra import EXTRA
from netdsl.formats.source.body import Body
from netdsl.formats.source.classes import Class, Parameter
from netdsl.formats.source.forward import variables
from netdsl.formats.source.layout import Code, call, lines
from netdsl.formats.source.names import Names, identifier, safe
from netdsl.formats.source.parts import (
    Attribute,
    Expression,
    Infix,
    Module,
    Ref,
    Symbol,
    Use,
    Value,
)
from netdsl.formats.source.spell import arguments, constructed, docstring, shown
from netdsl.graph import Graph

ORDER = "Channels come last: an input of {} is an array (N, {})."
RUN = 3
"""Calls in a row that differ in the number of their name, and are written as a loop."""


def source(
    graph: Graph,
    found: Sequence[Class],
    root: Body,
    weights: str | None,
) -> str:
    """The file's text. weights: what their file ends with, if any."""
    text: list[str] = []
    holders = [*(made.attributes for made in found), root.attributes]
    callees = {m.callee for held in holders for a in held for m in a.modules}
    for name in EXTRA:
        if name in callees:
            text += ["", "", *EXTRA[name].splitlines()]
    for made in found:
        text += ["", "", *_function(made)]
    text += ["", "", *_build(graph, root)]
    if weights is not None:
        text += ["", "", *LOAD.splitlines()]
    code = "\n".join(text)
    used = [name for name in ("layers", "ops") if re.search(rf"(?<![.\w]){name}\.", code)]
    head = ["import keras", *([f"from keras import {', '.join(used)}"] if used else [])]
    if weights is not None:
        head = ["from pathlib import Path", "", *head, "from safetensors.numpy import load_file"]
        head += ["", f'WEIGHTS = Path(__file__).with_suffix("{weights}")']
    first = graph[graph.inputs[0]].shape
    last = (*first[1:], first[0])
    order = ORDER.format("x".join(map(str, first)), ", ".join(map(str, last)))
    told = docstring(graph, order if len(first) > 1 else "")
    return "\n".join([*told, "", *head, *text]) + "\n"


LOAD = '''def load_weights(model: keras.Model, path: str | Path = WEIGHTS) -> keras.Model:
    """The model, with the weights of a file."""
    weights = load_file(path)
    for layer in model.layers:
        for variable in layer.weights:
            variable.assign(weights[f"{layer.name}.{variable.name}"])
    return model
'''


def _function(made: Class) -> list[str]:
    """A block's function."""
    inside = made.body
    assert inside is not None
    writer = _Writer(inside, [p.name for p in made.parameters] + ["name"])
    takes = ["x"] if inside.row else [writer.names[name] for name in inside.takes]
    parts = [Code(name) for name in takes]
    parts += [_parameter(p) for p in made.parameters]
    named = any(
        isinstance(s.value, Symbol) and "{name}" in s.value.text
        for a in made.attributes
        for m in a.modules
        for s in m.settings
    )
    parts += [Code("*"), Code("name")] if named else []
    text = lines(call(made.name, parts), 0, "def ", ":")
    text.append(f'    """{safe(made.about)}"""')
    if inside.row:
        (row,) = made.attributes
        return [*text, *writer.row(row, "x", "x"), "    return x"]
    text += writer.statements()
    gives = [writer.lower(result, "x") for result in inside.results]
    return [*text, *writer.take(), f"    return {', '.join(gives)}"]


def _parameter(parameter: Parameter) -> Code:
    default = "" if parameter.default is None else f"={shown(parameter.default)}"
    return Code(f"{parameter.name}{default}")


def _build(graph: Graph, root: Body) -> list[str]:
    writer = _Writer(root, ["inputs", "outputs"])
    text = ["def build_model() -> keras.Model:", '    """The model, with new weights."""']
    inputs = []
    for name in graph.inputs:
        channels, *spatial = graph[name].shape
        own = writer.names[name]
        shape = call("keras.Input", [repr((*spatial, channels))])
        single = len(graph.inputs) == 1
        inputs.append("inputs" if single else own)
        text += lines(shape, 4, f"{own} = inputs = " if single else f"{own} = ")
    text += writer.statements()
    results = (*root.results, *root.head_results)
    wishes = [*("output" for _ in root.results), *(identifier(a.name) for a in graph.aux)]
    gives = [
        writer.lower(e, "x" if len(results) == 1 else writer.fresh.fresh(wish))
        for e, wish in zip(results, wishes, strict=True)
    ]
    text += writer.take()
    model = call("keras.Model", [_several(inputs), _several(gives), f"name={_name(graph)}"])
    return [*text, *lines(model, 4, "return ")]


def _several(names: list[str]) -> Code:
    return Code(names[0]) if len(names) == 1 else Code("[", tuple(map(Code, names)), "]")


def _name(graph: Graph) -> str:
    return f'"{identifier(graph.name)}"'


class _Writer:
    """Writes expressions as statements, a layer each."""

    def __init__(self, body: Body, taken: list[str]) -> None:
        self.body = body
        # A tensor that is called as a function is would hide it.
        self.called = {m.callee for a in body.attributes for m in a.modules}
        taken = [*taken, *self.called]
        self.names = {} if body.row else variables(body, frozenset((*taken, *KERAS)))
        self.fresh = Names(frozenset((*taken, *self.names.values(), *KERAS, "x", "y", "z")))
        self.text: list[str] = []

    def take(self) -> list[str]:
        """The lines since the last time."""
        found, self.text = self.text, []
        return found

    def statements(self) -> list[str]:
        for statement in (*self.body.statements, *self.body.head_statements):
            names = [self.names[value] for value in statement.values]
            if len(names) == 1:
                got = self.lower(statement.expression, names[0])
                if got != names[0]:
                    self.text.append(f"    {names[0]} = {got}")
            else:
                self.lower(statement.expression, ", ".join(names))
        return self.take()

    def lower(self, expression: Expression, target: str) -> str:
        """Writes what gives an expression; the name that holds it, the target where it is new."""
        if isinstance(expression, Ref):
            return self.names[expression.value]
        alone = len(expression.inside) == 1
        inner = [self.lower(e, target if alone else self._wish(e)) for e in expression.inside]
        if isinstance(expression, Use):
            attribute = self.body.attributes[expression.attribute]
            self.text += self.row(attribute, ", ".join(inner), target)
        elif isinstance(expression, Infix):
            layer = "Add" if expression.sign == "+" else "Multiply"
            self._join(f"layers.{layer}()", inner, target)
        else:
            self._join("layers.Concatenate()", inner, target)
        return target

    def _join(self, layer: str, inner: list[str], target: str) -> None:
        code = Code(f"{layer}(", (Code("[", tuple(map(Code, inner)), "]"),), ")")
        whole = lines(code, 4, f"{target} = ")
        self.text += whole

    def _wish(self, expression: Expression) -> str:
        """A name for a branch."""
        if isinstance(expression, Use):
            own = self.body.attributes[expression.attribute].name
            return self.fresh.fresh("branch" if own in self.called else own)
        return "" if isinstance(expression, Ref) else self.fresh.fresh("branch")

    def row(self, attribute: Attribute, given: str, target: str) -> list[str]:
        text: list[str] = []
        at, modules = 0, attribute.modules
        while at < len(modules):
            end = _run(modules, at)
            if end - at >= RUN:
                text += _loop(modules[at:end], given, target)
                at = end
            else:
                text += _applied(modules[at], given, target, 4)
                at += 1
            given = target
        return text


KERAS = ("keras", "layers", "ops", "load_weights", "build_model", "i", "name", "inputs")


def _applied(module: Module, given: str, target: str, indent: int) -> list[str]:
    """The statement that applies a layer or calls a function."""
    if not module.callee.startswith("layers."):
        return lines(call(module.callee, [given, *arguments(module)]), indent, f"{target} = ")
    return lines(constructed(module), indent, f"{target} = ", f"({given})")


NUMBERED = re.compile(r"(.*?)(\d+)")


def _run(modules: Sequence[Module], at: int) -> int:
    """Where the calls end that are alike but for a number in their name that grows by one."""
    end = at + 1
    while end < len(modules) and _next(modules[end - 1], modules[end]):
        end += 1
    return end


def _next(one: Module, other: Module) -> bool:
    if not one.block or one.callee != other.callee or one.settings[:-1] != other.settings[:-1]:
        return False
    first, second = (NUMBERED.fullmatch(_plain(m.settings[-1].value)) for m in (one, other))
    return bool(first and second and first[1] == second[1] and int(second[2]) == int(first[2]) + 1)


def _plain(value: Value) -> str:
    """A name without the quotes around it."""
    text = value.text if isinstance(value, Symbol) else str(value)
    return text.removeprefix('f"').removesuffix('"')


def _loop(run: Sequence[Module], given: str, target: str) -> list[str]:
    match = NUMBERED.fullmatch(_plain(run[0].settings[-1].value))
    assert match is not None
    start = int(match[2])
    name = run[0].settings[-1]._replace(value=Symbol(f'f"{match[1]}{{i}}"'))
    one = replace(run[0], settings=(*run[0].settings[:-1], name))
    first = [f"    {target} = {given}"] if given != target else []
    head = f"    for i in range({start}, {start + len(run)}):"
    return [*first, head, *_applied(one, target, target, 8)]
