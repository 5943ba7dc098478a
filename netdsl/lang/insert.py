"""Values put into words, and arguments bound to a block's parameters."""

from __future__ import annotations

from dataclasses import replace

from netdsl.faults import Span
from netdsl.lang import syntax
from netdsl.lang.evaluate import (
    UNKNOWN,
    Computed,
    Surroundings,
    Unknown,
    evaluate,
    inserted,
    listed,
    shown,
)
from netdsl.lang.words import near

LONGEST = 1000
"""Characters of a word after values are inserted."""


def word_text(call: syntax.Call, around: Surroundings) -> str | None:
    """The word with its values inserted; None after a fault."""
    if call.plain is not None:
        return call.plain
    parts = [_part(piece, around) for piece in call.pieces]
    if None in parts:
        return None
    text = "".join(part for part in parts if part is not None)
    if len(text) > LONGEST:
        around.fault("too-large", f"a word of {len(text)} characters", call.word)
        return None
    return text


def _part(piece: syntax.Piece, around: Surroundings) -> str | None:
    if isinstance(piece.value, str):
        return piece.value
    value = evaluate(piece.value, around)
    if isinstance(value, Unknown):
        return None
    text = inserted(value)
    if text is None:
        around.fault(
            "wrong-value",
            f"{shown(value)} cannot be part of a word",
            piece.span,
            "a word takes whole numbers from 0, sizes such as 3x3, and names",
        )
    return text


def place(
    call: syntax.Call, places: dict[str, tuple[int, int]], part: str | None, around: Surroundings
) -> Span:
    """The part of a call that a fault of its op speaks of."""
    if part is None:
        return call.span
    kind, _, which = part.partition(":")
    arguments = call.arguments or ()
    if kind == "argument":
        positional = [a for a in arguments if a.name is None]
        return positional[int(which)].span if int(which) < len(positional) else call.span
    if kind == "setting":
        found = [a for a in arguments if a.name == which]
        return found[0].span if found else call.span
    if part not in places:
        return call.word
    start, end = places[part]
    return _written(call, start, end, around)


def _written(call: syntax.Call, start: int, end: int, around: Surroundings) -> Span:
    """Where the characters start to end of the word, values inserted, come from in the text."""
    quiet = replace(around, report=None)
    at, first, last = 0, call.word.end, call.word.start
    for piece in call.pieces:
        length = len(_part(piece, quiet) or "")
        lo, hi = max(start, at), min(end, at + length)
        if lo < hi:
            whole = not isinstance(piece.value, str)
            first = min(first, piece.span.start + (0 if whole else lo - at))
            last = max(last, piece.span.end if whole else piece.span.start + hi - at)
        at += length
    return Span(call.word.source, first, last) if first < last else call.word


def bind(block: syntax.Define, call: syntax.Call, around: Surroundings) -> dict[str, Computed]:
    """The values of a block's parameters in a call; what is missing is reported, and UNKNOWN."""
    name = block.name.name
    wanted = [parameter.name for parameter in block.parameters]
    given: dict[str, Computed] = {}
    extra = None
    for i, argument in enumerate(call.arguments or ()):
        value = evaluate(argument.value, around)
        target = argument.name
        if target is None:
            if i >= len(wanted):
                extra = extra or argument
                continue
            target = wanted[i]
        elif target not in wanted:
            close = near(target, wanted)
            hint = f"did you mean `{close}`?" if close else _takes(name, wanted)
            around.fault(
                "unknown-setting", f"`{name}` has no parameter `{target}`", argument.span, hint
            )
            continue
        if target in given:
            around.fault("given-twice", f"`{name}` is given {target} twice", argument.span)
        given[target] = value
    if extra is not None:
        count = sum(argument.name is None for argument in call.arguments or ())
        message = f"{count} values given to `{name}`, which takes {len(wanted)}"
        around.fault("too-many-arguments", message, extra.span, _takes(name, wanted))
    _defaults(block, call, given, around)
    return {parameter: given[parameter] for parameter in wanted}


def _defaults(
    block: syntax.Define, call: syntax.Call, given: dict[str, Computed], around: Surroundings
) -> None:
    missing = []
    for parameter in block.parameters:
        if parameter.name in given:
            continue
        if parameter.default is None:
            missing.append(parameter.name)
            given[parameter.name] = UNKNOWN
            continue
        earlier = {p.name: given[p.name] for p in block.parameters if p.name in given}
        given[parameter.name] = evaluate(parameter.default, replace(around, parameters=earlier))
    if missing:
        names = [parameter.name for parameter in block.parameters]
        around.fault(
            "missing-argument",
            f"`{block.name.name}` is not given {listed(missing)}",
            call.span,
            _takes(block.name.name, names),
        )


def _takes(name: str, wanted: list[str]) -> str:
    return f"it is {name}({listed(wanted)})" if wanted else f"`{name}` takes no arguments"


def bind_silently(
    block: syntax.Define, call: syntax.Call, around: Surroundings
) -> dict[str, Computed]:
    """The same for counting: faults are reported when the call is expanded."""
    return bind(block, call, replace(around, report=None))
