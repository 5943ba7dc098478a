"""The text of a file: its docstring, its classes, the net, and how its weights are loaded."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from netdsl.formats.source.body import Body
from netdsl.formats.source.classes import Class, Parameter
from netdsl.formats.source.forward import forward
from netdsl.formats.source.layout import Code, call, lines
from netdsl.formats.source.names import safe
from netdsl.formats.source.parts import Attribute, Module, Symbol, Value
from netdsl.formats.source.spell import constructed, docstring, shown, wrapped
from netdsl.formats.torch_module.extra import EXTRA
from netdsl.graph import Graph
from netdsl.ops import Shape

RUN = 3
"""Equal blocks in a row that are written as a loop."""

WIDTH = 88


def source(graph: Graph, name: str, found: Sequence[Class], root: Body, weights: str | None) -> str:
    """The file's text. name: the net's class. weights: what their file ends with, if any."""
    text: list[str] = []
    used = dict.fromkeys(m.callee for m in _modules(found, root) if m.callee in EXTRA)
    for callee in used:
        text += ["", "", *EXTRA[callee].splitlines()]
    for one in found:
        text += ["", "", *_class(one)]
    text += ["", "", *_net(graph, name, root)]
    if weights is not None:
        text += ["", "", *_load(name)]
    body = "\n".join(text)
    return "\n".join([*_head(graph, name, body, weights), body.lstrip("\n")]) + "\n"


def _modules(found: Sequence[Class], root: Body) -> Iterator[Module]:
    for attributes in (*(one.attributes for one in found), root.attributes):
        for attribute in attributes:
            yield from attribute.modules


# The top ------------------------------------------------------------------------------------------


def _head(graph: Graph, name: str, body: str, weights: str | None) -> list[str]:
    imports = ["from torch import Tensor, nn"] if "Tensor" in body else ["from torch import nn"]
    if re.search(r"(?<![.\w])F\.", body):
        imports.insert(0, "import torch.nn.functional as F")
    if re.search(r"(?<![.\w])torch\.", body):
        imports.insert(0, "import torch")
    if weights is None:
        return [*docstring(graph), "", *imports, "", ""]
    imports.insert(len(imports) - 1, "from safetensors.torch import load_file")
    constant = f'WEIGHTS = Path(__file__).with_suffix("{weights}")'
    first = ["from pathlib import Path", ""]
    return [*docstring(graph), "", *first, *imports, "", constant, "", ""]


# Classes ------------------------------------------------------------------------------------------


def _class(made: Class) -> list[str]:
    base = "nn.Sequential" if made.row else "nn.Module"
    text = [f"class {made.name}({base}):", *_doc(made.about, 4), ""]
    parts = [Code("self"), *map(_parameter, made.parameters)]
    start = lines(call("__init__", parts), 4, "def ", " -> None:")
    if made.row:
        (row,) = made.attributes
        return [*text, *start, *lines(call("super().__init__", _row(row.modules)), 8)]
    if made.attributes:
        text += [*start, "        super().__init__()", *_attributes(made.attributes), ""]
    assert made.body is not None
    return [*text, *forward(made.body)]


def _doc(text: str, indent: int) -> list[str]:
    whole = f'{" " * indent}"""{safe(text)}"""'
    if len(whole) <= WIDTH:
        return [whole]
    pad = " " * indent
    found = textwrap.wrap(f'"""{safe(text)}', WIDTH - indent, break_on_hyphens=False)
    return [*(pad + line for line in found), f'{pad}"""']


def _parameter(parameter: Parameter) -> Code:
    kinds = dict.fromkeys(map(_kind, parameter.values))
    default = "" if parameter.default is None else f" = {shown(parameter.default)}"
    return Code(f"{parameter.name}: {' | '.join(kinds)}{default}")


def _kind(value: Value) -> str:
    return "tuple[int, ...]" if isinstance(value, tuple) else type(value).__name__


def _attributes(attributes: Iterable[Attribute]) -> list[str]:
    text: list[str] = []
    for attribute in attributes:
        if attribute.series:
            code = call("nn.Sequential", _row(attribute.modules))
        else:
            code = constructed(attribute.modules[0])
        text += lines(code, 8, f"self.{attribute.name} = ")
    return text


def _net(graph: Graph, name: str, root: Body) -> list[str]:
    takes = ", ".join(_batch(graph[n].shape) for n in graph.inputs)
    gives = ", ".join(_batch(graph[n].shape) for n in graph.outputs)
    text = [f"class {name}(nn.Module):", *_doc(f"{takes} -> {gives}.", 4), ""]
    if graph.aux:
        text[1:] = _heads(graph, text[1].removesuffix('"""'))
    if root.attributes:
        text += ["    def __init__(self) -> None:", "        super().__init__()"]
        text += [*_attributes(root.attributes), ""]
    return [*text, *forward(root)]


def _heads(graph: Graph, first: str) -> list[str]:
    losses = ", ".join(f"{safe(aux.name)} with {aux.weight:g}" for aux in graph.aux)
    told = f"In training it gives the auxiliary heads' results too; their losses count: {losses}."
    return [first, "", *(f"    {line}" for line in wrapped(told, 84)), '    """', ""]


def _batch(shape: Shape) -> str:
    return f"(N, {', '.join(map(str, shape))})"


def _load(name: str) -> list[str]:
    return [
        f"def load(path: str | Path = WEIGHTS) -> {name}:",
        '    """The net with its weights, ready to run."""',
        f"    net = {name}()",
        "    net.load_state_dict(load_file(path))",
        "    return net.eval()",
    ]


# Modules ------------------------------------------------------------------------------------------


def _row(modules: Sequence[Module]) -> list[Code]:
    """Modules in a row, equal ones as a loop."""
    found: list[Code] = []
    at = 0
    while at < len(modules):
        end, step = _run(modules, at)
        if end - at >= RUN:
            found.append(_loop(modules[at:end], step))
            at = end
        else:
            found.append(constructed(modules[at]))
            at += 1
    return found


def _run(modules: Sequence[Module], at: int) -> tuple[int, int]:
    """Where the modules end that are equal but for a first number that grows evenly, and by how
    much it does."""
    first = modules[at]
    if at + 1 == len(modules) or not first.settings:
        return at + 1, 0
    step = _step(first, modules[at + 1])
    end = at + 1
    while end < len(modules) and _step(modules[end - 1], modules[end]) == step is not None:
        end += 1
    return end, step or 0


def _step(one: Module, other: Module) -> int | None:
    if not one.block or one.callee != other.callee or one.settings[1:] != other.settings[1:]:
        return None
    first, second = one.settings[0].value, other.settings[0].value
    if first == second:
        return 0
    if type(first) is not int or type(second) is not int:
        return None
    return second - first


def _loop(run: Sequence[Module], step: int) -> Code:
    first = run[0]
    if step == 0:
        return Code(f"*({constructed(first)} for _ in range({len(run)}))")
    setting = first.settings[0]
    assert isinstance(setting.value, int)
    name = "channels" if "channels" in setting.name else setting.name
    counted = first.settings[0]._replace(value=Symbol(name))
    one = constructed(Module(first.callee, (counted, *first.settings[1:])))
    end = setting.value + step * len(run)
    return Code(f"*({one} for {name} in range({setting.value}, {end}, {step}))")
