"""Inputs on their way to the device and outputs on their way back.

`Desk` serves one batch at a time. `Pipeline` serves many: while one batch is computed, the next
one's inputs are copied to the device and the last one's outputs back, each by the card's own copy
engine. The tensors in the arena are overwritten as a run goes on, so that each of the two batches
under way has memory of its own on both sides, and only a copy within the device lies between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from netdsl.cuda import launch
from netdsl.cuda.layout import Floats

Arrays = Mapping[str, Floats]
"""A flat array for every name."""

Views = Mapping[str, Any]
"""The stretch of the arena for every name."""

UNDER_WAY = 2
"""Batches that are under way at once."""


class Desk:
    """Puts inputs into the arena and takes outputs from it, in the order of one stream."""

    def __init__(self, inputs: Views, outputs: Views, stream: Any) -> None:
        self.inputs, self.outputs, self.stream = inputs, outputs, stream
        self._into = {name: launch.staging(view.size) for name, view in inputs.items()}
        self._out = {name: launch.staging(view.size) for name, view in outputs.items()}

    def put(self, arrays: Arrays) -> None:
        """Starts the copies of the inputs. The arrays may change as soon as this returns."""
        for name, view in self.inputs.items():
            np.copyto(self._into[name], arrays[name])
            view.copy_to_device(self._into[name], stream=self.stream)

    def copy(self, held: Views) -> None:
        """Starts copies of inputs that lie on the device already."""
        for name, view in self.inputs.items():
            view.copy_to_device(held[name], stream=self.stream)

    def get(self) -> dict[str, Floats]:
        """Waits for all that was started, and gives the outputs."""
        for name, view in self.outputs.items():
            view.copy_to_host(self._out[name], stream=self.stream)
        self.stream.synchronize()
        return {name: found.copy() for name, found in self._out.items()}


@dataclass(frozen=True)
class _Slot:
    """The memory of a batch that is under way, here and on the device, and its marks."""

    into: dict[str, Floats]
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    out: dict[str, Floats]
    uploaded: Any
    computed: Any
    downloaded: Any

    @classmethod
    def of(cls, inputs: Views, outputs: Views) -> _Slot:
        return cls(
            {name: launch.staging(view.size) for name, view in inputs.items()},
            {name: launch.room(view.size) for name, view in inputs.items()},
            {name: launch.room(view.size) for name, view in outputs.items()},
            {name: launch.staging(view.size) for name, view in outputs.items()},
            launch.event(),
            launch.event(),
            launch.event(),
        )

    def result(self) -> dict[str, Floats]:
        """The outputs, once they are here."""
        self.downloaded.synchronize()
        return {name: found.copy() for name, found in self.out.items()}


class Pipeline:
    """Runs batches one after the other, with the copies of their neighbours beside them."""

    def __init__(
        self, inputs: Views, outputs: Views, stream: Any, start: Callable[[], None]
    ) -> None:
        self.inputs, self.outputs, self.stream, self.start = inputs, outputs, stream, start
        self._up, self._down = launch.stream(), launch.stream()
        self._slots: Sequence[_Slot] = [_Slot.of(inputs, outputs) for _ in range(UNDER_WAY)]

    def run(self, batches: Iterable[Arrays]) -> Iterator[dict[str, Floats]]:
        """The outputs of each batch, in order. A batch is asked for when there is room for it."""
        for slot in self._slots:
            # Of a run that was broken off, something may be under way still.
            slot.downloaded.synchronize()
        count = 0
        for arrays in batches:
            slot = self._slots[count % UNDER_WAY]
            found = slot.result() if count >= UNDER_WAY else None
            self._begin(slot, arrays)
            count += 1
            if found is not None:
                yield found
        for i in range(max(count - UNDER_WAY, 0), count):
            yield self._slots[i % UNDER_WAY].result()

    def _begin(self, slot: _Slot, arrays: Arrays) -> None:
        """Starts everything of a batch. What the slot held before has ended."""
        for name, held in slot.inputs.items():
            np.copyto(slot.into[name], arrays[name])
            held.copy_to_device(slot.into[name], stream=self._up)
        slot.uploaded.record(self._up)
        slot.uploaded.wait(self.stream)
        for name, view in self.inputs.items():
            view.copy_to_device(slot.inputs[name], stream=self.stream)
        self.start()
        for name, view in self.outputs.items():
            slot.outputs[name].copy_to_device(view, stream=self.stream)
        slot.computed.record(self.stream)
        slot.computed.wait(self._down)
        for name, held in slot.outputs.items():
            held.copy_to_host(slot.out[name], stream=self._down)
        slot.downloaded.record(self._down)
