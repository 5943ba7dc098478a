"""What an importer gives: a graph, where its weights lie in the file, and what it could not say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from netdsl.faults import Fault, NetError, error
from netdsl.graph import Graph
from netdsl.ops import Shape, show

Array = NDArray[np.float32]

SHOWN = 12
"""Kinds of trouble that one message lists."""


@dataclass(frozen=True)
class Imported:
    """A network of another format.

    sources: for each parameter of the graph the tensor of the foreign file that fills it.
    constants: parameters that no file holds, since they are the same for every file.
    """

    graph: Graph
    sources: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, Array] = field(default_factory=dict)

    def weights(
        self, shapes: Mapping[str, Shape], read: Callable[[str], Array], name: str
    ) -> dict[str, Array]:
        """The graph's weights out of a file's tensors. Raises NetError where they do not fit."""
        found: dict[str, Array] = {}
        for ours, parameter in self.graph.all_parameters().items():
            if ours in self.constants:
                found[ours] = self.constants[ours]
                continue
            theirs = self.sources[ours]
            if theirs not in shapes:
                raise error("weights-mismatch", f"{name} has no {theirs}, which is our {ours}")
            if shapes[theirs] == (1,) != parameter.shape:
                # A PReLU whose channels share one slope.
                found[ours] = np.full(parameter.shape, read(theirs)[0], np.float32)
                continue
            if shapes[theirs] != parameter.shape:
                raise error(
                    "weights-mismatch",
                    f"{theirs} in {name} is {show(shapes[theirs])}, the net takes "
                    f"{show(parameter.shape)}",
                )
            found[ours] = read(theirs)
        return found


class Unsupported(Exception):  # noqa: N818 - the file is not at fault
    """A layer that the language has no op for; readers gather them and list them all."""


class Trouble:
    """What the language cannot say: for each kind of layer and reason, the layers' names.

    what: what the format calls a layer.
    """

    def __init__(self, what: str = "layer") -> None:
        self.what = what
        self.found: dict[tuple[str, str], list[str]] = {}

    def add(self, kind: str, name: str, reason: str) -> None:
        self.found.setdefault((kind, reason), []).append(name)

    def check(self, code: str, file: str, language: str = "the language") -> None:
        """Raises NetError that lists what was found, if anything, with the language lacking it."""
        if not self.found:
            return
        kinds = [f"{kind} ({_some(names)}): {why}" for (kind, why), names in self.found.items()]
        listed = "\n  ".join(kinds[:SHOWN])
        more = f"\n  and {len(kinds) - SHOWN} kinds more" if len(kinds) > SHOWN else ""
        count = sum(map(len, self.found.values()))
        layers = f"1 {self.what}" if count == 1 else f"{count} {self.what}s"
        raise NetError(
            Fault(code, f"{file}: {layers} cannot be said in {language}:\n  {listed}{more}")
        )


def _some(names: Sequence[str]) -> str:
    listed = ", ".join(names[:5])
    return f"{listed} and {len(names) - 5} more" if len(names) > 5 else listed


def word(name: str) -> str:
    """A name of the language from any text."""
    text = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name).strip("_")
    return text if text and not text[0].isdigit() else f"net_{text}".strip("_")
