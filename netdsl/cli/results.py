"""What a run found, as a person or a program reads it."""

from __future__ import annotations

import json
import math
from dataclasses import field
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from netdsl.frozen import dataclass
from netdsl.ops import Shape, show
from netdsl.scores import Guess

if TYPE_CHECKING:
    from netdsl.net import Net
    from netdsl.runner import Array, Arrays

BAR = 24
"""Characters of a bar that stands for certainty."""

LABEL = 40
"""Characters of the longest class name that is shown whole."""

EIGHTHS = " ▏▎▍▌▋▊▉█"


@dataclass(frozen=True)
class Ranged:
    """What is said of an output that is no classifier's: its shape and what its numbers span."""

    shape: Shape
    low: float
    high: float
    mean: float


@dataclass(frozen=True)
class Result:
    """What a run gave for one input: by output, its likeliest classes or its range."""

    name: str
    ms: float
    found: dict[str, list[Guess] | Ranged] = field(default_factory=dict)
    label: int | None = None
    precision: str = "fp32"
    fc_weights: str | None = None

    @property
    def right(self) -> bool | None:
        """Whether the likeliest class is the true one; None where that is not known."""
        first = next(iter(self.found.values()), None)
        if self.label is None or not isinstance(first, list) or not first:
            return None
        return first[0].index == self.label


def results(
    net: Net,
    names: list[str],
    labels: list[int | None],
    outputs: Arrays,
    ms: float,
    k: int,
    raw: bool,
    precision: str = "fp32",
    fc_weights: str | None = None,
) -> list[Result]:
    """A batch's outputs, each (N, *shape), as one result per input. ms: a sample's."""
    by_output = {name: _found(net, name, values, k, raw) for name, values in outputs.items()}
    how = (precision, fc_weights)
    return [
        Result(name, ms, {o: rows[i] for o, rows in by_output.items()}, labels[i], *how)
        for i, name in enumerate(names)
    ]


def _found(net: Net, output: str, values: Array, k: int, raw: bool) -> list[Any]:
    if net.is_classifier(output):
        return net.top(values, k, raw=raw, output=output)
    shape = net.graph[output].shape
    return [Ranged(shape, float(v.min()), float(v.max()), float(v.mean())) for v in values]


def as_json(result: Result) -> str:
    """{"input", "top": [{"index", "label", "score"}], "ms"}, and further outputs by name."""
    outputs = {name: _plain(found) for name, found in result.found.items()}
    first = next(iter(outputs.values()), [])
    record: dict[str, Any] = {
        "input": result.name,
        "top": first if isinstance(first, list) else [],
        "ms": round(result.ms, 3),
    }
    if len(outputs) > 1 or not isinstance(first, list):
        record["outputs"] = outputs
    if result.label is not None:
        record["expected"] = result.label
    if result.precision != "fp32":
        record["precision"] = result.precision
    if result.fc_weights is not None:
        record["fc_weights"] = result.fc_weights
    return json.dumps(record, ensure_ascii=False)


def _plain(found: list[Guess] | Ranged) -> list[dict[str, Any]] | dict[str, Any]:
    if isinstance(found, Ranged):
        return {
            "shape": list(found.shape),
            "min": _number(found.low),
            "max": _number(found.high),
            "mean": _number(found.mean),
        }
    return [{"index": g.index, "label": g.label, "score": _number(g.score)} for g in found]


def _number(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else None


class Sheet:
    """Prints results for a person."""

    def __init__(self, console: Console, raw: bool) -> None:
        self._console, self._raw = console, raw
        self._blocks = EIGHTHS if console.encoding.lower().startswith("utf") else " #"

    def show(self, result: Result, labels: tuple[str, ...] | None) -> None:
        """One input: its name and time, then each output's likeliest classes or range."""
        head = Text(result.name, style="bold")
        head.append(f"  {result.ms:.1f} ms", style="dim")
        if result.label is not None:
            true = labels[result.label] if labels and result.label < len(labels) else result.label
            head.append(f"  is {true}", style="green" if result.right else "red")
        self._console.print(head, soft_wrap=True)
        for output, found in result.found.items():
            if len(result.found) > 1:
                self._console.print(Text(f"  {output}", style="dim"))
            if isinstance(found, Ranged):
                self._range(found)
            else:
                self._classes(found)

    def _range(self, found: Ranged) -> None:
        self._console.print(
            f"  {show(found.shape)}, from {found.low:.4g} to {found.high:.4g}, "
            f"mean {found.mean:.4g}",
            highlight=False,
        )

    def _classes(self, guesses: list[Guess]) -> None:
        names = [_name(guess) for guess in guesses]
        width = max(map(len, names), default=0)
        for name, guess in zip(names, guesses, strict=True):
            line = Text(f"  {name:<{width}}  ")
            if self._raw:
                line.append(f"{guess.score:10.4f}")
            else:
                line.append(f"{guess.score:6.1%}  ")
                line.append(self._bar(guess.score), style="cyan")
            self._console.print(line, no_wrap=True, overflow="ignore", crop=False)

    def _bar(self, share: float) -> str:
        if not 0 <= share <= 1:
            return ""
        steps = len(self._blocks) - 1
        full, rest = divmod(round(share * BAR * steps), steps)
        return (self._blocks[-1] * full + (self._blocks[rest] if rest else "")).rstrip()


def _name(guess: Guess) -> str:
    name = guess.label if guess.label is not None else f"class {guess.index}"
    return name if len(name) <= LABEL else name[: LABEL - 1] + "…"
