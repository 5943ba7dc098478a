"""A plan: a graph bound to a batch and weights on the card, as a list of launches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.cuda import launch
from netdsl.cuda.conv import pools
from netdsl.cuda.failure import faults_of, out_of_memory, wanting
from netdsl.cuda.layout import Buffer, Call, Floats, nowhere
from netdsl.cuda.packing import Packs, decide
from netdsl.cuda.place import place, rounded
from netdsl.cuda.replay import Replay
from netdsl.cuda.staging import Desk, Pipeline
from netdsl.cuda.table import RECIPES, takes
from netdsl.cuda.task import Descriptors, Params, Task
from netdsl.cuda.timing import timed
from netdsl.faults import NetError, error
from netdsl.graph import Graph, Node
from netdsl.graph.fused import fuse, fuse_pools, parts
from netdsl.graph.passes import lowered, own_weights
from netdsl.graph.timing import Timing
from netdsl.graph.weights import check_weights
from netdsl.ops import Input, MaxPool, Shape, show

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
        self.stream = launch.stream()
        arguments = (self.arena, self.params, self.ints)
        self._replay = Replay([c for step in steps for c in step.calls], arguments, self.stream)
        views = self._views(inputs), self._views(outputs)
        self._desk = Desk(*views, self.stream)
        self._pipeline: Pipeline | None = None
        self._fed: dict[str, Any] = {}
        self._lock = RLock()

    @property
    def note(self) -> str:
        """Why kernels are launched one by one though the plan has run twice; mostly empty."""
        return self._replay.note

    def _views(self, ports: Iterable[Port]) -> dict[str, Any]:
        """The stretches of the arena that tensors take."""
        return {
            port.name: self.arena[b.offset : b.offset + b.batch * b.sample]
            for port in ports
            for b in [port.buffer]
        }

    def run(self, inputs: Mapping[str, NDArray[np.floating]]) -> dict[str, Floats]:
        """Outputs by name, each (batch, *shape), for inputs by name, each (batch, *shape).

        Raises NetError: an input is missing, or its shape is another, or the card failed.
        """
        arrays = self._checked(inputs)
        with self._lock, faults_of(self.name, self.batch):
            launch.attach()
            self._desk.put(arrays)
            self._replay.start()
            return self._shaped(self._desk.get())

    def run_many(
        self, batches: Iterable[Mapping[str, NDArray[np.floating]]]
    ) -> Iterator[dict[str, Floats]]:
        """As `run` for each of these, in order, but the copies of the batches before and after go
        on while one is computed. The plan is this one's until the last result was taken.
        """
        with self._lock:
            pipeline = self._pipelined()
            if pipeline is None:
                yield from map(self.run, batches)
                return
            results = pipeline.run(map(self._checked, batches))
            while True:
                with faults_of(self.name, self.batch):
                    found = next(results, None)
                if found is None:
                    return
                yield self._shaped(found)

    def _pipelined(self) -> Pipeline | None:
        """The memory for batches under way; None where the card has none left for it."""
        if self._pipeline is None:
            views = self._desk.inputs, self._desk.outputs
            try:
                with faults_of(self.name, self.batch):
                    launch.attach()
                    self._pipeline = Pipeline(*views, self.stream, self._replay.start)
            except NetError as problem:
                if problem.faults[0].code != "out-of-memory":
                    raise
        return self._pipeline

    def feed(self, inputs: Mapping[str, NDArray[np.floating]]) -> None:
        """Puts inputs onto the card, where they stay for any number of `compute`.

        Raises NetError as `run` does.
        """
        arrays = self._checked(inputs)
        with self._lock, faults_of(self.name, self.batch):
            self._fed = {name: launch.on_device(x) for name, x in arrays.items()}

    def compute(self) -> dict[str, Floats]:
        """The outputs, as of `run`, for what `feed` put onto the card."""
        with self._lock, faults_of(self.name, self.batch):
            launch.attach()
            self._desk.copy(self._fed)
            self._replay.start()
            return self._shaped(self._desk.get())

    def start(self) -> None:
        """Starts every kernel on what the arena holds, without waiting for the end."""
        with self._lock, faults_of(self.name, self.batch):
            launch.attach()
            self._replay.start()

    def wait(self) -> None:
        """Until all that was started has ended."""
        with faults_of(self.name, self.batch):
            self.stream.synchronize()

    def profile(self, inputs: Mapping[str, NDArray[np.floating]], repeats: int = 5) -> list[Timing]:
        """The time of each step over some runs after a first; raises NetError as `run` does.

        The card's own clock is read between the steps. A step that is shorter than a launch, some
        microseconds, may show the launch.
        """
        self.run(inputs)
        with self._lock, faults_of(self.name, self.batch):
            return timed(self, repeats)

    def _checked(self, inputs: Mapping[str, NDArray[np.floating]]) -> dict[str, Floats]:
        """Every input as float32 in one stretch. Raises NetError."""
        return {port.name: self._flat(port, inputs) for port in self.inputs}

    def _flat(self, port: Port, inputs: Mapping[str, NDArray[np.floating]]) -> Floats:
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

    def _shaped(self, found: Mapping[str, Floats]) -> dict[str, Floats]:
        return {
            port.name: found[port.name].reshape(self.batch, *port.shape) for port in self.outputs
        }


def make(
    graph: Graph,
    weights: Weights,
    *,
    batch: int,
    aux: bool = False,
    exact: bool = False,
    precision: str = "fp32",
    progress: Progress | None = None,
) -> Plan:
    """Plans a graph for the card, compiles the kernels and uploads the weights.

    weights: by `node.parameter`. batch: samples in a run, 1 or more. aux: the auxiliary heads'
    outputs too. exact: no algorithm that trades accuracy for speed. precision: what the factors of
    convolutions and fully connected layers are rounded to, "fp32", "tf32" or "bf16". progress:
    called before each kernel is compiled.

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
        making = _Making(low, folded, batch, frozenset(held), exact, precision, Params())
        compiled(making.kernels(), progress)
        return making.plan(
            [Port(n, graph[n].shape, making.buffers[h]) for n, h in zip(names, held, strict=True)]
        )


def kernels_of(
    graph: Graph,
    weights: Weights,
    batch: int,
    precision: str,
    params: Params,
    *,
    exact: bool = False,
) -> list[Any]:
    """The kernels of the plan that `make` would make, each once. params: where its weights go."""
    whole = graph.without_aux()
    low, folded = lowered(whole, weights, lambda g: fuse(g, takes))
    held = frozenset(low.outputs)
    return _Making(low, folded, batch, held, exact, precision, params).kernels()


def compiled(kernels: list[Any], progress: Progress | None) -> None:
    """Compiles kernels, telling `progress` of each."""
    for i, kernel in enumerate(kernels):
        if progress is not None:
            progress(i, len(kernels), kernel.__name__.replace("_", " "))
        launch.prepare([kernel])
    if progress is not None and kernels:
        progress(len(kernels), len(kernels), "")


def most_floats() -> int:
    """Those of the largest array that there is room for."""
    free = launch.free_bytes()
    return LARGEST if free is None else min(LARGEST, free // 4)


def check_memory(name: str, batch: int, tensors: int, *others: int, fixed: int = 0) -> None:
    """That arrays of so many values fit the card. Raises NetError for the net of this name.

    tensors: the one whose values go by the batch, all but `fixed` of them.
    """
    if max(tensors, *others) > LARGEST:
        said = f"an array of more than {LARGEST:,} values is needed"
        raise out_of_memory(name, batch, said)
    free, needed = launch.free_bytes(), 4 * (tensors + sum(others))
    if free is not None and needed > free:
        room = free - 4 * (sum(others) + fixed)
        fits = room * batch // (4 * max(tensors - fixed, 1))
        raise out_of_memory(name, batch, wanting(needed, free), fits)


def packs_of(graph: Graph, node: Node, batch: int, precision: str) -> Packs:
    """What a node's kernels can do with packed tensors."""
    return RECIPES[type(parts(node).base)].packs(bare_task(graph, node, batch, precision))


def bare_task(graph: Graph, node: Node, batch: int, precision: str) -> Task:
    """A node's task before anything has its place, to ask what its kernels can do. No weights are
    looked at."""
    shapes, zero = graph.input_shapes(node), np.zeros((), np.float32)
    return Task(
        node,
        shapes,
        batch,
        1,
        tuple(nowhere(batch, shape) for shape in shapes),
        nowhere(batch, node.shape),
        lambda _: 0,
        {p.name: np.broadcast_to(zero, p.shape) for p in graph.parameters(node)},
        Params(),
        Descriptors(),
        precision,
    )


class _Making:
    """A plan while it is made."""

    def __init__(
        self,
        graph: Graph,
        weights: Weights,
        batch: int,
        held: frozenset[str],
        exact: bool,
        precision: str,
        params: Params,
    ) -> None:
        self.processors, self.bandwidth = launch.processors(), launch.bandwidth()
        card: dict[str, Any] = {"processors": self.processors, "bandwidth": self.bandwidth}

        def taken(graph: Graph, layer: Node, pool: MaxPool) -> bool:
            task = bare_task(graph, layer, batch, precision)
            return pools(replace(task, exact=exact, **card), pool)

        graph = fuse_pools(graph, taken)
        self.graph, self.weights, self.batch = graph, weights, batch
        self.exact, self.precision = exact, precision
        nodes = [node for node in graph if not isinstance(node.op, Input)]
        over = {node.name: RECIPES[type(parts(node).base)].over for node in nodes}
        self.packing = decide(
            graph, held, precision, lambda node: packs_of(graph, node, batch, precision)
        )
        apart = held | frozenset(graph.inputs)
        self.buffers, self.packed, self.floats = place(
            graph, batch, over, apart, self.packing, precision
        )
        self.scratch_floats = 0
        self.params, self.ints = params, Descriptors()
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
        with faults_of(self.graph.name, self.batch, self._bytes(floats)):
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

    def _bytes(self, floats: int) -> int:
        """Of the device, with this many floats for tensors and scratch."""
        return 4 * (floats + self.params.floats + self.ints.count)

    def _step(self, node: Node) -> Step:
        whole = parts(node)
        shapes = self.graph.input_shapes(node)
        task = Task(
            node,
            shapes,
            self.batch,
            self.processors,
            tuple(map(self._buffer, node.inputs)),
            self._buffer(node.name),
            self._scratch,
            own_weights(self.graph, node, whole.source, self.weights),
            self.params,
            self.ints,
            self.precision,
            self.exact,
            self.bandwidth,
            self.packed[node.inputs[0]] if node.name in self.packing.reads else None,
            self.packed.get(node.name),
        )
        calls = tuple(RECIPES[type(whole.base)].calls(task))
        return Step(whole.source, node.op.word(), node.op.macs(shapes), calls)

    def _buffer(self, name: str) -> Buffer:
        """Where a tensor's floats lie, if anywhere."""
        return self.buffers.get(name) or nowhere(self.batch, self.graph[name].shape)

    def _scratch(self, floats: int) -> int:
        """Where so many floats of scratch lie: after all tensors. Nodes use it in turn."""
        self.scratch_floats = max(self.scratch_floats, rounded(floats))
        return self.floats
