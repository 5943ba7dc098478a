"""Repeats and blocks: what a chain says twice, said once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from netdsl.formats.text.parts import (
    Argument,
    Bracket,
    Call,
    Chain,
    Group,
    Step,
    Unit,
    Word,
    inner,
    rebuilt,
)
from netdsl.formats.text.spell import spelled

LONGEST = 8
"""Steps of a block or of what a repeat repeats."""

GAIN = 40
"""Characters that a block must save."""

SHORT = 4
"""Steps from which on a chain without brackets may be a block."""

TAILS = frozenset(
    (
        "relu",
        "relu6",
        "leaky",
        "elu",
        "gelu",
        "silu",
        "hswish",
        "sigmoid",
        "tanh",
        "prelu",
        "maxpool",
        "avgpool",
        "dropout",
    )
)
"""Heads that nothing that is repeated or named begins with."""

NAMES = {"|": "inception", "+": "block", "*": "gated", "": "stage"}


@dataclass(frozen=True)
class Block:
    """A definition: its name, its parameters, its chain."""

    name: str
    parameters: tuple[str, ...]
    chain: Chain


def repeats(chain: Chain) -> Chain:
    """A chain in which steps that come again at once are written `x2`: single ones first."""
    return _repeated(_repeated(tuple(map(_bared, chain)), 1), LONGEST)


def _bared(step: Step) -> Step:
    """A step without needless parentheses."""
    if isinstance(step.unit, Group) and len(step.unit.chain) == 1:
        one = step.unit.chain[0]
        if one.times == 1 and one.free:
            return replace(step, unit=one.unit)
    return step


def _repeated(chain: Chain, longest: int) -> Chain:
    found: list[Step] = []
    at = 0
    while at < len(chain):
        length, times = _repeat(chain, at, longest)
        if times == 1:
            found.append(chain[at])
            at += 1
            continue
        steps = chain[at : at + length]
        one = steps[0] if length == 1 and steps[0].times == 1 else Step(Group(_plain(steps)))
        last = chain[at + length * times - 1]
        found.append(replace(one, node=last.node, label=last.label, times=times, sides=last.sides))
        at += length * times
    return tuple(found)


def _repeat(chain: Chain, at: int, longest: int) -> tuple[int, int]:
    """How many steps from here come how many times in a row; the choice that saves most."""
    best = (1, 1)
    for length in range(1, min(longest, (len(chain) - at) // 2) + 1):
        if length > 1 and _continues(chain[at]):
            break
        first = _plain(chain[at : at + length])
        times = 1
        while _same(chain, at + length * times, first) and all(
            s.free for s in chain[at + length * (times - 1) : at + length * times]
        ):
            times += 1
        if (times - 1) * length > (best[1] - 1) * best[0]:
            best = (length, times)
    return best


def _continues(step: Step) -> bool:
    """Whether a step belongs to what is before it: an activation, a pool."""
    return isinstance(step.unit, Word) and step.unit.head in TAILS


def _same(chain: Chain, at: int, first: Chain) -> bool:
    steps = chain[at : at + len(first)]
    if len(steps) < len(first) or not all(s.free for s in steps[:-1]):
        return False
    last = replace(steps[-1], sides=())
    return _plain((*steps[:-1], last)) == first


def _plain(chain: Chain) -> Chain:
    """The chain without the names of its nodes, which differ from one to the next."""
    return rebuilt(chain, lambda steps: tuple(step.plain for step in steps))


# Blocks -----------------------------------------------------------------------------------------


@dataclass
class Candidate:
    """Stretches of chains that are alike but for numbers; `values` has each one's numbers."""

    chain: Chain
    values: list[tuple[Argument, ...]]


def blocks(lines: Sequence[Chain], taken: set[str]) -> tuple[list[Block], list[Chain]]:
    """The blocks that pay, and the chains with calls of them.

    Each time the block that promises most is tried, and kept if the text got shorter.
    """
    chains, found = list(lines), list[Block]()
    names, refused = set(taken), set[object]()
    while True:
        best = _best([*chains, *(block.chain for block in found)], refused)
        if best is None:
            return found, chains
        key, candidate = best
        block, arguments = _defined(candidate, names)
        change = partial(_folded, key, len(candidate.chain), block.name, arguments)
        shorter = [rebuilt(chain, change) for chain in chains]
        more = [replace(b, chain=rebuilt(b.chain, change)) for b in found]
        more.append(replace(block, chain=repeats(block.chain)))
        if _length(shorter, more) < _length(chains, found):
            chains, found = shorter, more
            names.add(block.name)
        else:
            refused.add(key)


def _folded(key: object, length: int, name: str, arguments: list[int], chain: Chain) -> Chain:
    return repeats(_called(chain, key, length, name, arguments))


def _length(chains: Sequence[Chain], found: Sequence[Block]) -> int:
    return sum(len(spelled(c)) for c in (*chains, *(b.chain for b in found))) + 20 * len(found)


def _best(lines: Sequence[Chain], refused: set[object]) -> tuple[object, Candidate] | None:
    """The stretch whose definition saves most."""
    candidates: dict[object, Candidate] = {}
    for line in lines:
        for chain in inner(line):
            for key, steps, values in _stretches(chain):
                candidate = candidates.setdefault(key, Candidate(_plain(steps), []))
                candidate.values.append(values)
    worth = {k: _gain(c) for k, c in candidates.items() if len(c.values) > 1 and k not in refused}
    best = max(worth, key=lambda key: worth[key], default=None)
    return (best, candidates[best]) if best is not None and worth[best] >= GAIN else None


def _gain(candidate: Candidate) -> int:
    chain, count = candidate.chain, len(candidate.values)
    brackets = sum(isinstance(step.unit, Bracket) for step in chain)
    if _continues(chain[0]) and not all(isinstance(s.unit, Word) for s in chain):
        return 0
    if brackets == 0 and (len(chain) < SHORT or count * len(chain) < 3 * SHORT):
        return 0
    parameters = len(dict.fromkeys(v for v in zip(*candidate.values, strict=True) if _vary(v)))
    call = 8 + 5 * parameters
    return len(spelled(chain)) * (count - 1) - call * count - 20


def _vary(values: Sequence[Argument]) -> bool:
    return len(set(values)) > 1


def _stretches(chain: Chain) -> Iterator[tuple[object, Chain, tuple[Argument, ...]]]:
    """Stretches of a chain that a block may be made of, none of a kind overlapping."""
    parts = [_holes(step) if step.free else None for step in chain]
    ends: dict[object, int] = {}
    for start in range(len(chain)):
        joins = 0
        keys: list[object] = []
        values: list[Argument] = []
        for end in range(start, min(start + LONGEST, len(chain))):
            step = chain[end]
            part = _holes(replace(step, label=None, sides=())) if _closes(step) else parts[end]
            if part is None:
                break
            keys.append(part[0])
            values += part[1]
            joins += isinstance(step.unit, Bracket | Call | Group)
            if joins > 1:
                break
            key = tuple(keys)
            whole = not isinstance(step.unit, Call | Group) or end > start
            if whole and ends.get(key, -1) < start:
                ends[key] = end
                yield key, chain[start : end + 1], tuple(values)
            if not step.free:
                break


def _closes(step: Step) -> bool:
    """Whether a step may be the last of a stretch, its name and heads going to the call."""
    return replace(step, label=None, sides=()).free


def _holes(step: Step) -> tuple[object, tuple[Argument, ...]]:
    """A step with its numbers taken out, and the numbers."""
    values: list[Argument] = []

    def key(unit: Unit, times: int) -> object:
        if isinstance(unit, Word | Call):
            values.extend(unit.arguments)
            blank = unit._replace(arguments=(None,) * len(unit.arguments))  # type: ignore[arg-type]
            return type(unit).__name__, blank, times
        if isinstance(unit, Bracket):
            branches = tuple(tuple(key(s.unit, s.times) for s in c) for c in unit.branches)
            return "bracket", unit.sign, branches, times
        if isinstance(unit, Group):
            return "group", tuple(key(s.unit, s.times) for s in unit.chain), times
        return unit

    return key(step.unit, step.times), tuple(values)


def _defined(candidate: Candidate, taken: set[str]) -> tuple[Block, list[int]]:
    """The block of a candidate, and which of a stretch's numbers are its arguments."""
    columns = list(zip(*candidate.values, strict=True))
    vary = sorted({c for c in columns if _vary(c)}, key=_size)
    expressions: dict[tuple[Argument, ...], str] = {}
    bases: list[tuple[Argument, ...]] = []
    for column in vary:
        multiple = next((m for m in (_multiple(column, base) for base in bases) if m), None)
        if multiple is None:
            bases.append(column)
        else:
            expressions[column] = f"{multiple[0]}*{{{bases.index(multiple[1])}}}"
    order = [c for c in dict.fromkeys(columns) if c in bases]
    names = _parameters(len(order))
    for column, name in zip(order, names, strict=True):
        expressions[column] = name
    for column, text in expressions.items():
        if "{" in text:
            factor, _, index = text.partition("*")
            expressions[column] = f"{factor}*{expressions[bases[int(index[1:-1])]]}"
    filled = [expressions.get(c, c[0]) for c in columns]
    chain = _filled(candidate.chain, iter(filled))
    where = [columns.index(c) for c in order]
    return Block(_name(chain, taken), names, chain), where


def _size(column: tuple[Argument, ...]) -> tuple[int, ...]:
    return tuple(value if isinstance(value, int) else 1 << 40 for value in column)


def _multiple(
    column: tuple[Argument, ...], base: tuple[Argument, ...]
) -> tuple[int, tuple[Argument, ...]] | None:
    """The whole factor from 2 to 8 that makes one column of another."""
    factors = set()
    for value, unit in zip(column, base, strict=True):
        if not isinstance(value, int) or not isinstance(unit, int) or unit == 0 or value % unit:
            return None
        factors.add(value // unit)
    factor = factors.pop()
    return (factor, base) if not factors and 2 <= factor <= 8 else None


def _parameters(count: int) -> tuple[str, ...]:
    """w for one; letters for several, then numbered ones."""
    if count == 1:
        return ("w",)
    letters = "abcdefghijklmnopqrtuvwyz"
    return tuple(letters[i] if i < len(letters) else f"n{i}" for i in range(count))


def _filled(chain: Chain, values: Iterator[Argument]) -> Chain:
    return tuple(replace(step, unit=_filled_unit(step.unit, values)) for step in chain)


def _filled_unit(unit: Unit, values: Iterator[Argument]) -> Unit:
    if isinstance(unit, Word):
        return unit._replace(arguments=tuple(next(values) for _ in unit.arguments))
    if isinstance(unit, Call):
        return unit._replace(arguments=tuple(next(values) for _ in unit.arguments))
    if isinstance(unit, Bracket):
        return Bracket(unit.sign, tuple(_filled(c, values) for c in unit.branches))
    if isinstance(unit, Group):
        return Group(_filled(unit.chain, values))
    return unit


def _name(chain: Chain, taken: set[str]) -> str:
    """A name for what the chain is: by its bracket's sign, and how many branches."""
    bracket = next((s.unit for s in chain if isinstance(s.unit, Bracket)), None)
    name = NAMES[bracket.sign if bracket else ""]
    if any(isinstance(s.unit, Word) and s.unit.head == "fc" for s in chain):
        name = "classifier"
    if bracket and bracket.sign == "|" and len(bracket.branches) < 3:
        name = "layer" if () in bracket.branches else "fork"
    if bracket and bracket.sign == "+" and () not in bracket.branches:
        name = "down"
    if name not in taken:
        return name
    number = 2
    while f"{name}_{number}" in taken:
        number += 1
    return f"{name}_{number}"


def _called(chain: Chain, key: object, length: int, name: str, arguments: list[int]) -> Chain:
    """The chain with calls in place of the stretches of this key."""
    places = {}
    start = 0
    for found, steps, values in _stretches(chain):
        if found == key and len(steps) == length:
            start = _index(chain, steps, start)
            places[start] = values
            start += length
    result: list[Step] = []
    at = 0
    while at < len(chain):
        if at in places:
            last = chain[at + length - 1]
            call = Call(name, tuple(places[at][i] for i in arguments))
            result.append(replace(last, unit=call, times=1))
            at += length
        else:
            result.append(chain[at])
            at += 1
    return tuple(result)


def _index(chain: Chain, steps: Chain, start: int) -> int:
    """Where these very steps begin."""
    return next(i for i in range(start, len(chain)) if chain[i] is steps[0])
