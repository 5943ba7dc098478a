"""From an op word to its parts: the grammar of grammars/word.lark.

`conv3x3s2p1` has the head conv, the kernel 3x3, the options s2 and p1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import field
from functools import cache, lru_cache
from itertools import islice
from typing import Any

from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedInput

from netdsl import resources
from netdsl.frozen import dataclass
from netdsl.ops import HEADS
from netdsl.ops.base import nearest

Place = tuple[int, int]

DIGITS = 19
MOST_NAMES = 500
LONGEST_NAME = 60


@dataclass(frozen=True)
class Spelled:
    """A word's parts, and where each stands in it: "head", "kernel", options by their letters."""

    head: str
    kernel: tuple[int, ...] | None
    options: dict[str, tuple[int, ...]]
    places: dict[str, Place] = field(compare=False)
    twice: str | None = None


@lru_cache(maxsize=4096)
def read_word(text: str) -> Spelled | None:
    """The parts of an op word, values already inserted; None where it is no op's word."""
    try:
        found = grammar().parse(text)
    except UnexpectedInput:
        return None
    assert isinstance(found, Spelled)
    return found


@cache
def grammar() -> Lark:
    """The parser of one word. Its heads are those of the vocabulary."""
    heads = "|".join(sorted(HEADS, key=len, reverse=True))

    def list_heads(terminal: Any) -> None:
        if terminal.name == "HEAD":
            terminal.pattern.value = f"(?:{heads})"

    return Lark(
        resources.grammar("word"),
        parser="lalr",
        lexer="contextual",
        start="word",
        transformer=Parts(),
        edit_terminals=list_heads,
        maybe_placeholders=False,
    )


class Parts(Transformer):  # type: ignore[type-arg]
    """Gathers a word's parts."""

    def size(self, children: list[Token]) -> tuple[tuple[int, ...], int, int]:
        start, end = children[0].start_pos, children[-1].end_pos
        assert start is not None
        assert end is not None
        # More digits than any limit allows need not be read to be refused.
        return tuple(int(token[:DIGITS]) for token in children), start, end

    def option(self, children: list[Any]) -> tuple[str, tuple[int, ...], Place]:
        mark = children[0]
        values, _, end = children[1] if len(children) > 1 else ((), 0, mark.end_pos)
        return str(mark), values, (mark.start_pos, end)

    def word(self, children: list[Any]) -> Spelled:
        head, *rest = children
        places = {"head": (head.start_pos, head.end_pos)}
        kernel = None
        if rest and not isinstance(rest[0][0], str):
            kernel, start, end = rest.pop(0)
            places["kernel"] = (start, end)
        options: dict[str, tuple[int, ...]] = {}
        twice = None
        for letters, values, place in rest:
            twice = twice or (letters if letters in options else None)
            options[letters] = values
            places[letters] = place
        return Spelled(str(head), kernel, options, places, twice)


LETTERS = re.compile(r"([A-Za-z_]+6?)(.*)", re.DOTALL)


def rest_of(text: str) -> tuple[str, str] | None:
    """The head that a misspelled word begins with, and what comes after it; None without one."""
    for head in sorted(HEADS, key=len, reverse=True):
        if text.startswith(head) and not text[len(head)].isalpha():
            return head, text[len(head) :]
    return None


def near(word: str, known: Iterable[str]) -> str | None:
    """The known name that was likely meant. Long words and long lists are not searched."""
    names = list(islice(known, MOST_NAMES + 1))
    if len(names) > MOST_NAMES or len(word) > LONGEST_NAME:
        return None
    return nearest(word, (name for name in names if len(name) <= LONGEST_NAME))


def guess(text: str) -> str | None:
    """The op word that was likely meant, where its head is misspelled."""
    match = LETTERS.fullmatch(text[:LONGEST_NAME])
    if match is None:
        return None
    letters, rest = match.groups()
    head = nearest(letters.lower(), HEADS)
    if head is not None and read_word(head + rest) is not None:
        return head + rest
    return head if head is not None and not rest else None
