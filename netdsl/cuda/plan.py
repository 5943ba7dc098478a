"""A plan: a graph bound to a batch and weights on the card, as a list of launches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.cuda import launch
from netdsl.cuda.device import faults_of, out_of_memory
from netdsl.cuda.layout import Buffer, Call, Floats
from netdsl.cuda.place import place, rounded
from netdsl.cuda.table import RECIPES, takes
from netdsl.cuda.task import Descriptors, Params, Task
from netdsl.faults import error
from netdsl.graph import Graph, Node
from netdsl.graph.fused import fuse, parts
from netdsl.graph.passes import lowered, own_weights
from netdsl.graph.weights import check_weights
from netdsl.ops import Input, Shape, show

Weights = Mapping[str, NDArray[np.float32]]
Progress = Callable[[int, int, str], None]

LARGEST = 2**31 - 1
"""The last float that an index of 32 bits reaches."""

MOST_ROWS = 65535
"""Blocks along a grid's second axis: the samples of a batch."""


@dataclass(frozen=True)
class Step:
    """A node's part of a plan: its name, the word of its op, its multiply-adds, its launches."""

    name: str
    word: str
    macs: int
    calls: tuple[Call, ...]


@dataclass(frozen=True)
class Port:
    """Where an array goes in or comes out: its name, its shape without the batch, its place."""

    name: str
    shape: Shape
    buffer: Buffer


class Plan:
    """What `compile` makes: run it as often as you like, on `batch` samples each time.

    steps: one a node that computes something, in order. arena: the device's memory of all
    tensors. params: all weights there. A plan runs one call at a time; others wait.
    """

    def __init__(
        self,
        name: str,
        batch: int,
        inputs: tuple[Port, ...],
        outputs: tuple[Port, ...],
        steps: tuple[Step, ...],
        floats: int,
        params: Params,
        ints: Descriptors,
    ) -> None:
        self.name, self.batch = name, batch
        self.inputs, self.outputs, self.steps = inputs, outputs, steps
        self.arena_bytes, self.params_bytes = 4 * floats, 4 * params.floats
        self.arena = launch.room(floats)
        self.params = launch.on_device(params.joined())
        self.ints = launch.on_device(ints.joined())
        self._views = {port.name: self._view(port.buffer) for port in (*inputs, *outputs)}
        self._lock = Lock()

    def _view(self, buffer: Buffer) -> Any:
        """The stretch of the arena that a tensor takes."""
        return self.arena[buffer.offset : buffer.offset + buffer.batch * buffer.sample]

    def run(self, inputs: Mapping[str, NDArray[np.floating]]) -> dict[str, Floats]:
        """Outputs by name, each (batch, *shape), for inputs by name, each (batch, *shape).

        Raises NetError: an input is missing, or its shape is another, or the card failed.
        """
        arrays = [self._checked(port, inputs) for port in self.inputs]
        with self._lock, faults_of(self.name, self.batch):
            for port, array in zip(self.inputs, arrays, strict=True):
                self._views[port.name].copy_to_device(array)
            self.start()
            return {port.name: self._get(port) for port in self.outputs}

    def start(self) -> None:
        """Starts every kernel on what the arena holds, without waiting for the end."""
        for step in self.steps:
            for call in step.calls:
                launch.launch(call, self.arena, self.params, self.ints)

    def _checked(self, port: Port, inputs: Mapping[str, NDArray[np.floating]]) -> Floats:
        """An input as float32 in one stretch."""
        if port.name not in inputs:
            raise error("missing-input", f"{self.name} needs an array for {port.name}")
        array = np.asarray(inputs[port.name])
        wanted = (self.batch, *port.shape)
        if array.shape != wanted:
            raise error(
                "wrong-shape",
                f"{port.name} has shape {show(array.shape)}, "
                f"this plan of {self.name} takes {show(wanted)}",
            )
        return np.ascontiguousarray(array, np.float32).reshape(-1)

    def _get(self, port: Port) -> Floats:
        found: Floats = self._views[port.name].copy_to_host()
        return found.reshape(self.batch, *port.shape)


def make(
    graph: Graph,
    weights: Weights,
    *,
    batch: int,
    aux: bool = False,
    progress: Progress | None = None,
) -> Plan:
    """Plans a graph for the card, compiles the kernels and uploads the weights.

    weights: by `node.parameter`. batch: samples in a run, 1 or more. aux: the auxiliary heads'
    outputs too. progress: called before each kernel is compiled.

    Raises NetError: a batch out of range, weights that are missing or of another shape, more
    memory than the card has, a card or driver that fails.
    """
    if not 1 <= batch <= MOST_ROWS:
        raise error("out-of-range", f"a batch of {batch} samples: the card takes 1 to {MOST_ROWS}")
    names = (*graph.outputs, *(a.output for a in graph.aux)) if aux else graph.outputs
    whole = graph if aux else graph.without_aux()
    check_weights(whole, weights)
    low, folded = lowered(whole, weights, lambda g: fuse(g, takes))
    held = (*low.outputs, *(a.output for a in low.aux)) if aux else low.outputs
    with faults_of(graph.name, batch):
        making = _Making(low, folded, batch, frozenset(held))
        compiled(making.kernels(), progress)
        return making.plan(
            [Port(n, graph[n].shape, making.buffers[h]) for n, h in zip(names, held, strict=True)]
        )


def compiled(kernels: list[Any], progress: Progress | None) -> None:
    """Compiles kernels, telling `progress` of each."""
    for i, kernel in enumerate(kernels):
        if progress is not None:
            progress(i, len(kernels), kernel.__name__.replace("_", " "))
        launch.prepare([kernel])
    if progress is not None and kernels:
        progress(len(kernels), len(kernels), "")


def check_memory(name: str, batch: int, *arrays: int) -> None:
    """That arrays of so many values fit the card. Raises NetError for the net of this name."""
    if max(arrays) > LARGEST:
        said = f"an array of more than {LARGEST:,} values is needed"
        raise out_of_memory(name, batch, said)
    free, needed = launch.free_bytes(), 4 * sum(arrays)
    if free is not None and needed > free:
        raise out_of_memory(name, batch, f"{needed:,} bytes are needed, {free:,} are free")


class _Making:
    """A plan while it is made."""

    def __init__(self, graph: Graph, weights: Weights, batch: int, held: frozenset[str]) -> None:
        self.graph, self.weights, self.batch = graph, weights, batch
        nodes = [node for node in graph if not isinstance(node.op, Input)]
        over = {node.name: RECIPES[type(parts(node).base)].over for node in nodes}
        self.buffers, self.floats = place(graph, batch, over, held | frozenset(graph.inputs))
        self.scratch_floats = 0
        self.params, self.ints = Params(), Descriptors()
        self.processors = launch.processors()
        found = [self._step(node) for node in nodes]
        self.steps = tuple(step for step in found if step.calls)

    def kernels(self) -> list[Any]:
        """Those that the plan launches, each once."""
        return list(dict.fromkeys(call.kernel for step in self.steps for call in step.calls))

    def plan(self, outputs: list[Port]) -> Plan:
        """The plan, its memory taken. Raises NetError where that is more than there is."""
        floats = self.floats + self.scratch_floats
        check_memory(self.graph.name, self.batch, floats, self.params.floats, self.ints.count)
        inputs = [Port(n, self.graph[n].shape, self.buffers[n]) for n in self.graph.inputs]
        return Plan(
            self.graph.name,
            self.batch,
            tuple(inputs),
            tuple(outputs),
            self.steps,
            floats,
            self.params,
            self.ints,
        )

    def _step(self, node: Node) -> Step:
        whole = parts(node)
        shapes = self.graph.input_shapes(node)
        task = Task(
            node,
            shapes,
            self.batch,
            self.processors,
            tuple(self.buffers[name] for name in node.inputs),
            self.buffers[node.name],
            self._scratch,
            own_weights(self.graph, node, whole.source, self.weights),
            self.params,
            self.ints,
        )
        calls = tuple(RECIPES[type(whole.base)].calls(task))
        return Step(whole.source, node.op.word(), node.op.macs(shapes), calls)

    def _scratch(self, floats: int) -> int:
        """Where so many floats of scratch lie: after all tensors. Nodes use it in turn."""
        self.scratch_floats = max(self.scratch_floats, rounded(floats))
        return self.floats
