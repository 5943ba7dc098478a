"""How `netdsl run` goes: inputs in batches through the net, results out as they come.

The next batch is read while one is at work, and nothing is kept of a batch once it is shown, so a
folder of any size runs in the memory of two batches. An input that turns out broken is passed
over, and named at the end with exit status 2.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from time import perf_counter

import numpy as np
from rich.console import Console

from netdsl.cli.fc_weights import say_rounding
from netdsl.cli.progress import Bar, bar
from netdsl.cli.results import Result, Sheet, as_json, results
from netdsl.cli.weights import pull_shown
from netdsl.faults import NetError, error
from netdsl.formats.arrays import Arrays as ArrayFile
from netdsl.formats.inputs import Broken, Item, Sample, items, stream
from netdsl.formats.outputs import Saver, check_path, saving
from netdsl.frozen import dataclass
from netdsl.graph import Graph
from netdsl.net import Net, check_settings
from netdsl.runner import Arrays, Profiled, Runner, computed_in, filled, roomy_batch


@dataclass(frozen=True)
class Settings:
    """The flags of `netdsl run`."""

    weights: Path | None
    device: str
    batch: int | None
    threads: int | None
    top: int
    profile: bool
    save: Path | None
    json: bool
    aux: bool
    raw: bool
    exact: bool
    precision: str
    fc_weights: str | None
    seed: int

    @property
    def computed_in(self) -> str:
        """What the net is computed in, in words."""
        return computed_in(self.precision, self.fc_weights)

    def check(self) -> None:
        """Raises NetError for a flag out of its range, before anything is read."""
        batch = 1 if self.batch is None else self.batch
        how = (self.exact, self.precision, self.fc_weights)
        check_settings(self.device, batch, self.threads, *how)
        if self.top < 1:
            raise error("out-of-range", f"--top is {self.top}, it must be at least 1")
        if self.seed < 0:
            raise error("out-of-range", f"--seed is {self.seed}, it must be at least 0")
        if self.profile and self.device == "reference":
            raise error("no-profile", "--profile measures the plans of cpu and cuda, not reference")


def run_all(net: Net, inputs: list[str], settings: Settings) -> None:
    """Runs a net over inputs and shows what it gives. Raises NetError."""
    found, total, samples = _source(net, inputs, settings)
    size = roomy_batch(net.graph, total) if settings.batch is None else min(settings.batch, total)
    net.labels  # noqa: B018 - a wrong list of labels is said before anything runs
    if settings.save is not None:
        check_path(settings.save, net.outputs(aux=settings.aux))
    if settings.weights is not None:
        if str(settings.weights) == "pretrained":
            pull_shown(net.graph)
        net.load_weights(settings.weights)
    else:
        net.find_weights(settings.seed)
    _warn(net, noise=not found and total > 0)
    with bar(f"making {net.name} ready") as compiling:
        runner = net.runner(
            size,
            device=settings.device,
            threads=settings.threads,
            exact=settings.exact,
            precision=settings.precision,
            fc_weights=settings.fc_weights,
            aux=settings.aux,
            progress=compiling.to,
        )
    say_rounding(runner, settings.fc_weights)
    broken = _Run(net, runner, settings).over(samples, total)
    if broken:
        raise NetError(*(fault for one in broken for fault in one.fault.faults))


def _source(
    net: Net, inputs: list[str], settings: Settings
) -> tuple[list[Item], int, Iterator[Sample | Broken]]:
    """The files, how many samples they hold, and the samples; noise where there is no file."""
    graph = net.graph
    if settings.batch == 0:
        return items(inputs, graph), 0, iter(())
    found = items(inputs, graph)
    if not inputs and net.samples is not None:
        found = [Item(str(net.samples), net.samples, ArrayFile(net.samples, net.samples.name))]
    if found:
        return found, sum(item.rows(graph) for item in found), stream(found, graph)
    count = settings.batch or 1
    return [], count, _noise(graph, count, settings.seed)


def _noise(graph: Graph, count: int, seed: int) -> Iterator[Sample]:
    random = np.random.default_rng(seed)
    for i in range(count):
        arrays = {n: random.standard_normal(graph[n].shape, np.float32) for n in graph.inputs}
        yield Sample("noise" if count == 1 else f"noise[{i}]", arrays)


def _warn(net: Net, noise: bool) -> None:
    """Says on standard error what makes the results mean nothing."""
    notes = Console(stderr=True, highlight=False, soft_wrap=True)
    if not net.trained:
        notes.print(
            f"weights are {net.weights_source}: the predictions mean nothing "
            "(--weights FILE gives trained ones)",
            style="yellow",
        )
    if noise:
        notes.print("no input was given and none ships with the net: noise", style="yellow")


class _Run:
    """One run over a stream of samples."""

    def __init__(self, net: Net, runner: Runner, settings: Settings) -> None:
        self._net, self._runner, self._settings = net, runner, settings
        self._console = Console(highlight=False)
        self._sheet = Sheet(self._console, settings.raw)
        self._shown = 0
        self._right: list[bool] = []
        self._seconds = 0.0
        self._last: Arrays = {}

    def over(self, samples: Iterable[Sample | Broken], total: int) -> list[Broken]:
        """Runs and shows all samples; those that could not be read come back."""
        broken: list[Broken] = []
        save = self._settings.save
        with ExitStack() as stack:
            saver = None
            if save is not None:
                shapes = {name: self._net.graph[name].shape for name in self._runner.outputs}
                saver = stack.enter_context(saving(save, shapes))
            progress = stack.enter_context(bar("running", total, shown=total > 1))
            if self._settings.json:
                print("[", end="")
            for batch in _ahead(_batches(_readable(samples, broken), self._runner.batch)):
                self._batch(batch, saver, progress)
            if self._settings.json:
                print("\n]" if self._shown else "]")
        if not self._settings.json:
            self._summary()
        return broken

    def _batch(self, batch: list[Sample], saver: Saver | None, progress: Bar) -> None:
        inputs = {n: np.stack([s.arrays[n] for s in batch]) for n in self._net.graph.inputs}
        self._last = inputs
        start = perf_counter()
        outputs = self._runner.run(inputs)
        seconds = perf_counter() - start
        self._seconds += seconds
        if saver is not None:
            saver.add(outputs)
        names, labels = [s.name for s in batch], [s.label for s in batch]
        ms = 1000 * seconds / len(batch)
        k, raw = self._settings.top, self._settings.raw
        how = (self._settings.precision, self._settings.fc_weights)
        with progress.aside():
            for result in results(self._net, names, labels, outputs, ms, k, raw, *how):
                self._show(result)
            sys.stdout.flush()
        progress.advance(len(batch))

    def _show(self, result: Result) -> None:
        self._right += [] if result.right is None else [result.right]
        if self._settings.json:
            print(",\n " if self._shown else "\n ", as_json(result), sep="", end="")
        else:
            self._sheet.show(result, self._net.labels)
        self._shown += 1

    def _summary(self) -> None:
        say = self._console.print
        if self._shown == 0:
            say("no inputs, no results")
            return
        rate = self._shown / self._seconds
        inputs = "1 input" if self._shown == 1 else f"{self._shown:,} inputs"
        right = f", {sum(self._right)} of {len(self._right)} right" if self._right else ""
        less = "" if self._settings.computed_in == "fp32" else f" in {self._settings.computed_in}"
        say(f"{inputs} in {1000 * self._seconds:.1f} ms{less}: {rate:,.1f} a second{right}")
        note = getattr(self._runner.plan, "note", "")
        if note:
            Console(stderr=True, highlight=False, soft_wrap=True).print(note, style="yellow")
        if self._settings.profile:
            self._profile()

    def _profile(self) -> None:
        from netdsl.cli.profile import show_profile

        plan = self._runner.plan
        assert isinstance(plan, Profiled)  # the settings were checked for a device that has one
        show_profile(plan, filled(self._last, plan.batch), self._settings.computed_in)


def _readable(samples: Iterable[Sample | Broken], broken: list[Broken]) -> Iterator[Sample]:
    """The samples alone; what is broken goes to the list."""
    for one in samples:
        if isinstance(one, Broken):
            broken.append(one)
        else:
            yield one


def _batches(samples: Iterator[Sample], size: int) -> Iterator[list[Sample]]:
    while batch := list(islice(samples, size)):
        yield batch


def _ahead(batches: Iterator[list[Sample]]) -> Iterator[list[Sample]]:
    """The same batches, the next one read while one is at work."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = reader.submit(next, batches, None)
            yield batch
