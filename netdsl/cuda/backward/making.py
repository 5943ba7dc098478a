"""How a plan of training is made: from a graph to every launch of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, Protocol

import numpy as np

from netdsl.cuda import launch
from netdsl.cuda.activation import added
from netdsl.cuda.backward.gather import plan_gather
from netdsl.cuda.backward.losses import LOSSES
from netdsl.cuda.backward.packing import Copies, copies_of
from netdsl.cuda.backward.place import Layout, back_of, ends_of, lay_out, wanted
from netdsl.cuda.backward.task import (
    NUMBERS,
    BackPlaces,
    Calls,
    Learning,
    LossTask,
    TrainedParams,
    UpdateTask,
)
from netdsl.cuda.backward.update import update
from netdsl.cuda.layout import Buffer
from netdsl.cuda.pack import plan_pack
from netdsl.cuda.place import rounded
from netdsl.cuda.plan import most_floats
from netdsl.cuda.table import RECIPES
from netdsl.cuda.task import Descriptors, Task
from netdsl.graph import Graph, Node
from netdsl.graph.fused import parts
from netdsl.ops import Input, Shape

HEAD = 3
"""The number of the step, and the two halves of the seed, which the host writes to ints."""


class Place(Protocol):
    """Where a parameter lies in params: from which float, and its shape."""

    @property
    def start(self) -> int: ...

    @property
    def shape(self) -> Shape: ...


@dataclass
class Step:
    """A node's calls: forward in training, forward when tried, and back."""

    name: str
    training: Calls
    trying: Calls
    back: Calls = field(default_factory=list)


@dataclass(frozen=True)
class Head:
    """An end of the net that learns: where its targets go, in ints if they are classes, else in the
    arena, how many; where its loss is found; its share in the whole loss."""

    name: str
    classes: bool
    targets: int
    count: int
    value: int
    share: float


class Making:
    """A plan of training while it is made.

    places: of every parameter in params by its full name, the learned ones in the first `length`
    floats. learning: None for a plan that gives gradients alone. precision: what the factors of
    convolutions and fully connected layers are rounded to. `fixed` floats of the arena come before
    the tensors; `told` of ints are the host's.
    """

    def __init__(
        self,
        graph: Graph,
        places: Mapping[str, Place],
        length: int,
        batch: int,
        learning: Learning | None,
        precision: str = "fp32",
    ) -> None:
        self.graph, self.places, self.length, self.batch = graph, places, length, batch
        self.precision = precision
        ends = (place.start + prod(place.shape) for place in places.values())
        self.params = TrainedParams(max((length, *ends)))
        self.ints = Descriptors()
        self.head = self.ints.add([0] * HEAD)
        self.processors = launch.processors()
        start, self.heads, self.slots = length, list[Head](), tuple[int, ...]()
        if learning is not None:
            start = self._reserve(learning)
        self.told = self.ints.count
        self.fixed = rounded(start)
        self.copies, self.layout = self._lay_out()
        self.scratch_start, self.scratch_floats = self.layout.floats, 0
        nodes = [node for node in graph if not isinstance(node.op, Input)]
        tasks = {node.name: self._task(node) for node in nodes}
        self.kept = {name: self._keep(task) for name, task in tasks.items()}
        self.written, self.passed = set(ends_of(graph)), set[str]()
        steps = {name: self._forward(task) for name, task in tasks.items()}
        wants = wanted(graph)
        for node in reversed(nodes):
            if node.name in wants:
                steps[node.name].back = self._back(tasks[node.name], wants)
        self.steps = list(steps.values())
        self.losses = self._losses(learning) if learning else []
        self.update = self._update(learning) if learning else []
        self.packing = [c for moved in self.params.moved for c in plan_gather(moved, self.ints)]

    def _lay_out(self) -> tuple[Copies | None, Layout]:
        """Where all tensors lie, and how; none packed for longer than a node needs it where that
        would take more memory than there is."""
        plain = lay_out(self.graph, self.batch, self.fixed)
        if self.precision == "fp32":
            return None, plain
        copies = copies_of(self.graph, frozenset(ends_of(self.graph)), self.batch, self.precision)
        kept = lay_out(self.graph, self.batch, self.fixed, copies, self.precision)
        # Scratch has room for the largest packed tensor besides.
        largest = max((buffer.floats for buffer in kept.packed.values()), default=0)
        if kept.floats > plain.floats and kept.floats + largest > most_floats():
            return None, plain
        return copies, kept

    def _reserve(self, learning: Learning) -> int:
        """Keeps room for the slots, the numbers of a step, losses and targets; where it ends."""
        self.slots = tuple(self.length * (1 + i) for i in range(learning.slots))
        self.numbers = self.length * (1 + learning.slots)
        self.values = self.numbers + NUMBERS
        ends = ends_of(self.graph)
        start = rounded(self.values + len(ends))
        classes = learning.takes_classes
        for i, name in enumerate(ends):
            shape = self.graph[name].shape
            if classes:
                count = self.batch * prod(shape[1:])
                targets = self.ints.add([0] * count)
            else:
                count = self.batch * prod(shape)
                targets, start = start, start + rounded(count)
            place, share = self.values + i, learning.shares[name]
            self.heads.append(Head(name, classes, targets, count, place, share))
        return start

    def _losses(self, learning: Learning) -> Calls:
        calls: Calls = []
        for head in self.heads:
            task = LossTask(
                learning.loss,
                self.layout.outputs[head.name],
                self.layout.gradients.get(head.name),
                head.targets,
                head.value,
                head.share,
                learning.smoothing,
                self.scratch,
                self.params,
                self.ints,
            )
            calls += LOSSES[learning.loss](task)
        return calls

    def _update(self, learning: Learning) -> Calls:
        task = UpdateTask(
            learning.optimiser,
            self.length,
            0,
            self.params.add(learning.decay),
            0,
            self.slots,
            self.numbers,
            self.values,
            len(self.heads),
            learning.clip,
            learning.keep,
            learning.keep_squares,
            learning.eps,
            self.scratch,
            self.params,
            self.ints,
        )
        return update(task)

    @property
    def floats(self) -> int:
        """Those of the arena."""
        return self.scratch_start + self.scratch_floats

    def kernels(self) -> list[Any]:
        """Those that the plan launches, each once."""
        calls = [c for s in self.steps for c in (*s.training, *s.trying, *s.back)]
        calls += [*self.losses, *self.update, *self.packing]
        return list(dict.fromkeys(call.kernel for call in calls))

    def scratch(self, floats: int) -> int:
        """Where so many floats of scratch lie."""
        self.scratch_floats = max(self.scratch_floats, rounded(floats))
        return self.scratch_start

    def _task(self, node: Node) -> Task:
        shapes = self.graph.input_shapes(node)
        zero = np.zeros((), np.float32)
        own = parts(node).base.parameters(shapes)
        return Task(
            node,
            shapes,
            self.batch,
            self.processors,
            tuple(self.layout.outputs[name] for name in node.inputs),
            self.layout.outputs[node.name],
            self.scratch,
            {p.name: np.broadcast_to(zero, p.shape) for p in own},
            self.params,
            self.ints,
            self.precision,
            packed_input=self._packed_input(node),
            packed_output=self.layout.packed[node.name] if self._writes_packed(node) else None,
        )

    def _packed_input(self, node: Node) -> Buffer | None:
        """Where a node's first input lies packed, if that is to be read."""
        reads = self.copies is not None and node.name in self.copies.reads
        return self.layout.packed[node.inputs[0]] if reads else None

    def _writes_packed(self, node: Node) -> bool:
        return self.copies is not None and node.name in self.copies.written.packed

    def _pack(self, task: Task) -> Calls:
        """The pass that packs a node's first input, before the first that reads it so."""
        source, target = task.node.inputs[0], task.packed_input
        if target is None or self.copies is None or source not in self.copies.passes:
            return []
        if source in self.passed:
            return []
        self.passed.add(source)
        return [plan_pack(task, task.inputs[0], self.graph[source].shape, target.offset)]

    def _keep(self, task: Task) -> int:
        """Where a node's floats lie that stay from the way forward to the way back."""
        start = self.scratch_start
        self.scratch_start += rounded(back_of(task.node).kept(task))
        return start

    def _forward(self, task: Task) -> Step:
        step, packing = self._own_forward(task), self._pack(task)
        return Step(step.name, packing + step.training, packing + step.trying)

    def _own_forward(self, task: Task) -> Step:
        node, own = task.node, back_of(task.node).forward
        if own is not None:
            places = self._places(task, (None,) * len(node.inputs))
            training, trying = own(task, places)
            return Step(parts(node).source, training, trying)
        recipe = RECIPES[type(parts(node).base)]
        calls = self.params.record(task, self._starts(task), recipe.calls)
        return Step(parts(node).source, calls, calls)

    def _back(self, task: Task, wants: set[str]) -> Calls:
        node, layout = task.node, self.layout
        targets: list[Buffer | None] = []
        adds: Calls = []
        for i, name in enumerate(node.inputs):
            if name not in wants:
                targets.append(None)
                continue
            target = layout.gradients[name]
            if name in self.written:
                share = layout.shares[node.name, i]
                adds.append(added(task, target, share, target))
                target = share
            self.written.add(name)
            targets.append(target)
        return [*back_of(node).calls(task, self._places(task, tuple(targets))), *adds]

    def _places(self, task: Task, targets: tuple[Buffer | None, ...]) -> BackPlaces:
        node, starts = task.node, self._starts(task)
        return BackPlaces(
            task.inputs,
            task.output,
            self.layout.gradients.get(node.name, task.output),
            targets,
            self.kept[node.name],
            starts,
            {name: start for name, start in starts.items() if start < self.length},
            self.head,
            self.layout.packed.get(node.name),
        )

    def _starts(self, task: Task) -> dict[str, int]:
        source = parts(task.node).source
        return {name: self.places[f"{source}.{name}"].start for name in task.weights}
