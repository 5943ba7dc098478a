"""Values, calls of constructors and a file's docstring, as Python text."""

from __future__ import annotations

import math
import textwrap

from netdsl.formats.source.layout import Code, call
from netdsl.formats.source.names import safe
from netdsl.formats.source.parts import Module, Setting, Symbol, Value
from netdsl.graph import Graph
from netdsl.ops import Picture

WIDTH = 88


def constructed(module: Module) -> Code:
    """A module's constructor, without what is the default."""
    return call(module.callee, arguments(module))


def arguments(module: Module) -> list[str]:
    """What a module's constructor is given, without what is the default."""
    return [_argument(s) for s in module.settings if not _default(s)]


def _default(setting: Setting) -> bool:
    return setting.default is not None and (
        setting.value == setting.default and type(setting.value) is type(setting.default)
    )


def _argument(setting: Setting) -> str:
    value = shown(setting.value)
    return f"{setting.name}={value}" if setting.named else value


def shown(value: Value) -> str:
    """A value as Python text."""
    if isinstance(value, Symbol):
        return value.text
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return f'"{value}"' if isinstance(value, str) else repr(value)


def docstring(graph: Graph, order: str = "") -> list[str]:
    """A file's docstring: what there is to say about the net.

    order: what is to be said of the order of axes.
    """
    first, *more = about(graph, order)
    return [f'"""{first}', *more, '"""'] if more else [f'"""{first}"""']


def about(graph: Graph, order: str = "") -> list[str]:
    """What a written file says about itself: the net, its paper, and how pictures become its input.

    order: what is to be said of the order of axes.
    """
    meta = dict(graph.meta)
    text = [f"{safe(graph.name) or 'A net'}, written by netdsl."]
    facts = [safe(str(meta.pop(key))) for key in ("paper", "year") if key in meta]
    if facts:
        text += ["", *wrapped(", ".join(facts) + ".")]
    if order:
        text += ["", *wrapped(order)]
    pictures = [line for name in graph.inputs for line in _picture(graph, name)]
    return [*text, "", *pictures] if pictures else text


def _picture(graph: Graph, name: str) -> list[str]:
    """How pictures become the net's input, where the net says it."""
    picture, shape = graph.input_op(name).picture, graph[name].shape
    if picture == Picture() or len(shape) != 3:
        return []
    parts = []
    if picture.resize is not None:
        parts.append(f"the shorter side resized to {picture.resize}")
    parts.append(f"the centre {shape[1]}x{shape[2]} cut out")
    if shape[0] == 3:
        parts.append(f"channels in the order {picture.order}")
    value = "pixel" if picture.scale == 1 else f"pixel / {picture.scale:g}"
    if any(picture.mean):
        value = f"{value} - mean"
    if any(s != 1 for s in picture.std):
        value = f"({value}) / std"
    told = f"Pictures: {', '.join(parts)}, then {value}"
    if any(picture.mean):
        told += f", mean {list(picture.mean)}"
    if any(s != 1 for s in picture.std):
        told += f", std {list(picture.std)}"
    return wrapped(told + ".")


def wrapped(text: str, width: int = WIDTH) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
