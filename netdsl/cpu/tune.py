"""Tuning: the ways to do each convolution, measured within the network.

Alone, a layer finds its weights in the cache; in a network it does not, which can double its time.
So all layers are measured at once: in every run of the network each takes one of its ways, another
one in the next. The least time of a way counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import median
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from netdsl.cpu import region, tuned
from netdsl.cpu.choices import ways
from netdsl.cpu.conv import conv_needs
from netdsl.cpu.layout import Call, Floats, Halo, aligned
from netdsl.cpu.plan import Making, Weights
from netdsl.cpu.region import Chain
from netdsl.cpu.table import takes
from netdsl.cpu.task import LooseParams, Needs
from netdsl.cpu.views import link
from netdsl.graph import Graph
from netdsl.graph.fused import fuse
from netdsl.graph.passes import lowered
from netdsl.ops import Conv

BETTER = 0.97
"""A way is taken if it needs less than this part of the time of the table's own."""

SECONDS, FEWEST, MOST = 12.0, 5, 40
"""How long is measured, but so many turns at least and at most. In a turn each way has a run."""

FINAL = 15
"""Runs of the whole network, before and after, of which the least is taken."""

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Change:
    """A layer (or several alike) that another way does faster: ms of one run, all together."""

    nodes: tuple[str, ...]
    layer: str
    before: str
    after: str
    before_ms: float
    after_ms: float


@dataclass(frozen=True)
class Tuning:
    """What was found: the changes, how many layers and ways were measured, and the ms of a run of
    the whole network by the table's choices and by the changed ones."""

    changes: tuple[Change, ...]
    layers: tuple[str, ...]
    ways: int
    before_ms: float
    after_ms: float

    @property
    def pays(self) -> bool:
        """Whether the whole network gains."""
        return bool(self.changes) and self.after_ms < self.before_ms * 0.995

    @property
    def choices(self) -> dict[str, str]:
        """The changes as tuned.py keeps them; none where they do not pay."""
        return {change.layer: change.after for change in self.changes} if self.pays else {}


def tune(
    graph: Graph, weights: Weights, batch: int, threads: int, progress: Progress | None = None
) -> Tuning:
    """Measures a graph's convolutions; nothing is kept yet. progress: told of the turns."""
    low, packed = lowered(graph.without_aux(), weights, lambda g: fuse(g, takes))
    return _Bench(Making(low, packed, batch, threads, exact=False)).measured(progress)


class _Once(LooseParams):
    """Packed weights, those of equal content once: most ways of a layer share theirs."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[bytes, int] = {}

    def room(self, count: int) -> Floats:
        return aligned(count)  # memory of its own, to be let go where its content is known

    def add(self, values: NDArray[np.floating]) -> int:
        flat = np.ascontiguousarray(values, np.float32).reshape(-1)
        key = hashlib.blake2b(flat.data, digest_size=16).digest()
        if key not in self._known:
            self._known[key] = super().add(flat)
        return self._known[key]


class _Bench:
    """A network in which every convolution can be done in all its ways."""

    def __init__(self, making: Making) -> None:
        self.making, self.threads = making, making.threads
        making.params = _Once()
        # Layers in stripes, or that do some samples alone, stay so: others would do other things.
        together = [*(c.names for c in making.striped), *(s.names for s in making.sections)]
        fixed = {name for names in together for name in names}
        free = {n: t for n, t in making.tasks.items() if n not in fixed}
        found = {n: t for n, t in free.items() if isinstance(t.whole.base, Conv)}
        tasks = {n: [replace(t, choice=w.name) for w in ways(t)] for n, t in found.items()}
        self.tasks = {name: several for name, several in tasks.items() if len(several) > 1}
        for name, several in self.tasks.items():
            making.needs[name] = _widest([conv_needs(task) for task in several])
        placement = making.place(frozenset(making.graph.outputs))
        steps = making.steps(placement)
        self.order = [n for n in making.tasks if steps[n].calls]
        self.chains = {n: [self._chain(steps[n].calls)] for n in self.order}
        for name, several in self.tasks.items():
            self.chains[name] += [
                self._chain(making.step(task, placement).calls) for task in several[1:]
            ]
        self.arena = aligned(placement.floats)
        self.arena[:] = 0.01  # neither zeros nor numbers that are slow because they are tiny

    def _chain(self, calls: tuple[Call, ...]) -> Chain:
        return Chain([link(call) for call in calls], self.threads)

    def measured(self, progress: Progress | None) -> Tuning:
        """Turns, then the verdict, then the whole network both ways."""
        times: dict[str, list[list[float]]] = {n: [[] for _ in c] for n, c in self.chains.items()}
        region.use(self.threads)
        start, turn = perf_counter(), 0
        random = np.random.default_rng(0)
        while turn < FEWEST or (turn < MOST and perf_counter() - start < SECONDS):
            if progress is not None:
                spent = (perf_counter() - start) / SECONDS
                progress(round(100 * max(spent, turn / MOST)), 100, "runs")
            for taken in self._turn(random):
                for name in self.order:
                    way = taken[name]
                    began = perf_counter()
                    self.chains[name][way](self.arena, self.making.params.base)
                    times[name][way].append(1000 * (perf_counter() - began))
            turn += 1
        changes = self._changes(times)
        before, after = self._whole(changes)
        counted = sum(map(len, self.tasks.values()))
        layers = tuple(dict.fromkeys(tuned.layer(t[0]) for t in self.tasks.values()))
        return Tuning(tuple(changes), layers, counted, before, after)

    def _turn(self, random: np.random.Generator) -> Iterator[dict[str, int]]:
        """Runs in which each way of each layer has a turn, in any company."""
        most = max((len(chains) for chains in self.chains.values()), default=1)
        orders = {n: random.permutation(len(c)) for n, c in self.chains.items()}
        for i in range(most):
            yield {name: int(order[i % len(order)]) for name, order in orders.items()}

    def _changes(self, times: Mapping[str, list[list[float]]]) -> list[Change]:
        """The layers for which another way is faster, by its least and its median time."""
        alike: dict[str, list[str]] = {}
        for name, several in self.tasks.items():
            alike.setdefault(tuned.layer(several[0]), []).append(name)
        found = []
        for layer, names in alike.items():
            several = self.tasks[names[0]]
            least = [sum(min(times[n][i]) for n in names) for i in range(len(several))]
            middle = [sum(median(times[n][i]) for n in names) for i in range(len(several))]
            best = min(range(len(several)), key=least.__getitem__)
            if least[best] < BETTER * least[0] and middle[best] < middle[0]:
                nodes = tuple(self.tasks[name][0].whole.source for name in names)
                before, after = str(several[0].choice), str(several[best].choice)
                found.append(Change(nodes, layer, before, after, least[0], least[best]))
        return found

    def _whole(self, changes: list[Change]) -> tuple[float, float]:
        """The least ms of a run of the whole network, by the table's ways and by the changed."""
        changed = {change.layer: change.after for change in changes}
        before, after = [], []
        for name in self.order:
            chains, several = self.chains[name], self.tasks.get(name, [])
            before.append(chains[0])
            after.append(chains[0])
            wanted = changed.get(tuned.layer(several[0])) if several else None
            if wanted is not None:
                after[-1] = chains[[task.choice for task in several].index(wanted)]
        times: list[list[float]] = [[], []]
        for _ in range(FINAL):
            for chains, spent in zip((before, after), times, strict=True):
                began = perf_counter()
                for chain in chains:
                    chain(self.arena, self.making.params.base)
                spent.append(1000 * (perf_counter() - began))
        return min(times[0]), min(times[1])


def _widest(needs: list[Needs]) -> Needs:
    """What suits all."""
    halo = Halo()
    for need in needs:
        halo = halo | need.halos[0]
    return Needs((halo,), max(need.scratch for need in needs), needs[0].planar)
