"""Graphs of texts that were read before.

Reading a text takes the parser and all of the language, whose import alone takes longer than many a
net's first run. So the graph of a file is kept in the user's cache folder, `netdsl/nets-DIGEST`, as
JSON: numbers and strings as they are, a tuple as a list, and an object as `{"Class": [fields]}`.
Its name is a digest of the text and the file's name, which stand before it. A graph with anything
else in it is not kept.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from netdsl import kept, resources
from netdsl.faults import Call, Source, Span
from netdsl.graph.graph import Aux, Graph, Labels, Node
from netdsl.ops import JOINS, OPS, AdaptiveAveragePool, Input, Picture, Window

MOST = 100
"""Graphs that are kept; the ones that were read first go."""

ROOMS = ("lang", "ops", "graph")
"""The packages that make a graph of a text."""

CLASSES: dict[str, Callable[..., Any]] = {
    known.__name__: known
    for known in (
        *(Graph, Node, Aux, Labels, Call, Window, Input, Picture, AdaptiveAveragePool),
        *(*OPS, *JOINS.values()),
    )
}
LIST, MAPPING = "[]", "{}"
"""In place of a class: a list, and a mapping from strings."""


class UnkeptError(Exception):
    """A graph that holds what JSON does not."""


def find(text: str, file: str) -> Graph | None:
    """The graph of a text from this file; None where it is not known."""
    content = kept.read(place(text, file))
    if content is None:
        return None
    made_of, graph = json.loads(content)
    if made_of != [text, file]:
        return None  # another text of the same digest
    found = decoded(graph, Source(text, file))
    assert isinstance(found, Graph)
    return found


def keep(graph: Graph, text: str, file: str) -> None:
    """Keeps the graph of a text, if it can be kept."""
    kept.used(folder())
    with contextlib.suppress(UnkeptError):
        content = json.dumps([[text, file], encoded(graph)])
        kept.write(place(text, file), content.encode())
    with contextlib.suppress(OSError):
        files = sorted(folder().iterdir(), key=lambda path: path.stat().st_mtime)
        for path in files[:-MOST]:
            path.unlink(missing_ok=True)


def place(text: str, file: str) -> Path:
    """The file of a text's graph."""
    return folder() / f"{kept.called(repr((text, file)).encode())}.json"


@cache
def folder() -> Path:
    """Where graphs lie that this version made."""
    sources = [path for room in ROOMS for path in kept.below(resources.HERE / room)]
    sources += [str(resources.HERE / name) for name in ("faults.py", "frozen.py")]
    sources += kept.below(resources.ROOT / "grammars", ".lark")
    return resources.user_folder() / "netdsl" / f"nets-{kept.digest(sources)}"


def encoded(value: object) -> Any:
    """A value as JSON takes it. Raises UnkeptError."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is tuple:
        return [encoded(one) for one in value]
    if type(value) is list:
        return {LIST: [encoded(one) for one in value]}
    if type(value) is dict and all(type(key) is str for key in value):
        return {MAPPING: {key: encoded(one) for key, one in value.items()}}
    if type(value) is Span:
        return {"Span": [value.start, value.end]}
    name = type(value).__name__
    if CLASSES.get(name) is not type(value):
        raise UnkeptError(name)
    return {name: [encoded(getattr(value, field)) for field in type(value).__match_args__]}


def decoded(value: Any, source: Source) -> Any:
    """What `encoded` was given. source: the text that spans speak of."""
    if isinstance(value, list):
        return tuple(_each(value, source))
    if not isinstance(value, dict):
        return value
    ((name, inside),) = value.items()
    if name == MAPPING:
        return dict(zip(inside, _each(inside.values(), source), strict=True))
    if name == "Span":
        return Span(source, *inside)
    found = _each(inside, source)
    return found if name == LIST else CLASSES[name](*found)


def _each(values: Iterable[Any], source: Source) -> list[Any]:
    """All of some values; most are numbers and strings, which stay as they are."""
    return [decoded(one, source) if type(one) in (list, dict) else one for one in values]
