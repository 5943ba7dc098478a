"""The text of `forward`: which tensor is kept under which name, and the statements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from netdsl.formats.source.body import Body
from netdsl.formats.source.layout import Code, call, lines
from netdsl.formats.source.names import TAKEN, Names, identifier
from netdsl.formats.source.parts import (
    Apply,
    Beside,
    Expression,
    Infix,
    Ref,
    Statement,
    Use,
    refs,
)

ROLLING = ("x", "y", "z")
"""Names of tensors that the next statement reads and no other."""


LETTERS = "abcdefghijklmnopqrstuvwxyz"


def forward(body: Body) -> list[str]:
    """The lines of a module's `forward`, indented as a method is."""
    names = variables(body)
    takes = [f"{names[name]}: Tensor" for name in body.takes]
    several = len(body.results) > 1 or bool(body.head_results)
    gives = "Tensor"
    if several:
        gives = "Tensor | tuple[Tensor, ...]" if len(body.results) == 1 else "tuple[Tensor, ...]"
    found = lines(call("forward", ["self", *takes]), 4, "def ", f" -> {gives}:")
    write = _Writer(body, names)
    found += write.statements(body.statements, 8)
    if body.head_results:
        found.append("        if not self.training:")
        found += write.result(body.results, 12)
        found += write.statements(body.head_statements, 8)
    return found + write.result((*body.results, *body.head_results), 8)


class _Writer:
    def __init__(self, body: Body, names: Mapping[str, str]) -> None:
        self.attributes = [attribute.name for attribute in body.attributes]
        self.names = names

    def statements(self, found: Sequence[Statement], indent: int) -> list[str]:
        text: list[str] = []
        for statement in found:
            names = ", ".join(self.names[value] for value in statement.values)
            text += lines(self.code(statement.expression), indent, f"{names} = ")
        return text

    def result(self, found: Sequence[Expression], indent: int) -> list[str]:
        codes = tuple(map(self.code, found))
        if len(codes) == 1:
            return lines(codes[0], indent, "return ")
        if len(f"{' ' * indent}return {Code('', codes)}") <= 88:
            return lines(Code("", codes), indent, "return ")
        return lines(Code("(", codes, ")"), indent, "return ")

    def code(self, expression: Expression) -> Code:
        if isinstance(expression, Ref):
            return Code(self.names[expression.value])
        inside = tuple(map(self.code, expression.inside))
        if isinstance(expression, Use):
            return Code(f"self.{self.attributes[expression.attribute]}(", inside, ")")
        if isinstance(expression, Beside):
            return Code("torch.cat(", (Code("[", inside, "]"), Code("dim=1")), ")")
        if isinstance(expression, Infix):
            first, *others = expression.inside
            same = isinstance(first, Infix) and first.sign == expression.sign
            made = inside[0].parts if same else (_enclosed(first, inside[0]),)
            rest = map(_enclosed, others, inside[1:])
            return Code("", (*made, *rest), "", expression.sign)
        return _applied(expression, expression.inside, inside)


def _enclosed(expression: Expression, code: Code) -> Code:
    """A term of a sum or a product, in parentheses where it is one itself."""
    return Code("(", (code,), ")") if isinstance(expression, Infix) else code


def _applied(apply: Apply, given: Sequence[Expression], inside: tuple[Code, ...]) -> Code:
    if not apply.head:
        # A method of what is inside.
        (one,), (code,) = given, inside
        held = Code("(", (code,), ")") if isinstance(one, Infix) else code
        return Code(held.head, held.parts, held.tail + apply.tail, held.sign)
    before, _, after = apply.tail.partition(")")
    more = tuple(Code(part.strip()) for part in before.split(",") if part.strip())
    return Code(apply.head, (*inside, *more), f"){after}")


def variables(body: Body, taken: frozenset[str] = frozenset()) -> dict[str, str]:
    """What each tensor of a body is called. taken: what may not be a tensor's name."""
    statements = [*body.statements, *body.head_statements]
    last: dict[str, int] = {}
    count: dict[str, int] = {}
    places = [list(refs(s.expression)) for s in statements]
    places.append([n for r in (*body.results, *body.head_results) for n in refs(r)])
    if body.head_results:
        early = len(body.statements)
        for result in body.results:
            for name in refs(result):
                last[name] = early
    for at, found in enumerate(places):
        for name in dict.fromkeys(found):
            last[name] = at
            count[name] = count.get(name, 0) + 1
    fresh = Names(TAKEN | taken | set(ROLLING))
    names: dict[str, str] = {}
    held: dict[str, str] = {}
    if len(body.takes) == 1:
        names[body.takes[0]] = "x"
        held["x"] = body.takes[0]
    else:
        for i, name in enumerate(body.takes):
            # A block's inputs have names of their own with every caller.
            wish = identifier(body.names[name]) if body.root else LETTERS[i % 26]
            names[name] = fresh.fresh(wish)
    for at, statement in enumerate(statements):
        for value in statement.values:
            brief = count.get(value, 0) <= 1 and last.get(value, at) <= at + 1
            free = (n for n in ROLLING if n not in held or last.get(held[n], -1) <= at)
            name = next(free, "") if brief and len(statement.values) == 1 else ""
            if name:
                held[name] = value
            names[value] = name or fresh.fresh(identifier(body.names[value]))
    return names
