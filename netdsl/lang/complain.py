"""What to say where the grammar cannot go on."""

from __future__ import annotations

import re

from lark import Token
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from netdsl.faults import Fault
from netdsl.lang.report import Report

STEP = frozenset({"WORD", "BARE", "AUX", "LBRACE"})
VALUE = frozenset({"INT", "FLOAT", "SIZE", "STRING", "MINUS"})
CLOSERS = {"RPAR": "`)`", "RSQB": "`]`", "RBRACE": "`}`"}
OTHERS = {
    "COMMA": "`,`",
    "EQUAL": "`=`",
    "ARROW": "`->`",
    "AS": "`as`",
    "NAME": "a name",
    "PLAIN": "a name",
}
LOOKALIKES = {
    "→": "->",
    "⟶": "->",
    "×": "x",
    "–": "-",
    "—": "-",
    "−": "-",
    "“": '"',
    "”": '"',
    "'": '"',
    "‘": '"',
    "’": '"',
    "·": "*",
    "÷": "/",
    ":": "=",
}


def complain(problem: UnexpectedInput, report: Report, text: str, base: int) -> Fault:
    """The fault that a failed parse of `text`, which stands at `base`, comes to."""
    if isinstance(problem, UnexpectedCharacters):
        return _character(report, text, base, problem.pos_in_stream or 0)
    assert isinstance(problem, UnexpectedToken)
    token, expected = problem.token, frozenset(problem.expected)
    before = problem.token_history[-1] if problem.token_history else None
    if token.type == "$END":
        # The end has no width: the fault is shown at the last character that is there.
        end = len(text.rstrip())
        span = report.span(base + max(end - 1, 0), base + max(end, 1))
        return Fault("syntax", _ends(before, expected), span)
    start = token.start_pos or 0
    span = report.span(base + start, base + start + len(token))
    message, help = _unexpected(token, before, expected)
    return Fault("syntax", message, span, help)


def _character(report: Report, text: str, base: int, at: int) -> Fault:
    span = report.span(base + at, base + at + 1)
    found = text[at]
    if found == '"':
        return Fault("syntax", 'a string without its closing `"`', span)
    number = re.match(r"[0-9.]+[A-Za-z0-9_.]*", text[at:])
    if number:
        span = report.span(base + at, base + at + number.end())
        return Fault("syntax", f"`{shorten(number.group())}` is neither a number nor a word", span)
    help = f"write `{LOOKALIKES[found]}`" if found in LOOKALIKES else None
    shown = f"`{found}`" if found.isprintable() else f"character U+{ord(found):04X}"
    return Fault("syntax", f"{shown} has no meaning here", span, help)


def _ends(before: Token | None, expected: frozenset[str]) -> str:
    after = f" after `{shorten(before)}`" if before is not None else ""
    return f"the statement ends{after} where {_wanted(expected)} should follow"


def _unexpected(
    token: Token, before: Token | None, expected: frozenset[str]
) -> tuple[str, str | None]:
    found = shorten(token)
    if before is not None and "ARROW" in expected and token.type not in CLOSERS:
        if before.type == "WORD" and re.match(r"[0-9.{]", token):
            return f"`{shorten(before)} {found}`: an op is one word, without spaces", (
                f"write `{shorten(before)}{found}`"
            )
        if token.type in ("WORD", "NAME", "LPAR", "LSQB", "AUX", "BARE", "PLAIN"):
            return f"`->` is missing before `{found}`", None
        if token.type == "REPEAT":
            return "a step is repeated once", "write the product, or group: (a x2) x3"
    return f"`{found}` cannot stand here; {_wanted(expected)} should", None


def _wanted(expected: frozenset[str]) -> str:
    """What could have stood there, in words."""
    words = []
    if STEP & expected:
        words.append("a step")
    elif VALUE & expected:
        words.append("a value")
    words += [text for name, text in OTHERS.items() if name in expected and not _within(name, words)]
    words += [text for name, text in CLOSERS.items() if name in expected]
    if not words and "$END" in expected:
        words.append("the end of the line")
    return " or ".join(dict.fromkeys(words[:4])) or "something else"


def _within(name: str, words: list[str]) -> bool:
    """A name is a value too, and is not named twice."""
    return name in ("NAME", "PLAIN", "ARROW") and bool(words)


def shorten(text: str, most: int = 40) -> str:
    """Text on one line, its middle left out where it is long."""
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 11]}…{text[-10:]}"
