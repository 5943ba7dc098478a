"""Makes the nodes of the syntax tree while the grammar is followed.

Each method is called by Lark when the rule of its name is complete, with the tokens and nodes the
rule holds. Checks that need no other statement are made here: numbers too long, joins mixed in
one bracket, a reserved word as a name.
"""

from __future__ import annotations

import re
from typing import Any, cast

from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedInput

from netdsl.faults import Span
from netdsl.lang import syntax
from netdsl.lang.complain import complain
from netdsl.lang.report import Report
from netdsl.lang.split import KEYWORDS
from netdsl.limits import Limits

RESERVED = KEYWORDS | {"bare", "aux", "as", "id", "double", "halve", "yes", "no"}
"""Words that cannot name a tensor, a block or a parameter."""

PIECE = re.compile(r"\{([^{}]*)\}|[A-Za-z0-9_]+")
ESCAPE = re.compile(r'\\(["\\])')

Children = list[Any]


class Builder(Transformer):  # type: ignore[type-arg]
    """The nodes of one statement of one text at a time; see `begin`."""

    def begin(self, report: Report, base: int, limits: Limits, parser: Lark) -> None:
        """The statement that is read now begins at `base` of the report's text."""
        self.report = report
        self.base = base
        self.limits = limits
        self.parser = parser

    def read(self, text: str) -> Any:
        """What the grammar makes of this text at `base`; None after a fault. Raises Full."""
        try:
            return self.parser.parse(text)
        except UnexpectedInput as problem:
            self.report.add(complain(problem, self.report, text, self.base))
            return None

    # Places ---------------------------------------------------------------------------------

    def at(self, token: Token) -> Span:
        start, end = cast("int", token.start_pos), cast("int", token.end_pos)
        return self.report.span(self.base + start, self.base + end)

    def over(self, first: Any, last: Any) -> Span:
        """From the start of one token or node to the end of another."""
        start = self.at(first) if isinstance(first, Token) else first.span
        end = self.at(last) if isinstance(last, Token) else last.span
        return self.report.span(start.start, end.end)

    def all(self, children: Children) -> Span:
        return self.over(children[0], children[-1])

    # Statements -----------------------------------------------------------------------------

    def net(self, children: Children) -> syntax.NetName:
        return syntax.NetName(self.all(children), self._text(children[1]))

    def input(self, children: Children) -> syntax.InputLine:
        shape = self._whole(children[1])
        sizes = shape if isinstance(shape, tuple) else (shape,)
        arguments = _inside(next((c for c in children if isinstance(c, tuple)), ()))
        label = next((c for c in children if isinstance(c, syntax.Label)), None)
        end = children[-1]
        span = self.over(children[0], label or children[1] if isinstance(end, tuple) else end)
        return syntax.InputLine(span, sizes, arguments, label)

    def labels(self, children: Children) -> syntax.LabelsLine:
        is_file = children[1].type == "STRING"
        return syntax.LabelsLine(self.all(children), self._text(children[1]), is_file)

    def meta(self, children: Children) -> syntax.Meta:
        return syntax.Meta(self.all(children), tuple(children[1:]))

    def fact(self, children: Children) -> syntax.Fact:
        return syntax.Fact(self.all(children), str(children[0]), children[-1])

    def define(self, children: Children) -> syntax.Define:
        parameters = children[2] if isinstance(children[2], tuple) else ()
        name = syntax.Label(self.at(children[1]), self._name(children[1]))
        return syntax.Define(self.all(children), name, parameters, children[-1])

    def every(self, children: Children) -> syntax.Every:
        arguments = children[2] if len(children) > 2 and isinstance(children[2], tuple) else None
        chain = children[-1] if isinstance(children[-1], syntax.Chain) else None
        word = self._word(children[1], arguments, bare=False)
        return syntax.Every(self.over(children[0], chain or word), word, chain)

    def output(self, children: Children) -> syntax.Output:
        names = tuple(syntax.Label(self.at(token), str(token)) for token in children[1:])
        return syntax.Output(self.all(children), names)

    def line(self, children: Children) -> syntax.Line:
        return syntax.Line(children[0].span, children[0])

    def insertion(self, children: Children) -> Any:
        return children[0]

    # Chains ---------------------------------------------------------------------------------

    def chain(self, children: Children) -> syntax.Chain:
        steps = tuple(child for child in children if isinstance(child, syntax.Step))
        return syntax.Chain(self.over(steps[0], steps[-1]), steps)

    def step(self, children: Children) -> syntax.Step:
        unit, *rest = children
        label = rest.pop() if rest and isinstance(rest[-1], syntax.Label) else None
        repeat = self._repeat(rest[0]) if rest else None
        return syntax.Step(self.all(children), unit, repeat, label)

    def label(self, children: Children) -> syntax.Label:
        return syntax.Label(self.at(children[1]), self._name(children[1]))

    def call(self, children: Children) -> syntax.Call:
        arguments = children.pop() if isinstance(children[-1], tuple) else None
        bare = len(children) == 2
        return self._word(children[-1], arguments, bare)

    def _word(self, token: Token, given: tuple[Any, ...] | None, bare: bool) -> syntax.Call:
        word = self.at(token)
        if len(token) > self.limits.text:
            self._too_long(word, len(token))
        end = given[-1] if given else token
        arguments = None if given is None else _inside(given)
        pieces = tuple(self._piece(match, word.start) for match in PIECE.finditer(token))
        return syntax.Call(self.over(token, end), pieces, arguments, bare, word)

    def _piece(self, match: re.Match[str], base: int) -> syntax.Piece:
        span = self.report.span(base + match.start(), base + match.end())
        inside = match.group(1)
        if inside is None:
            return syntax.Piece(span, match.group())
        # The grammar reads `= EXPR` as an expression alone; the sign stands for the brace.
        outer, self.base = self.base, base + match.start()
        try:
            value = self.read("=" + inside)
        finally:
            self.base = outer
        return syntax.Piece(span, syntax.Constant(span, 0) if value is None else value)

    def group(self, children: Children) -> syntax.Group:
        return syntax.Group(self.all(children), children[1])

    def bracket(self, children: Children) -> syntax.Bracket:
        span = self.all(children)
        branches = tuple(child for child in children if isinstance(child, syntax.Chain))
        signs = [child for child in children[1:-1] if isinstance(child, Token)]
        if not signs:
            self.report.error(
                "one-branch",
                "a bracket joins two branches or more, this one has one",
                span,
                "parentheses group without joining",
            )
            return syntax.Bracket(span, "|", branches)
        for sign in signs:
            if sign != signs[0]:
                self.report.error(
                    "mixed-joins",
                    f"`{signs[0]}` and `{sign}` in one bracket leave open what is joined first",
                    self.at(sign),
                    f"nest brackets: [a {signs[0]} [b {sign} c]]",
                )
                break
        return syntax.Bracket(span, cast("syntax.Sign", str(signs[0])), branches)

    def aux(self, children: Children) -> syntax.Side:
        given = children[1] if isinstance(children[1], tuple) else ()
        return syntax.Side(self.all(children), _inside(given), children[-2])

    # Arguments ------------------------------------------------------------------------------

    def arguments(self, children: Children) -> tuple[Any, ...]:
        """The arguments, and the closing parenthesis, whose place ends the word's span."""
        named = False
        for child in children[1:-1]:
            if named and child.name is None:
                self.report.error(
                    "argument-order",
                    "a value without a name cannot follow one with a name",
                    child.span,
                )
            named = named or child.name is not None
        return tuple(children[1:])

    def named(self, children: Children) -> syntax.Argument:
        return syntax.Argument(self.all(children), str(children[0]), children[1])

    def positional(self, children: Children) -> syntax.Argument:
        return syntax.Argument(children[0].span, None, children[0])

    def parameters(self, children: Children) -> tuple[syntax.Parameter, ...]:
        found = tuple(children[1:-1])
        most = self.limits.parameters_of_a_block
        if len(found) > most:
            message = f"{len(found)} parameters; the most is {most}"
            self._error("too-large", message, found[most].span)
            return ()
        seen: set[str] = set()
        default = False
        for parameter in found:
            if parameter.name in seen:
                self._error("duplicate-name", f"two parameters `{parameter.name}`", parameter.span)
            if default and parameter.default is None:
                message = f"`{parameter.name}` without a default follows one with a default"
                self._error("argument-order", message, parameter.span)
            seen.add(parameter.name)
            default = default or parameter.default is not None
        return found

    def parameter(self, children: Children) -> syntax.Parameter:
        default = children[1] if len(children) > 1 else None
        return syntax.Parameter(self.all(children), self._name(children[0]), default)

    # Expressions ----------------------------------------------------------------------------

    def sum(self, children: Children) -> syntax.Expression:
        if len(children) == 1:
            return cast("syntax.Expression", children[0])
        rest = tuple(zip(map(str, children[1::2]), children[2::2], strict=True))
        return syntax.Arithmetic(self.all(children), children[0], rest)

    product = sum  # noqa: A003 - the grammar's rules are called so

    def factor(self, children: Children) -> syntax.Expression:
        value = self._value(children[-1])
        return value if len(children) == 1 else syntax.Negative(self.all(children), value)

    constant = factor

    def nested(self, children: Children) -> syntax.Expression:
        return cast("syntax.Expression", children[1])

    def list(self, children: Children) -> syntax.Listing:
        return syntax.Listing(self.all(children), tuple(children[1:-1]))

    def _value(self, found: Any) -> syntax.Expression:
        if not isinstance(found, Token):
            return cast("syntax.Expression", found)
        span = self.at(found)
        if found.type == "NAME":
            if found in ("yes", "no"):
                return syntax.Constant(span, found == "yes")
            return syntax.Reference(span, str(found))
        if found.type == "STRING":
            return syntax.Constant(span, syntax.Text(self._text(found)))
        if found.type == "FLOAT":
            return syntax.Constant(span, self._fraction(found))
        return syntax.Constant(span, self._whole(found))

    # Tokens ---------------------------------------------------------------------------------

    def _repeat(self, token: Token) -> syntax.Expression:
        span = self.at(token)
        brace = token.find("{")
        if brace < 0:
            digits = token[1:].strip()
            return syntax.Constant(span, self._integer(digits, span))
        match = PIECE.match(token, brace)
        assert match is not None
        value = self._piece(match, span.start).value
        assert not isinstance(value, str)
        return value

    def _name(self, token: Token) -> str:
        if token in RESERVED:
            self._error("reserved-name", f"`{token}` is a word of the language", self.at(token))
        elif len(token) > self.limits.text:
            self._too_long(self.at(token), len(token))
        return str(token)

    def _text(self, token: Token) -> str:
        if len(token) > self.limits.text:
            self._too_long(self.at(token), len(token))
        if token.type != "STRING":
            return str(token)
        return ESCAPE.sub(r"\1", token[1:-1])

    def _whole(self, token: Token) -> int | tuple[int, ...]:
        span = self.at(token)
        sizes = tuple(self._integer(digits, span) for digits in token.split("x"))
        return sizes if token.type == "SIZE" else sizes[0]

    def _integer(self, digits: str, span: Span) -> int:
        if len(digits) > self.limits.digits:
            message = f"a number of {len(digits)} digits; the most is {self.limits.digits}"
            self._error("too-large", message, span)
            return 1
        return int(digits)

    def _fraction(self, token: Token) -> float:
        if len(token) <= 100:
            value = float(token)
            if value != float("inf"):
                return value
        self._error("too-large", "a number that is too large or too long", self.at(token))
        return 1.0

    def _too_long(self, span: Span, length: int) -> None:
        message = f"a word of {length} characters; the most is {self.limits.text}"
        self._error("too-large", message, span)

    def _error(self, code: str, message: str, span: Span) -> None:
        self.report.error(code, message, span)


def _inside(given: tuple[Any, ...]) -> tuple[syntax.Argument, ...]:
    """The arguments without the parenthesis that closes them."""
    return tuple(a for a in given if isinstance(a, syntax.Argument))
