"""Which layers are done together, a stripe of rows at a time (stripes.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from netdsl.cpu.choices import choice
from netdsl.cpu.layout import LANES
from netdsl.cpu.task import Task
from netdsl.graph import Graph
from netdsl.graph.passes import sole
from netdsl.ops import AveragePool, Conv, LocalResponseNorm, MaxPool, Shape, Window

ROOM = 80 * 1024
"""Floats that stay in a core's second cache while others pass."""

FEWEST = 2
"""Rows of a stripe, at least."""

POINT = Window((1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1))
"""What an output reads of the input where each place is by itself."""

Span = tuple[int, int]
"""Rows of an image: the first and the end. They may reach into its padding."""


class Chain(NamedTuple):
    """Layers that are done in stripes.

    height: rows of a stripe of the last one's output. between: for each but the last, the rows
    that a stripe has of its output.
    """

    tasks: tuple[Task, ...]
    height: int
    between: tuple[int, ...]

    @property
    def shapes(self) -> dict[str, tuple[int, Shape]]:
        """What a buffer between layers holds: so many threads' rows, and the shape of each."""
        found: dict[str, tuple[int, Shape]] = {}
        for task, rows in zip(self.tasks, self.between, strict=False):
            channels, _, columns = task.made
            found[task.node.name] = task.threads, (channels, rows, columns)
        return found

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(task.node.name for task in self.tasks)

    def of(self, tasks: Mapping[str, Task]) -> Chain:
        """The same of other tasks, by name."""
        return self._replace(tasks=tuple(tasks[name] for name in self.names))

    def ranges(self) -> Iterator[list[tuple[int, int, int]]]:
        """For each thread, its stripes: the sample, and the first and end of its rows."""
        last, threads = self.tasks[-1], self.tasks[-1].threads
        rows = last.made[1]
        work = last.batch * rows
        for part in range(threads):
            at, end = work * part // threads, work * (part + 1) // threads
            found = []
            while at < end:
                n, y = at // rows, at % rows
                count = min(rows - y, end - at)
                cuts = -(-count // self.height)
                edges = [y + count * i // cuts for i in range(cuts + 1)]
                found += [(n, *edge) for edge in pairwise(edges)]
                at += count
            yield found


def chains(graph: Graph, tasks: Mapping[str, Task]) -> list[Chain]:
    """The chains of a graph that are worth it."""
    found: list[Chain] = []
    run: list[Task] = []
    for node in graph.nodes:
        task = tasks.get(node.name)
        if task is not None and _by_rows(task):
            if run and not _passes_on(graph, run[-1], task):
                found += _worthwhile(run)
                run = []
            run.append(_summed(task))
        else:
            found += _worthwhile(run)
            run = []
    return found + _worthwhile(run)


def _summed(task: Task) -> Task:
    """A layer as stripes do it: a few rows are too few for other ways."""
    if not isinstance(task.whole.base, Conv):
        return task
    way = choice(task)
    return replace(task, choice="direct") if way.strassen or way.thirds else task


def _by_rows(task: Task) -> bool:
    """Whether a layer of images makes rows from rows: a convolution by direct sums of floats, a
    pool of windows, or a normalisation of each place by itself."""
    op = task.whole.base
    if task.precision != "fp32" or len(task.node.shape) != 3:
        return False
    if isinstance(op, Conv):
        return task.whole.pool is None and choice(task).quick is None
    return isinstance(op, MaxPool | AveragePool | LocalResponseNorm)


def _passes_on(graph: Graph, before: Task, after: Task) -> bool:
    """Whether all that a layer makes goes to the next, and is not little."""
    alone = sole(graph, before.node) and after.node.inputs[0] == before.node.name
    return alone and _passed(before) > ROOM // 2


def _passed(task: Task) -> int:
    """Floats that each thread passes on from a layer."""
    return task.batch * floats(task.made) // task.threads


def _worthwhile(run: Sequence[Task]) -> list[Chain]:
    """Chains of neighbouring layers, where more passes from one to the next than caches hold.

    Where a run is too long for its stripes to stay cached, it is cut where the least passes.
    """
    passed = [_passed(task) for task in run[:-1]]
    if max(passed, default=0) <= 2 * ROOM:
        return []
    chain = _cut(run)
    if chain is not None:
        return [chain]
    at = passed.index(min(passed)) + 1
    return _worthwhile(run[:at]) + _worthwhile(run[at:])


def floats(shape: tuple[int, ...]) -> int:
    """Floats of an image of channels by rows by columns."""
    channels, rows, columns = shape
    return -(-channels // LANES) * LANES * rows * columns


def _cut(tasks: Sequence[Task]) -> Chain | None:
    """The chain with the highest stripes that stay cached; None where the lowest do not."""
    best = None
    weights = sum(p.size for task in tasks for p in task.whole.parameters(task.shapes))
    for height in range(FEWEST, tasks[-1].made[1] + 1):
        between = _between(tasks, height)
        room = weights + sum(
            floats((task.made[0], rows, task.made[2]))
            for task, rows in zip(tasks, between, strict=False)
        )
        if room > ROOM:
            break
        best = Chain(tuple(tasks), height, between)
    return best


def _between(tasks: Sequence[Task], height: int) -> tuple[int, ...]:
    """Rows of each layer's output, but the last one's, for so many of the last one's."""
    found: list[int] = []
    rows = height
    for task in reversed(tasks[1:]):
        first, end = read(window(task), (0, rows))
        rows = end - first
        found.append(rows)
    return tuple(reversed(found))


def window(task: Task) -> Window:
    """What an output of a layer reads of its input."""
    op = task.whole.base
    return op.window if isinstance(op, Conv | MaxPool | AveragePool) else POINT


def read(window: Window, rows: Span) -> Span:
    """The rows of the input, padding included, that rows of the output are made of."""
    first = rows[0] * window.stride[0] - window.padding[0][0]
    return first, first + (rows[1] - rows[0] - 1) * window.stride[0] + window.extent[0]


def spans(windows: Sequence[Window], heights: Sequence[int], rows: Span) -> list[Span]:
    """The rows of each layer's output for these of the last one's, padding included."""
    found = [rows]
    for window, height in zip(reversed(windows[1:]), reversed(heights[:-1]), strict=True):
        rows = read(window, rows)
        found.append(rows)
        rows = max(rows[0], 0), min(rows[1], height)
    return found[::-1]
