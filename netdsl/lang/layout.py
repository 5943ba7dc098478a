"""One statement as it is laid out on one line: its tokens in a tree of brackets, and the spaces
between them. Comments inside a statement keep their place between the tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lark import Token

from netdsl.lang.split import Comment

CLOSERS = frozenset({"RPAR", "RSQB", "RBRACE"})
JOINS = frozenset({"PIPE", "PLUS", "STAR"})
SUMS = frozenset({"PLUS", "MINUS"})
PRODUCTS = frozenset({"STAR", "SLASH", "DOUBLE_SLASH"})
BEFORE_SIGN = frozenset({"", "COMMA", "EQUAL", *SUMS, *PRODUCTS})
"""After these, or at the start, a minus is a number's sign."""
VALUES = frozenset({"arguments", "list"})


@dataclass
class Group:
    """A bracket and what stands in it. kind: group ( ), join [ ], side { }, arguments, list."""

    kind: str
    open: str
    close: str
    items: list[Item]
    forced: bool = False


@dataclass
class Atom:
    """A token: its type in the grammar and its text; `alone` for a comment on its own line."""

    type: str
    text: str
    alone: bool = False


Item = Atom | Group


def tree(tokens: list[Token], comments: list[Comment], text: str) -> list[Item]:
    """The tokens of a statement, comments among them, as a tree. Offsets are the text's own."""
    return _Trees(tokens, comments, text).statement()


class _Trees:
    def __init__(self, tokens: list[Token], comments: list[Comment], text: str) -> None:
        self.tokens = iter(tokens)
        self.comments = list(reversed(comments))
        self.text = text
        self.last: Token | None = None
        self.head = tokens[0].type if tokens else ""

    def statement(self) -> list[Item]:
        return self._items("top")[0]

    def _items(self, kind: str) -> tuple[list[Item], str]:
        items: list[Item] = []
        for token in self.tokens:
            items += self._comments_before(token)
            if token.type in CLOSERS:
                self.last = token
                return _without_idle_arrows(items), str(token)
            if token.type in ("LPAR", "LSQB", "LBRACE"):
                items.append(self._group(token, kind))
                continue
            self.last = token
            sign = token.type == "MINUS" and _neighbour(reversed(items)) in BEFORE_SIGN
            items.append(Atom("SIGN" if sign else token.type, tidy(token)))
        return _without_idle_arrows(items), ""

    def _group(self, token: Token, within: str) -> Group:
        kind = self._kind(token, within)
        self.last = token
        after = self.text[token.end_pos :].lstrip(" \t\r\f\v")
        items, close = self._items(kind)
        forced = kind == "join" and after.startswith(("\n", "#"))
        return Group(kind, str(token), close, items, forced or _has_comment(items))

    def _kind(self, token: Token, within: str) -> str:
        before = self.last.type if self.last is not None else ""
        if token.type == "LBRACE":
            return "side"
        if token.type == "LSQB":
            return "list" if within in VALUES or self.head == "META" else "join"
        called = before in ("WORD", "AUX", "SIZE", "INT") or (
            self.head == "DEF" and before == "NAME"
        )
        return "arguments" if within in VALUES or called else "group"

    def _comments_before(self, token: Token) -> Iterator[Atom]:
        while self.comments and self.comments[-1].start < (token.start_pos or 0):
            comment = self.comments.pop()
            # One inside a word's { } is part of the word's text.
            if self.last is None or comment.start >= (self.last.end_pos or 0):
                yield Atom("COMMENT", self.text[comment.start : comment.end], comment.alone)


def tidy(token: Token) -> str:
    """A token's text, white space in a word's { } taken out."""
    if "{" in token and token.type in ("WORD", "REPEAT") and '"' not in token and "#" not in token:
        return "".join(token.split())
    return str(token)


def _has_comment(items: list[Item]) -> bool:
    return any(item.forced if isinstance(item, Group) else item.type == "COMMENT" for item in items)


def _without_idle_arrows(items: list[Item]) -> list[Item]:
    """Arrows that lead or trail a chain say nothing."""
    kept: list[Item] = []
    for i, item in enumerate(items):
        if isinstance(item, Atom) and item.type == "ARROW":
            before = _neighbour(reversed(kept))
            after = _neighbour(iter(items[i + 1 :]))
            if before in ("", "EQUAL", "ARROW", *JOINS) or after in ("", *JOINS):
                continue
        kept.append(item)
    return kept


def _neighbour(items: Iterator[Item]) -> str:
    for item in items:
        if isinstance(item, Group):
            return "GROUP"
        if item.type != "COMMENT":
            return item.type
    return ""


# On one line ------------------------------------------------------------------------------------


def flat(items: list[Item], kind: str = "top") -> str | None:
    """The items on one line; None where something forces a break."""
    text = ""
    before: Item | None = None
    for item in items:
        one = piece(item)
        if one is None:
            return None
        text += space(before, item, kind, items) + one
        before = item
    return text


def piece(item: Item) -> str | None:
    """One item on one line, a bracket with all it holds; None where something forces a break."""
    if isinstance(item, Atom):
        return None if item.type == "COMMENT" else item.text
    if item.forced:
        return None
    inside = flat(item.items, item.kind)
    if inside is None:
        return None
    edge = " " if item.kind == "side" else ""
    return f"{item.open}{edge}{inside}{edge}{item.close}"


def space(before: Item | None, item: Item, kind: str, items: list[Item]) -> str:
    """What stands between two neighbours inside a bracket of this kind."""
    if before is None:
        return ""
    if isinstance(item, Group) and item.kind == "arguments" and isinstance(before, Atom):
        if before.type in ("WORD", "AUX", "NAME"):
            return ""
        if kind not in VALUES:
            return " " if before.type in ("SIZE", "INT") else ""
    after = item.type if isinstance(item, Atom) else "GROUP"
    prior = before.type if isinstance(before, Atom) else "GROUP"
    if after == "COMMA":
        return ""
    if prior == "COMMA":
        return " "
    if "EQUAL" in (prior, after):
        return " " if kind == "top" and _is_define(items) else ""
    if kind not in VALUES:
        return "" if prior == "SIGN" else " "
    return _in_value(prior, after)


def _in_value(prior: str, after: str) -> str:
    """Sums are spaced, products are not, and a minus that is a number's sign is tight."""
    if prior == "SIGN":
        return ""
    if after == "SIGN":
        return " " if prior in SUMS else ""
    return " " if SUMS & {prior, after} else ""


def _is_define(items: list[Item]) -> bool:
    return isinstance(items[0], Atom) and items[0].type == "DEF"
