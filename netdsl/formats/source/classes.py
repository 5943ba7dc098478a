"""The classes of a file: calls of a block that are alike but for numbers are one class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from netdsl.formats.source.body import Body, Fold, Layers, body
from netdsl.formats.source.forward import forward
from netdsl.formats.source.names import Names, identifier
from netdsl.formats.source.parts import Attribute, Module, Setting, Symbol, Value
from netdsl.formats.source.tree import Scope
from netdsl.graph import Graph
from netdsl.ops import Shape

IN = ("in_channels", "in_features", "num_features", "num_channels")
OUT = ("out_channels", "out_features", "filters", "units")
Column = tuple[Value, ...]


@dataclass(frozen=True)
class Parameter:
    """An argument of a class: its values show its type."""

    name: str
    values: Column
    default: Value | None = None
    size: bool = False


@dataclass
class Class:
    """A class of the file. body: what it computes, with its parameters in place of values."""

    name: str
    about: str
    parameters: tuple[Parameter, ...]
    attributes: tuple[Attribute, ...]
    row: bool
    body: Body | None = None


def classes(
    graph: Graph,
    root: Scope,
    layers: Layers,
    fold: Fold,
    name: Callable[[str], str],
    call: Callable[[Scope, Module], Module] = lambda scope, made: made,
) -> tuple[list[Class], dict[str, Module]]:
    """The classes of the net's blocks, those that others need first, and each call's module.

    name: what a block's class is called. call: completes a call's module.
    """
    found: list[Class] = []
    calls: dict[str, Module] = {}
    for block, scopes in _by_height(root):
        groups: dict[object, list[tuple[Scope, Body]]] = {}
        for scope in scopes:
            made = body(graph, scope, calls, layers, fold)
            groups.setdefault(_key(made), []).append((scope, made))
        for group in groups.values():
            one, settings = _class(graph, name(block), block, group)
            found.append(one)
            for (scope, inside), values in zip(group, settings, strict=True):
                calls[scope.name] = call(scope, _call(graph, scope, one.name, inside, values))
    return found, calls


def _by_height(root: Scope) -> list[tuple[str, list[Scope]]]:
    """The calls by block, those without calls in them first."""
    heights: dict[str, int] = {}
    groups: dict[tuple[int, str], list[Scope]] = {}
    for scope in root.calls():
        inside = (heights[item.name] for item in scope.items if isinstance(item, Scope))
        heights[scope.name] = 1 + max(inside, default=0)
        groups.setdefault((heights[scope.name], scope.block), []).append(scope)
    return [(block, groups[height, block]) for height, block in sorted(groups, key=lambda k: k[0])]


def _key(made: Body) -> object:
    """What bodies of one class have in common: all but the values."""
    attributes = tuple(
        (
            a.name,
            a.series,
            tuple(
                (m.callee, m.function, tuple((s.name, s.default, s.named) for s in m.settings))
                for m in a.modules
            ),
        )
        for a in made.attributes
    )
    return made.row, attributes, () if made.row else tuple(forward(made))


def _call(
    graph: Graph, scope: Scope, name: str, inside: Body, settings: tuple[Setting, ...]
) -> Module:
    local = scope.name.rpartition(".")[2]
    numbered = local.removeprefix(scope.block).isdigit()
    shapes: tuple[Shape, Shape] = ((), ())
    if scope.takes and scope.gives:
        shapes = (graph[scope.takes[0]].shape, graph[scope.gives[-1]].shape)
    return Module(
        name,
        settings,
        name=local,
        kind=scope.block if numbered else "",
        states=inside.states(),
        shapes=shapes,
        block=True,
    )


def _class(
    graph: Graph, name: str, block: str, group: list[tuple[Scope, Body]]
) -> tuple[Class, list[tuple[Setting, ...]]]:
    scope, first = group[0]
    columns = list(zip(*(list(_values(made.attributes)) for _, made in group), strict=True))
    places = list(_places(first.attributes))
    parameters, filled = _parameters(places, columns, first.row)
    values = iter(filled)
    attributes = tuple(
        replace(a, modules=tuple(_filled(m, values) for m in a.modules)) for a in first.attributes
    )
    settings = [
        tuple(
            Setting(p.name, p.values[i], p.default, p.default is not None, p.size)
            for p in parameters
        )
        for i in range(len(group))
    ]
    inside = replace(first, attributes=list(attributes))
    about = _about(graph, scope, block)
    return Class(name, about, tuple(parameters), attributes, first.row, inside), settings


def _about(graph: Graph, scope: Scope, block: str) -> str:
    def shown(names: Iterable[str]) -> str:
        return ", ".join(f"(N, {', '.join(map(str, graph[name].shape))})" for name in names)

    return f"{block}: {shown(scope.takes)} -> {shown(scope.gives)} where it comes first."


def _values(attributes: Sequence[Attribute]) -> Iterable[Value]:
    return (s.value for a in attributes for m in a.modules for s in m.settings)


@dataclass(frozen=True)
class Place:
    """Where a value stands: the attribute, whether its last module, and the setting."""

    attribute: Attribute
    last: bool
    setting: Setting


def _places(attributes: Sequence[Attribute]) -> Iterable[Place]:
    for attribute in attributes:
        sized = [m for m in attribute.modules if any(s.name in OUT for s in m.settings)]
        for module in attribute.modules:
            for setting in module.settings:
                yield Place(attribute, not sized or module is sized[-1], setting)


def _filled(module: Module, values: Iterable[Value]) -> Module:
    own = iter(values)
    return replace(module, settings=tuple(s._replace(value=next(own)) for s in module.settings))


Key = tuple[str, Column]
"""What a column is of, sizes being of one kind, and its values."""


def _parameters(
    places: list[Place], columns: list[Column], row: bool
) -> tuple[list[Parameter], list[Value]]:
    """The class's parameters, and for each place what stands there."""
    keys: list[Key] = [
        ("" if place.setting.size else place.setting.name, column)
        for place, column in zip(places, columns, strict=True)
    ]
    bases, multiples = _bases([key for key in dict.fromkeys(keys) if len(set(key[1])) > 1])
    firsts = {key: places[keys.index(key)] for key in bases}
    called = _names(firsts, places, keys, row)
    parameters = [
        Parameter(called[k], k[1], _default(firsts[k].setting), firsts[k].setting.size)
        for k in bases
    ]
    parameters.sort(key=lambda p: p.default is not None)
    filled: list[Value] = []
    for key in keys:
        if key in called:
            filled.append(Symbol(called[key]))
        elif key in multiples:
            factor, base = multiples[key]
            filled.append(Symbol(f"{factor} * {called[base]}"))
        else:
            filled.append(key[1][0])
    return parameters, filled


def _default(setting: Setting) -> Value | None:
    return None if setting.size else setting.default


def _names(
    firsts: dict[Key, Place], places: list[Place], keys: list[Key], row: bool
) -> dict[Key, str]:
    """What the parameters are called, by what they are where they are first needed."""
    names = Names(frozenset(("self",)))
    ends = [k for p, k in zip(places, keys, strict=True) if p.last and p.setting.name in OUT]
    outs = sum(place.setting.name in OUT for place in firsts.values())
    called = {}
    for key, place in firsts.items():
        wish = place.setting.name
        if wish in OUT and outs > 1 and not row:
            wish = place.attribute.name + ("" if place.last else "_in")
            if place.setting.name == "filters":
                wish = wish.replace("branch", "filters")  # branch is the tensor
        elif wish in OUT:
            wish = wish if row and ends and ends[-1] == key else "width"
        elif wish in IN:
            wish = "in_channels"
        called[key] = names.fresh(identifier(wish))
    return called


def _bases(vary: list[Key]) -> tuple[list[Key], dict[Key, tuple[int, Key]]]:
    """The columns that stand for themselves, and sizes that are a multiple of one of them."""
    found: list[Key] = []
    multiples: dict[Key, tuple[int, Key]] = {}
    for key in sorted(vary, key=lambda key: _size(key[1])):
        known = (base for base in found if key[0] == base[0] == "")
        factor = next(((f, b) for b in known if (f := _factor(key[1], b[1]))), None)
        if factor is None:
            found.append(key)
        else:
            multiples[key] = factor
    return [key for key in vary if key in found], multiples


def _size(column: Column) -> tuple[int, ...]:
    return tuple(v if isinstance(v, int) else 1 << 40 for v in column)


def _factor(column: Column, base: Column) -> int:
    """The whole factor from 2 to 8 that makes one column of the other, else 0."""
    factors: set[int] = set()
    for value, unit in zip(column, base, strict=True):
        if not isinstance(value, int) or not isinstance(unit, int):
            return 0
        if isinstance(value, bool) or isinstance(unit, bool) or unit == 0 or value % unit:
            return 0
        factors.add(value // unit)
    factor = factors.pop()
    return factor if not factors and 2 <= factor <= 8 else 0
