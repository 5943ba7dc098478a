"""What a module file is made of: modules and how they are called, and expressions of `forward`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from netdsl.ops import Op, Shape


class Symbol(NamedTuple):
    """Python text that stands for a value, such as `4 * width`."""

    text: str


Value = bool | int | float | str | tuple[int, ...] | Symbol


class Setting(NamedTuple):
    """An argument of a module's constructor. named: whether it is given by its name. size: whether
    it is a number of channels, or of features."""

    name: str
    value: Value
    default: Value | None = None
    named: bool = False
    size: bool = False


@dataclass(frozen=True)
class Module:
    """A module: `nn.Conv2d(3, 64, kernel_size=3)`.

    name: what it would be called by itself, kind: that without its number, empty where the net's
    author chose the name. states: pairs of its state dict's names and the parameters of ours that
    they are. function: what computes the same without a module, a `{}` for the input. block: it
    is a class of the file that stands for a block. op: the first op of it, shapes: its input's
    and output's.
    """

    callee: str
    settings: tuple[Setting, ...] = ()
    name: str = field(default="", compare=False)
    kind: str = field(default="", compare=False)
    states: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    function: str = ""
    op: Op | None = field(default=None, compare=False)
    shapes: tuple[Shape, Shape] = field(default=((), ()), compare=False)
    block: bool = False

    @property
    def shrinks(self) -> bool:
        """Whether fewer positions come out than went in."""
        (_, *before), (_, *after) = self.shapes
        return len(before) == len(after) and any(a < b for a, b in zip(after, before, strict=True))


@dataclass(frozen=True)
class Attribute:
    """What a module holds under a name: one module, or several in a row."""

    name: str
    modules: tuple[Module, ...]
    series: bool

    def states(self) -> Iterator[tuple[str, str]]:
        for i, module in enumerate(self.modules):
            place = f"{self.name}.{i}" if self.series else self.name
            for theirs, ours in module.states:
                yield f"{place}.{theirs}", ours


# Expressions ------------------------------------------------------------------------------------


class Ref(NamedTuple):
    """A tensor, by the node whose result it is."""

    value: str


class Use(NamedTuple):
    """The result of the attribute of this number."""

    attribute: int
    inside: tuple[Expression, ...]


class Beside(NamedTuple):
    """Tensors joined along their channels."""

    inside: tuple[Expression, ...]


class Apply(NamedTuple):
    """A function of expressions: head "F.relu(", tail ")"."""

    head: str
    inside: tuple[Expression, ...]
    tail: str = ")"


class Infix(NamedTuple):
    """Expressions with a sign between."""

    sign: str
    inside: tuple[Expression, ...]


Expression = Ref | Use | Beside | Apply | Infix


class Statement(NamedTuple):
    """Tensors, and what they are."""

    values: tuple[str, ...]
    expression: Expression


def refs(expression: Expression) -> Iterator[str]:
    """The tensors that an expression reads."""
    if isinstance(expression, Ref):
        yield expression.value
    else:
        for inner in expression.inside:
            yield from refs(inner)


def depth(expression: Expression) -> int:
    """How many expressions are within each other."""
    if isinstance(expression, Ref):
        return 0
    return 1 + max(map(depth, expression.inside), default=0)
