"""A plan of training: a net's outputs, and every parameter's gradient, on the card.

The way forward keeps what the ways back read; the way back goes through the nodes in reverse. A
tensor that several nodes read sums what they send back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.cuda import launch
from netdsl.cuda.backward.making import Making, Place
from netdsl.cuda.backward.place import ends_of
from netdsl.cuda.backward.task import Calls, Learning
from netdsl.cuda.failure import faults_of
from netdsl.cuda.layout import Buffer, Floats
from netdsl.cuda.plan import check_memory, compiled
from netdsl.faults import error
from netdsl.graph import Graph
from netdsl.graph.fused import parts
from netdsl.ops import show

Progress = Callable[[int, int, str], None]


class TrainingPlan:
    """A graph bound to a batch on the card, that gives outputs and gradients.

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
        progress: Progress | None = None,
    ) -> None:
        """graph: as the way back takes it (see `netdsl.cuda.backward.table`). places: of every
        parameter in params by its full name, the learned ones in the first `length` floats.
        learning: what `step` needs to know.

        Raises NetError: more memory than the card has, a card or driver that fails.
        """
        self.name, self.graph, self.batch, self.seed = name, graph, batch, seed
        self.places, self.length, self.ends = places, length, ends_of(graph)
        with faults_of(name, batch):
            making = Making(graph, places, length, batch, learning)
            self.layout, self.steps, self.head = making.layout, making.steps, making.head
            self.packing, self.losses, self.update = making.packing, making.losses, making.update
            if learning is not None:
                self.heads, self.slots, self.numbers = making.heads, making.slots, making.numbers
            sizes = making.floats, making.params.floats, making.ints.count
            check_memory(name, batch, *sizes)
            compiled(making.kernels(), progress)
            self.arena = launch.room(sizes[0])
            self.params = launch.on_device(making.params.joined())
            self.ints = launch.on_device(making.ints.joined())
            # What lies between parameters stays zero, and so do gradients of unused ones.
            self._tell(0, np.zeros(length, np.float32))
        self.arena_bytes, self.params_bytes = 4 * sizes[0], 4 * sizes[1]
        self.reserved = max((length, *(p.start + prod(p.shape) for p in places.values())))
        self._lock = RLock()

    def start(self, calls: Iterable[Calls]) -> None:
        """Starts kernels, without waiting for the end."""
        for each in calls:
            for call in each:
                launch.launch(call, self.arena, self.params, self.ints)

    def load(self, weights: Mapping[str, Floats]) -> None:
        """Takes these weights, all of them, by their full names."""
        vector = np.zeros(self.reserved, np.float32)
        for name, place in self.places.items():
            vector[place.start : place.start + prod(place.shape)] = weights[name].reshape(-1)
        with self._lock, faults_of(self.name, self.batch):
            self.params[: self.reserved].copy_to_device(vector)
            self.start([self.packing])

    def parameters(self) -> dict[str, Floats]:
        """A copy of every parameter by its full name, statistics too."""
        with self._lock, faults_of(self.name, self.batch):
            vector = self.params[: self.reserved].copy_to_host()
        return {name: _view(vector, place) for name, place in self.places.items()}

    def gradients(self) -> dict[str, Floats]:
        """A copy of the gradient that the last `backward` left of every learned parameter."""
        with self._lock, faults_of(self.name, self.batch):
            vector = self.arena[: self.length].copy_to_host()
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
        with self._lock, faults_of(self.name, self.batch):
            self.feed(inputs, step or 0)
            self.start(s.trying if step is None else s.training for s in self.steps)
            return self.scores()

    def backward(self, slopes: Mapping[str, Floats]) -> None:
        """Leaves what the last training `forward`'s outputs make of their gradients; see
        `gradients`. slopes: the loss's gradient in each output, by name, (batch, *shape)."""
        with self._lock, faults_of(self.name, self.batch):
            for name in self.ends:
                if name in self.layout.gradients:
                    self._put(self.layout.gradients[name], slopes[name])
            self.start(s.back for s in reversed(self.steps))

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
        with self._lock, faults_of(self.name, self.batch):
            self.feed(inputs, step)
            self._tell(self.numbers, np.array(numbers, np.float32))
            for head in self.heads:
                wanted = np.ascontiguousarray(targets[head.name]).reshape(-1)
                if wanted.dtype.kind in "iu":
                    where = self.ints[head.targets : head.targets + head.count]
                    where.copy_to_device(wanted.astype(np.int32))
                else:
                    self._tell(head.targets, wanted.astype(np.float32))
            self.start(s.training for s in self.steps)
            self.start([self.losses])
            self.start(s.back for s in reversed(self.steps))
            self.start([self.update, self.packing])
            first = self.heads[0].value
            values = self.arena[first : first + len(self.heads)].copy_to_host()
            return {h.name: float(values[h.value - first]) for h in self.heads}, self.scores()

    def state(self, slot: int) -> Floats:
        """A copy of one of the optimiser's vectors."""
        start = self.slots[slot]
        with self._lock, faults_of(self.name, self.batch):
            found: Floats = self.arena[start : start + self.length].copy_to_host()
        return found

    def restore(self, slot: int, vector: Floats) -> None:
        """Sets one of the optimiser's vectors."""
        with self._lock, faults_of(self.name, self.batch):
            self._tell(self.slots[slot], vector)

    def _tell(self, start: int, values: Floats) -> None:
        """Writes numbers to the arena."""
        self.arena[start : start + len(values)].copy_to_device(values)

    def feed(self, inputs: Mapping[str, Floats], step: int) -> None:
        """Hands in a batch, and tells the kernels which step it is."""
        low, high = self.seed & 0xFFFFFFFF, self.seed >> 32
        head = np.array([step, low, high], np.int64).astype(np.uint32).view(np.int32)
        self.ints[self.head : self.head + len(head)].copy_to_device(head)
        for name in self.graph.inputs:
            shape = (self.batch, *self.graph[name].shape)
            array = np.asarray(inputs[name], np.float32)
            if array.shape != shape:
                raise error(
                    "wrong-shape",
                    f"{name} has shape {show(array.shape)}, this plan takes {show(shape)}",
                )
            self._put(self.layout.outputs[name], array)

    def scores(self) -> dict[str, Floats]:
        """The outputs of the last way forward."""
        shapes = {name: (self.batch, *self.graph[name].shape) for name in self.ends}
        return {n: self._get(self.layout.outputs[n]).reshape(shapes[n]) for n in self.ends}

    def _put(self, buffer: Buffer, values: Floats) -> None:
        """Writes a tensor whose samples lie together."""
        self._tell(buffer.offset, np.ascontiguousarray(values, np.float32).reshape(-1))

    def _get(self, buffer: Buffer) -> Floats:
        """The floats from a tensor's first to its last, and what lies between its samples."""
        found: Floats = self.arena[buffer.offset : buffer.offset + buffer.floats].copy_to_host()
        return found

    def broken(self) -> str | None:
        """The first node, in the graph's order, with a number that is not finite."""
        for name, values in self.parameters().items():
            if not np.isfinite(values).all():
                return name.rpartition(".")[0]
        for node in self.graph:
            buffer = self.layout.outputs[node.name]
            spare = buffer.batch_stride - buffer.sample
            # A part of a larger tensor has no floats of its own after its last sample.
            floats = self.arena[buffer.offset : buffer.offset + buffer.floats - spare]
            found = np.concatenate([floats.copy_to_host(), np.zeros(spare, np.float32)])
            rows = found.reshape(buffer.batch, -1)[:, : buffer.sample]
            if not np.isfinite(rows).all():
                return parts(node).source
        return None


def _view(vector: Floats, place: Place) -> Floats:
    return vector[place.start : place.start + prod(place.shape)].reshape(place.shape)
