"""The calls of layers that do some samples of a batch before the next (sections.py)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from netdsl.cpu.layout import Call, aligned
from netdsl.cpu.task import Floats, Params


class Twice(Params):
    """Parameters that are packed for two turns, and kept once: what is added the second time has
    the places of the first."""

    def __init__(self, params: Params) -> None:
        super().__init__()
        self._params = params
        self._places: list[int] = []
        self._next = 0

    def room(self, count: int) -> Floats:
        # The second time all goes once it is added; pieces of what all share would stay.
        first = self._next == len(self._places)
        return self._params.room(count) if first else aligned(count)

    def again(self) -> None:
        """What follows is the second time."""
        self._next = 0

    def add(self, values: NDArray[np.floating]) -> int:
        if self._next == len(self._places):
            self._places.append(self._params.add(values))
        self._next += 1
        return self._places[self._next - 1]


def all_turns(first: Sequence[Call], second: Sequence[Call], turns: int) -> tuple[Call, ...]:
    """The calls of all turns by those of the first two: whatever a descriptor says of where samples
    lie is as much further on in each turn."""
    pairs = list(zip(first, second, strict=True))
    return tuple(
        Call(kernel, d + turn * (then.d - d))
        for turn in range(turns)
        for (kernel, d), then in pairs
    )
