"""What follows every op of a head, said once: `every conv -> relu`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from netdsl.formats.text.parts import Chain, Step, Word, inner, rebuilt, words

LEAST = 3
"""Ops that one line must speak for."""

DEFAULTS = {"bias": ("no", "yes"), "eps": ("", "1e-05"), "momentum": ("", "0.1")}
"""Settings that may be said once, and how the language's own default is written."""


@dataclass(frozen=True)
class Every:
    """The default settings of a head, and the words that follow it."""

    head: str
    settings: tuple[tuple[str, str], ...]
    followers: tuple[Word, ...]


def find(lines: Sequence[Chain]) -> tuple[tuple[Every, ...], list[Chain]]:
    """The `every` lines that pay, and the chains without what they say."""
    found = []
    chains = list(lines)
    heads = dict.fromkeys(word.head for line in lines for word in words(line))
    # Layers first: what follows them is theirs, and nothing follows that by a line of its own.
    for head in sorted(heads, key=lambda head: head not in LAYERS):
        every = Every(head, _settings(head, chains), _followers(head, chains))
        if every.settings or every.followers:
            chains = [rebuilt(chain, lambda c, e=every: _without(c, e)) for chain in chains]  # type: ignore[misc]
            found.append(every)
    return tuple(found), chains


def _settings(head: str, lines: Sequence[Chain]) -> tuple[tuple[str, str], ...]:
    """Settings that most of the head's ops share, where the rest can say the opposite."""
    ops = [word for line in lines for word in words(line) if word.head == head]
    found = []
    for name, (_, opposite) in DEFAULTS.items():
        values = Counter(dict(word.settings).get(name) for word in ops)
        value, count = values.most_common(1)[0] if values else (None, 0)
        if value is not None and count >= LEAST and count >= 0.75 * len(ops) and opposite:
            found.append((name, value))
    return tuple(found)


def _followers(head: str, lines: Sequence[Chain]) -> tuple[Word, ...]:
    """The longest run of plain words after most of the head's ops."""
    runs: Counter[tuple[Word, ...]] = Counter()
    total = 0
    for line in lines:
        for chain in inner(line):
            for i, step in enumerate(chain):
                if isinstance(step.unit, Word) and step.unit.head == head:
                    total += 1
                    for length in (1, 2):
                        run = _run(chain, i, length)
                        if run and all(word.head != head and _follows(word) for word in run):
                            runs[run] += 1
    fit = [run for run, count in runs.items() if count >= LEAST and count >= 0.75 * total]
    return max(fit, key=lambda run: (len(run), runs[run]), default=())


LAYERS = frozenset(("conv", "dwconv", "tconv", "fc"))
FOLLOW = frozenset(
    ("bn", "relu", "relu6", "leaky", "elu", "gelu", "silu", "hswish", "sigmoid", "tanh", "lrn")
)


def _follows(word: Word) -> bool:
    return word.head in FOLLOW


def _run(chain: Chain, at: int, length: int) -> tuple[Word, ...]:
    """The words after a step, if nothing up to the last of them has a name or a head."""
    steps = chain[at : at + length + 1]
    if len(steps) <= length or any(s.label or s.sides for s in steps[:-1]):
        return ()
    run = tuple(step.unit for step in steps[1:])
    return tuple(unit for unit in run if isinstance(unit, Word)) if len(run) == length else ()


def _without(chain: Chain, every: Every) -> Chain:
    """The chain without what the line says; ops that it does not fit are bare."""
    found: list[Step] = []
    at = 0
    while at < len(chain):
        step = chain[at]
        at += 1
        if isinstance(step.unit, Word) and step.unit.head == every.head:
            length = len(every.followers)
            word = _settled(step.unit, every)
            if length and _run(chain, at - 1, length) == every.followers:
                last = chain[at + length - 1]
                step = replace(last, unit=word)
                at += length
            else:
                step = replace(step, unit=word._replace(bare=length > 0))
        found.append(step)
    return tuple(found)


def _settled(word: Word, every: Every) -> Word:
    """The word without the settings that are the default now, and with those it differs in."""
    own = dict(word.settings)
    for name, value in every.settings:
        if own.get(name) == value:
            del own[name]
        elif name not in own:
            own[name] = DEFAULTS[name][1]
    return word._replace(settings=tuple(own.items()))
