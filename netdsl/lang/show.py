"""How faults are shown: as text with the source underlined, in colour, and as JSON's objects.

error[shape-mismatch]: branches joined by + must have one shape: 64x56x56 and 128x28x28
  --> nets/mine.net:7:17
  |
7 | def block(w) = [pair(w) + id] -> relu
  |                ^^^^^^^^^^^^^^
  = in block(…), called at line 12
  = help: a 1x1 convolution on the shortcut changes channels and stride
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable
from typing import IO

from netdsl.faults import Fault, NetError, Span
from netdsl.plain import clean

WIDEST = 110
"""Columns of a source line that are shown; of a longer one, the part around the span."""

MOST_CALLS = 6
"""Calls of a trail that are shown; of a longer one, the first and the last."""

Styled = list[tuple[str, str]]
"""Pieces of text, each with a style of rich (empty for plain)."""


def show(faults: NetError | Iterable[Fault], to: IO[str] | None = None) -> None:
    """Prints faults, in colour on a terminal; on standard error unless told otherwise."""
    stream = sys.stderr if to is None else to
    found = faults.faults if isinstance(faults, NetError) else tuple(faults)
    if stream.isatty():
        from rich.console import Console
        from rich.text import Text

        console = Console(file=stream, highlight=False, soft_wrap=True)
        for fault in found:
            console.print(Text.assemble(*_styled(fault)))
    else:
        text = "".join(render(fault) + "\n" for fault in found)
        coding = getattr(stream, "encoding", None) or "utf-8"
        stream.write(text.encode(coding, "replace").decode(coding))
    stream.flush()


def render(fault: Fault) -> str:
    """A fault as plain text of one or more lines."""
    return "".join(text for text, _ in _styled(fault))


def to_dict(fault: Fault) -> dict[str, object]:
    """A fault as --json gives it. Line and column count from 1; None where there is no place."""
    span = fault.span
    return {
        "code": fault.code,
        "severity": fault.severity,
        "message": fault.message,
        "file": fault.where,
        "line": span.line if span is not None else None,
        "column": span.column if span is not None else None,
        "help": fault.help,
    }


def _styled(fault: Fault) -> Styled:
    colour = "bold red" if fault.severity == "error" else "bold yellow"
    parts: Styled = [
        (f"{fault.severity}[{fault.code}]", colour),
        (f": {clean(fault.message)}", "bold"),
    ]
    margin = " "
    if fault.span is not None:
        margin = " " * len(str(fault.span.line))
        parts += _source(fault.span, margin, colour)
    elif fault.where:
        parts += [("\n --> ", "blue"), (clean(fault.where), "")]
    for note in _calls(fault):
        parts += [(f"\n{margin} = ", "blue"), (note, "")]
    if fault.help:
        parts += [(f"\n{margin} = ", "blue"), ("help", "bold"), (f": {clean(fault.help)}", "")]
    return parts


def _source(span: Span, margin: str, colour: str) -> Styled:
    """The place, the source line, and the underline."""
    file = clean(span.source.file or "<text>")
    line, column = span.source.position(span.start)
    text, start, end = _line(span)
    text, start, end = _window(text, start, end)
    blank = " " * _width(text[:start])
    mark = "^" * max(_width(text[start:end]), 1)
    return [
        (f"\n{margin}--> ", "blue"),
        (f"{file}:{line}:{column}", ""),
        (f"\n{margin} |\n{line} | ", "blue"),
        (text, ""),
        (f"\n{margin} | ", "blue"),
        (blank + mark, colour),
    ]


def _line(span: Span) -> tuple[str, int, int]:
    """The first line of a span, and where in it the span begins and ends."""
    text = span.source.text
    first = text.rfind("\n", 0, span.start) + 1
    last = text.find("\n", span.start)
    last = len(text) if last < 0 else last
    line = text[first:last]
    end = min(span.end, first + len(line.rstrip()))
    return clean(line), span.start - first, max(end - first, span.start - first)


def _window(text: str, start: int, end: int) -> tuple[str, int, int]:
    """The part of a long line around its underlined stretch."""
    if len(text) <= WIDEST:
        return text.rstrip(), start, end
    left = max(0, min(start - 20, len(text) - WIDEST))
    right = left + WIDEST
    before, after = "…" if left else "", "…" if right < len(text) else ""
    shift = len(before) - left
    return before + text[left:right].rstrip() + after, start + shift, min(end, right) + shift


def _calls(fault: Fault) -> list[str]:
    """Through which blocks a place was reached, the innermost first."""
    calls = list(reversed(fault.trail))
    notes = [
        f"in {clean(call.text)}, called at line {call.span.line}"
        if call.span is not None
        else f"in {clean(call.text)}"
        for call in calls
    ]
    if len(notes) > MOST_CALLS:
        hidden = len(notes) - MOST_CALLS + 1
        notes[MOST_CALLS // 2 : -(MOST_CALLS // 2) + 1] = [f"… {hidden} more calls …"]
    return notes


def _width(text: str) -> int:
    """Columns that a text takes: wide characters two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )
