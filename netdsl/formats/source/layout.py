"""Python text on lines of a width that reads well, as formatters lay it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 88


@dataclass(frozen=True)
class Code:
    """Text with parts between brackets, which go on lines of their own where one is too short.

    head: up to the bracket, itself included. tail: from the closing one on. comma: whether the
    last part may be followed by one; sign: what stands between.
    """

    head: str
    parts: tuple[Code, ...] = ()
    tail: str = ""
    sign: str = ","

    def __str__(self) -> str:
        between = ", " if self.sign == "," else f" {self.sign} "
        return f"{self.head}{between.join(map(str, self.parts))}{self.tail}"


def call(name: str, parts: Sequence[Code | str]) -> Code:
    """A call."""
    made = tuple(p if isinstance(p, Code) else Code(p) for p in parts)
    return Code(f"{name}(", made, ")")


def lines(code: Code, indent: int, before: str = "", after: str = "") -> list[str]:
    """The text on lines, indented by so many spaces, with something before and after."""
    whole = f"{' ' * indent}{before}{code}{after}"
    if len(whole) <= WIDTH or not code.parts:
        return [whole]
    if code.sign != "," and not code.head:
        return _sum(code, indent, before, after)
    found = [f"{' ' * indent}{before}{code.head}"]
    for part in code.parts:
        found += lines(part, indent + 4, after=",")
    return [*found, f"{' ' * indent}{code.tail}{after}"]


def _sum(code: Code, indent: int, before: str, after: str) -> list[str]:
    """Terms on lines of their own, in parentheses."""
    found = [f"{' ' * indent}{before}("]
    for i, part in enumerate(code.parts):
        found += lines(part, indent + 4, before=f"{code.sign} " if i else "")
    return [*found, f"{' ' * indent}){after}"]
