"""What to say where the grammar cannot go on."""

from __future__ import annotations

import re

from lark import Token
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from netdsl.faults import Fault, Span
from netdsl.lang.report import Report

WANTED = (
    (frozenset({"LSQB", "WORD", "AUX"}), "a step"),
    (frozenset({"LSQB", "NAME", "INT", "STRING"}), "a value"),
    (frozenset({"SIZE", "INT"}), "a shape such as 3x224x224"),
    (frozenset({"INT", "FLOAT"}), "a number"),
    (frozenset({"PLAIN", "STRING"}), "a name"),
    (frozenset({"WORD"}), "an op"),
    (frozenset({"NAME"}), "a name"),
    (frozenset({"LBRACE"}), "`{`"),
    (frozenset({"EQUAL"}), "`=`"),
    (frozenset({"COMMA"}), "`,`"),
    (frozenset({"PIPE"}), "`|`, `+` or `*`"),
    (frozenset({"ARROW"}), "`->`"),
    (frozenset({"RPAR"}), "`)`"),
    (frozenset({"RSQB"}), "`]`"),
    (frozenset({"RBRACE"}), "`}`"),
    (frozenset({"$END"}), "the end of the line"),
)
"""What is said for the terminals that could have stood somewhere: the first that fit, three at
most. A row fits where all its terminals could have; what one row has said, no other says again."""

PARTS = frozenset(
    {"LPAR", "BARE", "ARROW", "NAME", "SIZE", "FLOAT", "INT", "STRING", "WORD", "EQUAL"}
)
"""Terminals that begin a step or a value, so that to say one of these says them."""

STARTS_STEP = frozenset({"WORD", "NAME", "LPAR", "LSQB", "AUX", "BARE", "PLAIN"})

LOOKALIKES = {
    "→": "->",
    "⟶": "->",
    "⇒": "->",
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
    ">": "->",
}
"""Signs that a person or an editor may put where the language has another."""

COMPLETE = frozenset({"AS", "LPAR", "<END-OF-FILE>", "$END"})
"""Where no more than these can follow, a statement is complete."""

LINES = "a chain stands on a line of its own"

LAST = re.compile(r"(?:[A-Za-z0-9_.{}]+|->|\S)$")


def complain(problem: UnexpectedInput, report: Report, text: str, base: int) -> Fault:
    """The fault that a failed parse of `text`, which stands at `base`, comes to."""
    if isinstance(problem, UnexpectedCharacters):
        return _character(report, text, base, problem.pos_in_stream or 0)
    assert isinstance(problem, UnexpectedToken)
    token = problem.token
    at = len(text) if token.type == "$END" else token.start_pos or 0
    expected = frozenset(problem.expected) - _elsewhere(text[:at])
    if token.type == "$END":
        # The end has no width: the fault is shown at the last word that is there.
        last = LAST.search(text.rstrip())
        start, end = last.span() if last else (0, 1)
        span = report.span(base + start, base + end)
        after = f" after `{shorten(last.group())}`" if last else ""
        return Fault(
            "syntax", f"the line ends{after}, where {wanted(expected)} should follow", span
        )
    span = report.span(base + at, base + at + len(token))
    before = LAST.search(text[:at].rstrip())
    return _unexpected(token, before.group() if before else "", expected, span)


def _elsewhere(before: str) -> frozenset[str]:
    """Terminals that the grammar's tables expect, but only inside another bracket than this."""
    depths = {sign: before.count(sign) for sign in "([{)]}"}
    closers = {"RPAR": ("(", ")"), "RSQB": ("[", "]"), "RBRACE": ("{", "}")}
    found = {name for name, (lo, hi) in closers.items() if depths[lo] <= depths[hi]}
    if "RSQB" in found:
        found |= {"PIPE", "PLUS", "STAR"} if "RPAR" in found else {"PIPE"}
    return frozenset(found)


def _character(report: Report, text: str, base: int, at: int) -> Fault:
    found = text[at]
    if found == '"':
        end = text.find("\n", at)
        span = report.span(base + at, base + (len(text) if end < 0 else end))
        return Fault("syntax", 'a string without its closing `"`', span)
    number = re.match(r"[0-9.]+[A-Za-z0-9_.]*", text[at:])
    if number:
        span = report.span(base + at, base + at + number.end())
        return Fault("syntax", f"`{shorten(number.group())}` is neither a number nor a word", span)
    span = report.span(base + at, base + at + 1)
    hint = f"write `{LOOKALIKES[found]}`" if found in LOOKALIKES else None
    shown = f"`{found}`" if found.isprintable() else f"the character U+{ord(found):04X}"
    return Fault("syntax", f"{shown} means nothing here", span, hint)


def _unexpected(token: Token, before: str, expected: frozenset[str], span: Span) -> Fault:
    found = shorten(token)
    if "ARROW" in expected and token.type not in ("RPAR", "RSQB", "RBRACE"):
        if re.fullmatch(r"[A-Za-z_]\w*", before) and re.match(r"[0-9]", token):
            message = f"`{shorten(before)} {found}` has a space in it, and an op is one word"
            return Fault("syntax", message, span, f"write `{shorten(before)}{found}`")
        if token.type == "REPEAT" or (re.match(r"x[0-9{]", token) and before.startswith("x")):
            hint = "write the product, or group: (a x2) x3"
            return Fault("syntax", "a step has one repeat", span, hint)
        if token.type in STARTS_STEP:
            return Fault("syntax", f"`->` is missing before `{found}`", span)
        if token.type in ("MINUS", "COMMA"):
            return Fault("syntax", f"`{found}` does not join steps", span, "write `->`")
        if token.type == "EQUAL":
            message = "`=` gives a block its chain, after def"
            return Fault("syntax", message, span, "write `def NAME = …`")
    if token.type in ("ARROW", "SIZE", *STARTS_STEP) and expected <= COMPLETE:
        return Fault("syntax", f"the statement should end before `{found}`", span, LINES)
    return Fault("syntax", f"`{found}` cannot stand here, where {wanted(expected)} should", span)


def wanted(expected: frozenset[str]) -> str:
    """What could have stood there, in words."""
    left = set(expected)
    words: list[str] = []
    for terminals, text in WANTED:
        if terminals <= left and text not in words:
            words.append(text)
            left -= terminals
            if text in ("a step", "a value"):
                left -= PARTS
    words = words[:3]
    return " or ".join(words) if words else "the end of the line"


def shorten(text: str, most: int = 40) -> str:
    """Text on one line, its middle left out where it is long."""
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 11]}…{text[-10:]}"
