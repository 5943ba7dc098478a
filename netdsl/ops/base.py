"""What an op is, and how its word is declared.

An op is a frozen dataclass that is *resolved*: kernel, stride and dilation have one entry per
spatial axis of the data, padding is a (before, after) pair per axis, filters are a number. The
word a person writes (`conv3s2`) is looser; `Op.resolve` closes the gap with the input's shape.

Shapes are per sample, without the batch axis, channels first: (C, *spatial), a vector is (F,).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import field
from math import prod
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from netdsl.faults import OpFault
from netdsl.frozen import dataclass

if TYPE_CHECKING:
    from fractions import Fraction

Shape = tuple[int, ...]
Pair = tuple[int, int]
Value = bool | int | float | str | tuple["Value", ...] | list["Value"]
"""A setting's value: yes/no, a number, a name or string, an AxB size (tuple), a list."""

Kind = Literal["int", "float", "bool", "name", "size"]


def ratio(over: int, under: int = 1) -> Fraction:
    """A fraction. Its module, which takes a while to import, is wanted for receptive fields and to
    read a text, and by no run."""
    from fractions import Fraction

    return Fraction(over, under)


def show(shape: Shape) -> str:
    """A shape as a person writes it: 3x224x224."""
    return "x".join(str(n) for n in shape)


class Setting(NamedTuple):
    """One setting in the parentheses of an op word.

    Positional settings are taken in the order they are declared; any may be named instead.
    `low` and `high` bound numbers, both included unless `above` excludes the lower bound.
    """

    name: str
    kind: Kind
    default: Value | None = None
    positional: bool = False
    low: float | None = None
    high: float | None = None
    above: bool = False
    choices: tuple[str, ...] = ()


class Spelling(NamedTuple):
    """How an op word is spelled after its head.

    kernel: "axes" for a size per spatial axis (`3x3`, or `3` for every axis), "number" for one
    plain number (`lrn5`), "none". `required` says that it may not be left out.
    options: of s p d g (numbers) and same, ceil (bare words).
    """

    kernel: Literal["axes", "number", "none"] = "none"
    required: bool = False
    options: frozenset[str] = frozenset()
    settings: tuple[Setting, ...] = ()


@dataclass(frozen=True)
class Word:
    """An op as written: `conv3x3s2(64, bias=no)`, after arithmetic and insertion."""

    head: str
    kernel: tuple[int, ...] | None = None
    options: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    arguments: tuple[Value, ...] = ()
    settings: Mapping[str, Value] = field(default_factory=dict)


class Bound(NamedTuple):
    """A word checked against its spelling: every setting has its value or its default."""

    head: str
    kernel: tuple[int, ...] | None
    options: Mapping[str, tuple[int, ...]]
    settings: Mapping[str, Value | None]
    width: Fraction | int = 1

    def integer(self, name: str) -> int:
        value = self.settings[name]
        assert isinstance(value, int)
        return value

    def number(self, name: str) -> float:
        value = self.settings[name]
        assert isinstance(value, (int, float))
        return float(value)

    def flag(self, name: str) -> bool:
        return bool(self.settings[name])

    def name(self, name: str) -> str:
        value = self.settings[name]
        assert isinstance(value, str)
        return value

    def size(self, name: str, rank: int) -> tuple[int, ...] | None:
        """A size setting spread over `rank` axes, None where it was left out."""
        value = self.settings[name]
        if value is None:
            return None
        numbers = value if isinstance(value, tuple) else (value,)
        return spread(tuple(int(n) for n in numbers), rank, f"setting:{name}", name)  # type: ignore[arg-type]

    def axes(self, option: str, rank: int, default: int) -> tuple[int, ...]:
        """An s, p or d option spread over `rank` axes."""
        given = self.options.get(option, (default,))
        return spread(given, rank, option, {"s": "stride", "p": "padding", "d": "dilation"}[option])


def spread(given: tuple[int, ...], rank: int, part: str, what: str) -> tuple[int, ...]:
    """One number for every axis, or a number per axis.

    Raises OpFault `wrong-rank` when the count is neither 1 nor the rank.
    """
    if len(given) == 1:
        return given * rank
    if len(given) != rank:
        raise OpFault(
            "wrong-rank",
            f"{what} {show(given)} has {len(given)} axes, the data has {rank}",
            help=f"one number serves every axis, or write {rank} of them",
            part=part,
        )
    return given


class Parameter(NamedTuple):
    """One learned or measured tensor of an op.

    role: "weight" and "bias" are learned and counted as parameters (weights alone are "without
    bias"); "statistic" is measured in training (a running mean) and never counted.
    init: "he" draws N(0, 2/fan_in); a number fills.
    """

    name: str
    shape: Shape
    role: Literal["weight", "bias", "statistic"]
    init: Literal["he"] | float = "he"
    fan_in: int = 0
    fan_out: int = 0

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def trainable(self) -> bool:
        return self.role != "statistic"


class Counts(NamedTuple):
    """Exact arithmetic of one op on one sample, by sort, as integers.

    macs: multiply-adds of convolutions and fully connected layers, without bias.
    bias: additions of a bias. compares: a max pool's comparisons, as kernel size x outputs (the
    lectures' count). adds: an average pool's additions, likewise, and joins'. elementwise:
    elements an activation or a normalisation passes over.
    """

    macs: int = 0
    bias: int = 0
    compares: int = 0
    adds: int = 0
    elementwise: int = 0


class Field(NamedTuple):
    """How an output position looks at its input, per spatial axis.

    extent: input positions one output sees; stride: input positions between outputs (below 1
    where the op enlarges). None in place of a Field means: the whole input.
    """

    extent: tuple[int, ...]
    stride: tuple[Fraction, ...]


class Gradient(NamedTuple):
    """What the backward pass of an op reads besides the output's gradient.

    saves: of "input", "output" (tensors that must be kept until then), "statistics" (a mean and
    a deviation per group), "mask" (dropout's, a max pool's winner).
    """

    saves: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Op(ABC):
    """An op of the vocabulary, resolved for its input. See the module's docstring."""

    heads: ClassVar[tuple[str, ...]] = ()
    spelling: ClassVar[Spelling] = Spelling()
    gradient: ClassVar[Gradient] = Gradient()
    doc: ClassVar[str] = ""

    @property
    def head(self) -> str:
        """The word's head; names and tables use it."""
        return self.heads[0]

    @classmethod
    @abstractmethod
    def resolve(cls, bound: Bound, inputs: tuple[Shape, ...]) -> Op:
        """The op for these input shapes. Raises OpFault."""

    @abstractmethod
    def output(self, inputs: tuple[Shape, ...]) -> Shape:
        """The output's shape. Raises OpFault where the inputs do not fit."""

    def parameters(self, inputs: tuple[Shape, ...]) -> tuple[Parameter, ...]:
        """Its parameters, in the order they are kept; none by default."""
        return ()

    def counts(self, inputs: tuple[Shape, ...]) -> Counts:
        """Exact arithmetic of one sample."""
        return Counts()

    def macs(self, inputs: tuple[Shape, ...]) -> int:
        """Multiply-adds of one sample."""
        return self.counts(inputs).macs

    def field(self, inputs: tuple[Shape, ...]) -> Field | None:
        """Its reach per spatial axis: by default each output sees its own position alone."""
        rank = len(inputs[0]) - 1
        return Field((1,) * rank, (ratio(1),) * rank)

    def word(self) -> str:
        """Its canonical spelling: resolving this word for the same input gives the op again."""
        return self.head


def spell(
    head: str,
    *,
    kernel: tuple[int, ...] = (),
    options: Mapping[str, tuple[int, ...]] | None = None,
    marks: tuple[str, ...] = (),
    positional: tuple[object, ...] = (),
    settings: Mapping[str, object] | None = None,
) -> str:
    """An op word from its parts. Options that hold one value on every axis are written once."""
    text = head + "x".join(map(str, kernel))
    for letter, values in (options or {}).items():
        same = len(set(values)) == 1
        text += letter + (str(values[0]) if same else "x".join(map(str, values)))
    text += "".join(marks)
    inside = [_value(v) for v in positional]
    inside += [f"{name}={_value(value)}" for name, value in (settings or {}).items()]
    return f"{text}({', '.join(inside)})" if inside else text


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, tuple) and min(value) < 0:
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return str(value)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that this one was likely meant to be."""
    import difflib

    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return found[0] if found else None
