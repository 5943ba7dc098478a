"""One training step after another: a net, an optimiser and what it remembers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.faults import error
from netdsl.graph import Graph
from netdsl.train.engine import make_engine
from netdsl.train.gradients import Progress
from netdsl.train.losses import CrossEntropy
from netdsl.train.prepare import scores
from netdsl.train.settings import Settings

Floats = NDArray[np.float32]
Targets = NDArray[Any] | Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Outcome:
    """What a step gave: the loss with the auxiliary heads' share, and the outputs' scores."""

    loss: float
    scores: dict[str, Floats]
    rate: float


class Stepper:
    """Trains a net step by step, for a loop of one's own.

        stepper = Stepper(net.graph, net.weights, Settings(rate=0.01), steps=1000)
        for inputs, labels in batches:
            outcome = stepper.step(inputs, labels)

    steps: how many there will be, which the schedule needs. The weights that it was given stay as
    they are; `weights()` has the trained ones. Raises NetError as `TrainingPlan` does, and where
    the settings' device is not here.
    """

    def __init__(
        self,
        graph: Graph,
        weights: Mapping[str, Floats],
        settings: Settings,
        *,
        steps: int = 1,
        progress: Progress | None = None,
    ) -> None:
        settings.check()
        self.settings, self.loss = settings, settings.make_loss()
        self.graph = scores(graph) if isinstance(self.loss, CrossEntropy) else graph
        self.shares = dict.fromkeys(self.graph.outputs, 1.0)
        self.shares |= {aux.output: aux.weight for aux in self.graph.aux}
        self.engine = make_engine(self.graph, weights, settings, self.shares, progress)
        self.plan = self.engine.plan
        self.schedule = settings.make_schedule(steps)
        self.count = 0

    def step(self, inputs: Floats | Mapping[str, Floats], targets: Targets) -> Outcome:
        """One step on a batch: inputs (batch, *shape), or by name; targets as the loss takes them,
        the same for every output, or by output.

        Raises NetError: wrong shapes, labels out of range, a loss that is not finite (with the
        first layer that has such numbers); the weights are as they were then.
        """
        rate = self.settings.first_rate * self.schedule(self.count)
        if not isinstance(targets, Mapping):
            targets = dict.fromkeys(self.shares, targets)
        count = self.count + 1
        loss, outputs = self.engine.step(
            self._named(inputs), targets, self.shares, rate=rate, count=count
        )
        if not np.isfinite(loss):
            raise self._broken(loss)
        self.count = count
        return Outcome(loss, outputs, rate)

    def run(self, inputs: Floats | Mapping[str, Floats]) -> dict[str, Floats]:
        """The outputs as `run` would give them: no dropout, running statistics."""
        return self.plan.forward(self._named(inputs))

    def weights(self) -> dict[str, Floats]:
        """A copy of every parameter by name, statistics too."""
        return {name: value.copy() for name, value in self.plan.parameters().items()}

    def _named(self, inputs: Floats | Mapping[str, Floats]) -> Mapping[str, Floats]:
        return inputs if isinstance(inputs, Mapping) else {self.graph.inputs[0]: inputs}

    def _broken(self, loss: float) -> Exception:
        node = self.plan.broken()
        where = f": {node} is the first layer with such numbers" if node else ""
        return error(
            "not-finite",
            f"the loss is {loss} at step {self.count + 1}{where}",
            help="a smaller --rate, --clip, or --warmup",
        )

    def state(self) -> dict[str, Floats]:
        """What the optimiser remembers: a vector a slot, by "slot/parameter"."""
        return self.engine.state()

    def restore(
        self, weights: Mapping[str, Floats], state: Mapping[str, Floats], count: int
    ) -> None:
        """Goes back to where `weights`, `state` and `count` were taken, on whatever device."""
        self.plan.load(weights)
        self.engine.restore(state)
        self.count = count
