"""The statements around the chains: input, labels, meta, output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePath

from netdsl import resources
from netdsl.faults import Span
from netdsl.graph import Labels
from netdsl.lang import syntax
from netdsl.lang.evaluate import Surroundings, Unknown, evaluate, plain, shown
from netdsl.lang.program import Program
from netdsl.lang.report import Report
from netdsl.lang.scope import Tensor
from netdsl.lang.words import near
from netdsl.ops import Input, Picture
from netdsl.ops.base import Value, show
from netdsl.plain import clean

MOST_AXES = 4
"""Channels and three spatial axes."""


def net_name(program: Program, file: str | None) -> str:
    """The net's name: as given, else the file's stem, else `net`; without control
    characters, for it is printed."""
    if program.name is not None:
        return clean(program.name.name)
    stem = PurePath(file).stem if file else ""
    return clean(stem) or "net"


def class_names(program: Program, report: Report) -> Labels | None:
    """The list of class names; one that does not ship with the package is a fault."""
    line = program.labels
    if line is None:
        return None
    known = resources.label_lists()
    if not line.is_file and line.name not in known:
        close = near(line.name, known)
        report.error(
            "unknown-labels",
            f"no list of class names is called `{line.name}`",
            line.span,
            f"did you mean `{close}`?"
            if close
            else f'there are {", ".join(known)}; a file is "FILE"',
        )
    return Labels(line.name, line.is_file)


def facts(program: Program, report: Report) -> dict[str, Value]:
    """What `meta` says."""
    around = Surroundings({}, report)
    values = {key: evaluate(fact.value, around) for key, fact in program.facts.items()}
    return {key: plain(value) for key, value in values.items() if not isinstance(value, Unknown)}


# input ------------------------------------------------------------------------------------------


def input_op(line: syntax.InputLine, report: Report) -> Input | None:
    """The input that a line declares; None after a fault in its shape."""
    if len(line.shape) > MOST_AXES or min(line.shape) < 1:
        why = "an axis of 0" if min(line.shape) < 1 else f"{len(line.shape)} axes"
        report.error(
            "wrong-shape",
            f"an input of {show(line.shape[:9])} has {why}",
            line.span,
            "channels first, then one to three spatial axes: 3x224x224; a vector is one number",
        )
        return None
    return Input(line.shape, Settings(line, report).picture())


class Settings:
    """Reads the settings of an input line."""

    def __init__(self, line: syntax.InputLine, report: Report) -> None:
        self.line = line
        self.report = report
        self.given: dict[str, tuple[Value, Span]] = {}

    def picture(self) -> Picture:
        readers: Mapping[str, Callable[[Value], str | None]] = {
            "resize": self._resize,
            "order": lambda v: None if v in ("rgb", "bgr") else "rgb or bgr",
            "scale": self._scale,
            "mean": lambda v: self._per_channel(v, above=None),
            "std": lambda v: self._per_channel(v, above=0),
        }
        for argument in self.line.arguments:
            self._read(argument, readers)
        plain = Picture()
        return Picture(
            resize=self._get("resize", plain.resize),  # type: ignore[arg-type]
            order=self._get("order", plain.order),  # type: ignore[arg-type]
            scale=float(self._get("scale", plain.scale)),  # type: ignore[arg-type]
            mean=self._floats("mean", plain.mean),
            std=self._floats("std", plain.std),
        )

    def _read(
        self, argument: syntax.Argument, readers: Mapping[str, Callable[[Value], str | None]]
    ) -> None:
        value = evaluate(argument.value, Surroundings({}, self.report))
        name = argument.name
        if isinstance(value, Unknown):
            return
        if name is None or name not in readers:
            message = f"input has no setting `{name}`"
            if name is None:
                message = "the settings of input are named"
            close = near(name or "", readers)
            hint = f"did you mean `{close}`?" if close else f"its settings are {', '.join(readers)}"
            self.report.error("unknown-setting", message, argument.span, hint)
            return
        if name in self.given:
            self.report.error("given-twice", f"input is given {name} twice", argument.span)
        wanted = readers[name](value)
        if wanted is not None:
            message = f"{name} of input must be {wanted}, not {shown(value)}"
            self.report.error("wrong-value", message, argument.span)
            return
        self.given[name] = (plain(value), argument.span)

    def _get(self, name: str, default: object) -> object:
        return self.given[name][0] if name in self.given else default

    def _floats(self, name: str, default: tuple[float, ...]) -> tuple[float, ...]:
        value = self._get(name, default)
        items = value if isinstance(value, (list, tuple)) else (value,)
        return tuple(float(item) for item in items)

    def _scale(self, value: Value) -> str | None:
        return None if _number(value) and value > 0 else "a number above 0"  # type: ignore[operator]

    def _resize(self, value: Value) -> str | None:
        least = min(self.line.shape[1:], default=1)
        if type(value) is int and value >= least:
            return None
        return f"a whole number of pixels, {least} or more for an input of {show(self.line.shape)}"

    def _per_channel(self, value: Value, above: float | None) -> str | None:
        items = value if isinstance(value, list) else [value]
        channels = self.line.shape[0]
        fits = all(_number(v) and (above is None or v > above) for v in items)  # type: ignore[operator]
        if fits and len(items) in (1, channels):
            return None
        kind = "a number" if above is None else f"a number above {above:g}"
        return f"{kind}, or a list of {channels}, one a channel"


def _number(value: Value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# output -----------------------------------------------------------------------------------------


def outputs(program: Program, labels: Mapping[str, Tensor], report: Report) -> tuple[Tensor, ...]:
    """The tensors that the output line names."""
    assert program.output is not None
    found: dict[str, Tensor] = {}
    for label in program.output.names:
        name = label.name
        if name in found:
            report.error("given-twice", f"`{name}` is an output twice", label.span)
        elif name in labels:
            found[name] = labels[name]
        elif name not in program.given:
            close = near(name, program.given)
            hint = f"did you mean `{close}`?" if close else "a tensor gets a name with `as`"
            report.error("unknown-name", f"no tensor is called `{name}`", label.span, hint)
    return tuple(found.values())
