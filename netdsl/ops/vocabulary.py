"""The vocabulary: every head, and the way from a word to an op."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from netdsl.faults import OpFault
from netdsl.ops import activation, arrange, conv, dense, norm, pool
from netdsl.ops.base import Bound, Op, Setting, Shape, Spelling, Value, Word, nearest, show

if TYPE_CHECKING:
    from fractions import Fraction

OPS: tuple[type[Op], ...] = (
    conv.Conv,
    conv.ConvTranspose,
    dense.Linear,
    pool.MaxPool,
    pool.AveragePool,
    pool.GlobalAverage,
    pool.GlobalMax,
    norm.BatchNorm,
    norm.LayerNorm,
    norm.InstanceNorm,
    norm.GroupNorm,
    norm.LocalResponseNorm,
    activation.Relu,
    activation.Relu6,
    activation.Leaky,
    activation.PRelu,
    activation.Elu,
    activation.Gelu,
    activation.Silu,
    activation.HardSwish,
    activation.Sigmoid,
    activation.HardSigmoid,
    activation.Tanh,
    activation.Softmax,
    activation.LogSoftmax,
    dense.Dropout,
    dense.Flatten,
    arrange.Upsample,
    arrange.Pad,
    arrange.Shuffle,
)

HEADS: dict[str, type[Op]] = {head: cls for cls in OPS for head in cls.heads}

OPTION_NAMES = {"s": "stride", "p": "padding", "d": "dilation", "g": "groups"}


def spelling(head: str) -> Spelling:
    """How words of this head are spelled. Raises OpFault for an unknown head."""
    return _class(head).spelling


def _class(head: str) -> type[Op]:
    if head not in HEADS:
        guess = nearest(head, HEADS)
        raise OpFault(
            "unknown-op",
            f"there is no op `{head}`",
            help=f"did you mean `{guess}`?" if guess else None,
            part="head",
        )
    return HEADS[head]


def takes_filters(head: str) -> bool:
    """Whether an op of this head has a number of filters, which `double` may set."""
    return any(s.name == "filters" for s in _class(head).spelling.settings)


def gives_filters(word: Word) -> bool:
    """Whether the word says its number of filters."""
    return bool(word.arguments) or "filters" in word.settings


def build(word: Word, inputs: tuple[Shape, ...], width: Fraction | int = 1) -> Op:
    """The op that a word means for these input shapes.

    width: the factor of the doubles and halves passed since the last op with filters. The
    op's output shape is checked too. Raises OpFault.
    """
    op = _class(word.head).resolve(bind(word, width), inputs)
    op.output(inputs)
    return op


def bind(word: Word, width: Fraction | int = 1) -> Bound:
    """A word checked against its head's spelling, defaults filled in. Raises OpFault."""
    how = spelling(word.head)
    _check_kernel(word, how)
    for option in word.options:
        _check_option(word, option, how)
    if "same" in word.options and "p" in word.options:
        raise OpFault("unknown-option", "same chooses the padding: leave pN out", part="same")
    return Bound(word.head, word.kernel, word.options, _settings(word, how), width)


def _check_kernel(word: Word, how: Spelling) -> None:
    head, kernel = word.head, word.kernel
    if kernel is None:
        if how.required:
            example = f"{head}32" if how.kernel == "number" else f"{head}3x3"
            raise OpFault("missing-kernel", f"{head} needs a size, as in {example}", part="head")
        return
    if how.kernel == "none":
        raise OpFault(
            "unknown-option",
            f"{head} takes no size, but {show(kernel)} was given",
            help=f"write {head}",
            part="kernel",
        )
    if how.kernel == "number" and len(kernel) != 1:
        raise OpFault("wrong-rank", f"{head} takes one number, not {show(kernel)}", part="kernel")
    if min(kernel) < 1:
        raise OpFault("out-of-range", f"the size of {head} must be 1 or more", part="kernel")


def _check_option(word: Word, option: str, how: Spelling) -> None:
    if option in how.options:
        return
    name = OPTION_NAMES.get(option, option)
    known = ", ".join(OPTION_NAMES.get(o, o) for o in "spdg" if o in how.options)
    extra = "".join(f", {o}" for o in ("same", "ceil") if o in how.options)
    raise OpFault(
        "unknown-option",
        f"{word.head} has no {name}",
        help=f"it takes {known}{extra}" if known or extra else f"{word.head} takes no options",
        part=option,
    )


def _settings(word: Word, how: Spelling) -> Mapping[str, Value | None]:
    declared = {s.name: s for s in how.settings}
    values: dict[str, Value | None] = {s.name: s.default for s in how.settings}
    places = [s for s in how.settings if s.positional]
    if len(word.arguments) > len(places):
        takes = f"takes {len(places) or 'no'} value{'' if len(places) == 1 else 's'}"
        raise OpFault(
            "too-many-arguments",
            f"{word.head} {takes} without a name, but was given {len(word.arguments)}",
            help=_named(declared),
            part=f"argument:{len(places)}",
        )
    for i, (place, value) in enumerate(zip(places, word.arguments, strict=False)):
        values[place.name] = _checked(word.head, place, value, f"argument:{i}")
    taken = {s.name for s in places[: len(word.arguments)]}
    for name, value in word.settings.items():
        part = f"setting:{name}"
        if name not in declared:
            guess = nearest(name, declared)
            raise OpFault(
                "unknown-setting",
                f"{word.head} has no setting `{name}`",
                help=f"did you mean `{guess}`?" if guess else _named(declared),
                part=part,
            )
        if name in taken:
            raise OpFault("given-twice", f"{word.head} is given {name} twice", part=part)
        values[name] = _checked(word.head, declared[name], value, part)
    return values


def _named(declared: Mapping[str, Setting]) -> str:
    return f"its settings are {', '.join(declared)}" if declared else "it takes no settings"


def _checked(head: str, setting: Setting, value: Value, part: str) -> Value:
    """The value in the setting's kind and range. Raises OpFault."""
    wants = {
        "int": "a whole number",
        "float": "a number",
        "bool": "yes or no",
        "name": "one of " + ", ".join(setting.choices),
        "size": "a size such as 2 or 2x1, or a list of whole numbers",
    }[setting.kind]
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(value, float) and value.is_integer() and setting.kind in ("int", "size"):
        value = int(value)
    if isinstance(value, list) and setting.kind == "size":
        value = tuple(value)
    fits = {
        "int": isinstance(value, int) and number,
        "float": number,
        "bool": isinstance(value, bool),
        "name": value in setting.choices,
        "size": (isinstance(value, int) and number)
        or (isinstance(value, tuple) and value != () and all(type(n) is int for n in value)),
    }[setting.kind]
    if not fits:
        raise OpFault(
            "wrong-value",
            f"{setting.name} of {head} must be {wants}, not {_shown(value)}",
            part=part,
        )
    _in_range(head, setting, value, part)
    return value


def _in_range(head: str, setting: Setting, value: Value, part: str) -> None:
    numbers = value if isinstance(value, tuple) else (value,)
    for n in numbers:
        if isinstance(n, bool) or not isinstance(n, (int, float)):
            continue
        low = setting.low is not None and (n <= setting.low if setting.above else n < setting.low)
        if low or (setting.high is not None and n > setting.high) or n != n:
            raise OpFault(
                "out-of-range",
                f"{setting.name} of {head} is {_shown(n)}, it must be {_bounds(setting)}",
                part=part,
            )


def _bounds(setting: Setting) -> str:
    low = (
        f"{'above' if setting.above else 'at least'} {setting.low:g}"
        if setting.low is not None
        else ""
    )
    high = f"at most {setting.high:g}" if setting.high is not None else ""
    return " and ".join(part for part in (low, high) if part)


def _shown(value: Value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return "x".join(map(_shown, value))
    if isinstance(value, int) and abs(value) >= 10**20:
        return "a number of over 20 digits"
    return str(value)
