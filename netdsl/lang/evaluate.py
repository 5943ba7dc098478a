"""Arithmetic over a block's parameters: what an expression comes to.

Numbers stay whole while they can: 4*w, k//2, and w/2 where it comes out even. A value that
cannot be known (an argument that is itself a fault) is UNKNOWN, and silences what depends on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Final, cast

from netdsl.faults import Call, Span
from netdsl.frozen import dataclass
from netdsl.lang import syntax
from netdsl.lang.report import Report
from netdsl.lang.syntax import Text
from netdsl.lang.words import near
from netdsl.ops.base import Value, show

LARGEST = 10**18
MOST_LISTED = 12


class Unknown:
    """The one value of what cannot be known."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = Unknown()


class Name(str):
    """A name that is no parameter: a setting's word (`bilinear`), or a tensor where it stands."""

    home: object = None

    @classmethod
    def at(cls, text: str, home: object) -> Name:
        name = cls(text)
        name.home = home
        return name


Computed = Value | Unknown


@dataclass(frozen=True)
class Surroundings:
    """What an expression may refer to, and where its faults go (None: nowhere)."""

    parameters: Mapping[str, Computed]
    report: Report | None
    trail: tuple[Call, ...] = ()
    home: object = None

    def fault(self, code: str, message: str, span: Span, help: str | None = None) -> Unknown:
        if self.report is not None:
            self.report.error(code, message, span, help, self.trail)
        return UNKNOWN


def evaluate(expression: syntax.Expression, around: Surroundings) -> Computed:
    """The value of an expression; faults are reported, and make it UNKNOWN."""
    match expression:
        case syntax.Constant(value=value):
            return value
        case syntax.Reference(name=name):
            if name in around.parameters:
                return around.parameters[name]
            return Name.at(name, around.home)
        case syntax.Listing(items=items):
            values = [evaluate(item, around) for item in items]
            return UNKNOWN if UNKNOWN in values else cast("list[Value]", values)
        case syntax.Negative(value=inner):
            number = _number(inner, around)
            return number if isinstance(number, Unknown) else -number
        case syntax.Arithmetic():
            return _arithmetic(expression, around)


def _arithmetic(expression: syntax.Arithmetic, around: Surroundings) -> Computed:
    total = _number(expression.first, around)
    for sign, operand in expression.rest:
        number = _number(operand, around)
        if isinstance(total, Unknown) or isinstance(number, Unknown):
            total = UNKNOWN  # the operands that follow are still looked at
            continue
        if sign in ("/", "//") and number == 0:
            total = around.fault("division-by-zero", f"{total} {sign} 0", operand.span)
            continue
        total = _apply(sign, total, number)
        if abs(total) > LARGEST or total != total:
            message = "the result is larger than a million million million"
            total = around.fault("too-large", message, expression.span)
    return total


def _apply(sign: str, a: int | float, b: int | float) -> int | float:
    match sign:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "//":
            return a // b
    if isinstance(a, int) and isinstance(b, int) and a % b == 0:
        return a // b
    return a / b


def _number(expression: syntax.Expression, around: Surroundings) -> int | float | Unknown:
    """A number to compute with."""
    value = evaluate(expression, around)
    if isinstance(value, Unknown):
        return UNKNOWN
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    if isinstance(value, Name):
        close = near(value, around.parameters)
        hint = f"did you mean `{close}`?" if close else _known(around.parameters)
        return around.fault(
            "unknown-name", f"`{value}` is not a parameter here", expression.span, hint
        )
    return around.fault(
        "wrong-value", f"{shown(value)} is not a number to compute with", expression.span
    )


def _known(parameters: Mapping[str, Computed]) -> str:
    return f"the parameters are {listed(parameters)}" if parameters else "there are none here"


def listed(names: Iterable[str]) -> str:
    """Names with commas between them, the last left out where there are many."""
    first = list(islice(names, MOST_LISTED + 1))
    if len(first) > MOST_LISTED:
        first[-1] = "…"
    return ", ".join(first)


def shown(value: Computed) -> str:
    """A value as a person writes it."""
    if isinstance(value, Unknown):
        return "…"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Text):
        return f'"{value}"'
    if isinstance(value, tuple):
        return show(cast("tuple[int, ...]", value))
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    return str(value)


def plain(value: Value) -> Value:
    """The value for whoever keeps it: a name or a string as a plain str."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, str) else value


def inserted(value: Computed) -> str | None:
    """How a value reads inside a word; None where it cannot stand there."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or (isinstance(value, int) and value < 0):
        return None
    if isinstance(value, (int, Name)):
        return str(value)
    if isinstance(value, tuple):
        return show(cast("tuple[int, ...]", value))
    return None
