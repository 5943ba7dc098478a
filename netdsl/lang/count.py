"""How many steps a chain expands to, counted before anything is expanded.

A repeat multiplies, and a block called twice with the same arguments is counted once, so a block
that doubles itself sixty times costs no more than sixty.
"""

from __future__ import annotations

from collections.abc import Mapping

from netdsl.lang import syntax
from netdsl.lang.evaluate import Computed, Surroundings, Unknown, evaluate, shown
from netdsl.lang.insert import bind_silently, word_text
from netdsl.lang.program import Program
from netdsl.lang.words import read_word
from netdsl.limits import Limits

Parameters = Mapping[str, Computed]


class Counter:
    """Counts steps; whatever is wrong on the way counts as one and is reported elsewhere."""

    def __init__(self, program: Program, limits: Limits) -> None:
        self.program = program
        self.limits = limits
        self.visited = 0
        self._known: dict[tuple[object, ...], int] = {}

    def line(self, chain: syntax.Chain) -> int:
        """The steps of a chain at the top of the file."""
        return self._chain(chain, {}, (), follows=False, depth=0)

    @property
    def exhausted(self) -> bool:
        """Whether counting itself has taken too long."""
        return self.visited > self.limits.nodes

    def _chain(
        self,
        chain: syntax.Chain,
        parameters: Parameters,
        stack: tuple[str, ...],
        follows: bool,
        depth: int,
    ) -> int:
        if depth > self.limits.depth or self.exhausted:
            return 1
        total = 0
        for step in chain.steps:
            self.visited += 1
            times = self._times(step, parameters)
            if times:
                total += times * self._unit(step.unit, parameters, stack, follows, depth + 1)
        return total

    def _times(self, step: syntax.Step, parameters: Parameters) -> int:
        if step.repeat is None:
            return 1
        value = evaluate(step.repeat, Surroundings(parameters, None))
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            return 1
        return value if value <= self.limits.repeats else 1

    def _unit(
        self,
        unit: syntax.Unit,
        parameters: Parameters,
        stack: tuple[str, ...],
        follows: bool,
        depth: int,
    ) -> int:
        match unit:
            case syntax.Group(chain=chain) | syntax.Side(chain=chain):
                return self._chain(chain, parameters, stack, follows, depth)
            case syntax.Bracket(branches=branches):
                counts = [self._chain(b, parameters, stack, follows, depth) for b in branches]
                return 1 + sum(counts)
        text = word_text(unit, Surroundings(parameters, None))
        if text is None:
            return 1
        if text in self.program.blocks:
            return self._call(text, unit, parameters, stack, follows, depth)
        return 1 if follows or unit.bare else 1 + self._followers(text, depth)

    def _followers(self, text: str, depth: int) -> int:
        word = read_word(text) if self.program.every else None
        every = self.program.every.get(word.head) if word is not None else None
        if every is None or every.chain is None:
            return 0
        key = ("every", every.word.plain)
        if key not in self._known:
            self._known[key] = self._chain(every.chain, {}, (), follows=True, depth=depth)
        return self._known[key]

    def _call(
        self,
        name: str,
        unit: syntax.Call,
        parameters: Parameters,
        stack: tuple[str, ...],
        follows: bool,
        depth: int,
    ) -> int:
        block = self.program.blocks[name]
        if block is None or name in stack:
            return 1
        given = bind_silently(block, unit, Surroundings(parameters, None))
        key = (name, follows, *(_key(given[p.name]) for p in block.parameters))
        if key not in self._known:
            # A step of its own, so that a chain of blocks with nothing in them counts too.
            body = self._chain(block.chain, given, (*stack, name), follows, depth + 1)
            self._known[key] = 1 + body
        return self._known[key]


def _key(value: Computed) -> object:
    if isinstance(value, Unknown):
        return value
    return shown(value) if isinstance(value, list) else (type(value), value)
