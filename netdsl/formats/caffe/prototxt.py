"""Protobuf's text format, as .prototxt files use it: to and from messages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from netdsl.faults import Fault, NetError, Source, Span, error
from netdsl.formats.caffe.message import Message

LARGEST = 16 << 20
"""Bytes of a .prototxt; the largest known ones have under one million."""

DEEPEST = 32

TOKEN = re.compile(
    r"""(?P<skip>[\s,;]+|\#[^\n]*)
      | (?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<number>[-+]?(?:0[xX][0-9a-fA-F]{1,16}|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,6})?[fF]?)
        (?![\w.]))
      | (?P<name>-?[A-Za-z_][\w.]*)
      | (?P<sign>[:{}<>\[\]])""",
    re.VERBOSE,
)

ESCAPE = re.compile(r"\\(.)")


class Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int


def read_text(path: Path) -> Message:
    """The message in a .prototxt file. Raises NetError: no such file, too large, no text, or a
    fault of syntax with its place."""
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise error("too-large", f"{path} has {size:,} bytes, a .prototxt at most {LARGEST:,}")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise error("no-such-file", f"there is no file {path}") from None
    except OSError as problem:
        raise error("unreadable", f"{path} cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise error("not-text", f"{path} is not a text file, so it is no .prototxt") from None
    return parse(text, str(path))


def parse(text: str, file: str | None = None) -> Message:
    """The message that a text holds. Raises NetError with the place of the first fault."""
    return _Parser(Source(text, file)).parse()


class _Parser:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.tokens = self._tokens()
        self.next = next(self.tokens)

    def _tokens(self) -> Iterator[Token]:
        text, at = self.source.text, 0
        while at < len(text):
            found = TOKEN.match(text, at)
            if found is None:
                raise self._fault(f"{text[at]!r} has no meaning here", at, at + 1)
            if found.lastgroup != "skip":
                yield Token(found.lastgroup or "", found[0], at, found.end())
            at = found.end()
        yield Token("end", "", at, at)

    def _fault(self, message: str, start: int, end: int) -> NetError:
        span = Span(self.source, start, end)
        return NetError(Fault("bad-prototxt", message, span, file=self.source.file))

    def _wrong(self, wanted: str) -> NetError:
        found = "the text ends" if self.next.kind == "end" else f"{self.next.text[:40]!r} stands"
        return self._fault(f"{found} where {wanted} should be", self.next.start, self.next.end)

    def _take(self) -> Token:
        token = self.next
        self.next = next(self.tokens, token)
        return token

    def parse(self) -> Message:
        found = self._fields("end", 0)
        return found

    def _fields(self, end: str, depth: int) -> Message:
        """The fields up to a closing sign, or the text's end."""
        if depth > DEEPEST:
            raise self._fault("groups are nested too deep", self.next.start, self.next.end)
        message = Message()
        while self.next.kind != "end" and self.next.text != end:
            if self.next.kind != "name":
                raise self._wrong("a field's name")
            self._field(self._take().text, message, depth)
        if (self.next.kind == "end") != (end == "end"):
            raise self._wrong(f"a closing {end}")
        return message

    def _field(self, name: str, message: Message, depth: int) -> None:
        colon = self.next.text == ":" and self._take()
        if colon and self.next.text == "[":
            self._take()
            while self.next.text != "]":
                message.add(name, self._value(depth))
            self._take()
        elif colon or self.next.text in ("{", "<"):
            message.add(name, self._value(depth))
        else:
            raise self._wrong(f"the colon of {name}")

    def _value(self, depth: int) -> object:
        token = self._take()
        if token.text in ("{", "<") and token.kind == "sign":
            found = self._fields("}" if token.text == "{" else ">", depth + 1)
            self._take()
            return found
        if token.kind == "text":
            value = _unquoted(token.text)
            while self.next.kind == "text":
                value += _unquoted(self._take().text)
            return value
        if token.kind == "number":
            return self._number(token)
        if token.kind == "name":
            return {"true": True, "false": False}.get(token.text, token.text)
        self.next = token
        raise self._wrong("a value")

    def _number(self, token: Token) -> int | float:
        text = token.text.lower()
        if "x" in text:
            return int(text, 16)
        if text.lstrip("+-").isdigit():
            if len(text) > 20:
                raise self._fault("a number of over 20 digits", token.start, token.end)
            return int(text)
        return float(text.rstrip("f"))


def _unquoted(text: str) -> str:
    return ESCAPE.sub(lambda found: {"n": "\n", "t": "\t"}.get(found[1], found[1]), text[1:-1])


def write_text(message: Message, indent: str = "") -> str:
    """The message as protobuf's text format has it, a field a line."""
    lines = []
    for name, values in message.fields.items():
        for value in values:
            if isinstance(value, Message):
                lines.append(f"{indent}{name} {{\n{write_text(value, indent + '  ')}{indent}}}\n")
            else:
                lines.append(f"{indent}{name}: {_written(value)}\n")
    return "".join(lines)


class EnumName(str):
    """The name of an enum's value, which stands without quotes."""


def _written(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, EnumName):
        return str(value)
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(value)
