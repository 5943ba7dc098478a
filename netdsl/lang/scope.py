"""Where a chain stands while it is expanded: what names mean there, and what flows along it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from fractions import Fraction
from functools import reduce
from operator import mul

from netdsl.faults import Call, Span
from netdsl.frozen import dataclass
from netdsl.lang import syntax
from netdsl.lang.evaluate import Computed, Surroundings
from netdsl.lang.report import Report
from netdsl.ops import Shape


@dataclass(frozen=True)
class Tensor:
    """A node's output. Its shape is None where a fault has hidden it."""

    node: str
    shape: Shape | None


LOST = Tensor("", None)
"""The result of what could not be made sense of."""


@dataclass(frozen=True)
class Double:
    """A `double` (factor 2) or `halve` (1/2) passed on the way, not yet heeded by an op."""

    span: Span
    factor: Fraction


@dataclass(frozen=True)
class Flow:
    """What goes along a chain: a tensor, and the doubles and halves on the way to it."""

    tensor: Tensor
    pending: tuple[Double, ...] = ()

    @property
    def width(self) -> Fraction:
        """What the next op multiplies its channels by."""
        return reduce(mul, (d.factor for d in self.pending), Fraction(1))


class Naming:
    """Names for the nodes and calls of one block call: conv1, conv2, inception1."""

    def __init__(self, prefix: str, given: Mapping[str, syntax.Label]) -> None:
        self.prefix = prefix
        self.given = given
        self.taken: set[str] = set()
        self._counts: dict[str, int] = {}

    def fresh(self, head: str) -> str:
        """The next name of this head that no label has."""
        while True:
            number = self._counts[head] = self._counts.get(head, 0) + 1
            name = f"{head}{number}"
            if name not in self.given and name not in self.taken:
                self.taken.add(name)
                return self.prefix + name

    def name(self, head: str, label: syntax.Label | None) -> str:
        """The label's name, or a fresh one."""
        return self.fresh(head) if label is None else self.prefix + label.name


@dataclass(frozen=True)
class Scope:
    """One call of a block, or the file itself."""

    naming: Naming
    report: Report | None
    parameters: Mapping[str, Computed] = field(default_factory=dict)
    labels: dict[str, Tensor] = field(default_factory=dict)
    """Names given so far."""
    given: Mapping[str, syntax.Label] = field(default_factory=dict)
    """All names that are given here, sooner or later."""
    trail: tuple[Call, ...] = ()
    stack: tuple[str, ...] = ()
    follows: bool = False
    """Whether this is the chain of an `every`, to which no `every` applies."""

    @property
    def around(self) -> Surroundings:
        """For expressions that stand here."""
        return Surroundings(self.parameters, self.report, self.trail, self)

    def fault(self, code: str, message: str, span: Span, help: str | None = None) -> None:
        """Reports an error in this scope."""
        if self.report is not None:
            self.report.error(code, message, span, help, self.trail)

    def of_every(self, head: str, op: Span | None = None) -> Scope:
        """For the chain that `every HEAD` lets follow an op here: new ops are named as here, but
        there is nothing to refer to."""
        trail = (*self.trail, Call(f"every {head}", op))
        return replace(self, parameters={}, labels={}, given={}, trail=trail, follows=True)

    def has(self, name: str) -> bool:
        """Whether a name is a tensor's here, or a parameter's that may stand for one."""
        return name in self.labels or name in self.given or name in self.parameters
