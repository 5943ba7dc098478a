"""What can be wrong, said in one form.

Every error a person can cause ends in one exception, `NetError`, that carries one or more
`Fault`s. A fault is a code, one sentence, and where it is known the place in the text it speaks of.

    Exception
    └── NetError            the one public exception
        └── (no subclasses: the code of its faults tells them apart)

`OpFault` is internal: the vocabulary of ops raises it without knowing any text, and the reader of
the language turns it into a `Fault` with a span.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field
from typing import Literal

from netdsl.frozen import dataclass

Severity = Literal["error", "warning"]


@dataclass(frozen=True, eq=False)
class Source:
    """A text and the file it came from (None for text given on the command line)."""

    text: str
    file: str | None = None

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset, both from 1."""
        offset = min(max(offset, 0), len(self.text))
        line = self.text.count("\n", 0, offset) + 1
        column = offset - (self.text.rfind("\n", 0, offset) + 1) + 1
        return line, column


@dataclass(frozen=True, eq=False)
class Span:
    """A stretch of a source: characters start to end (end excluded)."""

    source: Source
    start: int
    end: int

    @property
    def line(self) -> int:
        return self.source.position(self.start)[0]

    @property
    def column(self) -> int:
        return self.source.position(self.start)[1]

    @property
    def text(self) -> str:
        return self.source.text[self.start : self.end]


@dataclass(frozen=True)
class Call:
    """A block's call on the way to a place: the call as written, and where."""

    text: str
    span: Span | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: a stable code, one sentence, where, and what to write instead."""

    code: str
    message: str
    span: Span | None = field(default=None, compare=False)
    help: str | None = None
    severity: Severity = "error"
    trail: tuple[Call, ...] = ()
    file: str | None = None

    @property
    def where(self) -> str | None:
        """The file the fault speaks of, from its span or as given."""
        return self.span.source.file if self.span is not None else self.file


class NetError(Exception):
    """Bad input of any kind: a .net file, weights, a picture, a flag.

    `faults` holds at least one `Fault` of severity error. `str()` is their messages, a line each.
    """

    def __init__(self, *faults: Fault) -> None:
        if not faults:
            raise ValueError("a NetError needs a fault")
        super().__init__(*faults)
        self.faults: tuple[Fault, ...] = faults

    def __str__(self) -> str:
        return "\n".join(_line(fault) for fault in self.faults)


def _line(fault: Fault) -> str:
    where = f"{fault.where}: " if fault.where else ""
    if fault.span is not None:
        where = f"{fault.where or '<text>'}:{fault.span.line}:{fault.span.column}: "
    tail = f" ({fault.help})" if fault.help else ""
    return f"{where}{fault.message}{tail}"


def error(code: str, message: str, *, help: str | None = None, file: str | None = None) -> NetError:
    """A NetError of one fault that has no place in a .net text (a flag, a picture, weights)."""
    return NetError(Fault(code, message, help=help, file=file))


class OpFault(Exception):  # noqa: N818 - a fault is this project's word for it
    """Raised by the vocabulary of ops, before a place in the text is known.

    `part` says which part of the op word the fault is in: "head", "kernel", an option's letters
    ("s", "same"), or "setting:NAME"; None for the word as a whole.
    """

    def __init__(
        self, code: str, message: str, *, help: str | None = None, part: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.help = help
        self.part = part

    def at(self, span: Span | None, trail: Iterable[Call] = ()) -> Fault:
        """The same fault with its place in the text."""
        return Fault(self.code, self.message, span, self.help, trail=tuple(trail))
