"""The parts of a chain as it is written: words, brackets, calls, names; all immutable, so that
equal parts are equal values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

Argument = int | str
"""A number that a block may take as a parameter, or text."""


class Word(NamedTuple):
    """An op: `conv3x3p1(64, bias=no)` is head conv, conv3x3p1, (64,), (("bias", "no"),)."""

    head: str
    word: str
    arguments: tuple[Argument, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    bare: bool = False


class Ref(NamedTuple):
    """A tensor by the node whose result it is."""

    node: str


class Call(NamedTuple):
    """A block."""

    name: str
    arguments: tuple[Argument, ...] = ()


class Bracket(NamedTuple):
    """Branches joined by a sign; an empty branch is id."""

    sign: str
    branches: tuple[Chain, ...]


class Group(NamedTuple):
    """A chain in parentheses."""

    chain: Chain


class Side(NamedTuple):
    """An auxiliary head; no name where it is the one that the language would give."""

    name: str
    weight: float
    chain: Chain


Unit = Word | Ref | Call | Bracket | Group


@dataclass(frozen=True)
class Step:
    """A unit, how often, what its result is called, and the heads that hang on it."""

    unit: Unit
    node: str = ""
    label: str | None = None
    times: int = 1
    sides: tuple[Side, ...] = ()

    @property
    def plain(self) -> Step:
        """Without what only this one step has."""
        return replace(self, node="", label=None)

    @property
    def free(self) -> bool:
        """Whether it may move into a block or a repeat: nothing in it has or uses a name."""
        return self.label is None and not self.sides and _free(self.unit)


Chain = tuple[Step, ...]


def _free(unit: Unit) -> bool:
    return not isinstance(unit, Ref) and all(s.free for chain in chains(unit) for s in chain)


def chains(unit: Unit) -> tuple[Chain, ...]:
    """The chains within a unit."""
    if isinstance(unit, Bracket):
        return unit.branches
    return (unit.chain,) if isinstance(unit, Group) else ()


def rebuilt(chain: Chain, change: Callable[[Chain], Chain]) -> Chain:
    """A chain in which every chain is changed, the inner ones first."""
    return change(tuple(_rebuilt(step, change) for step in chain))


def _rebuilt(step: Step, change: Callable[[Chain], Chain]) -> Step:
    unit = step.unit
    if isinstance(unit, Bracket):
        unit = Bracket(unit.sign, tuple(rebuilt(c, change) for c in unit.branches))
    elif isinstance(unit, Group):
        unit = Group(rebuilt(unit.chain, change))
    sides = tuple(side._replace(chain=rebuilt(side.chain, change)) for side in step.sides)
    return replace(step, unit=unit, sides=sides)


def inner(chain: Chain) -> Iterator[Chain]:
    """A chain and all chains within it."""
    yield chain
    for step in chain:
        for found in (*chains(step.unit), *(side.chain for side in step.sides)):
            yield from inner(found)


def heads(chain: Chain) -> Iterator[str]:
    """The names of a chain's auxiliary heads, in the order in which the text is read."""
    for step in chain:
        for found in chains(step.unit):
            yield from heads(found)
        for side in step.sides:
            yield from heads(side.chain)
            yield side.name


def words(chain: Chain) -> Iterator[Word]:
    """Every word of a chain and the chains within it."""
    for part in inner(chain):
        yield from (step.unit for step in part if isinstance(step.unit, Word))
