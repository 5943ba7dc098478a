"""The training loop: epochs of steps, validation, checkpoints, early stopping."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.faults import NetError, error
from netdsl.formats.safetensors import save as save_weights
from netdsl.graph import Graph
from netdsl.train.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from netdsl.train.data import Augment, Batches, Examples
from netdsl.train.evaluate import Verdict, evaluate
from netdsl.train.gradients import Progress
from netdsl.train.initial import first_weights
from netdsl.train.settings import Settings
from netdsl.train.stepper import Outcome, Stepper

Floats = NDArray[np.float32]

CARD_FAULTS = ("card-lost", "cuda-failed", "out-of-memory")
"""Codes of what may end a run on the card for no fault of the net's."""


@dataclass(frozen=True)
class StepReport:
    """Where training stands after a step: numbers from 1; means over the epoch so far."""

    epoch: int
    step: int
    steps: int
    loss: float
    accuracy: float | None
    rate: float
    images_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class EpochReport:
    """What an epoch came to. `best`: the validation was never better."""

    epoch: int
    loss: float
    accuracy: float | None
    rate: float
    seconds: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    best: bool = False


class Callback:
    """What a training run tells; subclass it and override what is of interest."""

    def on_step(self, report: StepReport) -> None:
        """After each step."""

    def on_epoch(self, report: EpochReport) -> None:
        """After each epoch and its validation."""


@dataclass
class Progressed:
    """Where a run stands, as a checkpoint keeps it: whole epochs, steps into the next, sums of
    that epoch so far, the best validation yet and the epochs since."""

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    right: int = 0
    seen: int = 0
    best: float | None = None
    since: int = 0


@dataclass
class Result:
    """How a run ended: "done", "stopped early" or "interrupted", and what each epoch came to."""

    reason: str
    history: list[EpochReport] = field(default_factory=list)


class Trainer:
    """Trains a net on examples.

    weights: to begin with; None draws them as the settings say. validation: examples to try after
    each epoch. out: where the trained weights go; the checkpoint lies beside, see
    `checkpoint_path`. save_every: steps between checkpoints, besides the one at each epoch's end.
    keep_best: whether `out` gets the weights of the best validation, not the last.
    """

    def __init__(
        self,
        graph: Graph,
        settings: Settings,
        train: Examples,
        validation: Examples | None = None,
        *,
        weights: Mapping[str, Floats] | None = None,
        out: Path | None = None,
        save_every: int | None = None,
        keep_best: bool = False,
        progress: Progress | None = None,
    ) -> None:
        settings.check()
        if len(graph.inputs) != 1:
            raise error(
                "several-inputs",
                f"{graph.name} has {len(graph.inputs)} inputs; train feeds one",
                help="a step function feeds several: netdsl.train.Stepper",
            )
        check_classes(graph, train)
        self.graph, self.settings = graph, settings
        self.out, self.save_every, self.keep_best = out, save_every, keep_best
        op = graph.input_op(graph.inputs[0])
        augment = Augment.parse(settings.augment)
        self.batches = Batches(train, op, settings.batch, seed=settings.seed, augment=augment)
        self.validation = None
        if validation is not None:
            self.validation = Batches(validation, op, settings.batch, training=False)
        if weights is None:
            weights = first_weights(graph, settings.init, settings.seed)
        self.stepper = Stepper(
            graph,
            weights,
            settings,
            steps=settings.epochs * self.batches.steps,
            progress=progress,
        )
        self.output = self.stepper.graph.outputs[0]
        self.at = Progressed()
        self.saved: tuple[int, int] | None = None
        self.history: list[EpochReport] = []
        self._stop = False

    @property
    def checkpoint_path(self) -> Path | None:
        """Where checkpoints go: `out` with the ending .checkpoint."""
        return None if self.out is None else checkpoint_of(self.out)

    def stop(self) -> None:
        """Ends the run after the step at work; it can be resumed."""
        self._stop = True

    def run(self, callbacks: Iterable[Callback] = ()) -> Result:
        """Trains to the end, saving as it goes. Ctrl-C ends it after the step at work, saved.

        Raises NetError: labels out of range, a loss that is not finite, a disk that is full, a
        card that fails (the last checkpoint is whole then, and it is said how to go on from it).
        """
        told = list(callbacks)
        with self._interruptible():
            try:
                reason = self._epochs(told)
            except NetError as problem:
                told_better = self._with_way_on(problem)
                if told_better is problem:
                    raise
                raise told_better from problem
        return Result(reason, self.history)

    def _with_way_on(self, problem: NetError) -> NetError:
        """An error of the card, with where training can go on; any other as it is."""
        where, (fault, *others) = self.checkpoint_path, problem.faults
        if self.saved is None or where is None or fault.code not in CARD_FAULTS:
            return problem
        epoch, step = self.saved
        at = f"epoch {epoch}" + (f" and {step} steps" if step else "")
        way = f"{where} is whole, from after {at}: --resume goes on from it, also with --device cpu"
        return NetError(replace(fault, help=way), *others)

    def _epochs(self, told: list[Callback]) -> str:
        pace = _Pace(self.settings.epochs * self.batches.steps)
        while self.at.epoch < self.settings.epochs:
            start = perf_counter()
            if not self._steps(told, pace):
                self.save()
                return "interrupted"
            report = self._finish(perf_counter() - start)
            self.history.append(report)
            self.at = Progressed(self.at.epoch + 1, best=self.at.best, since=self.at.since)
            if self.out is not None and (report.best or not self.keep_best):
                save_weights(self.out, self.stepper.plan.parameters(), {"net": self.graph.name})
            self.save()
            for callback in told:
                callback.on_epoch(report)
            if self.settings.patience and self.at.since >= self.settings.patience:
                return "stopped early"
            if self._stop and self.at.epoch < self.settings.epochs:
                return "interrupted"
        return "done"

    def _steps(self, told: list[Callback], pace: _Pace) -> bool:
        """The rest of an epoch's steps; whether all were done."""
        for inputs, targets in self.batches.epoch(self.at.epoch, self.at.step):
            outcome = self.stepper.step(inputs, targets)
            self._count(outcome, targets)
            pace.add(self.settings.batch)
            report = StepReport(
                self.at.epoch + 1,
                self.at.step,
                self.batches.steps,
                self.at.loss / self.at.step,
                self.at.right / self.at.seen if self.at.seen else None,
                outcome.rate,
                pace.images_per_second,
                pace.seconds_left(self.stepper.count),
            )
            for callback in told:
                callback.on_step(report)
            last = self.at.step == self.batches.steps
            if self._stop and not last:
                return False
            if self.save_every and self.stepper.count % self.save_every == 0 and not last:
                self.save()
        return True

    def _count(self, outcome: Outcome, targets: NDArray[Any]) -> None:
        at = self.at
        at.step += 1
        at.loss += outcome.loss
        scores = outcome.scores[self.output]
        if targets.dtype.kind in "iu" and targets.size * scores.shape[1] == scores.size:
            best = scores.argmax(1).reshape(-1)
            at.right += int((best == targets.reshape(-1)).sum())
            at.seen += targets.size

    def _finish(self, seconds: float) -> EpochReport:
        """The report of the epoch that ended, with its validation."""
        at, accuracy = self.at, None
        if at.seen:
            accuracy = at.right / at.seen
        rate = self.settings.first_rate * self.stepper.schedule(self.stepper.count - 1)
        report = EpochReport(at.epoch + 1, at.loss / max(at.step, 1), accuracy, rate, seconds)
        if self.validation is None:
            return report
        verdict = self.try_on(self.validation)
        merit = -(verdict.loss or 0.0) if verdict.top1 is None else verdict.top1
        best = at.best is None or merit > at.best
        at.best, at.since = (merit, 0) if best else (at.best, at.since + 1)
        return replace(
            report, validation_loss=verdict.loss, validation_accuracy=verdict.top1, best=best
        )

    def try_on(self, batches: Batches) -> Verdict:
        """How good the net is now on these examples."""
        return evaluate(self.stepper.run, batches, self.output, self.stepper.loss)

    def save(self) -> None:
        """Writes a checkpoint, where there is a place for one."""
        if self.checkpoint_path is None:
            return
        plan = self.stepper.plan
        save_checkpoint(
            self.checkpoint_path, plan.parameters(), self.stepper.state(), self._facts()
        )
        self.saved = self.at.epoch, self.at.step

    def _facts(self) -> dict[str, Any]:
        examples = self.batches.examples
        return {
            "net": self.graph.name,
            "settings": {**self.settings.as_dict(), "threads": self.stepper.plan.threads},
            "data": [examples.name, len(examples)],
            "count": self.stepper.count,
            "at": asdict(self.at),
            "history": [asdict(report) for report in self.history],
        }

    def resume(self, path: Path | None = None) -> None:
        """Goes on from a checkpoint, this run's own unless given.

        Raises NetError: none there, broken off, of another net or other data.
        """
        where = path or self.checkpoint_path
        assert where is not None
        self.take(read_checkpoint(where, self.graph), where)

    def take(self, found: Checkpoint, where: Path) -> None:
        """Goes on from a checkpoint that was read. Raises NetError: other data."""
        examples, (name, count) = self.batches.examples, found.facts["data"]
        if count != len(examples):
            raise error(
                "wrong-checkpoint",
                f"{where} was training on {count:,} examples of {name}, "
                f"{examples.name} has {len(examples):,}",
            )
        self.stepper.restore(found.weights, found.state, found.facts["count"])
        self.at = Progressed(**found.facts["at"])
        self.history = [EpochReport(**report) for report in found.facts["history"]]
        if where == self.checkpoint_path:
            self.saved = self.at.epoch, self.at.step

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Ctrl-C sets a flag, where signals can be taken: in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def asked(number: int, frame: object) -> None:
            if self._stop:  # a second one means it
                raise KeyboardInterrupt
            self.stop()

        before = signal.signal(signal.SIGINT, asked)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


class _Pace:
    """Images a second, of late, and what is left."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.images_per_second = 0.0
        self._batch = 1
        self._last: float | None = None

    def add(self, images: int) -> None:
        now = perf_counter()
        if self._last is not None:
            rate = images / max(now - self._last, 1e-9)
            before = self.images_per_second
            self.images_per_second = rate if not before else 0.95 * before + 0.05 * rate
        self._batch, self._last = images, now

    def seconds_left(self, done: int) -> float:
        if not self.images_per_second:
            return 0.0
        return (self.steps - done) * self._batch / self.images_per_second


def checkpoint_of(out: Path) -> Path:
    """Where the checkpoint of a run lies whose weights go to `out`."""
    return out.with_suffix(".checkpoint")


def check_classes(graph: Graph, examples: Examples) -> None:
    """That labels fit the net's outputs. Raises NetError."""
    if not examples.labelled:
        return
    outputs = graph[graph.outputs[0]].shape[0]
    classes = examples.classes
    if classes is not None and len(classes) != outputs:
        raise error(
            "wrong-classes",
            f"{examples.name} has {len(classes)} classes, {graph.name} has {outputs} outputs",
            help="the last layer needs as many filters as there are classes",
        )
    highest, lowest = int(examples.targets.max()), int(examples.targets.min())
    if lowest < 0 or highest >= outputs:
        wrong = highest if highest >= outputs else lowest
        raise error(
            "label-out-of-range",
            f"{examples.name} has label {wrong}, {graph.name} has {outputs} outputs: "
            f"labels run from 0 to {outputs - 1}",
        )
