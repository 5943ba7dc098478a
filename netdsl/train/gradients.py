"""A training step's arithmetic: a net's outputs, and every parameter's gradient, on the CPU.

The way forward keeps what the ways back read (each op says what in `Op.gradient`); the way back
goes through the nodes in reverse. A tensor that several nodes read sums what they send back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from netdsl.cpu import arrange, memory, region
from netdsl.cpu import threads as _threads
from netdsl.cpu.backward import arrange as back_arrange
from netdsl.cpu.backward.conv_plan import trained
from netdsl.cpu.backward.table import BACKS
from netdsl.cpu.backward.task import BackPlaces, TrainedParams
from netdsl.cpu.backward.update import gather, gather_blocks
from netdsl.cpu.launch import Worker, compile_all
from netdsl.cpu.layout import Buffer, Call, aligned, image
from netdsl.cpu.task import Task
from netdsl.cpu.views import call, link
from netdsl.faults import error
from netdsl.graph import Graph, Node
from netdsl.graph.fused import parts
from netdsl.graph.weights import check_weights
from netdsl.ops import Input, Shape, show
from netdsl.train.layout import Layout, Planner, base_of
from netdsl.train.prepare import check_norms, prepared
from netdsl.train.vector import Place, Vector, statistics_of
from netdsl.train.vector import Places as Vectors

Progress = Callable[[int, int, str], None]
Floats = NDArray[np.float32]


@dataclass
class Step:
    """A node's calls: forward in training, forward when tried, and back."""

    name: str
    training: list[Call]
    trying: list[Call]
    back: list[Call]


class TrainingPlan:
    """A graph bound to a batch, threads and weights, that gives outputs and gradients.

    weights, gradient: the learned parameters and their gradients, each one flat vector
    (`vectors` says where each lies). After the weights have changed, call `changed`.
    """

    def __init__(
        self,
        graph: Graph,
        weights: Mapping[str, Floats],
        *,
        batch: int,
        threads: int | None = None,
        seed: int = 0,
        exact: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """exact: no algorithm that trades accuracy for speed.

        Raises NetError: a batch or threads below 1, weights that do not fit, a batch norm with one
        value a channel, more memory than there is.
        """
        if batch < 1:
            raise error("out-of-range", f"a batch of {batch} samples: training needs 1 or more")
        check_weights(graph, weights)
        check_norms(graph, batch)
        self.source, self.batch, self.seed, self.exact = graph, batch, seed, exact
        self.threads = _threads.count(threads)
        self.graph = prepared(graph)
        self.vectors = Vectors(graph)
        self.statistics = statistics_of(graph, self.vectors.length)
        learned = self.vectors.length + sum(-(-p.size // 16) * 16 for p in self.statistics.values())
        self._params = TrainedParams(learned + 16)
        self._plan(progress)
        self.load(weights)

    def _plan(self, progress: Progress | None) -> None:
        nodes = [node for node in self.graph if not isinstance(node.op, Input)]
        shapes = {n.name: self.graph.input_shapes(n) for n in nodes}
        how = (self.batch, self.threads, self.exact)
        tasks = {n.name: Task(n, shapes[n.name], *how, fixed=False) for n in nodes}
        planner = Planner(self.graph, tasks, self.batch)
        self.layout = planner.lay_out(self.vectors.length)
        memory.check(self.source.name, self.batch, 4 * (self.layout.floats + self._params.floats))
        self._written = set(planner.ends)
        steps = {node.name: self._forward(tasks[node.name]) for node in nodes}
        for node in reversed(nodes):
            if node.name in planner.wants:
                steps[node.name].back = self._back(tasks[node.name], planner.wants)
        self._link(list(steps.values()), planner, progress)

    def _link(self, steps: list[Step], planner: Planner, progress: Progress | None) -> None:
        """Compiles, and allocates all memory."""
        outputs, gradients = self.layout.outputs, self.layout.gradients
        ports = {name: self._port(outputs[name]) for name in self.graph.inputs}
        ends = {name: (arrange.unpack, outputs[name]) for name in planner.ends}
        seeds = {
            name: (arrange.pack, gradients[name]) for name in planner.ends if name in gradients
        }
        kernels = [kernel for kernel, _ in (*ports.values(), *ends.values(), *seeds.values())]
        calls = [c for s in steps for c in (*s.training, *s.trying, *s.back)]
        compile_all([*(c.kernel for c in calls), *kernels], progress)
        self.arena = aligned(self.layout.floats)
        self.drops: list[NDArray[np.int64]] = []
        for step in steps:
            step.training = self._linked(step.training)
            step.trying = self._linked(step.trying)
            step.back = self._linked(step.back)
        self.steps = steps

        def linked(given: Mapping[str, tuple[Worker, Buffer]]) -> dict[str, Call]:
            return {
                name: link(call(kernel, self.threads, buffer, buffer))
                for name, (kernel, buffer) in given.items()
            }

        self._inputs, self._ends, self._seeds = linked(ports), linked(ends), linked(seeds)
        self.params = self._params.joined()

    def _linked(self, calls: list[Call]) -> list[Call]:
        found = []
        for given in calls:
            made = link(given)
            if given.kernel is back_arrange.drop:
                made.d[back_arrange.SEED] ^= self.seed << 32
                self.drops.append(made.d)
            found.append(made)
        return found

    def _port(self, buffer: Buffer) -> tuple[Worker, Buffer]:
        return (arrange.pack_planar if buffer.lanes == 1 else arrange.pack), buffer

    def _forward(self, task: Task) -> Step:
        node, kind = task.node, base_of(task.node)
        own = BACKS[kind].forward
        if own is not None:
            training, trying = own(task, self._places(task, (None,) * len(node.inputs)))
            return Step(node.name, training, trying, [])
        inputs = tuple(self.layout.outputs[name] for name in node.inputs)
        output, scratch = self.layout.outputs[node.name], self.layout.scratch
        weights = {}
        for parameter in parts(node).base.parameters(task.shapes):
            place = self._place(node, parameter.name)
            places = np.arange(place.start, place.start + place.size)
            weights[parameter.name] = places.reshape(parameter.shape)
        calls = trained(task, inputs, output, scratch, weights, self._params)
        return Step(node.name, calls, calls, [])

    def _back(self, task: Task, wants: set[str]) -> list[Call]:
        node, layout = task.node, self.layout
        targets: list[Buffer | None] = []
        adds: list[Call] = []
        for i, name in enumerate(node.inputs):
            if name not in wants:
                targets.append(None)
                continue
            target = layout.gradients[name]
            if name in self._written:
                share = layout.temporary[node.name, i]
                adds.append(call(back_arrange.add_to, task.parts, target, share))
                target = share
            self._written.add(name)
            targets.append(target)
        places = self._places(task, tuple(targets))
        return [*BACKS[base_of(node)].calls(task, places), *adds]

    def _places(self, task: Task, targets: tuple[Buffer | None, ...]) -> BackPlaces:
        node, layout = task.node, self.layout
        names = [p.name for p in parts(node).base.parameters(task.shapes)]
        starts = {name: self._place(node, name).start for name in names}
        output = layout.outputs[node.name]
        return BackPlaces(
            tuple(layout.outputs[name] for name in node.inputs),
            output,
            layout.gradients.get(node.name, output),
            targets,
            layout.scratch,
            layout.kept[node.name],
            starts,
            {name: start for name, start in starts.items() if start < self.vectors.length},
            self._params,
        )

    def _place(self, node: Node, parameter: str) -> Place:
        name = f"{parts(node).source}.{parameter}"
        return self.vectors.places.get(name) or self.statistics[name]

    @property
    def weights(self) -> Vector:
        """The learned parameters; call `changed` after writing to them."""
        return self.params[: self.vectors.length]

    @property
    def gradient(self) -> Vector:
        """The gradient that the last `backward` left."""
        return self.arena[: self.vectors.length]

    def parameters(self) -> dict[str, Floats]:
        """Every parameter by its full name, statistics too, as views of the plan's memory."""
        found = self.vectors.views(self.params)
        for name, place in self.statistics.items():
            found[name] = self.params[place.start : place.start + place.size].reshape(place.shape)
        return {name: found[name] for name in self.source.all_parameters()}

    def gradients(self) -> dict[str, Floats]:
        """The gradient of every learned parameter by its full name, views of the plan's memory."""
        return self.vectors.views(self.gradient)

    def load(self, weights: Mapping[str, Floats]) -> None:
        """Takes these weights, all of them. Raises NetError where they do not fit."""
        check_weights(self.source, weights)
        for name, view in self.parameters().items():
            view[...] = weights[name]
        self.changed()

    def changed(self) -> None:
        """Packs the weights anew for the kernels that read them packed."""
        self._use_threads()
        for start, places, counts, stride in self._params.moved:
            parts = self.threads if len(places) > 1024 else 1
            if stride is None:
                gather(self.params, start, places, parts)
            else:
                gather_blocks(self.params, start, places, counts, stride, parts)
        for kernel, d, packed, floats, made, more in self._params.transforms:
            kernel(self.params[packed : packed + floats], self.params[made : made + more], d)

    def _use_threads(self) -> None:
        region.use(self.threads)
        _threads.use_numba(self.threads)

    def forward(
        self, inputs: Mapping[str, Floats], *, step: int | None = None
    ) -> dict[str, Floats]:
        """Each output (auxiliary heads' too) by node name, (batch, *shape).

        step: the number of the training step, from which dropout draws; None tries the net as
        `run` would: no dropout, batch norms with their running statistics.
        """
        self._use_threads()
        for name, port in self._inputs.items():
            shape = (self.batch, *self.graph[name].shape)
            array = np.require(inputs[name], np.float32, ["C", "W"])
            if array.shape != shape:
                raise error(
                    "wrong-shape",
                    f"{name} has shape {show(array.shape)}, this plan takes {show(shape)}",
                )
            port.kernel(self.arena, array.reshape(-1), port.d)
        for d in self.drops:
            d[back_arrange.STEP] = step or 0
        for node in self.steps:
            for kernel, d in node.trying if step is None else node.training:
                kernel(self.arena, self.params, d)
        return {name: self._unpack(name, port) for name, port in self._ends.items()}

    def _unpack(self, name: str, port: Call) -> Floats:
        shape = self.graph[name].shape
        array = np.empty(self.batch * prod(shape), np.float32)
        port.kernel(self.arena, array, port.d)
        return array.reshape(self.batch, *shape)

    def backward(self, slopes: Mapping[str, Floats]) -> None:
        """Leaves in `gradient` what the last training `forward`'s outputs make of their gradients.

        slopes: the loss's gradient in each output, by name, (batch, *shape).
        """
        self._use_threads()
        for name, port in self._seeds.items():
            array = np.require(slopes[name], np.float32, ["C", "W"]).reshape(-1)
            port.kernel(self.arena, array, port.d)
        for node in reversed(self.steps):
            for kernel, d in node.back:
                kernel(self.arena, self.params, d)

    def broken(self) -> str | None:
        """The first node, in the graph's order, with a number that is not finite."""
        for name, values in self.parameters().items():
            if not np.isfinite(values).all():
                return name.rpartition(".")[0]
        for node in self.graph:
            if not np.isfinite(image(self.arena, self.layout.outputs[node.name])).all():
                return parts(node).source
        return None


__all__ = ["Layout", "Shape", "TrainingPlan"]
