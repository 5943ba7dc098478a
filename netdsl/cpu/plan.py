"""A plan: a graph bound to a batch, weights and threads, as a list of kernel calls."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from threading import Lock
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from netdsl.cpu import arrange, chains, memory, region, sections, stripes, threads, tuned
from netdsl.cpu.choices import choice, cut, in_registers, layers, pools, shallow, worth_compiling
from netdsl.cpu.factors import settled, tight
from netdsl.cpu.halves import moved_up
from netdsl.cpu.launch import Progress, Worker, prepare, watched
from netdsl.cpu.layout import Buffer, Call, aligned
from netdsl.cpu.micro import matrices
from netdsl.cpu.place import Placement, place
from netdsl.cpu.region import Chain
from netdsl.cpu.rounding import with_rounding
from netdsl.cpu.table import RECIPES, Recipe, in_pairs, takes, writers
from netdsl.cpu.task import Floats, LooseParams, Params, Places, Task
from netdsl.cpu.turns import Twice, all_turns
from netdsl.cpu.views import call, link
from netdsl.faults import error
from netdsl.graph import Graph, Node
from netdsl.graph.fused import fuse, fuse_pools, parts
from netdsl.graph.passes import lowered, own_weights
from netdsl.graph.timing import Timing
from netdsl.graph.weights import Drawn, check_weights
from netdsl.ops import Conv, Input, Shape, show

Weights = Mapping[str, NDArray[np.float32]]


TUNED = ", tuned"
"""What a way's name ends with where tuning chose it."""


class Step(NamedTuple):
    """A node's part of a plan: its name, the word of its op, its multiply-adds, its calls, and for
    a convolution the name of the way it is done (choices.py); rounding: see `Plan.rounding`."""

    name: str
    word: str
    macs: int
    calls: tuple[Call, ...]
    way: str = ""
    rounding: float | None = None


class Turn(NamedTuple):
    """Calls that follow each other in a run, and the number of the step they are of."""

    step: int
    calls: tuple[Call, ...]


class Port(NamedTuple):
    """Where an array goes in or comes out: its name, its shape without the batch, and the call."""

    name: str
    shape: Shape
    call: Call


@dataclass
class Plan:
    """What `compile` makes: run it as often as you like, on `batch` samples each time.

    steps: one a node that computes something, in order. turns: the steps' calls in the order of a
    run, where a step may have several turns (sections.py). arena: the memory of all tensors.
    packed: all packed weights. A plan runs one call at a time; others wait.
    """

    name: str
    batch: int
    threads: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    steps: tuple[Step, ...]
    turns: tuple[Turn, ...]
    placement: Placement
    arena: Floats
    packed: LooseParams

    def __post_init__(self) -> None:
        self._lock = Lock()
        self._chains = [(turn.step, Chain(turn.calls, self.threads)) for turn in self.turns]
        self._whole = Chain([c for turn in self.turns for c in turn.calls], self.threads)

    @property
    def arena_bytes(self) -> int:
        """Bytes that all tensors and the scratch take."""
        return int(self.arena.nbytes)

    @property
    def rounding(self) -> dict[str, float]:
        """How much the weights of the layers whose weights were asked for in fewer bits are off by
        that: the root of the mean square, relative to the weights' own, by the layer's name."""
        return {step.name: step.rounding for step in self.steps if step.rounding is not None}

    @property
    def params_bytes(self) -> int:
        """Bytes that the packed weights take."""
        return 4 * self.packed.floats

    def run(self, inputs: Mapping[str, NDArray[np.floating]]) -> dict[str, Floats]:
        """Outputs by name, each (batch, *shape), for inputs by name, each (batch, *shape).

        Raises NetError: an input is missing, or its shape is another.
        """
        arrays = [self._checked(port, inputs) for port in self.inputs]
        if self.batch == 0:
            return {port.name: np.zeros((0, *port.shape), np.float32) for port in self.outputs}
        with self._lock:
            region.use(self.threads)
            self._put(arrays)
            self._whole(self.arena, self.packed.base)
            return {port.name: self._get(port) for port in self.outputs}

    def profile(self, inputs: Mapping[str, NDArray[np.floating]], repeats: int = 5) -> list[Timing]:
        """The time of each step over some runs after a first; raises NetError as `run` does."""
        from statistics import median

        arrays = [self._checked(port, inputs) for port in self.inputs]
        self.run(inputs)
        found: list[list[float]] = [[] for _ in self.steps]
        with self._lock:
            region.use(self.threads)
            for _ in range(repeats):
                self._put(arrays)
                for times in found:
                    times.append(0.0)
                for step, chain in self._chains:
                    start = perf_counter()
                    chain(self.arena, self.packed.base)
                    found[step][-1] += 1000 * (perf_counter() - start)
        return [
            Timing(
                step.name, step.word, step.macs * self.batch, median(times), min(times), step.way
            )
            for step, times in zip(self.steps, found, strict=True)
        ]

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
        # Compiled code takes arrays that may be written; it does not write to these.
        return np.require(array, np.float32, ["C", "W"]).reshape(-1)

    def _put(self, arrays: Iterable[Floats]) -> None:
        for port, array in zip(self.inputs, arrays, strict=True):
            port.call.kernel(self.arena, array, port.call.d)

    def _get(self, port: Port) -> Floats:
        array = np.empty(self.batch * prod(port.shape), np.float32)
        port.call.kernel(self.arena, array, port.call.d)
        return array.reshape(self.batch, *port.shape)


def compile(  # noqa: A001 - called as cpu.compile
    graph: Graph,
    weights: Weights,
    *,
    batch: int,
    threads: int | None = None,
    exact: bool = False,
    precision: str = "fp32",
    fc_weights: str | None = None,
    aux: bool = False,
    progress: Progress | None = None,
) -> Plan:
    """Plans a graph for the CPU and compiles what kernels are not compiled yet.

    weights: by `node.parameter`. batch: samples in a run, 0 for a plan that gives empty results.
    threads: all that there are unless given. exact: no algorithm that trades accuracy for speed.
    precision: what factors are rounded to, fp32 or bf16 (then where that pays, see choices.py).
    fc_weights: what weights of fully connected layers are kept in, fp32, bf16 or int8, where that
    is not as `precision` says; such a layer's inputs are not rounded (short.py).
    aux: the auxiliary heads' outputs too. progress: called before each kernel that has to be
    compiled.

    Raises NetError: threads below 1, a negative batch, weights that are missing or of another
    shape, more memory than there is.
    """
    count = thread_count(threads)
    if batch < 0:
        raise error("out-of-range", f"a batch of {batch} samples: it must be 0 or more")
    names = (*graph.outputs, *(a.output for a in graph.aux)) if aux else graph.outputs
    ends = {name: graph[name].shape for name in names}
    whole = graph if aux else graph.without_aux()
    check_weights(whole, weights)
    if not isinstance(weights, Drawn):
        soon = whole.all_parameters() if _bytes(weights) <= memory.ROOMY else {}
        for name, weight in weights.items():
            if name not in soon:
                memory.let_go(weight)
    low, packed = lowered(whole, weights, lambda g: fuse(g, takes), memory.let_go)
    held = (*low.outputs, *(a.output for a in low.aux)) if aux else low.outputs
    plain = precision == "fp32" and not exact
    known = tuned.choices(max(batch, 1), count) if plain else None
    making = Making(low, packed, max(batch, 1), count, exact, precision, known, fc_weights)
    with watched(making.kernels(), progress):
        plan = making.plan(batch, dict(zip(ends, held, strict=True)), ends)
    if not isinstance(weights, Drawn):
        memory.let_go_files(weights.values())
    return plan


thread_count = threads.count


def _bytes(weights: Weights) -> int:
    return sum(weight.nbytes for weight in weights.values())


class Making:
    """A plan while it is made."""

    def __init__(
        self,
        graph: Graph,
        weights: Weights,
        batch: int,
        threads: int,
        exact: bool,
        precision: str = "fp32",
        choices: tuned.Choices | None = None,
        fc_weights: str | None = None,
    ) -> None:
        self.weights, self.batch, self.threads = weights, batch, threads
        self.choices = choices
        self.exact, self.precision, self.fc_weights = exact, precision, fc_weights
        self.params = LooseParams()
        self.shallow, self.layers = shallow(graph), layers(graph)
        self.plain: frozenset[str] = frozenset()
        self.halves: frozenset[str] = frozenset()
        graph = fuse_pools(graph, lambda graph, layer, pool: pools(self._task(graph, layer), pool))
        self._leave_out(graph)
        self._take(graph)
        rounded = frozenset(name for name, task in self.tasks.items() if in_pairs(task))
        if rounded:
            ends = frozenset((*graph.outputs, *(aux.output for aux in graph.aux)))
            graph = with_rounding(graph, self.planar(ends), rounded, matrices())
            if matrices():
                graph, self.halves = moved_up(graph, writers(self.tasks))
            self._take(graph)

    def _leave_out(self, graph: Graph) -> None:
        """Leaves out ways whose kernels would do too little of the net."""
        tasks = [self._task(graph, node) for node in graph if isinstance(parts(node).base, Conv)]
        points = [task for task in tasks if choice(task).strassen]
        quarters = [task for task in tasks if cut(task)]
        registers = [task for task in tasks if in_registers(task)]
        kinds = (points, quarters, registers)
        few = [some for some in kinds if some and not worth_compiling(some, tasks)]
        self.plain = frozenset(task.node.name for some in few for task in some)

    def _take(self, graph: Graph) -> None:
        """Makes this graph the plan's. What tuning chose is for layers that are done whole: it
        neither breaks a chain or a section nor is taken within one."""
        self.graph = graph
        self.tasks = {n.name: self._task(graph, n) for n in graph if not isinstance(n.op, Input)}
        plain = {n: replace(t, choice=None) if t.choice else t for n, t in self.tasks.items()}
        self.striped = chains.chains(graph, plain)
        self.tasks |= {t.node.name: t for chain in self.striped for t in chain.tasks}
        plain |= {t.node.name: t for chain in self.striped for t in chain.tasks}
        self.sections = sections.sections(graph, plain, self.striped)
        for names, samples in self.sections:
            self.tasks |= {name: replace(plain[name], batch=samples) for name in names}
        self.striped = [chain.of(self.tasks) for chain in self.striped]
        self.between = frozenset(name for chain in self.striped for name in chain.names[:-1])
        self.needs = {name: recipe(t.node).needs(t) for name, t in self.tasks.items()}

    def _task(self, graph: Graph, node: Node) -> Task:
        """The task of a node, in single precision where rounding gains nothing, with the way that
        tuning chose for it, where it did."""
        how = (self.batch, self.threads, self.exact, None, self.precision, self.fc_weights)
        net = (self.shallow, self.layers, node.name not in self.plain)
        task = settled(Task(node, graph.input_shapes(node), *how, *net))
        if not self.choices or not isinstance(task.whole.base, Conv):
            return task
        return replace(task, choice=self.choices.get(tuned.layer(task)))

    def kernels(self) -> list[Worker]:
        """Those that the plan may take."""
        ports = [arrange.pack, arrange.pack_planar, arrange.unpack, arrange.clear_halo]
        recipes = [recipe(task.node) for task in self.tasks.values()]
        rounded = [recipe(t.node) for t in self.tasks.values() if t.precision == "bf16"]
        half = [k for r in rounded for k in r.half_kernels]
        less = self.fc_weights in ("bf16", "int8")
        short = [k for r in recipes for k in r.short] if less else []
        short += [k for t in self.tasks.values() if tight(t) for k in recipe(t.node).tight]
        more = [*stripes.KERNELS, *half] if self.striped else half
        return [*ports, *(k for r in recipes for k in r.float_kernels), *more, *short]

    def plan(self, batch: int, held: Mapping[str, str], shapes: Mapping[str, Shape]) -> Plan:
        """held: the node that holds each output; shapes: the outputs' shapes."""
        placement = self.place(frozenset(held.values()))
        memory.check(self.graph.name, self.batch, 4 * placement.floats)
        made = {name: step for name, step in self.steps(placement).items() if step.calls}
        inputs = [self._port(n, n, self.graph[n].shape, placement) for n in self.graph.inputs]
        outputs = [self._port(n, held[n], shapes[n], placement, out=True) for n in held]
        memory.check(self.graph.name, self.batch, 4 * (placement.floats + self.params.floats))
        clearing = [arrange.clearing(one.buffer, self.threads) for one in placement.cleared]
        calls = [c for step in made.values() for c in step.calls]
        calls += [port.call for port in (*inputs, *outputs)]
        calls += clearing
        prepare(c.kernel for c in calls)
        steps = {n: step._replace(calls=tuple(map(link, step.calls))) for n, step in made.items()}
        cleared = zip((one.before for one in placement.cleared), map(link, clearing), strict=True)
        return Plan(
            self.graph.name,
            batch,
            self.threads,
            tuple(port._replace(call=link(port.call)) for port in inputs),
            tuple(port._replace(call=link(port.call)) for port in outputs),
            tuple(steps.values()),
            tuple(self.turns(steps, cleared)),
            placement,
            aligned(placement.floats),
            self.params,
        )

    def place(self, outputs: frozenset[str]) -> Placement:
        over = {name: recipe(task.node).over for name, task in self.tasks.items()}
        done = self.striped, self.sections, self.halves
        return place(self.graph, self.batch, self.needs, over, self.planar(outputs), *done)

    def planar(self, outputs: frozenset[str]) -> frozenset[str]:
        """The inputs that lie in planes, since all that read them read them so; a residual is read
        in blocks."""
        readers = self.graph.consumers
        added = {name for node in self.graph for name in node.inputs[1:]}
        return frozenset(
            name
            for name in self.graph.inputs
            if name not in outputs
            and name not in added
            and readers[name]
            and all(self.needs[reader].planar for reader in readers[name])
        )

    def steps(self, placement: Placement) -> dict[str, Step]:
        """All steps by their nodes' names, in the graph's order. The largest weights are packed
        first, while little else is in memory beside them."""

        def size(task: Task) -> int:
            return sum(parameter.size for parameter in self.graph.parameters(task.node))

        owner = {name: chain for chain in self.striped for name in chain.names}
        found: dict[str, Step] = {}
        for task in sorted(self.tasks.values(), key=size, reverse=True):
            name = task.node.name
            if name not in owner:
                found[name] = self.step(task, placement)
            elif name not in found:
                found.update(self.stripes(owner[name], placement))
        return {name: found[name] for name in self.tasks}

    def turns(
        self, steps: Mapping[str, Step], cleared: Iterable[tuple[int, Call]]
    ) -> Iterator[Turn]:
        """The calls of steps, by their nodes' names, in the order of a run. cleared: calls that
        clear halos, and the places in the graph's order before which that is to be, in order."""
        number = {name: i for i, name in enumerate(steps)}
        place = {node.name: i for i, node in enumerate(self.graph.nodes)}
        owner = {name: section for section in self.sections for name in section.names}
        waiting = deque(cleared)
        for name, step in steps.items():
            # What a chain or a section writes has its memory from the first of these layers on.
            end = place[owner[name].names[-1] if name in owner else name]
            while waiting and waiting[0][0] <= end:
                yield Turn(number[name], (waiting.popleft()[1],))
            if name not in owner:
                yield Turn(number[name], step.calls)
                continue
            names, samples = owner[name]
            inside = [one for one in names if one in steps]
            for turn in range(self.batch // samples if name == inside[0] else 0):
                for one in inside:
                    calls = steps[one].calls
                    each = len(calls) * samples // self.batch
                    yield Turn(number[one], calls[turn * each : (turn + 1) * each])

    def step(self, task: Task, placement: Placement) -> Step:
        """A node's part of the plan, its weights packed."""
        (places,), calls = self.calls(
            (task,), placement, lambda given: recipe(task.node).calls(task, *given)
        )
        way = choice(task).name if isinstance(task.whole.base, Conv) else ""
        if task.choice == way:
            way += TUNED
        way = self.by_turns(task, way)
        name, word = task.whole.source, task.node.op.word()
        rounding = places.rounding.get("weight")
        return Step(name, word, task.node.op.macs(task.shapes), calls, way, rounding)

    def stripes(self, chain: chains.Chain, placement: Placement) -> dict[str, Step]:
        """A chain's part of the plan: all is done in the step of its last node."""
        _, calls = self.calls(chain.tasks, placement, lambda given: [stripes.striped(chain, given)])
        names = [task.whole.source for task in chain.tasks]
        words = [task.node.op.word() for task in chain.tasks]
        macs = sum(task.node.op.macs(task.shapes) for task in chain.tasks)
        way = self.by_turns(chain.tasks[-1], f"stripes of {chain.height}")
        steps = dict.fromkeys(chain.names, Step("", "", 0, ()))
        last = Step(f"{names[0]} to {names[-1]}", " -> ".join(words), macs, calls, way)
        return {**steps, chain.names[-1]: last}

    def by_turns(self, task: Task, way: str) -> str:
        """The name of a way, and of how many samples it is at a time where that is not all."""
        if task.batch == self.batch:
            return way
        count = f"{task.batch} sample{'s' if task.batch > 1 else ''} at a time"
        return f"{way}, {count}" if way else count

    def calls(
        self,
        tasks: Sequence[Task],
        placement: Placement,
        make: Callable[[Sequence[Places]], Sequence[Call]],
    ) -> tuple[list[Places], tuple[Call, ...]]:
        """What some nodes are given, first, and all calls that do them, turn by turn."""
        params, turns = Twice(self.params), self.batch // tasks[0].batch
        places = [self.places(task, placement, params) for task in tasks]
        calls = tuple(make(places))
        if turns > 1:
            again = zip(tasks, places, strict=True)
            then = [self.places(task, placement, params, 1, was.weights) for task, was in again]
            if any(a[:2] != b[:2] for a, b in zip(places, then, strict=True)):
                params.again()
                calls = all_turns(calls, make(then), turns)
            else:
                calls *= turns
        for each in places:
            for weight in each.weights.values():
                memory.let_go(weight)
        return places, calls

    def places(
        self,
        task: Task,
        placement: Placement,
        params: Params,
        turn: int = 0,
        weights: Weights | None = None,
    ) -> Places:
        """What a node is given in a turn. weights: those of another turn, where there was one."""

        def buffer(name: str) -> Buffer:
            found = placement.buffers[name]
            if found.batch == task.batch or name in self.between:
                return found
            return found.samples(turn, task.batch)

        node = task.node
        return Places(
            tuple(map(buffer, node.inputs)),
            buffer(node.name),
            placement.scratch,
            weights or own_weights(self.graph, node, task.whole.source, self.weights),
            params,
            rounding={},
        )

    def _port(
        self, name: str, node: str, shape: Shape, placement: Placement, *, out: bool = False
    ) -> Port:
        buffer = placement.buffers[node]
        kernel = (
            arrange.unpack if out else arrange.pack_planar if buffer.lanes == 1 else arrange.pack
        )
        return Port(name, shape, call(kernel, self.threads, buffer, buffer))


def recipe(node: Node) -> Recipe:
    """How a node is planned."""
    return RECIPES[type(parts(node).base)]
