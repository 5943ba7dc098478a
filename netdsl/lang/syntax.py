"""The syntax tree of a .net file: what is written, before anything is looked up or computed.

Every node knows its span. Nodes compare by what they say, not by where they stand.
"""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from netdsl.faults import Fault, Source, Span
from netdsl.frozen import dataclass

Sign = Literal["|", "+", "*"]


@dataclass(frozen=True)
class Syntax:
    """Anything that stands in the text."""

    span: Span = field(compare=False, repr=False)


class Text(str):
    """A string in quotes; a plain str among values is a name."""

    __slots__ = ()


# Expressions ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Constant(Syntax):
    """A number, yes or no, a string (`Text`), or an AxB size (a tuple)."""

    value: bool | int | float | str | tuple[int, ...]


@dataclass(frozen=True)
class Reference(Syntax):
    """A name in an expression: a parameter, or a word such as `bilinear` that stands for itself."""

    name: str


@dataclass(frozen=True)
class Listing(Syntax):
    """[a, b, c]"""

    items: tuple[Expression, ...]


@dataclass(frozen=True)
class Negative(Syntax):
    """-a"""

    value: Expression


@dataclass(frozen=True)
class Arithmetic(Syntax):
    """a + b - c, or a * b // c: a first operand, then signs and operands from left to right."""

    first: Expression
    rest: tuple[tuple[str, Expression], ...]


Expression = Constant | Reference | Listing | Negative | Arithmetic


@dataclass(frozen=True)
class Argument(Syntax):
    """A value in parentheses, named or by position."""

    name: str | None
    value: Expression


# Chains -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Label(Syntax):
    """as NAME"""

    name: str


@dataclass(frozen=True)
class Piece(Syntax):
    """A stretch of a word: text as it is, or an expression to insert."""

    value: str | Expression


@dataclass(frozen=True)
class Call(Syntax):
    """An op, a block, a tensor's name, id, double or halve: a word and what it is given.

    `arguments` is None where no parentheses stand.
    """

    pieces: tuple[Piece, ...]
    arguments: tuple[Argument, ...] | None
    bare: bool
    word: Span = field(compare=False, repr=False)

    @property
    def plain(self) -> str | None:
        """The word, where nothing is inserted in it."""
        if len(self.pieces) == 1 and isinstance(self.pieces[0].value, str):
            return self.pieces[0].value
        return None


@dataclass(frozen=True)
class Group(Syntax):
    """( chain )"""

    chain: Chain


@dataclass(frozen=True)
class Bracket(Syntax):
    """[ a | b ], [ a + b ], [ a * b ]"""

    sign: Sign
    branches: tuple[Chain, ...]


@dataclass(frozen=True)
class Side(Syntax):
    """aux(weight=w) { chain }"""

    arguments: tuple[Argument, ...]
    chain: Chain


Unit = Call | Group | Bracket | Side


@dataclass(frozen=True)
class Step(Syntax):
    """A unit, how often it stands there, and the name of its result."""

    unit: Unit
    repeat: Expression | None
    label: Label | None


@dataclass(frozen=True)
class Chain(Syntax):
    """Steps that follow each other."""

    steps: tuple[Step, ...]


# Statements -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NetName(Syntax):
    """net NAME"""

    name: str


@dataclass(frozen=True)
class InputLine(Syntax):
    """input SHAPE (settings) as NAME"""

    shape: tuple[int, ...]
    arguments: tuple[Argument, ...]
    label: Label | None


@dataclass(frozen=True)
class LabelsLine(Syntax):
    """labels NAME, or labels "FILE" """

    name: str
    is_file: bool


@dataclass(frozen=True)
class Fact(Syntax):
    """KEY=VALUE of a meta line"""

    key: str
    value: Expression


@dataclass(frozen=True)
class Meta(Syntax):
    """meta KEY=VALUE …"""

    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Parameter(Syntax):
    """A block's parameter and its default."""

    name: str
    default: Expression | None


@dataclass(frozen=True)
class Define(Syntax):
    """def NAME(PARAMS) = CHAIN"""

    name: Label
    parameters: tuple[Parameter, ...]
    chain: Chain


@dataclass(frozen=True)
class Every(Syntax):
    """every OP(DEFAULTS) -> CHAIN"""

    word: Call
    chain: Chain | None


@dataclass(frozen=True)
class Output(Syntax):
    """output NAME, …"""

    names: tuple[Label, ...]


@dataclass(frozen=True)
class Line(Syntax):
    """A chain that stands as a statement."""

    chain: Chain


@dataclass(frozen=True)
class Broken(Syntax):
    """A statement with a fault. What it would have defined is known, so that uses of it are not
    faults too: the kind of statement, a block's name, the labels in it."""

    kind: str
    name: str | None
    labels: tuple[str, ...]


Statement = NetName | InputLine | LabelsLine | Meta | Define | Every | Output | Line | Broken


@dataclass(frozen=True)
class File:
    """A whole text: its statements, the faults of its syntax, its comments' spans."""

    source: Source = field(compare=False, repr=False)
    statements: tuple[Statement, ...]
    faults: tuple[Fault, ...] = ()
