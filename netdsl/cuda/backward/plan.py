"""A plan of training: a net's outputs, every parameter's gradient, and whole steps, on the card.

The way forward keeps what the ways back read; the way back goes through the nodes in reverse. A
tensor that several nodes read sums what they send back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.cuda import launch
from netdsl.cuda.backward.making import HEAD, Making, Place
from netdsl.cuda.backward.place import ends_of
from netdsl.cuda.backward.task import Calls, Learning
from netdsl.cuda.failure import faults_of
from netdsl.cuda.layout import Buffer, Floats
from netdsl.cuda.plan import MOST_ROWS, check_memory, compiled
from netdsl.cuda.replay import Replay
from netdsl.cuda.staging import Desk
from netdsl.faults import error
from netdsl.graph import Graph
from netdsl.graph.fused import parts
from netdsl.ops import show

Progress = Callable[[int, int, str], None]

NUMBERS, LOSSES = "step numbers", "step losses"
"""What goes in and out beside the net's own tensors, which have no blanks in their names."""


class TrainingPlan:
    """A graph bound to a batch on the card, that gives outputs and gradients, and learns.

    `load` weights first. A plan runs one call at a time; others wait.
    """

    def __init__(
        self,
        name: str,
        graph: Graph,
        places: Mapping[str, Place],
        length: int,
        *,
        batch: int,
        seed: int = 0,
        learning: Learning | None = None,
        precision: str = "fp32",
        progress: Progress | None = None,
    ) -> None:
        """graph: as the way back takes it (see `netdsl.cuda.backward.table`). places: of every
        parameter in params by its full name, the learned ones in the first `length` floats.
        learning: what `step` needs to know. precision: what the factors of convolutions and of
        fully connected layers are rounded to, "fp32", "tf32" or "bf16".

        Raises NetError: a batch out of range, more memory than the card has, a card or driver that
        fails.
        """
        if not 1 <= batch <= MOST_ROWS:
            said = f"a batch of {batch} samples: the card takes 1 to {MOST_ROWS}"
            raise error("out-of-range", said)
        self.name, self.graph, self.batch, self.seed = name, graph, batch, seed
        self.precision = precision
        self.places, self.length, self.ends = places, length, ends_of(graph)
        self.reserved = max((length, *(p.start + prod(p.shape) for p in places.values())))
        self._lock = RLock()
        with faults_of(name, batch):
            making = Making(graph, places, length, batch, learning, precision)
            self.layout, self.heads, self.slots = making.layout, making.heads, making.slots
            self._take_memory(making)
            compiled(making.kernels(), progress)
        self._record(making)

    def _take_memory(self, making: Making) -> None:
        """Takes the card's memory, and this side's that the card reads and writes."""
        sizes = making.floats, making.params.floats, making.ints.count
        check_memory(self.name, self.batch, *sizes, fixed=making.fixed)
        self.arena_bytes, self.params_bytes = 4 * sizes[0], 4 * sizes[1]
        with faults_of(self.name, self.batch, 4 * sum(sizes)):
            self.stream = launch.stream()
            self.arena = launch.room(sizes[0])
            self.params = launch.on_device(making.params.joined())
            self.ints = launch.on_device(making.ints.joined())
        # What lies between parameters stays zero, and so do gradients of unused ones.
        self._write(self.arena, 0, np.zeros(self.length, np.float32))
        into = {name: self._view(self.layout.outputs[name]) for name in self.graph.inputs}
        out = {name: self._view(self.layout.outputs[name]) for name in self.ends}
        told, learned = {}, {}
        if self.heads:
            first = self.heads[0].value
            learned = {LOSSES: self.arena[first : first + len(self.heads)]}
            told = {NUMBERS: self.arena[making.numbers : making.numbers + 3]}
            told |= {
                head.name: self.arena[head.targets : head.targets + head.count]
                for head in self.heads
                if not head.classes
            }
        self._desk, self._told = Desk(into, out | learned, self.stream), Desk(told, {}, self.stream)
        self._head = launch.staging(making.told).view(np.int32)
        self._head[:] = 0

    def _record(self, making: Making) -> None:
        """Puts the launches into lists that are run again and again."""
        forward: Calls = [c for s in making.steps for c in s.training]
        back: Calls = [c for s in reversed(making.steps) for c in s.back]
        end: Calls = [*making.update, *making.packing]
        arguments = (self.arena, self.params, self.ints)

        def replay(calls: Calls) -> Replay:
            return Replay(calls, arguments, self.stream)

        self._trying = replay([c for s in making.steps for c in s.trying])
        self._forward, self._back, self._packing = map(replay, (forward, back, making.packing))
        self._whole = replay([*forward, *making.losses, *back, *end] if self.heads else [])

    @property
    def note(self) -> str:
        """Why a step's kernels are launched one by one; mostly empty."""
        return self._whole.note

    @contextmanager
    def _mine(self) -> Iterator[None]:
        """Makes the plan this call's own. Raises NetError for what fails on the card."""
        with self._lock, faults_of(self.name, self.batch):
            launch.attach()
            yield

    def load(self, weights: Mapping[str, Floats]) -> None:
        """Takes these weights, all of them, by their full names."""
        vector = np.zeros(self.reserved, np.float32)
        for name, place in self.places.items():
            vector[place.start : place.start + prod(place.shape)] = weights[name].reshape(-1)
        with self._mine():
            self._write(self.params, 0, vector)
            self._packing.start()

    def parameters(self) -> dict[str, Floats]:
        """A copy of every parameter by its full name, statistics too."""
        with self._mine():
            vector = self._read(self.params[: self.reserved])
        return {name: _view(vector, place) for name, place in self.places.items()}

    def gradients(self) -> dict[str, Floats]:
        """A copy of the gradient that the last `backward` left of every learned parameter."""
        with self._mine():
            vector = self._read(self.arena[: self.length])
        learned = {n: place for n, place in self.places.items() if place.start < self.length}
        return {name: _view(vector, place) for name, place in learned.items()}

    def forward(
        self, inputs: Mapping[str, Floats], *, step: int | None = None
    ) -> dict[str, Floats]:
        """Each output (auxiliary heads' too) by node name, (batch, *shape).

        step: the number of the training step, from which dropout draws; None tries the net as
        `run` would: no dropout, batch norms with their running statistics.
        Raises NetError: a wrong shape, a card that fails.
        """
        with self._mine():
            self.feed(inputs, step or 0)
            (self._trying if step is None else self._forward).start()
            return self._scores(self._desk.get())

    def backward(self, slopes: Mapping[str, Floats]) -> None:
        """Leaves what the last training `forward`'s outputs make of their gradients; see
        `gradients`. slopes: the loss's gradient in each output, by name, (batch, *shape)."""
        with self._mine():
            for name in self.ends:
                if name in self.layout.gradients:
                    flat = np.ascontiguousarray(slopes[name], np.float32).reshape(-1)
                    self._write(self.arena, self.layout.gradients[name].offset, flat)
            self._back.start()

    def step(
        self,
        inputs: Mapping[str, Floats],
        targets: Mapping[str, NDArray[Any]],
        step: int,
        numbers: Sequence[float],
    ) -> tuple[dict[str, float], dict[str, Floats]]:
        """A step of training: the losses of the ends before it, and the outputs.

        targets: by end, classes or arrays that fit. numbers: the learning rate, and Adam's two.
        Where a loss is not finite no learned parameter moves.
        Raises NetError: a wrong shape, a card that fails.
        """
        told = {NUMBERS: np.array(numbers, np.float32)}
        flat = {head.name: np.asarray(targets[head.name]).reshape(-1) for head in self.heads}
        with self._mine():
            for head in self.heads:
                if head.classes:
                    self._head[head.targets : head.targets + head.count] = flat[head.name]
                else:
                    told[head.name] = np.asarray(flat[head.name], np.float32)
            self.feed(inputs, step)
            self._told.put(told)
            self._whole.start()
            found = self._desk.get()
        losses = found.pop(LOSSES).tolist()
        names = (head.name for head in self.heads)
        return dict(zip(names, losses, strict=True)), self._scores(found)

    def feed(self, inputs: Mapping[str, Floats], step: int) -> None:
        """Hands in a batch, and tells the kernels which step it is."""
        arrays = {name: self._flat(name, inputs[name]) for name in self.graph.inputs}
        low, high = self.seed & 0xFFFFFFFF, self.seed >> 32
        head = np.array([step, low, high], np.int64).astype(np.uint32).view(np.int32)
        self._head[:HEAD] = head
        self.ints[: len(self._head)].copy_to_device(self._head, stream=self.stream)
        self._desk.put(arrays)

    def _flat(self, name: str, values: Floats) -> Floats:
        shape, array = (self.batch, *self.graph[name].shape), np.asarray(values, np.float32)
        if array.shape != shape:
            raise error(
                "wrong-shape",
                f"{name} has shape {show(array.shape)}, this plan takes {show(shape)}",
            )
        return np.ascontiguousarray(array).reshape(-1)

    def _scores(self, found: Mapping[str, Floats]) -> dict[str, Floats]:
        """The outputs in their shapes."""
        return {n: found[n].reshape(self.batch, *self.graph[n].shape) for n in self.ends}

    def state(self, slot: int) -> Floats:
        """A copy of one of the optimiser's vectors."""
        start = self.slots[slot]
        with self._mine():
            return self._read(self.arena[start : start + self.length])

    def restore(self, slot: int, vector: Floats) -> None:
        """Sets one of the optimiser's vectors."""
        with self._mine():
            self._write(self.arena, self.slots[slot], vector)

    def _view(self, buffer: Buffer) -> Any:
        """The stretch of the arena that a tensor takes whose samples lie together."""
        return self.arena[buffer.offset : buffer.offset + buffer.floats]

    def _write(self, array: Any, start: int, values: Floats) -> None:
        array[start : start + len(values)].copy_to_device(values, stream=self.stream)
        self.stream.synchronize()

    def _read(self, view: Any) -> Floats:
        found: Floats = view.copy_to_host(stream=self.stream)
        self.stream.synchronize()
        return found

    def broken(self) -> str | None:
        """The first node, in the graph's order, with a number that is not finite."""
        for name, values in self.parameters().items():
            if not np.isfinite(values).all():
                return name.rpartition(".")[0]
        for node in self.graph:
            packed = self.layout.packed.get(node.name)
            if packed is not None:
                # The floats may be done with, or were never written.
                positions = packed.batch * prod(packed.shape[:-1])
                rows = self._rows(packed.offset, positions, packed.shape[-1], packed.cell)
                halves = self.precision == "bf16"
                finite = (_numbers(rows) if halves else np.isfinite(rows)).all()
            else:
                buffer = self.layout.outputs[node.name]
                stride = buffer.batch_stride
                rows = self._rows(buffer.offset, buffer.batch, buffer.sample, stride)
                finite = np.isfinite(rows).all()
            if not finite:
                return parts(node).source
        return None

    def _rows(self, start: int, rows: int, count: int, apart: int) -> Floats:
        """So many rows of floats of the arena, so far apart. Those of a part of a larger tensor
        have none of their own after the last."""
        spare = apart - count
        with self._mine():
            floats = self._read(self.arena[start : start + rows * apart - spare])
        found = np.concatenate([floats, np.zeros(spare, np.float32)])
        return found.reshape(rows, -1)[:, :count]


def _numbers(words: Floats) -> NDArray[np.bool_]:
    """Of words of bfloat16 whether either half is a finite number."""
    finite: NDArray[np.bool_]
    finite = np.ascontiguousarray(words).view(np.uint16) & np.uint16(0x7F80) != np.uint16(0x7F80)
    return finite


def _view(vector: Floats, place: Place) -> Floats:
    return vector[place.start : place.start + prod(place.shape)].reshape(place.shape)
