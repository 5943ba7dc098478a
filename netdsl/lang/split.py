"""Finds where each statement of a text begins and ends, and its comments.

A statement ends with its line or at `;`. Inside brackets, and after or before `->`, a line may
break anywhere. Each statement is parsed alone, so a fault in one hides nothing in the next.
"""

from __future__ import annotations

import re

from netdsl.frozen import dataclass
from netdsl.lang.report import Full, Report
from netdsl.limits import Limits

KEYWORDS = frozenset({"net", "input", "labels", "meta", "def", "every", "output"})
"""Words that begin a statement."""

CHAINLESS = KEYWORDS - {"def", "every"}
"""Those whose statement ends without a chain."""

WORD = re.compile(r"[A-Za-z0-9_]+")

TOKEN = re.compile(
    r"""
      (?P<comment> \#[^\n]* )
    | (?P<string> "(?:\\.|[^"\\\n])*"? )
    | (?P<arrow> -> )
    | (?P<open> [(\[{] )
    | (?P<close> [)\]}] )
    | (?P<end> ; )
    | (?P<newline> \n )
    | (?P<word> [A-Za-z0-9_]+ )
    | (?P<other> [^\s\ufeff] )
    """,
    re.VERBOSE,
)

CLOSES = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True)
class Comment:
    """# to the end of the line; `alone` where nothing else stands before it on its line."""

    start: int
    end: int
    alone: bool


@dataclass(frozen=True)
class Stretch:
    """Where a statement stands; `sound` where its brackets match and are not too deep."""

    start: int
    end: int
    sound: bool = True


@dataclass(frozen=True)
class Parts:
    """The statements and comments of a text, in its order."""

    statements: tuple[Stretch, ...]
    comments: tuple[Comment, ...]


def split(report: Report, limits: Limits) -> Parts:
    """The statements and comments of the report's text; faults of brackets go to the report."""
    return Splitter(report, limits).run()


class Splitter:
    """One pass over a text."""

    def __init__(self, report: Report, limits: Limits) -> None:
        self.report = report
        self.text = report.source.text
        self.nesting = limits.nesting
        self.tokens = limits.tokens
        self.most_tokens = limits.tokens
        self.unmatched: frozenset[int] = frozenset()
        self.statements: list[Stretch] = []
        self.comments: list[Comment] = []
        self._reset()

    def _reset(self) -> None:
        self.start = -1
        self.end = -1
        self.sound = True
        self.stack: list[tuple[str, int]] = []
        self.resume: tuple[int, int] | None = None
        self.arrow = False
        self.newlines = 0

    def run(self) -> Parts:
        at = 0
        while at >= 0:
            at = self._scan(at)
        return Parts(tuple(self.statements), tuple(self.comments))

    def _scan(self, at: int) -> int:
        """Reads on from `at`; gives where to read again, or -1 at the end of the text."""
        fresh_line = True
        for match in TOKEN.finditer(self.text, at):
            kind = match.lastgroup
            if kind == "newline":
                self._newline(match.start())
                fresh_line = True
                continue
            if kind == "comment":
                self._comment(match.start(), match.end(), fresh_line)
                continue
            self._begin(match, kind or "", fresh_line)
            fresh_line = False
            self._count(match)
            if kind == "end":
                self._finish()
                continue
            self._take(match, kind or "")
        return self._finish(at_end=True)

    def _count(self, match: re.Match[str]) -> None:
        self.tokens -= 1
        if self.tokens < 0:
            message = f"the text has more than {self.most_tokens:,} words and signs"
            span = self.report.span(match.start(), match.end())
            self.report.error("too-large", message, span, "--no-limits lifts this limit")
            raise Full

    def _newline(self, at: int) -> None:
        self.newlines += 1
        if self.newlines == 2 and self.stack and self.resume is None:
            self.resume = (self.end, at)
            if self.stack[0][1] in self.unmatched:
                # It is known from an earlier reading that this one is never closed.
                self._finish()

    def _comment(self, start: int, end: int, fresh_line: bool) -> None:
        if not self.comments or start > self.comments[-1].start:
            end = start + len(self.text[start:end].rstrip())
            self.comments.append(Comment(start, end, fresh_line))

    def _begin(self, match: re.Match[str], kind: str, fresh_line: bool) -> None:
        """Ends the statement before this token where it does not go on with it."""
        if self.start >= 0 and self.newlines:
            keyword = kind == "word" and fresh_line and self._is_keyword(match)
            goes_on = self.stack or self.arrow or (kind == "arrow" and self._holds_chain())
            if keyword or not goes_on:
                self._finish()
        self.newlines = 0

    def _holds_chain(self) -> bool:
        """Whether the statement that is being read ends in a chain, which `->` can go on."""
        first = WORD.match(self.text, self.start)
        return first is None or first.group() not in CHAINLESS

    def _is_keyword(self, match: re.Match[str]) -> bool:
        """Whether a word begins a statement. Inside brackets it may be a setting's name."""
        if match.group() not in KEYWORDS:
            return False
        following = self.text[match.end() : match.end() + 40].lstrip(" \t")
        return not following.startswith(("=", ",", ")", "->"))

    def _take(self, match: re.Match[str], kind: str) -> None:
        if self.start < 0:
            self.start = match.start()
        self.end = match.end()
        self.arrow = kind == "arrow"
        if kind == "open":
            self._open(match.group(), match.start())
        elif kind == "close" and self.stack:
            self._close(match.group(), match.start())

    def _open(self, sign: str, at: int) -> None:
        self.stack.append((sign, at))
        if len(self.stack) == self.nesting + 1:
            self.sound = False
            self.report.error(
                "too-deep",
                f"brackets are nested more than {self.nesting} deep",
                self.report.span(at, at + 1),
                "give the inner part a name with def",
            )

    def _close(self, sign: str, at: int) -> None:
        opened, where = self.stack.pop()
        if CLOSES[opened] != sign:
            self.sound = False
            line = self.report.span(where, where + 1).line
            self.report.error(
                "unclosed-bracket",
                f"`{sign}` closes `{opened}` of line {line}, which needs `{CLOSES[opened]}`",
                self.report.span(at, at + 1),
            )

    def _finish(self, at_end: bool = False) -> int:
        """Ends the statement that was being read, if one was."""
        again = -1
        if self.stack and self.start >= 0:
            again = self._unclosed(at_end)
        if self.start >= 0:
            self.statements.append(Stretch(self.start, self.end, self.sound))
        self._reset()
        return again

    def _unclosed(self, at_end: bool) -> int:
        """A bracket was never closed: the statement ends at the first empty line after it."""
        sign, where = self.stack[-1]
        if self.sound:
            self.report.error(
                "unclosed-bracket",
                f"`{sign}` is never closed",
                self.report.span(where, where + 1),
                f"write `{CLOSES[sign]}` where it ends",
            )
        self.sound = False
        if at_end and self.resume is not None:
            self.unmatched = frozenset(at for _, at in self.stack)
            self.end, again = self.resume
            return again
        return -1
