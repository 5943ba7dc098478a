"""How a long row of modules is cut into named parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from netdsl.formats.source.parts import Module
from netdsl.ops import (
    AdaptiveAveragePool,
    Concat,
    Conv,
    ConvTranspose,
    Flatten,
    GlobalAverage,
    Join,
    Linear,
    Multiply,
)

SHORT = 3
"""Modules that a person reads one by one."""

LARGE = 10
"""Modules that a block counts for."""

ENDS = (Flatten, GlobalAverage, AdaptiveAveragePool, Linear)
"""Ops that a classifier begins with."""

Row = tuple[Module, ...]


class Piece(NamedTuple):
    """Modules in a row, and a name for them; without one they are called by their own."""

    name: str
    modules: Row


def pieces(row: Row) -> list[Row]:
    """The row by ops: those that an op needs several of stay together."""
    return [tuple(group) for _, group in groupby(row, key=lambda module: module.name)]


def segments(row: Row, *, starts: bool, stages: int = 0) -> list[Piece]:
    """The row in parts: a stem, stages that end where the size shrinks, a classifier.

    starts: whether the row begins at the net's input. stages: how many there are already.
    """
    steps = pieces(row)
    if len(steps) <= SHORT:
        return [Piece("", step) for step in steps]
    end = _classifier(steps)
    found = list(_stages(steps[:end], starts, stages + 1))
    tail = steps[end:]
    if len(tail) > 1:
        linear = any(isinstance(m.op, Linear) for step in tail for m in step)
        found.append(Piece("classifier" if linear else "head", _flat(tail)))
    else:
        found += [Piece("", step) for step in tail]
    return found


def _flat(steps: Sequence[Row]) -> Row:
    return tuple(module for step in steps for module in step)


def _classifier(steps: Sequence[Row]) -> int:
    """Where the row becomes a vector and stays one."""
    end = len(steps)
    for i in range(len(steps) - 1, -1, -1):
        if any(m.block or isinstance(m.op, Conv | ConvTranspose) for m in steps[i]):
            break
        if isinstance(steps[i][0].op, ENDS):
            end = i
    return end


def _stages(steps: Sequence[Row], starts: bool, number: int) -> Iterator[Piece]:
    if not any(m.block for step in steps for m in step):
        yield from _group("features" if starts else "layers", steps)
        return
    held: list[Row] = []
    stem = starts
    for step in steps:
        module = step[-1]
        own = module.block and not module.kind
        begins = module.block and stem
        shrinks = module.shrinks and any(m.block for s in held for m in s)
        if held and (own or begins or shrinks):
            yield from _group("stem" if stem else f"stage{number}", held)
            number += not stem and len(held) > 1
            held = []
        stem = stem and not module.block
        if own:
            yield Piece("", step)
        else:
            held.append(step)
    if held:
        yield from _group(f"stage{number}", held)


def _group(name: str, steps: Sequence[Row]) -> Iterator[Piece]:
    """Steps under a name, or as they are where they are few and none is worth a name."""
    if len(steps) > 1:
        yield Piece(name, _flat(steps))
    else:
        yield from (Piece("", step) for step in steps)


def branch_names(join: Join, rows: Sequence[Row]) -> list[str]:
    """What the branches of a bracket are called, empty for those that are not one."""
    several = sum(map(bool, rows)) > 1
    if isinstance(join, Concat) and several:
        return [f"branch{i}" if row else "" for i, row in enumerate(rows, 1)]
    longest = max(range(len(rows)), key=lambda i: sum(LARGE if m.block else 1 for m in rows[i]))
    names = []
    for i, row in enumerate(rows):
        if not row:
            names.append("")
        elif len(row) == 1 and row[0].block:
            names.append(row[0].name)
        elif isinstance(join, Multiply):
            names.append("gate")
        else:
            names.append("body" if i == longest or not several else "shortcut")
    return names
