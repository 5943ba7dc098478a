"""A convolution with what follows it, as one class where a file says it again and again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from netdsl.formats.source.classes import Class, Parameter
from netdsl.formats.source.names import Names
from netdsl.formats.source.parts import Attribute, Module, Setting, Symbol, Value

Row = tuple[Module, ...]
Pattern = tuple[str, ...]

OFTEN, SELDOM = 3, 2
"""Places from which on a class pays: for the first, and beside others."""

NORMS = ("nn.BatchNorm", "nn.InstanceNorm", "nn.GroupNorm")
ACTIVATIONS = {
    "nn.ReLU": "ReLU",
    "nn.ReLU6": "ReLU6",
    "nn.LeakyReLU": "LeakyReLU",
    "nn.PReLU": "PReLU",
    "nn.ELU": "ELU",
    "nn.GELU": "GELU",
    "nn.SiLU": "SiLU",
    "nn.Hardswish": "Hardswish",
    "nn.Sigmoid": "Sigmoid",
    "nn.Tanh": "Tanh",
}
SHORT = {"nn.BatchNorm": "BN", "nn.InstanceNorm": "IN", "nn.GroupNorm": "GN"}
CHANNELS = ("in_channels", "out_channels")


def matches(row: Row) -> Iterator[tuple[int, int]]:
    """Where in a row a convolution and what follows it begin and end."""
    at = 0
    while at < len(row):
        end = at + 1
        if row[at].callee.startswith("nn.Conv"):
            end += end < len(row) and row[end].callee.startswith(NORMS)
            end += end < len(row) and row[end].callee in ACTIVATIONS
            if end > at + 1:
                yield at, end
        at = end


class Recorder:
    """Sees every row of a net and changes none; remembers what might be folded."""

    def __init__(self) -> None:
        self.found: dict[Pattern, list[Row]] = {}
        self.places: dict[Pattern, set[tuple[int, int]]] = {}
        self.rows: dict[object, int] = {}

    def __call__(self, row: Row) -> Row:
        # In a block that is called again, the names are the same.
        key = tuple((module.callee, module.name) for module in row)
        number = self.rows.setdefault(key, len(self.rows))
        for start, end in matches(row):
            part = row[start:end]
            pattern = tuple(module.callee for module in part)
            self.found.setdefault(pattern, []).append(part)
            self.places.setdefault(pattern, set()).add((start, number))
        return row

    def frequent(self) -> dict[Pattern, list[Row]]:
        counts = Counter({pattern: len(places) for pattern, places in self.places.items()})
        least = SELDOM if max(counts.values(), default=0) >= OFTEN else OFTEN
        return {p: rows for p, rows in self.found.items() if counts[p] >= least}


class Folder:
    """Puts what is frequent together, as a class."""

    def __init__(self, frequent: dict[Pattern, list[Row]], names: Names) -> None:
        self.classes = {p: _class(rows, names) for p, rows in frequent.items()}

    def __call__(self, row: Row) -> Row:
        found: list[Module] = []
        done = 0
        for start, end in matches(row):
            part = row[start:end]
            made = self.classes.get(tuple(module.callee for module in part))
            if made is not None:
                found += [*row[done:start], _module(part, made)]
                done = end
        return (*found, *row[done:])


def _class(rows: list[Row], names: Names) -> Class:
    first = rows[0]
    parameters: list[Parameter] = []
    own = Names(frozenset(("self",)))
    modules = []
    for i, module in enumerate(first):
        settings = []
        for j, setting in enumerate(module.settings):
            column = tuple(row[i].settings[j].value for row in rows)
            settings.append(setting._replace(value=_value(i, setting, column, own, parameters)))
        modules.append(replace(module, settings=tuple(settings)))
    parameters.sort(key=lambda p: p.default is not None)
    parts = [_word(module.callee) for module in first]
    name = names.fresh("".join(word for word, _ in parts))
    about = f"{', '.join(text for _, text in parts[:-1])} and {parts[-1][1]}."
    row = Attribute("row", tuple(modules), True)
    return Class(name, about[0].upper() + about[1:], tuple(parameters), (row,), True)


def _value(
    i: int, setting: Setting, column: tuple[Value, ...], own: Names, parameters: list[Parameter]
) -> Value:
    """What stands for a setting in the class: its one value, or a parameter."""
    if i and setting.name in ("num_features", "num_channels", "num_parameters"):
        return Symbol("out_channels")
    if len(set(column)) == 1 and not (i == 0 and setting.name in CHANNELS):
        return column[0]
    name = own.fresh(setting.name)
    parameters.append(Parameter(name, column, setting.default, setting.size))
    return Symbol(name)


def _word(callee: str) -> tuple[str, str]:
    if callee in ACTIVATIONS:
        return ACTIVATIONS[callee], f"a {ACTIVATIONS[callee]}"
    norm = next((n for n in NORMS if callee.startswith(n)), None)
    if norm is not None:
        return SHORT[norm], f"a {norm.removeprefix('nn.').removesuffix('Norm').lower()} norm"
    back = callee.startswith("nn.ConvTranspose")
    return ("ConvT" if back else "Conv"), f"a {'transposed ' if back else ''}convolution"


def _module(part: Row, made: Class) -> Module:
    """The call of the class for these modules."""
    values: dict[str, Value] = {}
    (row,) = made.attributes
    for module, blank in zip(part, row.modules, strict=True):
        for setting, hole in zip(module.settings, blank.settings, strict=True):
            if isinstance(hole.value, Symbol):
                values.setdefault(hole.value.text, setting.value)
    settings = tuple(
        Setting(p.name, values[p.name], p.default, p.name not in CHANNELS, p.size)
        for p in made.parameters
    )
    states = tuple((f"{i}.{theirs}", ours) for i, m in enumerate(part) for theirs, ours in m.states)
    shapes = (part[0].shapes[0], part[-1].shapes[1])
    return replace(
        part[0], callee=made.name, settings=settings, states=states, function="", shapes=shapes
    )
