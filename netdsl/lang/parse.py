"""From text to a syntax tree: the grammar of grammars/net.lark, statement by statement."""

from __future__ import annotations

import re
import threading
from functools import cache
from typing import Any

from lark import Lark, Token

from netdsl import resources
from netdsl.faults import Source
from netdsl.lang import syntax
from netdsl.lang.build import Builder
from netdsl.lang.report import Full, Report
from netdsl.lang.split import KEYWORDS, Stretch, split
from netdsl.limits import DEFAULT, Limits


@cache
def grammar() -> tuple[Lark, Builder]:
    """The parser of one statement, and the builder that makes its nodes."""
    builder = Builder()
    parser = Lark(
        resources.grammar("net"),
        parser="lalr",
        lexer="contextual",
        start="statement",
        transformer=builder,
        maybe_placeholders=False,
    )
    return parser, builder


LOCK = threading.Lock()
"""The builder knows which text it builds for, one at a time."""


def parse(text: str, file: str | None = None, limits: Limits = DEFAULT) -> syntax.File:
    """The syntax tree of a text, with the faults of its syntax. Never raises for bad text."""
    source = Source(text, file)
    report = Report(source, limits.faults)
    statements: list[syntax.Statement] = []
    try:
        for stretch in split(report, limits).statements:
            statements.append(statement(report, stretch, limits))
    except Full:
        pass
    return syntax.File(source, tuple(statements), tuple(report.faults))


def statement(report: Report, stretch: Stretch, limits: Limits) -> syntax.Statement:
    """One statement. Raises Full when the report is."""
    text = report.source.text[stretch.start : stretch.end]
    if not stretch.sound:
        return broken(report, stretch, text)
    errors = report.errors
    found = run(report, text, stretch.start, limits)
    if found is None or report.errors > errors:
        return broken(report, stretch, text)
    assert isinstance(found, syntax.Statement)
    return found


def run(report: Report, text: str, base: int, limits: Limits) -> Any:
    """What the grammar makes of a statement that begins at `base`; None after a fault."""
    parser, builder = grammar()
    with LOCK:
        builder.begin(report, base, limits, parser)
        return builder.read(text)


def tokens(text: str, report: Report, limits: Limits) -> list[Token]:
    """The tokens of a statement that is known to parse."""
    parser, builder = grammar()
    with LOCK:
        builder.begin(report, 0, limits, parser)
        return list(parser.parse_interactive(text).iter_parse())


NAME_AFTER = re.compile(r"(?:def|every)\s+([A-Za-z_][A-Za-z0-9_]*)")
LABEL = re.compile(r"(?<![A-Za-z0-9_])as\s+([A-Za-z_][A-Za-z0-9_]*)")
FIRST = re.compile(r"[A-Za-z_]*")


def broken(report: Report, stretch: Stretch, text: str) -> syntax.Broken:
    """What can be told of a statement that could not be read."""
    first = FIRST.match(text)
    kind = first.group() if first and first.group() in KEYWORDS else "line"
    name = NAME_AFTER.match(text)
    span = report.span(stretch.start, stretch.end)
    labels = tuple(LABEL.findall(text)) if kind != "def" else ()
    return syntax.Broken(span, kind, name.group(1) if name else None, labels)
