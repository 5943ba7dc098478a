"""The text of PTX as instructions. A text holds one kernel, as compilers write it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+(.*)")
ROOM = re.compile(r"\.(shared|local)\s+\.align\s+(\d+)\s+\.b8\s+([\w$]+)\[(\d+)\]")
PARAMETER = re.compile(r"\.param\s+\.(\w+)\s+([\w$]+)")
LABEL = re.compile(r"([$\w]+):")
GUARD = re.compile(r"@(!?)([%\w]+)\s+(.*)", re.DOTALL)
LINE = re.compile(r"\.loc\s+(\d+)\s+(\d+)")


class Address(NamedTuple):
    """[base + offset]. base: a register, or a symbol."""

    base: str
    offset: int


Operand = Any
"""A name or a number as text, an Address, or a tuple of texts."""


@dataclass(frozen=True)
class Instruction:
    """op: `ld.global.f32` in its parts. guard: the predicate it is done by, if any; negated: if
    that must be false. line: in the text. source: the line of Python it comes from, if known."""

    op: tuple[str, ...]
    operands: tuple[Operand, ...]
    guard: str
    negated: bool
    line: int
    source: int
    text: str

    def __str__(self) -> str:
        where = f", line {self.source}" if self.source else ""
        return f"{self.text.strip()} (PTX {self.line}{where})"


@dataclass
class Text:
    """A kernel. registers: types by name, of a family by its name up to the number. rooms: of
    shared and of local arrays, by name, alignment and bytes. labels: which instruction is next."""

    name: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    registers: dict[str, str] = field(default_factory=dict)
    families: dict[str, str] = field(default_factory=dict)
    shared: dict[str, tuple[int, int]] = field(default_factory=dict)
    local: dict[str, tuple[int, int]] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    instructions: list[Instruction] = field(default_factory=list)

    def type_of(self, register: str) -> str | None:
        """The type it was declared with; None for what is no register."""
        found = self.registers.get(register)
        return found or self.families.get(register.rstrip("0123456789"))


class Unreadable(Exception):  # noqa: N818 - no error of the kernel's
    """Text that this grammar lacks."""


def parsed(ptx: str) -> Text:
    """The one kernel of a text. Raises Unreadable."""
    text, source = Text(), 0
    for line, statement in _statements(ptx):
        if not text.name:
            if ".entry" in statement:
                _head(text, statement)
            else:
                _declared(text, statement)
            continue
        if label := LABEL.fullmatch(statement):
            text.labels[label[1]] = len(text.instructions)
        elif found := LINE.match(statement):
            source = int(found[2])
        elif statement.startswith("."):
            _declared(text, statement)
        else:
            text.instructions.append(_instruction(statement, line, source))
    if not text.name:
        raise Unreadable("no kernel")
    return text


def _statements(ptx: str) -> Iterator[tuple[int, str]]:
    """Statements, labels and the head of the kernel, with their lines. A scope's braces are left
    out: what is declared within must be of one type throughout."""
    held, start, inside = "", 0, False
    for line, written in enumerate(ptx.splitlines(), 1):
        code = written.partition("//")[0].strip()
        if not inside and code.startswith("{"):
            yield start, held
            held, code, inside = "", code[1:], True
        if inside and re.match(r"\.(loc|file|section)\b", code):
            code += ";"
        for piece in re.split(r"(;|(?<=\w):|^\{|(?<=;)\s*\}|^\}$)", code):
            piece = piece.strip()
            if piece in (";", ":"):
                if held:
                    yield start, held + piece.strip(";")
                held = ""
            elif piece not in ("", "{", "}"):
                start = start if held else line
                held = f"{held} {piece}".strip()
        if not inside and re.match(r"\.(version|target|address_size)\b", held):
            held = ""


def _head(text: Text, statement: str) -> None:
    found = re.search(r"\.entry\s+([\w$]+)", statement)
    if text.name or found is None:
        raise Unreadable(statement)
    text.name = found[1]
    text.parameters = {name: kind for kind, name in PARAMETER.findall(statement)}


def _declared(text: Text, statement: str) -> None:
    if found := REGISTERS.match(statement):
        for name in found[2].split(","):
            name = name.strip()
            known = text.families if "<" in name else text.registers
            name = name.partition("<")[0]
            if known.setdefault(name, found[1]) != found[1]:
                raise Unreadable(f"{name} is of two types")
    elif found := ROOM.search(statement):
        kind, align, name, size = found.groups()
        getattr(text, kind)[name] = int(align), int(size)
    elif not re.match(
        r"\.(common|pragma|version|target|address_size|file|max\w+|min\w+)", statement
    ):
        raise Unreadable(statement)


def _instruction(statement: str, line: int, source: int) -> Instruction:
    guard, negated, body = "", False, statement
    if found := GUARD.match(statement):
        negated, guard, body = bool(found[1]), found[2], found[3]
    op, _, rest = body.strip().partition(" ") if " " in body else body.partition("\t")
    op, _, more = op.partition("\t")
    operands = tuple(map(_operand, _split(f"{more} {rest}".strip())))
    return Instruction(tuple(op.split(".")), operands, guard, negated, line, source, statement)


def _split(operands: str) -> list[str]:
    """Between commas that stand in no bracket, and at the bar between two results."""
    return [p.strip() for p in re.split(r"[,|](?![^\[{]*[\]}])", operands) if p.strip()]


def _operand(written: str) -> Operand:
    if written.startswith("{"):
        return tuple(part.strip() for part in written[1:-1].split(","))
    if written.startswith("["):
        base, _, offset = written[1:-1].partition("+")
        return Address(base.strip(), int(offset or "0"))
    return written
