"""A file's statements gathered by kind, and what can be checked before anything is expanded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from netdsl.lang import syntax
from netdsl.lang.report import Report
from netdsl.lang.words import read_word

MOST_SHOWN = 8
"""Blocks of a loop that are named."""


@dataclass
class Program:
    """What a file says, by kind. A block is None where its definition could not be read."""

    name: syntax.NetName | None = None
    labels: syntax.LabelsLine | None = None
    facts: dict[str, syntax.Fact] = field(default_factory=dict)
    blocks: dict[str, syntax.Define | None] = field(default_factory=dict)
    every: dict[str, syntax.Every] = field(default_factory=dict)
    output: syntax.Output | None = None
    flow: list[syntax.InputLine | syntax.Line | syntax.Broken] = field(default_factory=list)
    given: dict[str, syntax.Label] = field(default_factory=dict)
    """The labels of the file itself, inputs' names among them."""
    within: dict[str, dict[str, syntax.Label]] = field(default_factory=dict)
    """The labels of each block."""


def gather(file: syntax.File, report: Report) -> Program:
    """Sorts the statements, and reports what is said twice or refers to itself."""
    program = Program()
    for statement in file.statements:
        _sort(statement, program, report)
    _labels(program, report)
    _loops(program, report)
    return program


def _sort(statement: syntax.Statement, program: Program, report: Report) -> None:
    match statement:
        case syntax.NetName():
            if program.name is not None:
                _twice("net", program.name, statement, report)
            program.name = program.name or statement
        case syntax.LabelsLine():
            if program.labels is not None:
                _twice("labels", program.labels, statement, report)
            program.labels = program.labels or statement
        case syntax.Output():
            if program.output is not None:
                _twice("output", program.output, statement, report)
            program.output = program.output or statement
        case syntax.Meta(facts=facts):
            for fact in facts:
                if fact.key in program.facts:
                    _twice(f"`{fact.key}`", program.facts[fact.key], fact, report)
                program.facts.setdefault(fact.key, fact)
        case syntax.Define():
            _define(statement, program, report)
        case syntax.Every():
            _every(statement, program, report)
        case syntax.InputLine() | syntax.Line():
            program.flow.append(statement)
        case syntax.Broken():
            _broken(statement, program)


def _twice(what: str, first: syntax.Syntax, again: syntax.Syntax, report: Report) -> None:
    message = f"{what} is given twice, first at line {first.span.line}"
    report.error("given-twice", message, again.span)


def _broken(statement: syntax.Broken, program: Program) -> None:
    if statement.kind == "def" and statement.name is not None:
        program.blocks.setdefault(statement.name, None)
    elif statement.kind in ("line", "input"):
        program.flow.append(statement)


def _define(statement: syntax.Define, program: Program, report: Report) -> None:
    name = statement.name.name
    if name in program.blocks:
        earlier = program.blocks[name]
        where = f", first at line {earlier.span.line}" if earlier is not None else ""
        message = f"two blocks are called `{name}`{where}"
        report.error("duplicate-name", message, statement.name.span)
        return
    if read_word(name) is not None:
        report.error(
            "reserved-name", f"`{name}` is an op, and cannot name a block", statement.name.span
        )
    program.blocks[name] = statement


def _every(statement: syntax.Every, program: Program, report: Report) -> None:
    head = statement.word.plain
    if head is not None and head in program.every:
        _twice(f"`every {head}`", program.every[head], statement, report)
        return
    program.every[head or ""] = statement


# Labels -----------------------------------------------------------------------------------------


def _labels(program: Program, report: Report) -> None:
    """Which labels each block gives, and each only once."""
    for statement in program.flow:
        if isinstance(statement, syntax.InputLine):
            label = statement.label or syntax.Label(statement.span, "input")
            _give(label, program.given, program, report)
        elif isinstance(statement, syntax.Line):
            for label in _checked_labels(statement.chain, report):
                _give(label, program.given, program, report)
        else:
            for name in statement.labels:
                program.given.setdefault(name, syntax.Label(statement.span, name))
    for name, block in program.blocks.items():
        given: dict[str, syntax.Label] = {}
        if block is not None:
            parameters = {p.name: p for p in block.parameters}
            for label in _checked_labels(block.chain, report):
                if label.name in parameters:
                    message = f"`{label.name}` is a parameter of `{name}` already"
                    report.error("duplicate-name", message, label.span)
                _give(label, given, program, report)
        program.within[name] = given
    for every in program.every.values():
        if every.chain is not None:
            for label, _ in walk_labels(every.chain, False):
                message = f"`{label.name}` would be given by every {every.word.plain}"
                report.error("duplicate-name", message, label.span)


def _give(
    label: syntax.Label, given: dict[str, syntax.Label], program: Program, report: Report
) -> None:
    if label.name in given:
        line = given[label.name].span.line
        hint = None
        if label.name == "input":
            hint = "with several inputs each has a name: input 3x32x32 as left"
        message = f"two tensors are called `{label.name}`, first at line {line}"
        report.error("duplicate-name", message, label.span, hint)
        return
    if label.name in program.blocks:
        message = f"`{label.name}` is a block, and cannot name a tensor too"
        report.error("duplicate-name", message, label.span)
    given[label.name] = label


def _checked_labels(chain: syntax.Chain, report: Report) -> Iterator[syntax.Label]:
    """The labels of a chain; one inside a repeat would be given more than once."""
    for label, repeated in walk_labels(chain, False):
        if repeated:
            message = f"`{label.name}` is inside a repeat, so it would be given more than once"
            report.error(
                "duplicate-name", message, label.span, "put the label after the repeat: (…) x3 as y"
            )
        yield label


def walk_labels(chain: syntax.Chain, repeated: bool) -> Iterator[tuple[syntax.Label, bool]]:
    """Each label of a chain, and whether it stands inside a repeat."""
    for step in chain.steps:
        if step.label is not None:
            yield step.label, repeated
        inside = repeated or step.repeat is not None
        for inner in inner_chains(step.unit):
            yield from walk_labels(inner, inside)


def inner_chains(unit: syntax.Unit) -> tuple[syntax.Chain, ...]:
    """The chains that a unit holds in brackets."""
    match unit:
        case syntax.Bracket(branches=branches):
            return branches
        case syntax.Group(chain=chain) | syntax.Side(chain=chain):
            return (chain,)
    return ()


# Blocks that reach themselves -------------------------------------------------------------------


def _loops(program: Program, report: Report) -> None:
    """Reports blocks that reach themselves, and takes their bodies away."""
    uses = {
        name: tuple(_used(block.chain, program)) if block is not None else ()
        for name, block in program.blocks.items()
    }
    for path in _cycles(uses):
        block = program.blocks[path[0]]
        if block is None:
            continue
        shown = path if len(path) <= MOST_SHOWN else (*path[: MOST_SHOWN - 1], "…")
        way = " -> ".join((*shown, path[0]))
        report.error(
            "recursion",
            f"`{path[0]}` reaches itself: {way}" if len(path) > 1 else f"`{path[0]}` uses itself",
            block.name.span,
            "a repeat says how often: block x3",
        )
        for name in path:
            program.blocks[name] = None


def _used(chain: syntax.Chain, program: Program) -> Iterator[str]:
    for step in chain.steps:
        if isinstance(step.unit, syntax.Call) and step.unit.plain in program.blocks:
            yield step.unit.plain or ""
        for inner in inner_chains(step.unit):
            yield from _used(inner, program)


def _cycles(uses: dict[str, tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """Paths that lead back to where they begin, each block in at most one. Without recursion,
    for a chain of blocks may be long."""
    done: set[str] = set()
    for root in uses:
        path: list[str] = []
        place: dict[str, int] = {}
        stack: list[tuple[str, int]] = [(root, 0)] if root not in done else []
        while stack:
            name, at = stack.pop()
            if at == 0:
                place[name] = len(path)
                path.append(name)
            if at < len(uses[name]):
                stack.append((name, at + 1))
                following = uses[name][at]
                if following in place:
                    yield tuple(path[place[following] :])
                elif following not in done:
                    stack.append((following, 0))
                continue
            done.add(name)
            path.pop()
            del place[name]
