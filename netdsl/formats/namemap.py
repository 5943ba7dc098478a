"""Name maps: which tensor of a foreign weights file is which parameter of a net.

A map is a small text file beside its net: `vgg16.torchvision.map` is vgg16's map for torchvision's
names. docs/weights.md describes the format. A line gives our name of a node, then its foreign name:

    parameters weight bias mean=running_mean var=running_var
    skip *.num_batches_tracked
    conv{1..3}  features.{0,2,5}
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import NamedTuple

from netdsl.faults import Fault, NetError, Source, Span

LIMIT = 20_000
"""The most names that one line may stand for."""

BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})")


class NameMap(NamedTuple):
    """A map from foreign tensor names to ours.

    `source` names whose names they are ("torchvision"). `nodes` maps foreign node names to ours,
    `parameters` a node's foreign parameter names to ours. `skipped` are patterns of tensors that a
    foreign file carries and we have no use for.
    """

    source: str
    nodes: Mapping[str, str]
    parameters: Mapping[str, str]
    skipped: tuple[str, ...] = ()

    def ours(self, name: str) -> str | None:
        """Our name (`conv1.weight`) of a foreign tensor, None where the map does not know it."""
        node, _, parameter = name.rpartition(".")
        if node in self.nodes and parameter in self.parameters:
            return f"{self.nodes[node]}.{self.parameters[parameter]}"
        return None

    def skips(self, name: str) -> bool:
        """Whether a foreign tensor is one to pass over."""
        return any(fnmatchcase(name, pattern) for pattern in self.skipped)


def maps_beside(net: Path) -> tuple[NameMap, ...]:
    """The maps that lie beside a .net file, in alphabetical order.

    Raises NetError for one that cannot be read or understood.
    """
    found = []
    for path in sorted(net.parent.glob("*.map")):
        stem, _, source = path.name.removesuffix(".map").rpartition(".")
        if stem == net.stem:
            found.append(parse_map(_text(path), source, str(path)))
    return tuple(found)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        raise NetError(
            Fault("bad-map", f"the name map {path} cannot be read: {cause}", file=str(path))
        ) from None


def parse_map(text: str, source: str, file: str | None = None) -> NameMap:
    """The map that a text describes. Raises NetError with every fault found."""
    where = Source(text, file)
    nodes: dict[str, str] = {}
    parameters: dict[str, str] = {"weight": "weight", "bias": "bias"}
    skipped: list[str] = []
    faults: list[Fault] = []
    for words, span in _lines(where):
        try:
            if words[0] == "parameters":
                parameters = dict(map(_parameter, words[1:]))
            elif words[0] == "skip":
                skipped += words[1:]
            else:
                _add(nodes, words)
        except ValueError as cause:
            faults.append(Fault("bad-map", str(cause), span, file=file))
    if faults:
        raise NetError(*faults)
    return NameMap(source, nodes, parameters, tuple(skipped))


def _lines(source: Source) -> Iterator[tuple[list[str], Span]]:
    """The words of each line that has some, comments gone, and where the line is."""
    start = 0
    for line in source.text.splitlines(keepends=True):
        words = line.partition("#")[0].split()
        if words:
            yield words, Span(source, start, start + len(line.rstrip()))
        start += len(line)


def _parameter(word: str) -> tuple[str, str]:
    """(foreign, ours) of `mean=running_mean`, or of `weight`, the same in both."""
    ours, _, foreign = word.partition("=")
    return foreign or ours, ours


def _add(nodes: dict[str, str], words: list[str]) -> None:
    """Enters a line: our names, then one or more foreign spellings of them."""
    if len(words) < 2:
        raise ValueError(f"{words[0]} has no foreign name beside it")
    ours = expand(words[0])
    for word in words[1:]:
        foreign = expand(word)
        if len(foreign) != len(ours):
            raise ValueError(
                f"{words[0]} stands for {len(ours)} names and {word} for {len(foreign)}"
            )
        for theirs, name in zip(foreign, ours, strict=True):
            if theirs in nodes:
                raise ValueError(f"the foreign name {theirs} is given twice")
            nodes[theirs] = name


def expand(word: str) -> list[str]:
    """All names a word stands for: `a{1..3}` is a1 a2 a3, `{a,b}` is a b.

    With several braces the last runs fastest: `{a,b}{1,2}` is a1 a2 b1 b2. Raises ValueError.
    """
    texts = BRACES.split(word)
    if any("{" in text or "}" in text for text in texts[::2]):
        raise ValueError(f"{word} has a brace without its partner")
    choices = [_choices(text) if inside % 2 else [text] for inside, text in enumerate(texts)]
    count = 1
    for choice in choices:
        count *= len(choice)
        if count > LIMIT:
            raise ValueError(f"{word} stands for more than {LIMIT} names")
    return ["".join(parts) for parts in product(*choices)]


def _choices(text: str) -> list[str]:
    """`1..3` or `0,2,5`, also mixed: `0,3..5`."""
    found: list[str] = []
    for item in text.split(","):
        numbers = RANGE.fullmatch(item)
        if numbers is None:
            found.append(item)
            continue
        low, high = int(numbers[1]), int(numbers[2])
        if not low <= high < low + LIMIT:
            raise ValueError(f"{item} must run upwards, over at most {LIMIT} numbers")
        found += map(str, range(low, high + 1))
    return found
