"""Which layers do some samples of a batch before the next.

What early layers pass to each other is larger than the cache that all cores share, for a batch of
eight, and fits it for one or two samples. So a *section* of layers that follow each other does a
sample for each thread, from its first layer to its last, before it does the next. Of eight samples
two threads do:

```
    samples 0, 4 ─▶ layer ─▶ layer ─▶ layer ─▶ their part of the output
    samples 1, 5 ─▶ layer ─▶ layer ─▶ layer ─▶ ...
                         └───┬────┘ in the same memory each time
```

The calls are those of a smaller batch, and layers are done in what ways are best for that. Threads
share a layer's work from the first sample to the last, so each does a sample by itself, of those
that it would have done of the whole batch. What it has of the sections' tensors lies apart (`Apart`
in place.py): where threads share a sample, each writes where the other one has read, since memory
is used again by tensors of other shapes. That takes longer than memory does where cores share no
cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import NamedTuple

from netdsl.cpu import factors, thirds
from netdsl.cpu.chains import Chain
from netdsl.cpu.choices import algorithms, choice
from netdsl.cpu.costs import PLANAR, rates, read
from netdsl.cpu.layout import LANES
from netdsl.cpu.task import Task
from netdsl.graph import Graph
from netdsl.ops import Concat, Conv, Linear, Shape

PASSING = 1 / 38
"""Cycles of a byte that comes from memory or goes there and need not: of a Zen 4, beside what takes
as long from the shared cache. Others have less memory to a cycle, so they gain more."""

WAIT = 15e3
"""Cycles of a layer's call beside its work: threads begin it together and wait for the last."""

WORTH = 0.01
"""The part of its layers' cycles that a section saves at least, as far as they are known."""


class Section(NamedTuple):
    """Layers that follow each other, by name, and the samples that they do at a time."""

    names: tuple[str, ...]
    samples: int


Unit = tuple[Task, ...]
"""A layer, or all of a chain."""


class Passed(NamedTuple):
    """A tensor that a batch has too much of to stay cached: the units that make it and read it
    last, and the bytes of a sample that come and go for it."""

    made: int
    read: int
    bytes: int


def sections(graph: Graph, tasks: Mapping[str, Task], striped: Sequence[Chain]) -> list[Section]:
    """The sections of a graph that are worth it; their layers are in single precision."""
    batch, threads = next(((task.batch, task.threads) for task in tasks.values()), (1, 1))
    if batch == threads or batch % threads:
        return []
    return _Finder(graph, list(_units(graph, tasks, striped)), batch, threads).found()


def _units(graph: Graph, tasks: Mapping[str, Task], striped: Sequence[Chain]) -> Iterator[Unit]:
    firsts = {chain.names[0]: chain for chain in striped}
    others = {name for chain in striped for name in chain.names[1:]}
    for node in graph:
        if node.name in firsts:
            yield firsts[node.name].tasks
        elif node.name in tasks and node.name not in others:
            yield (tasks[node.name],)


class _Finder:
    """Looks for the sections of a graph."""

    def __init__(self, graph: Graph, units: list[Unit], batch: int, samples: int) -> None:
        self.graph, self.units, self.batch, self.samples = graph, units, batch, samples
        self.at = {task.node.name: i for i, unit in enumerate(units) for task in unit}
        self.read = [sum(map(_bytes, unit[0].shapes)) for unit in units]
        self.made = [0 if _joins(unit) else _bytes(unit[-1].node.shape) for unit in units]
        self.weights = [sum(map(_weights, unit)) for unit in units]
        self.passed = [one for one in self._passed() if self._reach(one, batch) > rates().kept]

    def _passed(self) -> Iterator[Passed]:
        """What units pass on to others, where those that come by are such that could do some
        samples alone. A concatenation's parts are written in place and read as parts of it."""
        held = {*self.graph.outputs, *(aux.output for aux in self.graph.aux)}
        for i, unit in enumerate(self.units):
            name = unit[-1].node.name
            readers = [self.at.get(reader, -1) for reader in self._readers(name)]
            if _joins(unit) or name in held or min(readers, default=-1) < 0:
                continue
            if all(map(_suits, self.units[i : max(readers) + 1])):
                # To write a line of memory, a cache reads it first.
                yield Passed(i, max(readers), (2 + len(readers)) * self.made[i])

    def _readers(self, name: str) -> Iterator[str]:
        for reader in self.graph.consumers[name]:
            if isinstance(self.graph[reader].op, Concat):
                yield from self._readers(reader)
            else:
                yield reader

    def _reach(self, one: Passed, samples: int) -> int:
        """Bytes that come by from when a tensor is written to when it was read."""
        units = slice(one.made, one.read + 1)
        tensors = self.read[one.made] + sum(self.made[units])
        return samples * tensors + sum(self.weights[units])

    def found(self) -> list[Section]:
        """The sections that save most together; none overlap."""
        saved: dict[int, list[tuple[int, float]]] = {}
        for first, end, cycles in self._saved():
            saved.setdefault(end, []).append((first, cycles))
        best: list[tuple[float, list[Section]]] = [(0.0, [])]
        for end in range(1, len(self.units) + 1):
            best.append(best[-1])
            for first, cycles in saved.get(end, []):
                before, found = best[first]
                if before + cycles > best[-1][0]:
                    best[-1] = before + cycles, [*found, self._section(first, end)]
        return best[-1][1]

    def _section(self, first: int, end: int) -> Section:
        inside = self.units[first:end]
        return Section(tuple(task.node.name for unit in inside for task in unit), self.samples)

    def _saved(self) -> Iterator[tuple[int, int, float]]:
        """Stretches of units, by the first and the end, and the cycles that each saves."""
        kept = {p.made: p for p in self.passed if self._reach(p, self.samples) <= rates().kept}
        lost: dict[int, float] = {}
        for first in kept:
            i, last, cycles = first, first, 0.0
            inside: list[Passed] = []
            while i <= last:
                if i in kept:
                    inside.append(kept[i])
                    last = max(last, kept[i].read)
                if i not in lost:
                    lost[i] = self._lost(i)
                cycles += PASSING * self.batch * sum(one.bytes for one in inside if one.read == i)
                cycles -= lost[i]
                i += 1
                if cycles > 0:
                    yield first, i, cycles

    def _lost(self, i: int) -> float:
        """Cycles that a unit takes more for so few samples at a time, and what is worth it."""
        turns = self.batch // self.samples
        cycles = (turns - 1) * WAIT
        for task in self.units[i]:
            whole = _cycles(task)
            some = turns * _cycles(replace(task, batch=self.samples))
            cycles += max(0.0, some - whole) + WORTH * whole
        return cycles


def _suits(unit: Unit) -> bool:
    """Whether a unit may do some samples alone: a fully connected layer reads its weights once for
    all, and tensors of bfloat16 have other bytes."""
    return not any(isinstance(t.whole.base, Linear) or t.precision != "fp32" for t in unit)


def _joins(unit: Unit) -> bool:
    return isinstance(unit[0].node.op, Concat)


def _bytes(shape: Shape) -> int:
    """Bytes of a sample of a tensor."""
    channels, *image = shape
    lanes = channels if channels <= PLANAR else -(-channels // LANES) * LANES
    return 4 * lanes * prod(image)


def _weights(task: Task) -> int:
    """Bytes of a layer's weights, as they are read."""
    if isinstance(task.whole.base, Conv):
        way = choice(task)
        if way.quick is not None:
            return 4 * way.quick.weight_floats
        if way.thirds:
            return thirds.of(task).weights
    return 4 * sum(parameter.size for parameter in task.whole.parameters(task.shapes))


def _cycles(task: Task) -> float:
    """What a layer costs by the table (costs.py), as far as that hangs on the samples."""
    op = task.whole.base
    if not isinstance(op, Conv) or op.groups > 1:
        return read(_weights(task))
    best = algorithms(task)[0]
    direct = task.choice == "direct" or not (best.size or best.strassen or best.thirds)
    return factors.work(task).direct() if direct else best.cycles
