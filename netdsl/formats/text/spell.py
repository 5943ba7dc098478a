"""Chains as text, on lines of a width that reads well."""

from __future__ import annotations

from netdsl.formats.text.parts import Argument, Bracket, Call, Chain, Group, Ref, Side, Step, Word

WIDTH = 88
POOLS = ("maxpool", "avgpool")


def spelled(chain: Chain, names: dict[str, str] | None = None) -> str:
    """A chain on one line. names: what the nodes that are referred to are called."""
    return " -> ".join(step_text(step, names or {}) for step in chain) or "id"


def step_text(step: Step, names: dict[str, str]) -> str:
    unit = step.unit
    if isinstance(unit, Word):
        text = word_text(unit)
    elif isinstance(unit, Ref):
        text = names.get(unit.node, unit.node)
    elif isinstance(unit, Call):
        text = _with_arguments(unit.name, [_shown(a) for a in unit.arguments])
    elif isinstance(unit, Bracket):
        text = f"[{f' {unit.sign} '.join(spelled(c, names) for c in unit.branches)}]"
    else:
        text = f"({spelled(unit.chain, names)})"
    if step.times > 1:
        text += f" x{step.times}"
    if step.label is not None:
        text += f" as {step.label}"
    return "".join([text, *(f" -> {side_text(side, names)}" for side in step.sides)])


def word_text(word: Word) -> str:
    inside = [_shown(a) for a in word.arguments] + [f"{n}={v}" for n, v in word.settings]
    return ("bare " if word.bare else "") + _with_arguments(word.word, inside)


def side_text(side: Side, names: dict[str, str]) -> str:
    weight = int(side.weight) if side.weight.is_integer() else side.weight
    text = f"aux(weight={weight}) {{ {spelled(side.chain, names)} }}"
    return f"{text} as {side.name}" if side.name else text


def _with_arguments(word: str, inside: list[str]) -> str:
    return f"{word}({', '.join(inside)})" if inside else word


def _shown(argument: Argument) -> str:
    return str(argument)


def laid_out(chain: Chain, names: dict[str, str]) -> list[str]:
    """A chain on lines: a new one after each pool, at large steps and at the width's end."""
    lines: list[str] = []
    line = ""
    closed = True
    for step in chain:
        text = step_text(step, names)
        large = len(text) > WIDTH // 2 or (
            isinstance(step.unit, Call) and len(step.unit.arguments) > 2
        )
        head = step.unit.head if isinstance(step.unit, Word) else ""
        ends = head == "gap" or (head == "flatten" and not line.endswith("gap"))
        if line and (closed or large or ends or len(line) + len(text) + 4 > WIDTH):
            lines.append(line)
            line = ""
        if len(text) > WIDTH and isinstance(step.unit, Bracket):
            lines += bracket_lines(step, names)
            closed = True
            continue
        line = f"{line} -> {text}" if line else text
        closed = large or head in POOLS
    return [*lines, line] if line else lines


def bracket_lines(step: Step, names: dict[str, str]) -> list[str]:
    """A bracket with a line for each branch."""
    unit = step.unit
    assert isinstance(unit, Bracket)
    lines = ["["]
    for i, branch in enumerate(unit.branches):
        lines.append(f"  {unit.sign if i else ' '} {spelled(branch, names)}")
    tail = step_text(Step(Group(()), step.node, step.label, step.times, step.sides), names)
    return [*lines, "]" + tail.removeprefix("(id)")]


def definition_lines(head: str, chain: Chain, names: dict[str, str]) -> list[str]:
    """`def name(w) = chain`, its bracket on lines of its own where it is long."""
    text = f"{head} = {spelled(chain, names)}"
    first = chain[0]
    if len(text) <= WIDTH or not isinstance(first.unit, Bracket):
        return [text]
    lines = bracket_lines(first, names)
    rest = "".join(f" -> {step_text(step, names)}" for step in chain[1:])
    return [f"{head} = {lines[0]}", *lines[1:-1], lines[-1] + rest]
