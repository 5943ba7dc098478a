"""Tensors of single ops in poisoned memory of Numba's simulator."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.cuda import launch
from netdsl.cuda.backward.task import Calls, TrainedParams
from netdsl.cuda.layout import Buffer, fresh
from netdsl.cuda.task import Descriptors

Floats = NDArray[np.float32]

met: set[int] = set()
"""Kernels that were launched, by identity."""


@dataclass
class Memory:
    """Tensors in poisoned memory, and what kernels read besides."""

    gap: int
    params: TrainedParams
    floats: int = 0
    scratch: int = 0
    ints: Descriptors = field(default_factory=Descriptors)
    known: dict[int, Floats] = field(default_factory=dict)
    buffers: list[Buffer] = field(default_factory=list)
    arena: Any = None
    before: Floats = field(default_factory=lambda: np.zeros(0, np.float32))

    def tensor(self, batch: int, shape: tuple[int, ...], values: Floats | None = None) -> Buffer:
        """Room for a tensor, and what it holds."""
        made = fresh(batch, shape)
        made = replace(
            made,
            offset=self.room(batch * (made.sample + self.gap) + PAST),
            batch_stride=made.sample + self.gap,
        )
        self.buffers.append(made)
        if values is not None:
            self.known[len(self.buffers) - 1] = values
        return made

    def room(self, floats: int) -> int:
        """Where so many floats lie."""
        start = self.floats + self.gap
        self.floats = -(-(start + floats) // 64) * 64
        return start

    def scratched(self, floats: int) -> int:
        """Scratch, after everything else; asked for again it is the same."""
        self.scratch = max(self.scratch, floats)
        return SCRATCH

    def start(self) -> None:
        """Takes the memory, all of it poisoned but the tensors that are known; around those that
        kernels write stands a number, over which a NaN would show."""
        arena = np.full(SCRATCH + self.scratch + 1, np.nan, np.float32)
        assert self.floats <= SCRATCH
        for i, buffer in enumerate(self.buffers):
            if i in self.known:
                self.view(arena, buffer)[...] = self.known[i].reshape(buffer.batch, -1)
            else:
                arena[buffer.offset - self.gap : buffer.offset + buffer.floats + PAST] = AROUND
                self.view(arena, buffer)[...] = np.nan
        self.before = arena.copy()
        self.arena = launch.on_device(arena)

    def view(self, arena: Floats, buffer: Buffer) -> Floats:
        """A tensor's samples, each in a row."""
        rows = arena[buffer.offset : buffer.offset + buffer.floats]
        return rows.reshape(buffer.batch, -1)[:, : buffer.sample]

    def found(self, buffer: Buffer) -> Floats:
        """What a tensor holds now."""
        values = self.view(self.arena.copy_to_host(), buffer)
        return values.reshape(buffer.batch, *buffer.shape)

    def run(self, calls: Calls, params: Any) -> None:
        """Launches these, one after the other."""
        ints = launch.on_device(self.ints.joined())
        for call in calls:
            met.add(id(call.kernel))
            launch.launch(call, self.arena, params, ints)

    def torn(self) -> bool:
        """Whether something was written between the samples of tensors, or past them."""
        now, before = self.arena.copy_to_host(), self.before.copy()
        for buffer in self.buffers:
            for arena in (now, before):
                self.view(arena, buffer)[...] = np.nan
        ends = [(b.offset - self.gap, b.offset + b.floats + PAST) for b in self.buffers]
        return not all(np.array_equal(now[a:b], before[a:b], equal_nan=True) for a, b in ends)


SCRATCH = 1 << 13
"""Where scratch begins."""
AROUND, PAST = np.float32(1e30), 16
"""What stands between samples, and in so many floats past the last."""
